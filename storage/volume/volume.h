// SPDX-License-Identifier: Apache-2.0
// Volume: a stack of layers as one virtual disk. ../FORMAT.md says what is in the files and why a crash at
// any point is safe; block_backend.h says what a disk promises.
//
// Threads   as BlockBackend. What a Volume adds to it may be called from any thread that is not an I/O thread of
//           the volume, one call at a time; these calls block, and the I/O threads must go on turning meanwhile.
// Lifetime  the destructor blocks until all that is known is in the files (a clean close). Channels go first.
// Errors    open_volume(): kBusy if the top is open elsewhere; kCorrupt, kUnsupported with a sentence that names
//           the layer; kInvalidArgument if the layers are not a stack (wrong parent, wrong or missing key, a
//           size that shrinks upwards, a layer beneath that is not frozen).
// System calls  those of AsyncFile's blocking calls: pread64, pwrite64, fdatasync, ftruncate, lseek, fstat.
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "storage/block_backend.h"
#include "storage/volume/bounce.h"
#include "storage/volume/layer.h"

namespace haneul::storage {

struct StackLayer {
  std::unique_ptr<AsyncFile> file;
  std::optional<LayerKey> key;
};

struct Stack {
  /// A raw file beneath the lowest layer, whose header gives its size; null for none.
  std::unique_ptr<AsyncFile> raw_base;
  /// Lowest first; the last is the top. At least one.
  std::vector<StackLayer> layers;
  /// The pool that their files were made with, if any was: the volume's.
  std::shared_ptr<BouncePool> bounce;
};

struct VolumeOptions {
  bool read_only = false;
};

class Volume : public BlockBackend {
 public:
  // Putting an empty layer on the stack, in steps, so that several volumes can do it at one point in time: each
  // step for each of them, then the next. push_layers() below does it all.

  /// A commit of what the top holds, while requests go on, so that little is left to do later. kNoSpace on a full
  /// disk: nothing has happened.
  virtual Status sync_top() = 0;
  /// Waits for the commit that is under way; later ones, and with them flushes, wait for the end of the push. Then
  /// looks at `layer`: it must be empty, and made for the present top. On failure nothing is begun.
  virtual Status begin_push(StackLayer layer) = 0;
  /// Instead of the steps that follow.
  virtual void cancel_push() = 0;
  /// Changes (write, discard, write zeroes) that come from now on wait; reads go on.
  virtual void hold_changes() = 0;
  /// Returns when no change is under way.
  virtual void wait_for_changes() = 0;
  /// Held only: the layer takes the changes from now on. Takes the same time whatever was written.
  virtual void switch_top() = 0;
  virtual void release_changes() = 0;
  /// Freezes what was the top before, durably; flushes wait for it. Ok if there is nothing to do. On failure the
  /// new top stays, flushes make the old one's part durable themselves or fail, and this can be called again until
  /// it succeeds: kNoSpace, or any other error of a write. After a failed sync nothing helps but opening anew.
  virtual Status finish_push() = 0;

  /// For the files of layers that are to be pushed: a disk has one pool.
  virtual std::shared_ptr<BouncePool> bounce() const = 0;
  /// Whether a layer of the stack has this id.
  virtual bool holds(const LayerId& id) const = 0;
  virtual LayerId top() const = 0;
  virtual size_t layers() const = 0;
  /// Of the map in memory.
  virtual size_t map_bytes() const = 0;
  /// How many pages of the map were encoded since the opening: the work of commits and pushes.
  virtual uint64_t pages_encoded() const = 0;
};

/// Takes the top's file exclusively (lock_file), those beneath are only read.
Result<std::unique_ptr<Volume>> open_volume(Stack stack, VolumeOptions options);

/// The same from descriptors; `direct` ones were opened with O_DIRECT: the volume copies what is not aligned.
struct StackDescriptor {
  UniqueFd fd;
  std::optional<LayerKey> key;
};
Result<std::unique_ptr<Volume>> open_volume(UniqueFd raw_base, std::vector<StackDescriptor> layers,
                                            VolumeOptions options);

/// Switches each volume to its new top, all at one moment: a change that was completed before the call is
/// beneath; of two changes one of which was submitted after the other was completed, on whichever volumes,
/// the later is never beneath without the earlier. Returns how long changes were held back.
///
/// A volume may be named several times, to get several layers in that order; then the last ones come at one
/// moment. A layer that the stack has already is left alone, and a push that had failed is finished first: so the
/// call can be repeated as it is until it succeeds.
struct Push {
  Volume* volume = nullptr;
  StackLayer layer;
};
Result<std::chrono::microseconds> push_layers(std::span<Push> pushes);

}  // namespace haneul::storage
