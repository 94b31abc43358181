// SPDX-License-Identifier: Apache-2.0
// LocalStore: the Store over a folder. What its parts share; not for use outside storage/store.
//
//   FOLDER/catalog.db       the catalog
//   FOLDER/lock             taken by the process that has the store
//   FOLDER/layers/ID        a layer; ID.new while it is being made
//
// A layer's file is whole, synced and named before the catalog speaks of it; it goes after the catalog has
// forgotten it. So after a crash there may be files that the catalog does not know, never the other way
// round.
#pragma once

#include <map>
#include <mutex>

#include "storage/store/catalog.h"
#include "storage/store/store.h"
#include "storage/volume/volume.h"

namespace haneul::storage {

class LocalStore final : public Store {
 public:
  static Result<std::unique_ptr<LocalStore>> open_folder(const std::filesystem::path& folder,
                                                         StoreOptions options);

  Status create_volume(const NewVolume& volume) override;
  Status delete_volume(const std::string& id) override;
  Result<VolumeInfo> volume(const std::string& id) override;
  std::vector<VolumeInfo> volumes() override;
  Result<OpenStack> open_volume(const std::string& id) override;
  Status resize_volume(const std::string& id, uint64_t size_bytes) override;
  Status note_size(const std::string& id, uint64_t size_bytes) override;
  Result<std::vector<PreparedSnapshot>> begin_snapshots(
      const std::vector<SnapshotOf>& wanted,
      const std::function<bool(const std::string& volume)>& is_open) override;
  Status snapshot_pushed(const std::string& snapshot) override;
  Status complete_snapshot(const std::string& snapshot, const StoreProgress& progress) override;
  Status delete_snapshot(const std::string& id) override;
  Result<SnapshotInfo> snapshot(const std::string& id) override;
  std::vector<SnapshotInfo> snapshots() override;
  Status import_snapshot(const std::string& snapshot, int file, ImageFormat format, uint64_t size_bytes,
                         bool encrypted, const StoreProgress& progress) override;
  Status export_snapshot(const std::string& snapshot, int file, ImageFormat format,
                         const StoreProgress& progress) override;
  Status copy_snapshot(Store& from, const std::string& source, const std::string& snapshot,
                       const StoreProgress& progress) override;
  Status collect(const StoreProgress& progress) override;
  Result<StoreCheck> check(const std::string& id, CheckOptions options,
                           const StoreProgress& progress) override;
  uint64_t allocated_bytes() override;

 private:
  LocalStore(std::filesystem::path folder, StoreOptions options, UniqueFd lock,
             std::unique_ptr<Catalog> catalog)
      : folder_(std::move(folder)),
        options_(std::move(options)),
        lock_(std::move(lock)),
        catalog_(std::move(catalog)) {}

  std::filesystem::path layer_path(const std::string& layer) const { return folder_ / "layers" / layer; }
  Status remove_strangers();
  Status freeze_what_is_beneath();
  Status freeze(const std::string& layer);
  Result<UniqueFd> open_layer(const std::string& layer, int access) const;
  Result<std::unique_ptr<AsyncFile>> layer_file(const std::string& layer, int access) const;
  Result<StoreKey> store_key(bool make);
  Result<std::optional<LayerKey>> key_of(const LayerRow& layer);
  /// A new row with an id, and a salt if it is encrypted.
  Result<LayerRow> new_layer(const std::string& parent, bool encrypted);
  /// An empty layer in its file, which is named and synced.
  Status make_layer(const LayerRow& layer, uint64_t size_bytes);
  Status name_layer(const std::string& layer);
  /// With the lock: the layers from this one down, the lowest first.
  Result<std::vector<LayerRow>> stack_of(const std::string& layer);
  /// Descriptors of these, all but a writable top for reading only.
  Result<OpenStack> open_stack(const std::vector<LayerRow>& layers, bool write_top);
  Result<std::unique_ptr<Volume>> open_to_read(const std::vector<LayerRow>& layers);
  /// With the lock: layers that nobody stands on any more go, from this one down.
  Status release(std::string layer);
  Result<VolumeRow> need_volume(const std::string& id);
  Result<SnapshotRow> need_snapshot(const std::string& id);
  Status expect_closed(const VolumeRow& volume);
  VolumeInfo info_of(const VolumeRow& row);
  SnapshotInfo info_of(const SnapshotRow& row);
  Progress noting(const std::string& snapshot, const StoreProgress& progress);
  Status copy_layer(LocalStore& from, const LayerRow& layer,
                    const std::function<bool(uint64_t, uint64_t)>& progress);
  Status punch(const LayerRow& layer);

  const std::filesystem::path folder_;
  const StoreOptions options_;
  const UniqueFd lock_;
  std::mutex mutex_;  // guards the catalog and all that follows
  std::unique_ptr<Catalog> catalog_;
  std::map<std::string, unsigned> percent_;  // of work under way
  unsigned copies_ = 0;                      // under way, into this store
};

}  // namespace haneul::storage
