// SPDX-License-Identifier: Apache-2.0
// The CPUID that a guest sees: what KVM can virtualize, made consistent with the machine's topology (one
// package, one thread a core), with the hypervisor bit (without which Linux ignores kvmclock) and a brand
// that does not name the host, and without nested virtualization and performance counters.
// Intel SDM volume 2A, CPUID; AMD APM volume 3, appendix E.
#pragma once

#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "vmm/kvm.h"
#include "vmm/kvm_uapi.h"

namespace haneul::vmm::x86 {

/// The leaves of vCPU `index` of `count`, from KVM's supported ones. A pure function.
std::vector<kvm_cpuid_entry2> guest_cpuid(std::vector<kvm_cpuid_entry2> supported, unsigned index,
                                          unsigned count, bool tsc_deadline);

/// Gives the leaves to a vCPU.
Status set_cpuid(const UniqueFd& vcpu, const std::vector<kvm_cpuid_entry2>& entries);

}  // namespace haneul::vmm::x86
