// SPDX-License-Identifier: Apache-2.0
#include "vmm/kvm.h"

#include <fcntl.h>
#include <sys/ioctl.h>

#include <cerrno>
#include <cstring>

#include "base/file.h"

namespace haneul::vmm {
namespace {

struct Need {
  unsigned capability;
  const char* name;
};

constexpr Need kNeeds[] = {
    {KVM_CAP_IRQCHIP, "in-kernel interrupt controllers"},
    {KVM_CAP_USER_MEMORY, "user memory"},
    {KVM_CAP_IRQFD, "irqfd"},
    {KVM_CAP_IOEVENTFD, "ioeventfd"},
    {KVM_CAP_IRQ_ROUTING, "interrupt routing"},
    {KVM_CAP_IMMEDIATE_EXIT, "immediate exit"},
    {KVM_CAP_EXT_CPUID, "extended CPUID"},
};

}  // namespace

Result<Kvm> Kvm::open() {
  UniqueFd fd(::open("/dev/kvm", O_RDWR | O_CLOEXEC));
  if (!fd) {
    int number = errno;
    const char* advice = "";
    if (number == ENOENT) {
      advice =
          "this machine offers no virtualization: load kvm_intel or kvm_amd, or switch it on in the firmware";
    } else if (number == EACCES || number == EPERM) {
      advice = "add yourself to the group kvm (usermod -aG kvm USER) and log in again";
    } else {
      advice = "see dmesg for why KVM is unusable";
    }
    return Error::from_errno(number, "cannot open /dev/kvm").context(advice);
  }
  return from_fd(std::move(fd));
}

Result<Kvm> Kvm::from_fd(UniqueFd fd) {
  int version = ::ioctl(fd.get(), KVM_GET_API_VERSION, 0);
  if (version < 0) return errno_error("the KVM descriptor is not /dev/kvm (KVM_GET_API_VERSION)");
  if (version != KVM_API_VERSION) {
    return make_error(ErrorCode::kUnsupported, "KVM speaks API version {}, Haneul needs {}", version,
                      KVM_API_VERSION);
  }
  for (const Need& need : kNeeds) {
    if (::ioctl(fd.get(), KVM_CHECK_EXTENSION, need.capability) <= 0) {
      return make_error(ErrorCode::kUnsupported, "this KVM lacks {} (capability {})", need.name,
                        need.capability);
    }
  }
  int bytes = ::ioctl(fd.get(), KVM_GET_VCPU_MMAP_SIZE, 0);
  if (bytes < static_cast<int>(sizeof(kvm_run))) return errno_error("KVM_GET_VCPU_MMAP_SIZE");
  return Kvm(std::move(fd), static_cast<size_t>(bytes));
}

int Kvm::capability(unsigned number) const {
  return ::ioctl(fd_.get(), KVM_CHECK_EXTENSION, number);
}

Result<std::vector<kvm_cpuid_entry2>> Kvm::supported_cpuid() const {
  // The kernel refuses with E2BIG until there is room for all.
  for (uint32_t room = 100; room <= 3200; room *= 2) {
    std::vector<std::byte> raw(sizeof(kvm_cpuid2) + room * sizeof(kvm_cpuid_entry2));
    auto* list = reinterpret_cast<kvm_cpuid2*>(raw.data());
    list->nent = room;
    if (::ioctl(fd_.get(), KVM_GET_SUPPORTED_CPUID, list) == 0) {
      return std::vector<kvm_cpuid_entry2>(list->entries, list->entries + list->nent);
    }
    if (errno != E2BIG) return errno_error("KVM_GET_SUPPORTED_CPUID");
  }
  return make_error(ErrorCode::kUnsupported, "KVM_GET_SUPPORTED_CPUID has more than 3200 entries");
}

Result<KvmVm> KvmVm::create(const Kvm& kvm) {
  // A signal makes KVM_CREATE_VM fail with EINTR while it waits.
  for (;;) {
    UniqueFd fd(::ioctl(kvm.fd(), KVM_CREATE_VM, 0));
    if (fd) return KvmVm(std::move(fd));
    if (errno != EINTR) return errno_error("KVM_CREATE_VM");
  }
}

Status KvmVm::set_memory(uint32_t slot, uint64_t gpa, uint64_t size, void* host) const {
  kvm_userspace_memory_region region{};
  region.slot = slot;
  region.guest_phys_addr = gpa;
  region.memory_size = size;
  region.userspace_addr = reinterpret_cast<uint64_t>(host);
  if (::ioctl(fd_.get(), KVM_SET_USER_MEMORY_REGION, &region) != 0) {
    return errno_error("KVM_SET_USER_MEMORY_REGION of {} MiB at {:#x}", size >> 20, gpa);
  }
  return {};
}

Status KvmVm::create_irqchip() const {
  if (::ioctl(fd_.get(), KVM_CREATE_IRQCHIP, 0) != 0) return errno_error("KVM_CREATE_IRQCHIP");
  return {};
}

Status KvmVm::set_tss_and_identity_map(uint64_t tss_gpa, uint64_t identity_gpa) const {
  if (::ioctl(fd_.get(), KVM_SET_IDENTITY_MAP_ADDR, &identity_gpa) != 0)
    return errno_error("KVM_SET_IDENTITY_MAP_ADDR");
  if (::ioctl(fd_.get(), KVM_SET_TSS_ADDR, tss_gpa) != 0) return errno_error("KVM_SET_TSS_ADDR");
  return {};
}

Result<UniqueFd> KvmVm::create_vcpu(unsigned index) const {
  UniqueFd fd(::ioctl(fd_.get(), KVM_CREATE_VCPU, index));
  if (!fd) return errno_error("KVM_CREATE_VCPU {}", index);
  return fd;
}

Status KvmVm::set_irqfd(int eventfd, uint32_t gsi, bool assign) const {
  kvm_irqfd request{};
  request.fd = static_cast<uint32_t>(eventfd);
  request.gsi = gsi;
  request.flags = assign ? 0 : KVM_IRQFD_FLAG_DEASSIGN;
  if (::ioctl(fd_.get(), KVM_IRQFD, &request) != 0) return errno_error("KVM_IRQFD for interrupt {}", gsi);
  return {};
}

Status KvmVm::set_ioeventfd(int eventfd, uint64_t gpa, bool assign) const {
  kvm_ioeventfd request{};
  request.addr = gpa;
  request.len = 0;
  request.fd = eventfd;
  request.flags = assign ? 0 : KVM_IOEVENTFD_FLAG_DEASSIGN;
  if (::ioctl(fd_.get(), KVM_IOEVENTFD, &request) != 0) return errno_error("KVM_IOEVENTFD at {:#x}", gpa);
  return {};
}

Status KvmVm::set_gsi_routing(std::span<const kvm_irq_routing_entry> entries) const {
  std::vector<std::byte> raw(sizeof(kvm_irq_routing) + entries.size_bytes());
  auto* table = reinterpret_cast<kvm_irq_routing*>(raw.data());
  table->nr = static_cast<uint32_t>(entries.size());
  std::memcpy(table->entries, entries.data(), entries.size_bytes());
  if (::ioctl(fd_.get(), KVM_SET_GSI_ROUTING, table) != 0) {
    return errno_error("KVM_SET_GSI_ROUTING of {} entries", entries.size());
  }
  return {};
}

}  // namespace haneul::vmm
