// SPDX-License-Identifier: Apache-2.0
#include "storage/overlay_map.h"

#include <algorithm>

namespace haneul::storage::overlay {
namespace {

constexpr uint64_t kBlocksPerWord = 32;

// The state in every place of a word.
constexpr uint64_t pattern(BlockState state) {
  return 0x5555555555555555 * static_cast<uint64_t>(state);
}
// The places [first, first + count) of a word.
constexpr uint64_t mask(uint64_t first, uint64_t count) {
  uint64_t bits = count == kBlocksPerWord ? ~uint64_t{0} : (uint64_t{1} << (2 * count)) - 1;
  return bits << (2 * first);
}

bool is_uniform(const States& states, BlockState state) {
  return std::all_of(states.begin(), states.end(), [&](uint64_t word) { return word == pattern(state); });
}

}  // namespace

void OverlayMap::grow(uint64_t blocks) {
  CHECK(blocks >= blocks_);
  if (blocks_ % kBlocksPerPage != 0) {
    // What is uniform now is not so any more with blocks added: those start as kBase.
    uint64_t last = pages_.size() - 1;
    Slot& page = pages_[last];
    if (!page.mixed && page.uniform != BlockState::kBase)
      page.mixed = std::make_unique<States>(states_of(last));
  }
  blocks_ = blocks;
  pages_.resize((blocks + kBlocksPerPage - 1) / kBlocksPerPage);
}

uint64_t OverlayMap::blocks_in(uint64_t index) const {
  return std::min(kBlocksPerPage, blocks_ - index * kBlocksPerPage);
}

// A disk may end within its last page; the places behind its end are kBase.
States OverlayMap::states_of(uint64_t index) const {
  const Slot& page = pages_[index];
  if (page.mixed) return *page.mixed;
  States states{};
  uint64_t words = blocks_in(index) / kBlocksPerWord;
  std::fill_n(states.begin(), words, pattern(page.uniform));
  uint64_t rest = blocks_in(index) % kBlocksPerWord;
  if (rest > 0) states[words] = pattern(page.uniform) & mask(0, rest);
  return states;
}

BlockState OverlayMap::get(uint64_t block) const {
  const Slot& page = pages_[block / kBlocksPerPage];
  if (!page.mixed) return page.uniform;
  uint64_t at = block % kBlocksPerPage;
  return static_cast<BlockState>(((*page.mixed)[at / kBlocksPerWord] >> (at % kBlocksPerWord * 2)) & 3);
}

OverlayMap::Run OverlayMap::run(uint64_t first, uint64_t limit) const {
  BlockState state = get(first);
  uint64_t end = std::min(first + limit, blocks_);
  uint64_t at = first + 1;
  while (at < end) {
    const Slot& page = pages_[at / kBlocksPerPage];
    uint64_t in_page = at % kBlocksPerPage;
    if (!page.mixed) {
      if (page.uniform != state) break;
      at += kBlocksPerPage - in_page;
    } else if (in_page % kBlocksPerWord == 0 && (*page.mixed)[in_page / kBlocksPerWord] == pattern(state)) {
      at += kBlocksPerWord;
    } else if (get(at) == state) {
      ++at;
    } else {
      break;
    }
  }
  return {state, std::min(at, end) - first};
}

bool OverlayMap::all(uint64_t first, uint64_t count, BlockState state) const {
  Run found = run(first, count);
  return found.state == state && found.count == count;
}

bool OverlayMap::any(uint64_t first, uint64_t count, BlockState state) const {
  for (uint64_t at = first; at < first + count;) {
    Run found = run(at, first + count - at);
    if (found.state == state) return true;
    at += found.count;
  }
  return false;
}

void OverlayMap::set(uint64_t first, uint64_t count, BlockState state) {
  CHECK(first + count <= blocks_);
  while (count > 0) {
    uint64_t in_page = first % kBlocksPerPage;
    uint64_t piece = std::min(count, kBlocksPerPage - in_page);
    set_in_page(first / kBlocksPerPage, in_page, piece, state);
    first += piece;
    count -= piece;
  }
}

void OverlayMap::set_in_page(uint64_t index, uint64_t first, uint64_t count, BlockState state) {
  Slot& page = pages_[index];
  if (!page.mixed && page.uniform == state) return;
  if (count == blocks_in(index)) {
    if (page.mixed && is_uniform(*page.mixed, state)) return;
    page.mixed.reset();
    page.uniform = state;
    return mark_dirty(index);
  }
  if (!page.mixed) page.mixed = std::make_unique<States>(states_of(index));
  bool changed = false;
  for (uint64_t at = first; at < first + count;) {
    uint64_t in_word = at % kBlocksPerWord;
    uint64_t piece = std::min(first + count - at, kBlocksPerWord - in_word);
    uint64_t& word = (*page.mixed)[at / kBlocksPerWord];
    uint64_t bits = mask(in_word, piece);
    uint64_t value = (word & ~bits) | (pattern(state) & bits);
    changed |= value != word;
    word = value;
    at += piece;
  }
  if (changed) mark_dirty(index);
}

void OverlayMap::load(uint64_t index, const MapPage& page) {
  Slot& slot = pages_[index];
  slot.sequence = page.sequence;
  slot.mixed.reset();
  for (BlockState state : {BlockState::kBase, BlockState::kData, BlockState::kZero}) {
    if (is_uniform(page.states, state)) {
      slot.uniform = state;
      return;
    }
  }
  slot.mixed = std::make_unique<States>(page.states);
}

void OverlayMap::take_dirty(std::vector<uint64_t>& out) {
  out.clear();
  std::swap(out, dirty_);
}

MapPage OverlayMap::begin_write(uint64_t index) {
  Slot& slot = pages_[index];
  slot.dirty = false;
  return MapPage{slot.sequence + 1, states_of(index)};
}

void OverlayMap::mark_dirty(uint64_t index) {
  Slot& page = pages_[index];
  if (page.dirty) return;
  page.dirty = true;
  dirty_.push_back(index);
}

}  // namespace haneul::storage::overlay
