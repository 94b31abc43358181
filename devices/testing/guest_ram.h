// SPDX-License-Identifier: Apache-2.0
// GuestRam: a guest's memory for tests, with a bump allocator in place of the guest's kernel.
#pragma once

#include <cstdlib>
#include <cstring>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "base/checked.h"
#include "base/result.h"
#include "devices/guest_memory.h"

namespace haneul::devices::testing {

class GuestRam {
 public:
  struct Range {
    uint64_t start;
    uint64_t size;
  };

  /// Regions of zeroed memory, each an allocation of its own, so that a sanitizer sees every step over an
  /// edge.
  explicit GuestRam(std::vector<Range> ranges) : heap_(ranges.front().start) {
    heap_end_ = heap_ + ranges.front().size;
    std::vector<GuestMemory::Region> regions;
    for (const Range& range : ranges) {
      auto* host = static_cast<std::byte*>(std::aligned_alloc(4096, align_up(range.size, 4096)));
      CHECK(host != nullptr);
      std::memset(host, 0, align_up(range.size, 4096));
      blocks_.emplace_back(host);
      regions.push_back({GuestAddress{range.start}, range.size, host});
    }
    memory_ = std::make_unique<GuestMemory>(std::move(regions));
  }
  /// One region from 1 MiB on: address 0 is not RAM.
  explicit GuestRam(uint64_t size = 16_MiB) : GuestRam({Range{1_MiB, size}}) {}

  const GuestMemory& memory() const { return *memory_; }

  /// Fresh memory from the first region.
  GuestAddress allocate(uint64_t size, uint64_t alignment = 16) {
    uint64_t at = align_up(heap_, alignment);
    CHECK(at + size <= heap_end_);
    heap_ = at + size;
    return GuestAddress{at};
  }
  /// For tests that go round many times: everything allocated since mark() is free again.
  uint64_t mark() const { return heap_; }
  void rewind(uint64_t mark) { heap_ = mark; }

  void write(GuestAddress address, std::span<const std::byte> data) { CHECK(memory_->write(address, data)); }
  std::vector<std::byte> read(GuestAddress address, uint64_t length) const {
    std::vector<std::byte> bytes(length);
    CHECK(memory_->read(address, bytes));
    return bytes;
  }

 private:
  struct Free {
    void operator()(std::byte* block) const { std::free(block); }
  };
  std::vector<std::unique_ptr<std::byte, Free>> blocks_;
  std::unique_ptr<GuestMemory> memory_;
  uint64_t heap_;
  uint64_t heap_end_;
};

}  // namespace haneul::devices::testing
