// SPDX-License-Identifier: Apache-2.0
// <linux/kvm.h>, with the layout that the kernel has. The kernel's __DECLARE_FLEX_ARRAY puts an empty
// structure before a flexible array; that has no size in C but one byte in C++, and would shift the array by
// four bytes.
#pragma once

#include <linux/stddef.h>

#ifdef __DECLARE_FLEX_ARRAY
#undef __DECLARE_FLEX_ARRAY
#define __DECLARE_FLEX_ARRAY(TYPE, NAME) TYPE NAME[]
#endif

#include <linux/kvm.h>

#include <cstddef>

static_assert(sizeof(kvm_cpuid2) == 8 && offsetof(kvm_cpuid2, entries) == 8);
static_assert(sizeof(kvm_msrs) == 8 && offsetof(kvm_msrs, entries) == 8);
static_assert(sizeof(kvm_irq_routing) == 8 && offsetof(kvm_irq_routing, entries) == 8);
