// SPDX-License-Identifier: Apache-2.0
#include "devices/pci/device.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "base/checked.h"
#include "base/endian.h"

namespace haneul::devices::pci {
namespace {

// Section 6.1: the header of type 0.
constexpr uint32_t kVendor = 0x00;
constexpr uint32_t kDevice = 0x02;
constexpr uint32_t kCommand = 0x04;
constexpr uint32_t kStatus = 0x06;
constexpr uint32_t kRevision = 0x08;
constexpr uint32_t kClass = 0x09;
constexpr uint32_t kCacheLineSize = 0x0c;
constexpr uint32_t kBar0 = 0x10;
constexpr uint32_t kSubsystemVendor = 0x2c;
constexpr uint32_t kSubsystem = 0x2e;
constexpr uint32_t kInterruptLine = 0x3c;

constexpr uint16_t kCommandMemory = 1u << 1;
constexpr uint16_t kCommandMaster = 1u << 2;
constexpr uint16_t kCommandNoIntx = 1u << 10;
constexpr uint16_t kStatusCapabilities = 1u << 4;

constexpr uint32_t kBarMemory64 = 0x4;
constexpr uint64_t kBarFlags = 0xf;

constexpr uint8_t kMsixId = 0x11;
constexpr uint16_t kMsixEnable = 1u << 15;
constexpr uint16_t kMsixFunctionMask = 1u << 14;

constexpr uint32_t bar_offset(unsigned bar) {
  return kBar0 + 4 * bar;
}

}  // namespace

Device::Device(const Identity& identity) {
  store_le<uint16_t>(&bytes_[kVendor], identity.vendor);
  store_le<uint16_t>(&bytes_[kDevice], identity.device);
  bytes_[kRevision] = std::byte{identity.revision};
  for (unsigned i = 0; i < 3; ++i)
    bytes_[kClass + i] = static_cast<std::byte>(identity.class_code >> (8 * i));
  store_le<uint16_t>(&bytes_[kSubsystemVendor], identity.subsystem_vendor);
  store_le<uint16_t>(&bytes_[kSubsystem], identity.subsystem);
  store_le<uint16_t>(&writable_[kCommand], kCommandMemory | kCommandMaster | kCommandNoIntx);
  writable_[kCacheLineSize] = std::byte{0xff};
  writable_[kInterruptLine] = std::byte{0xff};
}

void Device::config_read(uint32_t offset, std::span<std::byte> data) {
  before_config_read(offset, static_cast<uint32_t>(data.size()));
  std::lock_guard lock(mutex_);
  for (size_t i = 0; i < data.size(); ++i) {
    size_t at = offset + i;
    data[i] = at < kStored ? bytes_[at] : at < kConfigSize ? std::byte{0} : std::byte{0xff};
  }
}

void Device::config_write(uint32_t offset, std::span<const std::byte> data) {
  {
    std::lock_guard lock(mutex_);
    for (size_t i = 0; i < data.size() && offset + i < kStored; ++i) {
      std::byte mask = writable_[offset + i];
      std::byte& place = bytes_[offset + i];
      place = (place & ~mask) | (data[i] & mask);
    }
    if (msix_ != nullptr && offset < msix_capability_ + 4u && offset + data.size() > msix_capability_ + 2u) {
      auto control = load_le<uint16_t>(&bytes_[msix_capability_ + 2u]);
      msix_->set_control((control & kMsixEnable) != 0, (control & kMsixFunctionMask) != 0);
    }
  }
  after_config_write(offset, static_cast<uint32_t>(data.size()));
}

std::array<Bar, kBars> Device::bars() const {
  std::lock_guard lock(mutex_);
  std::array<Bar, kBars> bars{};
  bool decoding = (load_le<uint16_t>(&bytes_[kCommand]) & kCommandMemory) != 0;
  for (unsigned i = 0; i < kBars; ++i) {
    if (shapes_[i].size == 0) continue;
    uint64_t address = shapes_[i].is_64 ? load_le<uint64_t>(&bytes_[bar_offset(i)])
                                        : load_le<uint32_t>(&bytes_[bar_offset(i)]);
    bars[i] = {shapes_[i].size, shapes_[i].is_64, address & ~kBarFlags, decoding};
  }
  return bars;
}

void Device::assign_bar(unsigned bar, uint64_t address) {
  std::lock_guard lock(mutex_);
  CHECK(bar < kBars && shapes_[bar].size != 0 && is_aligned(address, shapes_[bar].size));
  std::byte* place = &bytes_[bar_offset(bar)];
  if (shapes_[bar].is_64) {
    store_le<uint64_t>(place, address | kBarMemory64);
  } else {
    CHECK(address <= UINT32_MAX);
    store_le<uint32_t>(place, static_cast<uint32_t>(address));
  }
  bytes_[kCommand] |= std::byte{kCommandMemory};
}

void Device::add_memory_bar(unsigned index, uint64_t size, bool is_64) {
  CHECK(std::has_single_bit(size) && size >= 16 && index < kBars);
  shapes_[index] = {size, is_64};
  uint64_t mask = ~(size - 1);
  if (is_64) {
    CHECK(index + 1 < kBars && shapes_[index + 1].size == 0);
    store_le<uint64_t>(&writable_[bar_offset(index)], mask);
    store_le<uint64_t>(&bytes_[bar_offset(index)], kBarMemory64);
  } else {
    CHECK(size <= 1_GiB);
    store_le<uint32_t>(&writable_[bar_offset(index)], static_cast<uint32_t>(mask));
  }
}

uint8_t Device::add_capability(uint8_t id, std::span<const std::byte> body,
                               std::span<const std::byte> writable) {
  uint8_t at = next_capability_;
  CHECK(at + 2 + body.size() <= kStored && writable.size() <= body.size());
  bytes_[at] = std::byte{id};
  std::copy(body.begin(), body.end(), bytes_.begin() + at + 2);
  std::copy(writable.begin(), writable.end(), writable_.begin() + at + 2);
  bytes_[last_link_] = std::byte{at};
  bytes_[kStatus] |= std::byte{kStatusCapabilities};
  last_link_ = static_cast<uint8_t>(at + 1);
  next_capability_ = static_cast<uint8_t>(align_up(at + 2 + body.size(), 4));
  return at;
}

void Device::add_msix(Msix& msix, unsigned bar, uint32_t table_offset, uint32_t pending_offset) {
  CHECK(table_offset % 8 == 0 && pending_offset % 8 == 0 && bar < kBars);
  std::array<std::byte, 10> body{};
  std::array<std::byte, 10> writable{};
  store_le<uint16_t>(&body[0], static_cast<uint16_t>(msix.vectors() - 1));
  store_le<uint32_t>(&body[2], table_offset | bar);
  store_le<uint32_t>(&body[6], pending_offset | bar);
  store_le<uint16_t>(&writable[0], kMsixEnable | kMsixFunctionMask);
  msix_capability_ = add_capability(kMsixId, body, writable);
  msix_ = &msix;
}

void Device::peek(uint32_t offset, std::span<std::byte> data) const {
  std::lock_guard lock(mutex_);
  CHECK(range_within(offset, data.size(), kStored));
  std::copy_n(bytes_.begin() + offset, data.size(), data.begin());
}

void Device::poke(uint32_t offset, std::span<const std::byte> data) {
  std::lock_guard lock(mutex_);
  CHECK(range_within(offset, data.size(), kStored));
  std::copy(data.begin(), data.end(), bytes_.begin() + offset);
}

}  // namespace haneul::devices::pci
