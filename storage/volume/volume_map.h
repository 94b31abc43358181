// SPDX-License-Identifier: Apache-2.0
// VolumeMap: which layer of a stack holds each block. One look-up, whatever the depth.
//
// A region of 4096 blocks (16 MiB) in which all agree costs 8 bytes. Any other is either a list of its runs, 4 bytes
// each, or *packed*: a palette of the owners that occur in it and as many bits a block as it takes to tell them apart.
// Which of them is smaller is decided when a list has to grow. Regions stand in chunks of 256 (4 GiB), which exist
// where something was written.
//
// Threads   none of its own: the volume's lock guards it.
// Units     blocks of 4096 bytes.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

namespace haneul::storage::volume {

/// Who holds a block: nobody, or a layer (counted from the lowest), as data or as zeroes.
class Owner {
 public:
  constexpr Owner() = default;
  static constexpr Owner data(size_t layer) { return Owner(static_cast<uint16_t>((layer + 1) * 2)); }
  static constexpr Owner zero(size_t layer) { return Owner(static_cast<uint16_t>((layer + 1) * 2 + 1)); }
  static constexpr Owner from_raw(uint16_t raw) { return Owner(raw); }

  constexpr bool nobody() const { return raw_ == 0; }
  constexpr bool is_data() const { return raw_ != 0 && (raw_ & 1) == 0; }
  constexpr bool is_zero() const { return (raw_ & 1) != 0; }
  constexpr size_t layer() const { return raw_ / 2 - 1u; }
  constexpr uint16_t raw() const { return raw_; }
  bool operator==(const Owner&) const = default;

 private:
  explicit constexpr Owner(uint16_t raw) : raw_(raw) {}
  uint16_t raw_ = 0;
};
constexpr size_t kMaxLayers = 32766;

class VolumeMap {
 public:
  explicit VolumeMap(uint64_t blocks);
  ~VolumeMap();
  VolumeMap(const VolumeMap&) = delete;
  VolumeMap& operator=(const VolumeMap&) = delete;

  void grow(uint64_t blocks);
  uint64_t blocks() const { return blocks_; }

  Owner get(uint64_t block) const;
  /// How many blocks from `first` on, at most `limit`, have the owner of the first.
  struct Run {
    Owner owner;
    uint64_t count;
  };
  Run run(uint64_t first, uint64_t limit) const;
  bool all(uint64_t first, uint64_t count, Owner owner) const;
  void set(uint64_t first, uint64_t count, Owner owner);

  /// Of memory, as the allocator counts it.
  size_t bytes() const { return bytes_; }

 private:
  static constexpr uint64_t kRegionBlocks = 4096;
  static constexpr uint64_t kChunkRegions = 256;
  struct Mixed;
  struct Runs;
  struct Packed;
  struct Region {
    // Odd: the owner of all blocks is in the bits above. Even and not 0: a Mixed. 0: nobody.
    uintptr_t word = 0;
  };
  using Chunk = std::array<Region, kChunkRegions>;

  static Mixed* mixed_in(Region region);
  static Run run_in(Region region, uint64_t inside, uint64_t limit);
  Run run_in_region(uint64_t first, uint64_t limit) const;
  Region& region(uint64_t index);
  void set_in_region(Region& region, uint64_t first, uint64_t count, Owner owner);
  void set_in_runs(Region& region, uint64_t first, uint64_t count, Owner owner);
  void set_in_packed(Region& region, uint64_t first, uint64_t count, Owner owner);
  void make_uniform(Region& region, Owner owner);
  void make_packed(Region& region, size_t owners);
  void put(Region& region, Mixed* mixed);
  void* allocate(size_t bytes);
  void release(Mixed* mixed);

  uint64_t blocks_;
  std::vector<std::unique_ptr<Chunk>> chunks_;
  size_t bytes_ = 0;
};

}  // namespace haneul::storage::volume
