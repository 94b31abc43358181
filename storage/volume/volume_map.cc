// SPDX-License-Identifier: Apache-2.0
#include "storage/volume/volume_map.h"

#include <malloc.h>

#include <algorithm>
#include <cstdlib>
#include <new>

#include "base/result.h"

namespace haneul::storage::volume {

// Followed by room for `capacity()` owners and by the blocks' indices, packed from the lowest bit on.
struct VolumeMap::Palette {
  uint8_t bits;  // 1, 2, 4 or 8
  uint16_t used;

  static size_t capacity(unsigned bits) { return size_t{1} << bits; }
  static size_t bytes(unsigned bits) {
    return sizeof(Palette) + capacity(bits) * sizeof(uint16_t) + kRegionBlocks * bits / 8;
  }
  uint16_t* owners() { return reinterpret_cast<uint16_t*>(this + 1); }
  uint8_t* indices() { return reinterpret_cast<uint8_t*>(owners() + capacity(bits)); }

  unsigned index(uint64_t block) {
    uint64_t bit = block * bits;
    return static_cast<unsigned>(indices()[bit / 8] >> (bit % 8)) & ((1u << bits) - 1);
  }
  void set_index(uint64_t block, unsigned value) {
    uint64_t bit = block * bits;
    unsigned mask = ((1u << bits) - 1) << (bit % 8);
    uint8_t& byte = indices()[bit / 8];
    byte = static_cast<uint8_t>((byte & ~mask) | (value << (bit % 8)));
  }
  Owner owner(uint64_t block) { return Owner::from_raw(owners()[index(block)]); }
  int find(Owner owner) {
    uint16_t* end = owners() + used;
    uint16_t* found = std::find(owners(), end, owner.raw());
    return found == end ? -1 : static_cast<int>(found - owners());
  }
};

VolumeMap::VolumeMap(uint64_t blocks) : blocks_(0) {
  grow(blocks);
}

VolumeMap::~VolumeMap() {
  for (const auto& chunk : chunks_) {
    if (!chunk) continue;
    for (Region region : *chunk) {
      if (Palette* palette = palette_of(region)) free_palette(palette);
    }
  }
}

void VolumeMap::grow(uint64_t blocks) {
  blocks_ = blocks;
  constexpr uint64_t kChunkBlocks = kRegionBlocks * kChunkRegions;
  chunks_.resize((blocks + kChunkBlocks - 1) / kChunkBlocks);
}

VolumeMap::Palette* VolumeMap::palette_of(Region region) {
  return (region.word & 1) != 0 ? nullptr : reinterpret_cast<Palette*>(region.word);
}

Owner VolumeMap::owner_in(Region region, uint64_t block) {
  if (Palette* palette = palette_of(region)) return palette->owner(block);
  return Owner::from_raw(static_cast<uint16_t>(region.word >> 1));
}

VolumeMap::Palette* VolumeMap::make_palette(unsigned bits) {
  void* memory = std::calloc(1, Palette::bytes(bits));
  CHECK(memory != nullptr);
  bytes_ += ::malloc_usable_size(memory) + sizeof(size_t);
  auto* palette = new (memory) Palette{};
  palette->bits = static_cast<uint8_t>(bits);
  return palette;
}

void VolumeMap::free_palette(Palette* palette) {
  bytes_ -= ::malloc_usable_size(palette) + sizeof(size_t);
  std::free(palette);
}

void VolumeMap::make_uniform(Region& region, Owner owner) {
  if (Palette* palette = palette_of(region)) free_palette(palette);
  region.word = owner.nobody() ? 0 : uintptr_t{owner.raw()} << 1 | 1;
}

VolumeMap::Region& VolumeMap::region(uint64_t index) {
  auto& chunk = chunks_[index / kChunkRegions];
  if (!chunk) {
    chunk = std::make_unique<Chunk>();
    bytes_ += sizeof(Chunk);
  }
  return (*chunk)[index % kChunkRegions];
}

Owner VolumeMap::get(uint64_t block) const {
  CHECK(block < blocks_);
  uint64_t index = block / kRegionBlocks;
  const auto& chunk = chunks_[index / kChunkRegions];
  return chunk ? owner_in((*chunk)[index % kChunkRegions], block % kRegionBlocks) : Owner();
}

VolumeMap::Run VolumeMap::run_in_region(uint64_t first, uint64_t limit) const {
  uint64_t index = first / kRegionBlocks;
  uint64_t inside = first % kRegionBlocks;
  const auto& chunk = chunks_[index / kChunkRegions];
  Region region = chunk ? (*chunk)[index % kChunkRegions] : Region();
  limit = std::min(limit, kRegionBlocks - inside);
  Palette* palette = palette_of(region);
  if (palette == nullptr) return {owner_in(region, inside), limit};
  unsigned value = palette->index(inside);
  uint64_t count = 1;
  while (count < limit && palette->index(inside + count) == value) ++count;
  return {Owner::from_raw(palette->owners()[value]), count};
}

VolumeMap::Run VolumeMap::run(uint64_t first, uint64_t limit) const {
  CHECK(first < blocks_ && limit > 0);
  limit = std::min(limit, blocks_ - first);
  Run whole = run_in_region(first, limit);
  while (whole.count < limit && (first + whole.count) % kRegionBlocks == 0) {
    Run more = run_in_region(first + whole.count, limit - whole.count);
    if (more.owner != whole.owner) break;
    whole.count += more.count;
  }
  return whole;
}

bool VolumeMap::all(uint64_t first, uint64_t count, Owner owner) const {
  Run found = run(first, count);
  return found.owner == owner && found.count == count;
}

void VolumeMap::set(uint64_t first, uint64_t count, Owner owner) {
  CHECK(first + count <= blocks_);
  while (count > 0) {
    uint64_t inside = first % kRegionBlocks;
    uint64_t piece = std::min(count, kRegionBlocks - inside);
    set_in_region(region(first / kRegionBlocks), inside, piece, owner);
    first += piece;
    count -= piece;
  }
}

void VolumeMap::set_in_region(Region& region, uint64_t first, uint64_t count, Owner owner) {
  if (count == kRegionBlocks) return make_uniform(region, owner);
  Palette* palette = palette_of(region);
  if (palette == nullptr) {
    Owner before = owner_in(region, 0);
    if (before == owner) return;
    palette = make_palette(1);
    palette->owners()[0] = before.raw();
    palette->used = 1;
    region.word = reinterpret_cast<uintptr_t>(palette);
  }
  int value = palette->find(owner);
  if (value < 0 && palette->used == Palette::capacity(palette->bits)) {
    // A new palette, with the owners that still occur: there may be fewer.
    std::array<bool, kRegionBlocks> occurs{};
    for (uint64_t block = 0; block < kRegionBlocks; ++block) {
      if (block < first || block >= first + count) occurs[palette->index(block)] = true;
    }
    auto kept = static_cast<size_t>(std::count(occurs.begin(), occurs.end(), true));
    unsigned bits = 1;
    while (Palette::capacity(bits) < kept + 1) bits *= 2;
    Palette* next = make_palette(bits);
    std::array<uint8_t, kRegionBlocks> moved{};
    for (size_t i = 0; i < palette->used; ++i) {
      if (!occurs[i]) continue;
      moved[i] = static_cast<uint8_t>(next->used);
      next->owners()[next->used++] = palette->owners()[i];
    }
    for (uint64_t block = 0; block < kRegionBlocks; ++block)
      next->set_index(block, moved[palette->index(block)]);
    free_palette(palette);
    palette = next;
    region.word = reinterpret_cast<uintptr_t>(palette);
  }
  if (value < 0) {
    value = palette->used;
    palette->owners()[palette->used++] = owner.raw();
  }
  for (uint64_t block = first; block < first + count; ++block)
    palette->set_index(block, static_cast<unsigned>(value));
  for (uint64_t block = 0; block < kRegionBlocks; ++block) {
    if (palette->index(block) != static_cast<unsigned>(value)) return;
  }
  make_uniform(region, owner);
}

}  // namespace haneul::storage::volume
