// SPDX-License-Identifier: Apache-2.0
// Where everything lies in the guest's physical address space.
//
//   0x0000_0500  GDT                                0x0000_7000  zero page (struct boot_params)
//   0x0000_9000  page tables, 6 pages               0x0002_0000  command line
//   0x000d_f000  generation ID, 16 bytes
//   0x000e_0000  ACPI tables, 64 KiB                0x000f_0000  SMBIOS, 64 KiB
//   0x0010_0000  RAM, the kernel at 16 MiB, up to 3 GiB; the rest of RAM goes on at 4 GiB
//   0xc000_0000  PCI 32-bit window, 512 MiB         0xe000_0000  PCI ECAM, bus 0, 1 MiB
//   0xe800_0000  Haneul's own registers             0xfec0_0000  IOAPIC
//   0xfee0_0000  local APIC                         0xfffb_c000  for KVM on Intel (identity map, TSS)
//   256 GiB      PCI 64-bit window, 128 GiB, or above RAM where RAM reaches that far
#pragma once

#include <algorithm>
#include <cstdint>

#include "base/checked.h"

namespace haneul::vmm::x86 {

constexpr uint64_t kGdtGpa = 0x500;
constexpr uint64_t kZeroPageGpa = 0x7000;
constexpr uint64_t kPageTablesGpa = 0x9000;
constexpr uint64_t kCommandLineGpa = 0x20000;
constexpr uint64_t kMaxCommandLine = 2047;
constexpr uint64_t kLowRamEnd = 0x9fc00;
constexpr uint64_t kGenerationGpa = 0xdf000;  // the generation ID, alone in its page
constexpr uint64_t kAcpiGpa = 0xe0000;
constexpr uint64_t kAcpiBytes = 0x10000;
constexpr uint64_t kSmbiosGpa = 0xf0000;
constexpr uint64_t kSmbiosBytes = 0xfff0;  // up to the reset vector
constexpr uint64_t kHighRamGpa = 0x100000;

constexpr uint64_t kHoleGpa = 0xc0000000;
constexpr uint64_t kHoleEnd = 0x100000000;
constexpr uint64_t kMmio32Gpa = kHoleGpa;
constexpr uint64_t kMmio32Bytes = 0x20000000;
constexpr uint64_t kEcamGpa = 0xe0000000;
constexpr uint64_t kEcamBytes = 0x100000;
constexpr uint64_t kEventGpa = 0xe8000000;    // acpi::EventDevice
constexpr uint64_t kHotplugGpa = 0xe8000010;  // pci::HotplugRegisters
constexpr uint64_t kPowerGpa = 0xe8000020;    // acpi::PowerRegisters
constexpr uint64_t kRegisterBytes = 0x10;
constexpr uint64_t kIoapicGpa = 0xfec00000;
constexpr uint64_t kLocalApicGpa = 0xfee00000;
constexpr uint64_t kIdentityMapGpa = 0xfffbc000;
constexpr uint64_t kTssGpa = 0xfffbd000;

constexpr uint64_t kMmio64Bytes = 128_GiB;
/// The 64-bit window lies at 256 GiB, or at the next multiple of its size above RAM.
constexpr uint64_t mmio64_gpa(uint64_t ram_bytes) {
  uint64_t ram_end = ram_bytes <= kHoleGpa ? ram_bytes : kHoleEnd + (ram_bytes - kHoleGpa);
  return std::max<uint64_t>(256_GiB, align_up(ram_end, kMmio64Bytes));
}

// GSIs of the IOAPIC.
constexpr uint32_t kSerialIrq = 4;
constexpr uint32_t kEventIrq = 5;

constexpr uint64_t kSerialPort = 0x3f8;
constexpr unsigned kMaxVcpus = 32;

}  // namespace haneul::vmm::x86
