// SPDX-License-Identifier: Apache-2.0
#include "vmm/arch/x86_64/cpuid.h"

#include <sys/ioctl.h>

#include <algorithm>
#include <bit>
#include <cstring>

namespace haneul::vmm::x86 {
namespace {

constexpr uint32_t bit(unsigned n) {
  return 1U << n;
}

void set_bits(uint32_t& target, unsigned low, unsigned width, uint32_t value) {
  uint32_t mask = (width == 32 ? ~0U : bit(width) - 1) << low;
  target = (target & ~mask) | ((value << low) & mask);
}

// Leaf 0xB, and 0x1F where there is one: a thread level of one thread, a core level of `count` cores.
void add_topology(std::vector<kvm_cpuid_entry2>& entries, uint32_t leaf, unsigned index, unsigned count) {
  std::erase_if(entries, [leaf](const kvm_cpuid_entry2& e) { return e.function == leaf; });
  unsigned core_bits = static_cast<unsigned>(std::bit_width(count - 1));
  for (uint32_t level = 0; level < 3; ++level) {
    kvm_cpuid_entry2 entry{};
    entry.function = leaf;
    entry.index = level;
    entry.flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX;
    entry.ecx = level;
    entry.edx = index;
    if (level == 0) {
      entry.ebx = 1;
      entry.ecx |= 1 << 8;  // SMT
    } else if (level == 1) {
      entry.eax = core_bits;
      entry.ebx = count;
      entry.ecx |= 2 << 8;  // core
    }
    entries.push_back(entry);
  }
}

void set_brand(std::vector<kvm_cpuid_entry2>& entries) {
  // 48 bytes over leaves 0x80000002 to 0x80000004.
  char brand[48] = "Haneul Virtual CPU";
  for (kvm_cpuid_entry2& entry : entries) {
    if (entry.function < 0x80000002 || entry.function > 0x80000004) continue;
    const char* part = brand + (entry.function - 0x80000002) * 16;
    std::memcpy(&entry.eax, part, 4);
    std::memcpy(&entry.ebx, part + 4, 4);
    std::memcpy(&entry.ecx, part + 8, 4);
    std::memcpy(&entry.edx, part + 12, 4);
  }
}

void clear(kvm_cpuid_entry2& entry) {
  entry.eax = entry.ebx = entry.ecx = entry.edx = 0;
}

// What KVM could give and a guest does not get: nested virtualization, which would hand the host's code for it to
// every tenant, and performance counters, which would leak the host's and hinder moving.
void take_away(kvm_cpuid_entry2& entry) {
  switch (entry.function) {
    case 0x1:
      entry.ecx &= ~(bit(2) | bit(5) | bit(15));  // DTES64, VMX, PDCM
      entry.edx &= ~bit(21);                      // DS
      break;
    case 0x6:
      // Power management is the host's: no turbo, no frequency hints; ARAT (bit 2) stays.
      entry.eax &= bit(2);
      entry.ebx = 0;
      entry.ecx = 0;
      break;
    case 0x7:
      if (entry.index == 0) entry.edx &= ~bit(19);  // last branch records
      break;
    case 0xa:         // counters
    case 0x1c:        // last branch records
    case 0x23:        // more about counters
    case 0x8000000a:  // SVM
    case 0x80000022:  // AMD's counters
      clear(entry);
      break;
    case 0x80000001:
      // SVM; counters of the core, the northbridge and the last-level cache.
      entry.ecx &= ~(bit(2) | bit(23) | bit(24) | bit(28));
      break;
    default:
      break;
  }
}

}  // namespace

std::vector<kvm_cpuid_entry2> guest_cpuid(std::vector<kvm_cpuid_entry2> entries, unsigned index,
                                          unsigned count, bool tsc_deadline) {
  unsigned core_bits = static_cast<unsigned>(std::bit_width(count - 1));
  bool has_b = false;
  bool has_1f = false;
  for (kvm_cpuid_entry2& entry : entries) {
    take_away(entry);
    switch (entry.function) {
      case 0x1:
        set_bits(entry.ebx, 16, 8, count);
        set_bits(entry.ebx, 24, 8, index);
        entry.ecx |= bit(31);  // hypervisor
        set_bits(entry.ecx, 24, 1, tsc_deadline ? 1 : 0);
        set_bits(entry.edx, 28, 1, count > 1 ? 1 : 0);  // HTT: more than one logical processor
        break;
      case 0x4:
      case 0x8000001d: {
        // Caches of level 1 and 2 belong to one core; level 3 to all.
        uint32_t level = (entry.eax >> 5) & 7;
        set_bits(entry.eax, 14, 12, level >= 3 ? bit(core_bits) - 1 : 0);
        if (entry.function == 0x4 && (entry.eax & 0x1f) != 0) set_bits(entry.eax, 26, 6, bit(core_bits) - 1);
        break;
      }
      case 0xb:
        has_b = true;
        break;
      case 0x1f:
        has_1f = true;
        break;
      case 0x80000008:
        set_bits(entry.ecx, 0, 8, count - 1);
        set_bits(entry.ecx, 12, 4, core_bits);
        break;
      case 0x8000001e:
        entry.eax = index;  // extended APIC id
        set_bits(entry.ebx, 0, 8, index);
        set_bits(entry.ebx, 8, 8, 0);  // one thread a core
        entry.ecx = 0;                 // one node
        break;
      default:
        break;
    }
  }
  if (has_b) add_topology(entries, 0xb, index, count);
  if (has_1f) add_topology(entries, 0x1f, index, count);
  set_brand(entries);
  return entries;
}

Status set_cpuid(const UniqueFd& vcpu, const std::vector<kvm_cpuid_entry2>& entries) {
  std::vector<std::byte> raw(sizeof(kvm_cpuid2) + entries.size() * sizeof(kvm_cpuid_entry2));
  auto* list = reinterpret_cast<kvm_cpuid2*>(raw.data());
  list->nent = static_cast<uint32_t>(entries.size());
  std::memcpy(list->entries, entries.data(), entries.size() * sizeof(kvm_cpuid_entry2));
  if (::ioctl(vcpu.get(), KVM_SET_CPUID2, list) != 0) return errno_error("KVM_SET_CPUID2");
  return {};
}

}  // namespace haneul::vmm::x86
