// SPDX-License-Identifier: Apache-2.0
// ConfigPorts: PCI configuration mechanism 1 (PCI Local Bus 3.0, section 3.2.2.3.2), ports 0xcf8 to 0xcff: an
// address register and a window of four bytes onto what it addresses. The same configuration space as ECAM's;
// Linux wants it because it looks for PCI before it has read the table that says where ECAM is.
//
//   0xcf8, 4 bytes   bit 31 enable, 23-16 bus, 15-11 device, 10-8 function, 7-2 register; other bits are zero
//   0xcfc, 1 to 4    the addressed register, while enabled
//
// Only a whole access of 4 bytes is the address register. Any other that lies in 0xcf8 to 0xcfb reads as ones
// and is swallowed, except a byte at 0xcf9: chipsets have their reset control there, which is given here.
// Accesses that leave the window read as ones and are swallowed.
//
// Threads: any; the address register is atomic. Guests take turns for address and data, or harm only
// themselves.
#pragma once

#include <atomic>
#include <cstdint>
#include <span>

#include "devices/bus.h"
#include "devices/pci/root.h"

namespace haneul::devices::pci {

class ConfigPorts final : public BusDevice {
 public:
  static constexpr uint64_t kPort = 0xcf8;
  static constexpr uint64_t kPorts = 8;

  /// Both outlive it. `reset_control` gets byte accesses to the port after kPort, as its offset 0.
  ConfigPorts(Root& root, BusDevice& reset_control) : root_(root), reset_control_(reset_control) {}

  void read(uint64_t offset, std::span<std::byte> data) override;
  void write(uint64_t offset, std::span<const std::byte> data) override;

 private:
  Root& root_;
  BusDevice& reset_control_;
  std::atomic<uint32_t> address_{0};
};

}  // namespace haneul::devices::pci
