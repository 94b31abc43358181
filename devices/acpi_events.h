// SPDX-License-Identifier: Apache-2.0
// The registers behind ACPI's Generic Event Device and hardware-reduced sleep (ACPI 6.4, sections 5.6.9 and
// 4.8.3). The DSDT that uses them is vmm/'s.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <span>

#include "devices/bus.h"
#include "devices/interrupt.h"

namespace haneul::devices::acpi {

inline constexpr uint32_t kPowerButton = 1u << 0;
inline constexpr uint32_t kPciHotplug = 1u << 1;

/// 16 bytes of MMIO. 0x0, RO, 32 bits: the events raised since the last read, which clears them.
/// Thread-safe.
class EventDevice : public BusDevice {
 public:
  static constexpr uint64_t kSize = 16;
  /// `interrupt` outlives the device.
  explicit EventDevice(Interrupt& interrupt) : interrupt_(interrupt) {}

  void raise(uint32_t events);
  void read(uint64_t offset, std::span<std::byte> data) override;
  void write(uint64_t offset, std::span<const std::byte> data) override;

 private:
  Interrupt& interrupt_;
  std::atomic<uint32_t> pending_{0};
};

enum class PowerAction { kPowerOff, kReset };

/// 16 bytes of MMIO, 8-bit registers: 0x0 sleep control, 0x1 sleep status, 0x8 reset. Thread-safe if the
/// callback is; it runs on the vCPU's thread, with nothing locked.
class PowerRegisters : public BusDevice {
 public:
  static constexpr uint64_t kSize = 16;
  static constexpr uint64_t kSleepControl = 0x0;
  static constexpr uint64_t kSleepStatus = 0x1;
  static constexpr uint64_t kReset = 0x8;
  static constexpr uint8_t kResetValue = 0x01;
  static constexpr uint8_t kSoftOffType = 5;

  explicit PowerRegisters(std::function<void(PowerAction)> act) : act_(std::move(act)) {}

  void read(uint64_t offset, std::span<std::byte> data) override;
  void write(uint64_t offset, std::span<const std::byte> data) override;

 private:
  std::function<void(PowerAction)> act_;
};

}  // namespace haneul::devices::acpi
