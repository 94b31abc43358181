// SPDX-License-Identifier: Apache-2.0
// LocalStore: the Store over a folder. What its parts share; not for use outside storage/store.
//
//   FOLDER/catalog.db       the catalog
//   FOLDER/lock             taken by the process that has the store
//   FOLDER/layers/ID        a layer; ID.new while it is being made
//
// A layer's file is whole, synced and named before the catalog speaks of it; it goes after the catalog has
// forgotten it. So after a crash there may be files that the catalog does not know, never the other way
// round. Only a copy that is to go on keeps its ID.new.
//
// Threads   mutex_ guards the catalog, and nobody waits for a disk's data while holding it: files are made, frozen,
//           read and punched without. What that work needs stays meanwhile by pins and guards (layer_guards.h).
#pragma once

#include <map>
#include <mutex>
#include <set>

#include "storage/store/catalog.h"
#include "storage/store/layer_guards.h"
#include "storage/store/store.h"
#include "storage/volume/volume.h"

namespace haneul::storage {

/// Passes percentages on: each new one, and the same again some times a second, so that a wish to end is noticed.
Progress paced(StoreProgress progress);

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
  Status abandon_snapshots(const std::vector<SnapshotOf>& wanted) override;
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
  /// Keeps a layer and what is seen through it. Made with the lock, gone without.
  class Pinned {
   public:
    Pinned() = default;
    Pinned(LocalStore& store, std::string layer) : store_(&store), layer_(std::move(layer)) {
      store.guards_.pin(layer_);
    }
    Pinned(Pinned&& other) noexcept
        : store_(std::exchange(other.store_, nullptr)), layer_(std::move(other.layer_)) {}
    Pinned& operator=(Pinned&& other) noexcept {
      std::swap(store_, other.store_);
      std::swap(layer_, other.layer_);
      return *this;
    }
    ~Pinned() {
      if (store_ != nullptr) store_->unpin(layer_);
    }

   private:
    LocalStore* store_ = nullptr;
    std::string layer_;
  };
  /// What a begun snapshot adds.
  struct Begun {
    VolumeRow volume;  // with its new top
    SnapshotRow snapshot;
    LayerRow top;
    uint64_t size_bytes = 0;
  };
  /// A completed snapshot's stack that stays as it is.
  struct Source {
    SnapshotRow snapshot;
    std::vector<LayerRow> layers;
    Pinned pin;
  };

  LocalStore(std::filesystem::path folder, StoreOptions options, UniqueFd lock,
             std::unique_ptr<Catalog> catalog)
      : folder_(std::move(folder)),
        options_(std::move(options)),
        lock_(std::move(lock)),
        catalog_(std::move(catalog)) {}

  std::filesystem::path layer_path(const std::string& layer) const { return folder_ / "layers" / layer; }
  void step(const char* done) const {
    if (options_.step) options_.step(done);
  }
  Status remove_strangers();
  Status freeze_what_is_beneath();
  Status freeze(const std::string& layer);
  Result<UniqueFd> open_layer(const std::string& layer, int access) const;
  Result<std::unique_ptr<AsyncFile>> layer_file(const std::string& layer, int access) const;
  Result<StoreKey> store_key(bool make);
  Result<std::optional<LayerKey>> key_of(const LayerRow& layer);
  /// A new row with an id, and a salt if it is encrypted.
  Result<LayerRow> new_layer(const std::string& parent, bool encrypted);
  /// An empty layer in its file, which is synced; name_layer() is to follow.
  Status make_file(const LayerRow& layer, uint64_t size_bytes);
  Status name_layer(const std::string& layer);
  Status make_layer(const LayerRow& layer, uint64_t size_bytes);
  /// One that the catalog never came to know.
  void drop_file(const std::string& layer);
  /// With the lock: the layers from this one down, the lowest first.
  Result<std::vector<LayerRow>> stack_of(const std::string& layer);
  /// Descriptors of these, all but a writable top for reading only.
  Result<OpenStack> open_stack(const std::vector<LayerRow>& layers, bool write_top);
  /// With the lock: layers that nobody stands on any more go, from this one down.
  Status release(std::string layer);
  /// With the lock.
  Result<bool> is_used(const std::string& layer);
  void unpin(const std::string& layer);
  Result<VolumeRow> need_volume(const std::string& id);
  Result<SnapshotRow> need_snapshot(const std::string& id);
  /// With the lock: the volume of that description, if it is there already.
  Result<bool> volume_exists(const NewVolume& wanted, uint64_t size_bytes);
  Status expect_closed(const VolumeRow& volume);
  VolumeInfo info_of(const VolumeRow& row);
  SnapshotInfo info_of(const SnapshotRow& row);
  uint64_t changed_bytes(const std::string& layer);
  Progress noting(const std::string& snapshot, const StoreProgress& progress);
  void forget_progress(const std::string& snapshot);

  Result<std::vector<Begun>> plan_snapshots(const std::vector<SnapshotOf>& wanted,
                                            const std::function<bool(const std::string& volume)>& is_open);
  Result<std::vector<LayerGuards::Held>> hold_layers(const std::vector<SnapshotOf>& wanted);
  Result<bool> record_snapshots(const std::vector<Begun>& made);
  /// With the lock: that nobody has the top which a snapshot began with.
  Status expect_untaken(const VolumeRow& volume, const SnapshotRow& snapshot,
                        const std::optional<LayerRow>& top);
  Status layers_to_push(const std::string& volume, std::vector<PreparedSnapshot>& prepared);

  Status fill_layer(const LayerRow& layer, int file, ImageFormat format, const Progress& note);
  Result<Source> source_of(const std::string& snapshot);
  Status need_sums(const std::string& layer, const Progress& progress);
  struct CopyStep;
  Result<CopyStep> next_copy_step(LocalStore& from, const Source& source, const std::string& snapshot);
  Status copy_layers(LocalStore& from, const Source& source, const std::string& id, const Progress& note);
  Status copy_one(LocalStore& from, const CopyStep& step, const Progress& progress);
  Status record_copied(const CopyStep& step, const std::string& snapshot);
  Result<bool> is_punched(const std::string& layer);
  void drop_given_up(const CopyStep& step, const std::string& snapshot);
  Status give_up_copy(const std::string& snapshot);
  Status punch(const std::string& layer, const Progress& progress);
  Status check_one(const LayerRow& layer, const std::string& subject, CheckOptions options,
                   const Progress& progress, StoreCheck& result);

  const std::filesystem::path folder_;
  const StoreOptions options_;
  const UniqueFd lock_;
  LayerGuards guards_;
  std::mutex mutex_;  // guards the catalog and all that follows
  std::unique_ptr<Catalog> catalog_;
  std::map<std::string, unsigned> percent_;  // of work under way
  std::map<std::string, uint64_t> changed_;  // what frozen layers hold, by id
  std::set<std::string> copying_;            // origins of layers that are being copied
};

}  // namespace haneul::storage
