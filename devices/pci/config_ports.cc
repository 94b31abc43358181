// SPDX-License-Identifier: Apache-2.0
#include "devices/pci/config_ports.h"

#include <cstring>
#include <optional>

#include "base/checked.h"
#include "base/endian.h"

namespace haneul::devices::pci {
namespace {

constexpr uint64_t kResetControl = 1;
constexpr uint64_t kData = 4;
constexpr uint64_t kDataBytes = 4;

constexpr uint32_t kEnable = 1u << 31;
constexpr uint32_t kAddressBits = kEnable | 0x00fffffc;

bool is_address(uint64_t offset, size_t length) {
  return offset == 0 && length == 4;
}

bool is_reset_control(uint64_t offset, size_t length) {
  return offset == kResetControl && length == 1;
}

// Where in ECAM an access to the data window goes: bus, device and function four bits further up, the
// register where it is.
std::optional<uint64_t> ecam_offset(uint32_t address, uint64_t offset, size_t length) {
  if ((address & kEnable) == 0 || offset < kData || !range_within(offset - kData, length, kDataBytes)) {
    return std::nullopt;
  }
  uint64_t function = (address & ~kEnable) >> 8;
  return (function << 12) + (address & 0xfc) + (offset - kData);
}

}  // namespace

void ConfigPorts::read(uint64_t offset, std::span<std::byte> data) {
  uint32_t address = address_.load(std::memory_order_relaxed);
  if (is_address(offset, data.size())) {
    store_le<uint32_t>(data.data(), address);
  } else if (is_reset_control(offset, data.size())) {
    reset_control_.read(0, data);
  } else if (auto place = ecam_offset(address, offset, data.size())) {
    root_.config_read(*place, data);
  } else {
    std::memset(data.data(), 0xff, data.size());
  }
}

void ConfigPorts::write(uint64_t offset, std::span<const std::byte> data) {
  if (is_address(offset, data.size())) {
    address_.store(load_le<uint32_t>(data.data()) & kAddressBits, std::memory_order_relaxed);
  } else if (is_reset_control(offset, data.size())) {
    reset_control_.write(0, data);
  } else if (auto place = ecam_offset(address_.load(std::memory_order_relaxed), offset, data.size())) {
    root_.config_write(*place, data);
  }
}

}  // namespace haneul::devices::pci
