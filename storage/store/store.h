// SPDX-License-Identifier: Apache-2.0
// Store: one region's volumes and snapshots, in one folder: a file for each layer, and a catalog (SQLite)
// that says which layer has which parent and who stands on it. ../FORMAT.md, "Deleting", has the rules.
//
// The caller names things: a volume or snapshot id is any text of 1 to 64 characters of [a-z0-9-]. Every
// change is idempotent by that name: repeated after a crash it ends the same; a thing made again with other
// properties is kExists.
//
// Threads   thread-safe. Calls that read or write data take long and report progress; everything else takes
//           milliseconds, and does not wait for those.
// Lifetime  one process has the folder: open() is kBusy while another has. Descriptors that were handed out live on.
// Errors    kNotFound, kExists, kBusy (in use: the sentence says by what), kInvalidArgument, kCorrupt (names the
//           file), kNoSpace, kCancelled (progress said so; call again to go on).
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "storage/volume/layer.h"

namespace haneul::storage {

struct VolumeInfo {
  std::string id;
  uint64_t size_bytes = 0;
  std::string snapshot;  ///< it was made from; may be gone; empty for none
  bool encrypted = false;
  uint64_t allocated_bytes = 0;  ///< of the host's disk, by its own (top) layer
  size_t layers = 0;
};

struct SnapshotInfo {
  std::string id;
  std::string volume;       ///< it was made of; may be gone; empty for an imported one
  uint64_t size_bytes = 0;  ///< of the volume
  bool encrypted = false;
  /// Frozen and durable, sums computed. Until then it can be stood on, but not be copied or exported.
  bool completed = false;
  unsigned progress_percent = 0;
  uint64_t changed_bytes = 0;  ///< held by its own layer: what changed since the snapshot before
  std::string error;           ///< why it never will be completed; empty for none
};

/// What a VMM needs to open a volume: lowest first, the last read-write, the others read-only.
struct OpenLayer {
  UniqueFd fd;
  std::optional<LayerKey> key;
};
struct OpenStack {
  std::vector<OpenLayer> layers;
};

/// For a volume that a VMM has open: hand `top` to it (launch::VmmClient::push_layers), then call
/// snapshot_pushed(). One that it has already, as its top or beneath, may be handed to it again.
struct PreparedSnapshot {
  std::string volume;
  std::string snapshot;  ///< that the layer was made for; empty if that is deleted
  LayerId layer{};
  OpenLayer top;
};

enum class ImageFormat { kRaw, kQcow2 };

/// Part of a whole that is under way; false ends it with kCancelled.
using StoreProgress = std::function<bool(unsigned percent)>;

struct StoreOptions {
  /// Encrypted volumes need it: 32 random bytes, made (mode 0600) when the first encrypted volume is.
  std::filesystem::path key_file;
  bool direct = false;  ///< hand out descriptors with O_DIRECT
  /// Called between the steps of everything that changes catalog and files, for tests that end there.
  std::function<void(const char* done)> step = {};
};

struct StoreCheck {
  uint64_t layers = 0;
  uint64_t blocks = 0;
  struct Entry {
    std::string subject;  ///< "volume vol-1", "snapshot snap-2", "file 3f…"
    Fault fault;
  };
  std::vector<Entry> faults;
};

class Store {
 public:
  /// Makes the folder if need be. Ends what a crash interrupted: files that no one stands on are removed,
  /// layers beneath that were not frozen are. A layer that is damaged or gone is the error of those that stand on
  /// it, and check() names it.
  static Result<std::unique_ptr<Store>> open(const std::filesystem::path& folder, StoreOptions options);
  virtual ~Store() = default;

  // Volumes
  struct NewVolume {
    std::string id;
    uint64_t size_bytes =
        0;  ///< 0 with a snapshot: the snapshot's. A multiple of 512, not below the snapshot's
    std::string snapshot;
    bool encrypted = false;  ///< one from an encrypted snapshot always is
  };
  virtual Status create_volume(const NewVolume& volume) = 0;
  /// kBusy while it is open. Nothing to do if there is none.
  virtual Status delete_volume(const std::string& id) = 0;
  virtual Result<VolumeInfo> volume(const std::string& id) = 0;
  virtual std::vector<VolumeInfo> volumes() = 0;
  /// Recovers what a crash left, and hands over the files. kBusy while a VMM has it open.
  virtual Result<OpenStack> open_volume(const std::string& id) = 0;
  /// For one that is not open. For an open one the VMM resizes the file itself; then note_size().
  virtual Status resize_volume(const std::string& id, uint64_t size_bytes) = 0;
  virtual Status note_size(const std::string& id, uint64_t size_bytes) = 0;

  // Snapshots
  struct SnapshotOf {
    std::string volume;
    std::string snapshot;
  };
  /// Makes the new tops, and records snapshots and tops in one transaction. Volumes that are not open are
  /// snapshot by this alone; for open ones the caller goes on as PreparedSnapshot says: returned are, in order, all
  /// layers above the one that the volume's user has on top. kBusy, with nothing changed, if one is open and
  /// should not be. Repeated with the same names: the same again.
  virtual Result<std::vector<PreparedSnapshot>> begin_snapshots(
      const std::vector<SnapshotOf>& wanted,
      const std::function<bool(const std::string& volume)>& is_open) = 0;
  /// Takes back what begin_snapshots() recorded, of all or none of these: kBusy if a new top is taken. Only for
  /// volumes whose user refused the layers, so that it will not take them later.
  virtual Status abandon_snapshots(const std::vector<SnapshotOf>& wanted) = 0;
  /// The VMM froze the layer.
  virtual Status snapshot_pushed(const std::string& snapshot) = 0;
  /// Computes the sums; until then the snapshot is not completed. Goes on where an earlier call stopped.
  virtual Status complete_snapshot(const std::string& snapshot, const StoreProgress& progress) = 0;
  virtual Status delete_snapshot(const std::string& id) = 0;
  virtual Result<SnapshotInfo> snapshot(const std::string& id) = 0;
  virtual std::vector<SnapshotInfo> snapshots() = 0;

  // Data in and out. Each makes a snapshot that is completed at the end, and nothing before.
  /// From a file whose format the caller declares. Holes and zeroes take no space.
  virtual Status import_snapshot(const std::string& snapshot, int file, ImageFormat format,
                                 uint64_t size_bytes, bool encrypted, const StoreProgress& progress) = 0;
  virtual Status export_snapshot(const std::string& snapshot, int file, ImageFormat format,
                                 const StoreProgress& progress) = 0;
  /// From another store: only what is not here yet moves (a layer copied before is known by its origin, and not
  /// copied again while it is whole); every block is compared with its sum. Encrypted ones are encrypted anew with
  /// this store's key. Goes on where an earlier call was cut off, within a layer too; delete_snapshot() gives it up.
  virtual Status copy_snapshot(Store& from, const std::string& source, const std::string& snapshot,
                               const StoreProgress& progress) = 0;

  /// The work that deleting leaves: giving back blocks that nobody sees. The daemon calls it when it is idle;
  /// a crash in between loses nothing.
  virtual Status collect(const StoreProgress& progress) = 0;
  /// Everything, or what one volume or snapshot (by id) stands on.
  virtual Result<StoreCheck> check(const std::string& id, CheckOptions options,
                                   const StoreProgress& progress) = 0;
  /// Bytes of the host's disk that the folder takes.
  virtual uint64_t allocated_bytes() = 0;
};

}  // namespace haneul::storage
