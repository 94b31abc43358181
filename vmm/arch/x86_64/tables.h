// SPDX-License-Identifier: Apache-2.0
// The firmware's tables, written into guest memory: ACPI 6.4 (RSDP, XSDT, FADT, MADT, MCFG, DSDT) and
// SMBIOS 3.4.
#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "base/result.h"
#include "devices/guest_memory.h"

namespace haneul::vmm::x86 {

using GenerationId = std::array<uint8_t, 16>;

/// vcpus local APICs, ids 0 to vcpus - 1; the PCI windows as in layout.h; the generation ID (Microsoft, "Virtual
/// Machine Generation ID", 2012), which lies in memory that the guest's memory map reserves.
Status write_acpi_tables(const devices::GuestMemory& memory, uint64_t ram_bytes, unsigned vcpus,
                         const GenerationId& generation);

struct SystemIdentity {
  /// "ec2xxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx": cloud-init knows an EC2 instance by a UUID and a serial that
  /// begin so.
  std::string uuid;
  /// The instance type, shown as the product name.
  std::string product;
};
/// kInvalidArgument if the UUID is not one.
Status write_smbios(const devices::GuestMemory& memory, uint64_t ram_bytes, unsigned vcpus,
                    const SystemIdentity& identity);

}  // namespace haneul::vmm::x86
