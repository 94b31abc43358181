// SPDX-License-Identifier: Apache-2.0
#include "storage/volume/volume_map.h"

#include <malloc.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <new>
#include <span>

#include "base/result.h"

namespace haneul::storage::volume {

struct VolumeMap::Mixed {
  uint16_t bits;  // of a block's index in a palette; 0: a list of runs
  uint16_t used;  // runs, or owners
  uint16_t room;  // for so many
};

// Followed by the runs: where each begins, in ascending order from 0 on. Neighbours differ.
struct VolumeMap::Runs : Mixed {
  struct One {
    uint16_t first;
    uint16_t owner;
  };
  static size_t bytes(size_t runs) { return sizeof(Runs) + runs * sizeof(One); }
  One* data() { return reinterpret_cast<One*>(this + 1); }
  std::span<One> all() { return {data(), used}; }
  /// The run that has the block.
  size_t find(uint64_t block) {
    auto above = std::upper_bound(data(), data() + used, block,
                                  [](uint64_t at, const One& run) { return at < run.first; });
    return static_cast<size_t>(above - data()) - 1;
  }
  uint64_t end(size_t run) { return run + 1 < used ? data()[run + 1].first : kRegionBlocks; }
};

// Followed by the palette and by the blocks' indices, packed from the lowest bit on.
struct VolumeMap::Packed : Mixed {
  struct One {
    uint16_t owner;
    uint16_t blocks;  // that have it; a place of none is free
  };
  static unsigned bits_for(size_t owners) {
    unsigned bits = 1;
    while ((size_t{1} << bits) < owners) ++bits;
    return bits;
  }
  // An index is read and written with the three bytes from its first on.
  static size_t bytes(size_t owners) {
    return sizeof(Packed) + owners * sizeof(One) + kRegionBlocks * bits_for(owners) / 8 + 2;
  }
  One* palette() { return reinterpret_cast<One*>(this + 1); }
  uint8_t* indices() { return reinterpret_cast<uint8_t*>(palette() + room); }

  unsigned index(uint64_t block) {
    const uint64_t bit = block * bits;
    const uint8_t* at = indices() + bit / 8;
    unsigned word = at[0] | static_cast<unsigned>(at[1]) << 8 | static_cast<unsigned>(at[2]) << 16;
    return (word >> (bit % 8)) & ((1u << bits) - 1);
  }
  void set_index(uint64_t block, unsigned value) {
    const uint64_t bit = block * bits;
    uint8_t* at = indices() + bit / 8;
    unsigned word = at[0] | static_cast<unsigned>(at[1]) << 8 | static_cast<unsigned>(at[2]) << 16;
    word &= ~(((1u << bits) - 1) << (bit % 8));
    word |= value << (bit % 8);
    at[0] = static_cast<uint8_t>(word);
    at[1] = static_cast<uint8_t>(word >> 8);
    at[2] = static_cast<uint8_t>(word >> 16);
  }
  Owner owner(uint64_t block) { return Owner::from_raw(palette()[index(block)].owner); }
  /// The owner's place, a free one made its, or `used` if there is none.
  unsigned place(Owner owner) {
    unsigned free = used;
    for (unsigned i = 0; i < used; ++i) {
      if (palette()[i].blocks == 0) {
        free = i;
      } else if (palette()[i].owner == owner.raw()) {
        return i;
      }
    }
    if (free == used && used < room) ++used;
    if (free < used) palette()[free] = {owner.raw(), 0};
    return free;
  }
};

VolumeMap::VolumeMap(uint64_t blocks) : blocks_(0) {
  grow(blocks);
}

VolumeMap::~VolumeMap() {
  for (const auto& chunk : chunks_) {
    if (!chunk) continue;
    for (Region region : *chunk) release(mixed_in(region));
  }
}

void VolumeMap::grow(uint64_t blocks) {
  blocks_ = blocks;
  constexpr uint64_t kChunkBlocks = kRegionBlocks * kChunkRegions;
  chunks_.resize((blocks + kChunkBlocks - 1) / kChunkBlocks);
}

VolumeMap::Mixed* VolumeMap::mixed_in(Region region) {
  return (region.word & 1) != 0 ? nullptr : reinterpret_cast<Mixed*>(region.word);
}

void* VolumeMap::allocate(size_t bytes) {
  void* memory = std::calloc(1, bytes);
  CHECK(memory != nullptr);
  bytes_ += ::malloc_usable_size(memory) + sizeof(size_t);
  return memory;
}

void VolumeMap::release(Mixed* mixed) {
  if (mixed == nullptr) return;
  bytes_ -= ::malloc_usable_size(mixed) + sizeof(size_t);
  std::free(mixed);
}

void VolumeMap::put(Region& region, Mixed* mixed) {
  release(mixed_in(region));
  region.word = reinterpret_cast<uintptr_t>(mixed);
}

void VolumeMap::make_uniform(Region& region, Owner owner) {
  release(mixed_in(region));
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

// ---- Looking up ----

VolumeMap::Run VolumeMap::run_in(Region region, uint64_t inside, uint64_t limit) {
  Mixed* mixed = mixed_in(region);
  if (mixed == nullptr) return {Owner::from_raw(static_cast<uint16_t>(region.word >> 1)), limit};
  if (mixed->bits == 0) {
    auto* runs = static_cast<Runs*>(mixed);
    size_t found = runs->find(inside);
    return {Owner::from_raw(runs->data()[found].owner), std::min(limit, runs->end(found) - inside)};
  }
  auto* packed = static_cast<Packed*>(mixed);
  unsigned value = packed->index(inside);
  uint64_t count = 1;
  while (count < limit && packed->index(inside + count) == value) ++count;
  return {Owner::from_raw(packed->palette()[value].owner), count};
}

VolumeMap::Run VolumeMap::run_in_region(uint64_t first, uint64_t limit) const {
  uint64_t index = first / kRegionBlocks;
  uint64_t inside = first % kRegionBlocks;
  const auto& chunk = chunks_[index / kChunkRegions];
  Region region = chunk ? (*chunk)[index % kChunkRegions] : Region();
  return run_in(region, inside, std::min(limit, kRegionBlocks - inside));
}

Owner VolumeMap::get(uint64_t block) const {
  CHECK(block < blocks_);
  return run_in_region(block, 1).owner;
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

// ---- Changing ----

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
  Mixed* mixed = mixed_in(region);
  if (mixed == nullptr) {
    Owner before = run_in(region, 0, 1).owner;
    if (before == owner) return;
    constexpr uint16_t kRoom = 4;
    auto* runs = new (allocate(Runs::bytes(kRoom))) Runs{{0, 1, kRoom}};
    runs->data()[0] = {0, before.raw()};
    region.word = reinterpret_cast<uintptr_t>(runs);
  } else if (mixed->bits != 0) {
    return set_in_packed(region, first, count, owner);
  }
  set_in_runs(region, first, count, owner);
}

// What lies before and behind keeps its owner; neighbours that agree become one run.
void VolumeMap::set_in_runs(Region& region, uint64_t first, uint64_t count, Owner owner) {
  auto* runs = static_cast<Runs*>(mixed_in(region));
  const uint64_t end = first + count;
  size_t begin = runs->find(first);
  size_t last = runs->find(end - 1);
  std::array<Runs::One, 3> made{};
  size_t parts = 0;
  const Runs::One before = runs->data()[begin];
  const Runs::One behind = runs->data()[last];
  if (before.owner == owner.raw()) {
    made[parts++] = before;
  } else {
    if (before.first < first) made[parts++] = before;
    if (parts == 0 && begin > 0 && runs->data()[begin - 1].owner == owner.raw()) {
      made[parts++] = runs->data()[--begin];
    } else {
      made[parts++] = {static_cast<uint16_t>(first), owner.raw()};
    }
  }
  if (runs->end(last) > end) {
    if (behind.owner != owner.raw()) made[parts++] = {static_cast<uint16_t>(end), behind.owner};
  } else if (last + 1 < runs->used && runs->data()[last + 1].owner == owner.raw()) {
    ++last;
  }
  const size_t kept = runs->used - (last - begin + 1);
  if (kept + parts > runs->room) {
    // The new owner may be one more, and packing may be what is smaller from here on.
    std::array<uint16_t, kRegionBlocks> owners;
    for (size_t i = 0; i < runs->used; ++i) owners[i] = runs->data()[i].owner;
    std::sort(owners.begin(), owners.begin() + runs->used);
    auto different =
        static_cast<size_t>(std::unique(owners.begin(), owners.begin() + runs->used) - owners.begin()) + 1;
    size_t room = runs->room + std::max<size_t>(4, runs->room / 8);
    if (Runs::bytes(room) >= Packed::bytes(different)) {
      make_packed(region, different);
      return set_in_packed(region, first, count, owner);
    }
    auto* next = new (allocate(Runs::bytes(room))) Runs{{0, runs->used, static_cast<uint16_t>(room)}};
    std::copy_n(runs->data(), runs->used, next->data());
    put(region, next);
    runs = next;
  }
  Runs::One* data = runs->data();
  std::memmove(data + begin + parts, data + last + 1, (runs->used - last - 1) * sizeof(Runs::One));
  std::copy_n(made.begin(), parts, data + begin);
  runs->used = static_cast<uint16_t>(kept + parts);
  if (runs->used == 1) make_uniform(region, Owner::from_raw(data[0].owner));
}

void VolumeMap::set_in_packed(Region& region, uint64_t first, uint64_t count, Owner owner) {
  auto* packed = static_cast<Packed*>(mixed_in(region));
  unsigned value = packed->place(owner);
  if (value == packed->used) {
    make_packed(region, packed->used + std::max<size_t>(1, packed->used / 8u));
    packed = static_cast<Packed*>(mixed_in(region));
    value = packed->place(owner);
  }
  Packed::One* palette = packed->palette();
  bool one_less = false;
  for (uint64_t block = first; block < first + count; ++block) {
    unsigned old = packed->index(block);
    if (old == value) continue;
    one_less |= --palette[old].blocks == 0;
    ++palette[value].blocks;
    packed->set_index(block, value);
  }
  if (palette[value].blocks == kRegionBlocks) return make_uniform(region, owner);
  if (!one_less) return;
  auto left = static_cast<size_t>(
      std::count_if(palette, palette + packed->used, [](const Packed::One& one) { return one.blocks > 0; }));
  if (Packed::bits_for(left) < packed->bits) make_packed(region, left);
}

// The same content, packed, with room for so many owners.
void VolumeMap::make_packed(Region& region, size_t owners) {
  auto bits = static_cast<uint16_t>(Packed::bits_for(owners));
  auto* packed = new (allocate(Packed::bytes(owners))) Packed{{bits, 0, static_cast<uint16_t>(owners)}};
  for (uint64_t block = 0; block < kRegionBlocks;) {
    Run run = run_in(region, block, kRegionBlocks - block);
    unsigned value = packed->place(run.owner);
    packed->palette()[value].blocks =
        static_cast<uint16_t>(packed->palette()[value].blocks + static_cast<uint16_t>(run.count));
    for (uint64_t end = block + run.count; block < end; ++block) packed->set_index(block, value);
  }
  put(region, packed);
}

}  // namespace haneul::storage::volume
