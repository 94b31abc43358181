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
  /// Of the layer, in whichever store, that this is a copy of; its own id for one that was made here. Layers of
  /// one origin hold the same, but for what was punched out of them.
  std::string origin;
  /// Blocks that its children of then did not see may be missing: good for whoever stands on it, and for nobody
  /// else ever again. kPunching: the work is under way or was cut off, and space may still be to give back.
  enum class Punched : int64_t { kNo = 0, kYes = 1, kPunching = 2 };
  Punched punched = Punched::kNo;
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
/// A copy from another store that is under way, or was cut off: it goes on when it is asked for again.
struct CopyRow {
  std::string snapshot;  ///< that it will be
  std::string layer;     ///< the highest that is here; empty for none
  std::string making;    ///< the layer on it, in its file ID.new; empty for none
  std::string origin;    ///< of `making`
  std::string salt;      ///< of `making`, if it is encrypted
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
  /// Layers with all that this origin's layer held, to stand on.
  Result<std::vector<LayerRow>> whole_of(const std::string& origin);
  Status set_punched(const std::string& id, LayerRow::Punched punched);
  Result<std::vector<std::string>> children(const std::string& layer);
  /// Volumes, snapshots and copies that stand on it.
  Result<std::vector<std::string>> users(const std::string& layer);

  Status put_volume(const VolumeRow& volume);
  Status remove_volume(const std::string& id);
  Result<std::optional<VolumeRow>> volume(const std::string& id);
  Result<std::vector<VolumeRow>> volumes();

  Status put_snapshot(const SnapshotRow& snapshot);
  Status remove_snapshot(const std::string& id);
  Result<std::optional<SnapshotRow>> snapshot(const std::string& id);
  Result<std::vector<SnapshotRow>> snapshots();

  Status put_copy(const CopyRow& copy);
  Status remove_copy(const std::string& snapshot);
  Result<std::optional<CopyRow>> copy(const std::string& snapshot);
  Result<std::vector<CopyRow>> copies();

 private:
  explicit Catalog(std::unique_ptr<Database> database) : database_(std::move(database)) {}
  std::unique_ptr<Database> database_;
};

}  // namespace haneul::storage
