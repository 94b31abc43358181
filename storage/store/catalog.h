// SPDX-License-Identifier: Apache-2.0
// Catalog: which layers a store has, what each stands on, and who stands on it. The files are the store's
// affair.
//
// Threads   one at a time; the store's lock guards it.
#pragma once

#include <optional>

#include "storage/store/database.h"
#include "storage/store/store.h"

namespace haneul::storage {

struct LayerRow {
  std::string id;
  std::string parent;  ///< empty for none
  bool encrypted = false;
  std::string salt;  ///< 64 hexadecimal digits, of an encrypted one
};
struct VolumeRow {
  std::string id;
  std::string layer;  ///< the top
  uint64_t size_bytes = 0;
  std::string snapshot;
};
struct SnapshotRow {
  std::string id;
  std::string layer;
  std::string volume;
  uint64_t size_bytes = 0;
  bool completed = false;
  unsigned percent = 0;
  std::string error;
};

class Catalog {
 public:
  static Result<std::unique_ptr<Catalog>> open(const std::filesystem::path& file);

  Status transaction(const std::function<Status()>& work) { return database_->transaction(work); }

  /// Makes the database's files as small as they can be.
  Status tidy();

  Status add_layer(const LayerRow& layer);
  Status remove_layer(const std::string& id);
  Result<std::optional<LayerRow>> layer(const std::string& id);
  Result<std::vector<LayerRow>> layers();
  Result<std::vector<std::string>> children(const std::string& layer);
  /// Volumes and snapshots that stand on it.
  Result<std::vector<std::string>> users(const std::string& layer);

  Status put_volume(const VolumeRow& volume);
  Status remove_volume(const std::string& id);
  Result<std::optional<VolumeRow>> volume(const std::string& id);
  Result<std::vector<VolumeRow>> volumes();

  Status put_snapshot(const SnapshotRow& snapshot);
  Status remove_snapshot(const std::string& id);
  Result<std::optional<SnapshotRow>> snapshot(const std::string& id);
  Result<std::vector<SnapshotRow>> snapshots();

 private:
  explicit Catalog(std::unique_ptr<Database> database) : database_(std::move(database)) {}
  std::unique_ptr<Database> database_;
};

}  // namespace haneul::storage
