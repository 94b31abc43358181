// SPDX-License-Identifier: Apache-2.0
#include "devices/bus.h"

#include <cstring>
#include <mutex>

#include "base/checked.h"

namespace haneul::devices {

Status Bus::insert(uint64_t base, uint64_t size, BusDevice& device) {
  auto end = checked_add(base, size);
  if (size == 0 || !end) {
    return make_error(ErrorCode::kInvalidArgument, "no device fits at {:#x} with {:#x} bytes", base, size);
  }
  std::unique_lock lock(mutex_);
  auto next = claims_.lower_bound(base);
  bool taken = next != claims_.end() && next->first < *end;
  if (next != claims_.begin()) {
    auto before = std::prev(next);
    taken = taken || before->first + before->second.size > base;
  }
  if (taken) return make_error(ErrorCode::kExists, "the range {:#x}-{:#x} is taken", base, *end - 1);
  claims_.emplace(base, Claim{size, &device});
  return {};
}

void Bus::remove(uint64_t base) {
  std::unique_lock lock(mutex_);
  claims_.erase(base);
}

const std::pair<const uint64_t, Bus::Claim>* Bus::find(uint64_t address, uint64_t length) const {
  auto next = claims_.upper_bound(address);
  if (next == claims_.begin()) return nullptr;
  auto found = std::prev(next);
  if (!range_within(address - found->first, length, found->second.size)) return nullptr;
  return &*found;
}

void Bus::read(uint64_t address, std::span<std::byte> data) const {
  std::shared_lock lock(mutex_);
  if (const auto* found = find(address, data.size())) {
    found->second.device->read(address - found->first, data);
  } else {
    std::memset(data.data(), 0xff, data.size());
  }
}

void Bus::write(uint64_t address, std::span<const std::byte> data) const {
  std::shared_lock lock(mutex_);
  if (const auto* found = find(address, data.size()))
    found->second.device->write(address - found->first, data);
}

}  // namespace haneul::devices
