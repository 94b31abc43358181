// SPDX-License-Identifier: Apache-2.0
// OverlayMap: the state of every 4 KiB block of an overlay, in memory, and which of its pages the file does
// not have yet. Two bits a block, and one byte a page of 32 MiB whose blocks are all in one state.
//
// Not thread-safe: the overlay's lock guards it.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "storage/overlay_format.h"

namespace haneul::storage::overlay {

class OverlayMap {
 public:
  struct Run {
    BlockState state;
    uint64_t count;
  };

  explicit OverlayMap(uint64_t blocks) { grow(blocks); }
  void grow(uint64_t blocks);
  uint64_t blocks() const { return blocks_; }
  uint64_t pages() const { return pages_.size(); }

  BlockState get(uint64_t block) const;
  /// The blocks from `first` on, at most `limit` (at least 1), that share one state.
  Run run(uint64_t first, uint64_t limit) const;
  bool all(uint64_t first, uint64_t count, BlockState state) const;
  bool any(uint64_t first, uint64_t count, BlockState state) const;
  /// Changes states in memory; pages that differ from before become dirty.
  void set(uint64_t first, uint64_t count, BlockState state);

  /// A page as the file has it.
  void load(uint64_t index, const MapPage& page);
  bool dirty() const { return !dirty_.empty(); }
  /// Takes all dirty pages into `out`; each is then given to begin_write() or requeue().
  void take_dirty(std::vector<uint64_t>& out);
  void requeue(uint64_t index) { dirty_.push_back(index); }
  /// The page as it is now, with the sequence after the one that the file has; clean until set() changes it.
  /// Then written() if it is in the file, or mark_dirty() if it is not.
  MapPage begin_write(uint64_t index);
  void written(uint64_t index) { ++pages_[index].sequence; }
  void mark_dirty(uint64_t index);

 private:
  struct Slot {
    uint64_t sequence = 0;
    std::unique_ptr<States> mixed;  // null: all blocks have the state `uniform`
    BlockState uniform = BlockState::kBase;
    bool dirty = false;
  };
  uint64_t blocks_in(uint64_t index) const;
  States states_of(uint64_t index) const;
  void set_in_page(uint64_t index, uint64_t first, uint64_t count, BlockState state);

  uint64_t blocks_ = 0;
  std::vector<Slot> pages_;
  std::vector<uint64_t> dirty_;
};

}  // namespace haneul::storage::overlay
