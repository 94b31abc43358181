// SPDX-License-Identifier: Apache-2.0
#include "vmm/ram.h"

#include <linux/mman.h>
#include <sys/mman.h>

#include <algorithm>

#include "vmm/arch/x86_64/layout.h"

namespace haneul::vmm {

Result<std::unique_ptr<GuestRam>> GuestRam::create(uint64_t bytes, bool huge_pages) {
  if (bytes < 2_MiB || !is_aligned(bytes, 2_MiB) || bytes > 4_TiB) {
    return make_error(ErrorCode::kInvalidArgument,
                      "memory must be a multiple of 2 MiB up to 4 TiB, not {} bytes", bytes);
  }
  // Room to begin at a multiple of 2 MiB, so that huge pages fit; what is over goes back.
  uint64_t span = bytes + 2_MiB;
  int flags = MAP_PRIVATE | MAP_ANONYMOUS | (huge_pages ? MAP_HUGETLB | MAP_HUGE_2MB : MAP_NORESERVE);
  if (huge_pages) span = bytes;  // these are aligned
  void* mapped = ::mmap(nullptr, span, PROT_READ | PROT_WRITE, flags, -1, 0);
  if (mapped == MAP_FAILED) {
    return errno_error(
        "cannot map {} MiB of guest memory{}", bytes >> 20,
        huge_pages
            ? " with huge pages (are enough of 2 MiB reserved, see HugePages_Free in /proc/meminfo and "
              "/proc/sys/vm/nr_hugepages?)"
            : "");
  }
  auto* begin = static_cast<std::byte*>(mapped);
  std::byte* host =
      begin + (align_up(reinterpret_cast<uintptr_t>(begin), 2_MiB) - reinterpret_cast<uintptr_t>(begin));
  if (host != begin) ::munmap(begin, static_cast<size_t>(host - begin));
  std::byte* over = host + bytes;
  if (over != begin + span) ::munmap(over, static_cast<size_t>(begin + span - over));
  ::madvise(host, bytes, MADV_HUGEPAGE);
  ::madvise(host, bytes, MADV_DONTDUMP);
  return std::unique_ptr<GuestRam>(new GuestRam(host, bytes));
}

GuestRam::GuestRam(std::byte* host, uint64_t bytes) : host_(host), bytes_(bytes) {
  std::vector<devices::GuestMemory::Region> regions;
  uint64_t low = low_end();
  regions.push_back({{0}, low, host});
  if (bytes > low) regions.push_back({{x86::kHoleEnd}, bytes - low, host + low});
  memory_ = std::make_unique<devices::GuestMemory>(std::move(regions));
}

GuestRam::~GuestRam() {
  ::munmap(host_, bytes_);
}

uint64_t GuestRam::low_end() const {
  return std::min(bytes_, x86::kHoleGpa);
}

Status GuestRam::map_into(const KvmVm& vm) const {
  uint32_t slot = 0;
  for (const auto& region : memory_->regions()) {
    TRY(vm.set_memory(slot++, region.start.value, region.size, region.host));
  }
  return {};
}

}  // namespace haneul::vmm
