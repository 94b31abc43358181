// SPDX-License-Identifier: Apache-2.0
#include "vmm/arch/x86_64/cpuid.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>

namespace haneul::vmm::x86 {
namespace {

kvm_cpuid_entry2 leaf(uint32_t function, uint32_t index = 0) {
  kvm_cpuid_entry2 entry{};
  entry.function = function;
  entry.index = index;
  return entry;
}
// A host that has everything.
kvm_cpuid_entry2 full(uint32_t function, uint32_t index = 0) {
  kvm_cpuid_entry2 entry = leaf(function, index);
  entry.eax = entry.ebx = entry.ecx = entry.edx = ~0u;
  return entry;
}
/// What vCPU 2 of 6 sees of this leaf.
kvm_cpuid_entry2 seen(const kvm_cpuid_entry2& host, unsigned index = 2, unsigned count = 6) {
  auto entries = guest_cpuid({host}, index, count, true);
  EXPECT_EQ(entries.size(), 1u);
  return entries.front();
}
constexpr uint32_t bit(unsigned n) {
  return 1u << n;
}

TEST(Cpuid, TellsTopologyAndHypervisor) {
  auto entries = guest_cpuid({leaf(1), leaf(0xb), leaf(0x80000002), leaf(0x80000008)}, 2, 6, true);
  unsigned levels = 0;
  for (const auto& e : entries) {
    if (e.function == 1) {
      EXPECT_TRUE(e.ecx & (1u << 31));
      EXPECT_TRUE(e.ecx & (1u << 24));
      EXPECT_EQ(e.ebx >> 24, 2u);
      EXPECT_EQ((e.ebx >> 16) & 0xff, 6u);
    }
    if (e.function == 0xb) {
      ++levels;
      EXPECT_EQ(e.edx, 2u);
      if (e.index == 1) {
        EXPECT_EQ(e.eax, 3u) << "three bits number six cores";
        EXPECT_EQ(e.ebx, 6u);
      }
    }
    if (e.function == 0x80000008) {
      EXPECT_EQ(e.ecx & 0xff, 5u);
    }
    if (e.function == 0x80000002) {
      EXPECT_EQ(std::memcmp(&e.eax, "Hane", 4), 0);
    }
  }
  EXPECT_EQ(levels, 3u);
}

TEST(Cpuid, TheTscDeadlineTimerIsThereIfKvmHasIt) {
  EXPECT_FALSE(guest_cpuid({full(1)}, 0, 1, false).front().ecx & bit(24));
  EXPECT_TRUE(guest_cpuid({leaf(1)}, 0, 1, true).front().ecx & bit(24));
}

TEST(Cpuid, OneVcpuIsOneCore) {
  kvm_cpuid_entry2 entry = seen(full(1), 0, 1);
  EXPECT_FALSE(entry.edx & bit(28)) << "HTT";
  EXPECT_EQ((entry.ebx >> 16) & 0xff, 1u);
  auto entries = guest_cpuid({leaf(0xb)}, 0, 1, true);
  ASSERT_EQ(entries.size(), 3u);
  EXPECT_EQ(entries[1].eax, 0u);
  EXPECT_EQ(entries[1].ebx, 1u);
}

TEST(Cpuid, ThereIsNoNestedVirtualization) {
  EXPECT_FALSE(seen(full(0x1)).ecx & bit(5)) << "VMX";
  EXPECT_FALSE(seen(full(0x80000001)).ecx & bit(2)) << "SVM";
  kvm_cpuid_entry2 svm = seen(full(0x8000000a));
  EXPECT_EQ(svm.eax | svm.ebx | svm.ecx | svm.edx, 0u);
  // And nothing else goes with it.
  EXPECT_EQ(seen(full(0x80000001)).ecx, ~(bit(2) | bit(23) | bit(24) | bit(28)));
  EXPECT_EQ(seen(full(0x80000001)).edx, ~0u);
}

TEST(Cpuid, ThereAreNoPerformanceCounters) {
  for (uint32_t function : {0xau, 0x1cu, 0x23u, 0x80000022u}) {
    kvm_cpuid_entry2 entry = seen(full(function));
    EXPECT_EQ(entry.eax | entry.ebx | entry.ecx | entry.edx, 0u) << function;
  }
  EXPECT_FALSE(seen(full(0x1)).ecx & (bit(2) | bit(15))) << "DTES64, PDCM";
  EXPECT_FALSE(seen(full(0x1)).edx & bit(21)) << "DS";
  EXPECT_FALSE(seen(full(0x7)).edx & bit(19)) << "last branch records";
  EXPECT_EQ(seen(full(0x7, 1)).edx, ~0u) << "another subleaf";
  EXPECT_FALSE(seen(full(0x80000001)).ecx & (bit(23) | bit(24) | bit(28)));
}

TEST(Cpuid, PowerManagementIsTheHosts) {
  kvm_cpuid_entry2 entry = seen(full(0x6));
  EXPECT_EQ(entry.eax, bit(2)) << "ARAT";
  EXPECT_EQ(entry.ebx | entry.ecx, 0u);
}

TEST(Cpuid, CachesBelongToCoresOrToAll) {
  auto cache = [](uint32_t function, uint32_t level) {
    kvm_cpuid_entry2 entry = leaf(function, level);
    entry.eax = 1 | level << 5 | 0xfffu << 14 | 0x3fu << 26;  // a data cache, shared by all that is possible
    return entry;
  };
  for (uint32_t function : {0x4u, 0x8000001du}) {
    EXPECT_EQ((seen(cache(function, 1)).eax >> 14) & 0xfff, 0u) << function;
    EXPECT_EQ((seen(cache(function, 2)).eax >> 14) & 0xfff, 0u) << function;
    EXPECT_EQ((seen(cache(function, 3)).eax >> 14) & 0xfff, 7u) << "six cores need three bits";
  }
  EXPECT_EQ(seen(cache(0x4, 1)).eax >> 26, 7u) << "cores in the package";
  EXPECT_EQ(seen(cache(0x8000001d, 1)).eax >> 26, 0x3fu) << "reserved there";
  kvm_cpuid_entry2 none = leaf(0x4, 4);
  EXPECT_EQ(seen(none).eax >> 26, 0u) << "no more caches";
}

TEST(Cpuid, AmdsTopology) {
  kvm_cpuid_entry2 entry = seen(full(0x8000001e));
  EXPECT_EQ(entry.eax, 2u) << "APIC id";
  EXPECT_EQ(entry.ebx & 0xffff, 2u) << "core 2, one thread";
  EXPECT_EQ(entry.ecx, 0u) << "one node";
  EXPECT_EQ((seen(leaf(0x80000008)).ecx >> 12) & 0xf, 3u) << "bits of the APIC id";
}

TEST(Cpuid, Leaf1fIsMadeWhereTheHostHasOne) {
  auto entries = guest_cpuid({leaf(0x1f, 0), leaf(0x1f, 1), leaf(0x1f, 2), leaf(0x1f, 3)}, 4, 5, true);
  ASSERT_EQ(entries.size(), 3u);
  for (const auto& entry : entries) {
    EXPECT_EQ(entry.function, 0x1fu);
    EXPECT_EQ(entry.edx, 4u);
    EXPECT_TRUE(entry.flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX);
  }
  EXPECT_EQ(entries[0].ebx, 1u);
  EXPECT_EQ(entries[1].ebx, 5u);
  EXPECT_EQ(entries[1].eax, 3u);
  EXPECT_EQ(guest_cpuid({leaf(0x1)}, 0, 5, true).size(), 1u)
      << "neither 0xb nor 0x1f where the host has none";
}

TEST(Cpuid, TheBrandIsWhole) {
  std::string brand;
  for (uint32_t function = 0x80000002; function <= 0x80000004; ++function) {
    kvm_cpuid_entry2 entry = seen(full(function));
    for (uint32_t value : {entry.eax, entry.ebx, entry.ecx, entry.edx}) {
      brand.append(reinterpret_cast<const char*>(&value), 4);
    }
  }
  EXPECT_EQ(brand, "Haneul Virtual CPU" + std::string(48 - 18, '\0'));
}

}  // namespace
}  // namespace haneul::vmm::x86
