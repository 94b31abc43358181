// SPDX-License-Identifier: Apache-2.0
// Whether this machine's KVM can run a Linux kernel. Some machines have a /dev/kvm that passes every check of
// its interface but interprets ring 0 instead of running it on the processor, and knows only part of the
// instructions.
#pragma once

#include "base/result.h"
#include "vmm/kvm.h"

namespace haneul::vmm {

/// Runs a handful of instructions at ring 0 that every kernel uses. kUnsupported, with one sentence for
/// people, if KVM cannot execute them.
Status probe_linux(const Kvm& kvm);

}  // namespace haneul::vmm
