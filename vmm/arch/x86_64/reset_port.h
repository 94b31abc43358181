// SPDX-License-Identifier: Apache-2.0
// The reset control register of PC chipsets, port 0xcf9: a write with bit 2 resets the machine.
//
// ACPI has a reset register too, but Linux on hardware-reduced ACPI does not use it: it calls EFI, and where
// there is none, jumps in real mode to where a BIOS begins. There kResetVector stands, which uses this port.
#pragma once

#include <array>
#include <functional>

#include "devices/bus.h"

namespace haneul::vmm::x86 {

constexpr uint16_t kResetPort = 0xcf9;
constexpr uint64_t kResetVectorGpa = 0xffff0;
constexpr std::array<uint8_t, 9> kResetVector = {
    0xb0, 0x06,        // mov al, 6
    0xba, 0xf9, 0x0c,  // mov dx, 0xcf9
    0xee,              // out dx, al
    0xf4,              // hlt
    0xeb, 0xfd,        // jmp to the hlt
};

/// Stateless; `reset` is called on vCPU threads.
class ResetPort final : public devices::BusDevice {
 public:
  explicit ResetPort(std::function<void()> reset) : reset_(std::move(reset)) {}
  void read(uint64_t, std::span<std::byte> data) override {
    for (std::byte& byte : data) byte = std::byte{0};
  }
  void write(uint64_t, std::span<const std::byte> data) override {
    constexpr std::byte kResetCpu{1 << 2};
    if (data.size() == 1 && (data[0] & kResetCpu) != std::byte{0}) reset_();
  }

 private:
  std::function<void()> reset_;
};

}  // namespace haneul::vmm::x86
