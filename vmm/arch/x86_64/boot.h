// SPDX-License-Identifier: Apache-2.0
// The state in which Linux's 64-bit boot protocol wants the machine (Documentation/arch/x86/boot.rst, "64-bit
// Boot Protocol"): zero page, memory map, identity-mapped page tables, GDT, and the first vCPU's registers.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "base/result.h"
#include "base/unique_fd.h"
#include "devices/guest_memory.h"
#include "vmm/kvm_uapi.h"
#include "vmm/loader/kernel_image.h"

namespace haneul::vmm::x86 {

/// Writes everything but the registers. Errors: a command line that is too long for the kernel.
Status write_boot_data(const devices::GuestMemory& memory, uint64_t ram_bytes, const KernelImage& kernel,
                       const InitrdPlace& initrd, std::string_view command_line);

/// The first vCPU: long mode, paging on, interrupts off, at the kernel's entry.
Status set_boot_registers(const UniqueFd& vcpu, uint64_t entry);

/// All of these model-specific registers, or kUnsupported with the first that KVM refuses.
Status set_msrs(const UniqueFd& vcpu, std::span<const kvm_msr_entry> entries);

/// What every vCPU gets in its model-specific registers.
Status set_common_registers(const UniqueFd& vcpu);

}  // namespace haneul::vmm::x86
