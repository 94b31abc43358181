// SPDX-License-Identifier: Apache-2.0
#include "devices/guest_memory.h"

#include <algorithm>

#include "base/checked.h"
#include "base/result.h"

namespace haneul::devices {

GuestMemory::GuestMemory(std::vector<Region> regions) : regions_(std::move(regions)) {
  CHECK(regions_.size() <= 16);
  uint64_t end = 0;
  for (const Region& region : regions_) {
    CHECK(region.host != nullptr && region.start.value >= end);
    auto next = checked_add(region.start.value, region.size);
    CHECK(next.has_value());
    end = *next;
  }
}

uint64_t GuestMemory::total_bytes() const {
  uint64_t total = 0;
  for (const Region& region : regions_) total += region.size;
  return total;
}

std::optional<std::span<std::byte>> GuestMemory::slice(GuestAddress address, uint64_t length) const {
  for (const Region& region : regions_) {
    if (address.value < region.start.value) return std::nullopt;
    uint64_t offset = address.value - region.start.value;
    if (offset >= region.size) continue;
    if (!range_within(offset, length, region.size)) return std::nullopt;
    return std::span(region.host + offset, length);
  }
  return std::nullopt;
}

namespace {

// Calls move(host bytes, offset in the request) for each piece of the range; false unless all of it is RAM.
template <typename Move>
bool for_pieces(std::span<const GuestMemory::Region> regions, GuestAddress address, uint64_t length,
                Move move) {
  if (!checked_add(address.value, length)) return false;
  uint64_t done = 0;
  for (const auto& region : regions) {
    if (done == length) break;
    uint64_t at = address.value + done;
    if (at < region.start.value) return false;
    uint64_t offset = at - region.start.value;
    if (offset >= region.size) continue;
    uint64_t piece = std::min(length - done, region.size - offset);
    move(region.host + offset, done, piece);
    done += piece;
  }
  return done == length;
}

}  // namespace

bool GuestMemory::read(GuestAddress address, std::span<std::byte> out) const {
  return for_pieces(regions_, address, out.size(), [&](const std::byte* host, uint64_t at, uint64_t length) {
    std::memcpy(out.data() + at, host, length);
  });
}

bool GuestMemory::write(GuestAddress address, std::span<const std::byte> data) const {
  return for_pieces(regions_, address, data.size(), [&](std::byte* host, uint64_t at, uint64_t length) {
    std::memcpy(host, data.data() + at, length);
  });
}

}  // namespace haneul::devices
