// SPDX-License-Identifier: Apache-2.0
#include "vmm/ram.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>

#include "vmm/arch/x86_64/layout.h"

namespace haneul::vmm {

Result<std::unique_ptr<GuestRam>> GuestRam::create(uint64_t bytes, bool huge_pages) {
  if (bytes < 2_MiB || !is_aligned(bytes, 2_MiB) || bytes > 4_TiB) {
    return make_error(ErrorCode::kInvalidArgument,
                      "memory must be a multiple of 2 MiB up to 4 TiB, not {} bytes", bytes);
  }
  unsigned flags = MFD_CLOEXEC | (huge_pages ? MFD_HUGETLB : 0U);
  UniqueFd fd(::memfd_create("guest-ram", flags));
  if (!fd) return errno_error("cannot make {} MiB of guest memory", bytes >> 20);
  if (::ftruncate(fd.get(), static_cast<off_t>(bytes)) != 0) {
    return errno_error("cannot size the guest memory to {} MiB", bytes >> 20);
  }
  void* host = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | (huge_pages ? 0 : MAP_NORESERVE),
                      fd.get(), 0);
  if (host == MAP_FAILED) {
    return errno_error("cannot map {} MiB of guest memory{}", bytes >> 20,
                       huge_pages ? " (are enough huge pages reserved in /proc/sys/vm/nr_hugepages?)" : "");
  }
  ::madvise(host, bytes, MADV_DONTDUMP);
  return std::unique_ptr<GuestRam>(new GuestRam(std::move(fd), static_cast<std::byte*>(host), bytes));
}

GuestRam::GuestRam(UniqueFd fd, std::byte* host, uint64_t bytes)
    : fd_(std::move(fd)), host_(host), bytes_(bytes) {
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
