// SPDX-License-Identifier: Apache-2.0
#include "devices/acpi_events.h"

#include "base/endian.h"

namespace haneul::devices::acpi {
namespace {

// Sleep control register (ACPI 6.4, table 4.16).
constexpr uint8_t kSleepEnable = 1u << 5;
constexpr uint8_t sleep_type(uint8_t control) {
  return (control >> 2) & 7;
}

}  // namespace

void EventDevice::raise(uint32_t events) {
  pending_.fetch_or(events, std::memory_order_acq_rel);
  interrupt_.trigger();
}

void EventDevice::read(uint64_t offset, std::span<std::byte> data) {
  uint32_t events = 0;
  if (offset == 0 && data.size() == 4) events = pending_.exchange(0, std::memory_order_acq_rel);
  store_bytes(data, events);
}

void EventDevice::write(uint64_t /*offset*/, std::span<const std::byte> /*data*/) {}

void PowerRegisters::read(uint64_t /*offset*/, std::span<std::byte> data) {
  // Sleep status: WAK_STS stays clear, as nothing wakes from a sleep here.
  store_bytes(data, 0);
}

void PowerRegisters::write(uint64_t offset, std::span<const std::byte> data) {
  if (data.size() != 1) return;
  auto value = static_cast<uint8_t>(data[0]);
  if (offset == kSleepControl && (value & kSleepEnable) != 0 && sleep_type(value) == kSoftOffType) {
    act_(PowerAction::kPowerOff);
  } else if (offset == kReset && value == kResetValue) {
    act_(PowerAction::kReset);
  }
}

}  // namespace haneul::devices::acpi
