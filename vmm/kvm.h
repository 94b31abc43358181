// SPDX-License-Identifier: Apache-2.0
// Thin owners of KVM's three kinds of descriptor. Errors name the ioctl. Linux
// Documentation/virt/kvm/api.rst.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "vmm/kvm_uapi.h"

namespace haneul::vmm {

/// /dev/kvm itself.
class Kvm {
 public:
  /// Checks the API version and the capabilities that a machine here needs; the error says what is missing.
  static Result<Kvm> from_fd(UniqueFd fd);
  /// Opens /dev/kvm; the error says in one sentence what to do about a missing device or permission.
  static Result<Kvm> open();

  int capability(unsigned number) const;
  size_t vcpu_map_bytes() const { return vcpu_map_bytes_; }
  /// KVM_GET_SUPPORTED_CPUID.
  Result<std::vector<kvm_cpuid_entry2>> supported_cpuid() const;
  int fd() const { return fd_.get(); }

 private:
  Kvm(UniqueFd fd, size_t vcpu_map_bytes) : fd_(std::move(fd)), vcpu_map_bytes_(vcpu_map_bytes) {}
  UniqueFd fd_;
  size_t vcpu_map_bytes_;
};

/// One virtual machine. The ioctls used after construction are thread-safe in the kernel.
class KvmVm {
 public:
  static Result<KvmVm> create(const Kvm& kvm);

  Status set_memory(uint32_t slot, uint64_t gpa, uint64_t size, void* host) const;
  /// In-kernel PICs, IOAPIC and local APICs.
  Status create_irqchip() const;
  Status set_tss_and_identity_map(uint64_t tss_gpa, uint64_t identity_gpa) const;
  Result<UniqueFd> create_vcpu(unsigned index) const;
  Status set_irqfd(int eventfd, uint32_t gsi, bool assign) const;
  /// Any write at gpa (of any width) signals eventfd.
  Status set_ioeventfd(int eventfd, uint64_t gpa, bool assign) const;
  Status set_gsi_routing(std::span<const kvm_irq_routing_entry> entries) const;
  int fd() const { return fd_.get(); }

 private:
  explicit KvmVm(UniqueFd fd) : fd_(std::move(fd)) {}
  UniqueFd fd_;
};

}  // namespace haneul::vmm
