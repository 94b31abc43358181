// SPDX-License-Identifier: Apache-2.0
#include "vmm/probe.h"

#include <sys/ioctl.h>
#include <sys/mman.h>

#include <array>
#include <cerrno>

#include "vmm/arch/x86_64/boot.h"
#include "vmm/arch/x86_64/layout.h"
#include "vmm/ram.h"

namespace haneul::vmm {
namespace {

constexpr uint64_t kCodeGpa = 0x100000;
constexpr uint16_t kDonePort = 0x80;

// cmpxchg16b is in every allocator of a kernel, and no interpreter of kernels that was met had it.
constexpr std::array<uint8_t, 16> kCode = {
    0x48, 0x8d,      0x3c, 0x25, 0x00, 0x00, 0x03, 0x00,  // lea rdi, [0x30000]
    0xf0, 0x48,      0x0f, 0xc7, 0x0f,                    // lock cmpxchg16b [rdi]
    0xe6, kDonePort,                                      // out 0x80, al
    0xf4,                                                 // hlt
};

}  // namespace

Status probe_linux(const Kvm& kvm) {
  KvmVm vm = TRY(KvmVm::create(kvm));
  auto ram = TRY(GuestRam::create(2_MiB, false));
  TRY(ram->map_into(vm));
  TRY(x86::write_boot_data(ram->memory(), ram->bytes(), KernelImage{}, InitrdPlace{}, ""));
  CHECK(ram->memory().write({kCodeGpa}, std::as_bytes(std::span(kCode))));
  TRY(vm.set_tss_and_identity_map(x86::kTssGpa, x86::kIdentityMapGpa));
  UniqueFd vcpu = TRY(vm.create_vcpu(0));
  TRY(x86::set_boot_registers(vcpu, kCodeGpa));

  void* map = ::mmap(nullptr, kvm.vcpu_map_bytes(), PROT_READ, MAP_SHARED, vcpu.get(), 0);
  if (map == MAP_FAILED) return errno_error("mapping the probe's vCPU");
  const auto* run = static_cast<const kvm_run*>(map);
  int outcome = 0;
  do {
    outcome = ::ioctl(vcpu.get(), KVM_RUN, 0);
  } while (outcome != 0 && (errno == EINTR || errno == EAGAIN));
  bool done = outcome == 0 && run->exit_reason == KVM_EXIT_IO && run->io.port == kDonePort;
  uint32_t reason = run->exit_reason;
  ::munmap(map, kvm.vcpu_map_bytes());
  if (done) return {};
  return make_error(
      ErrorCode::kUnsupported,
      "this machine's /dev/kvm cannot run Linux guests: it stops at an instruction that every kernel uses "
      "(exit reason {}); it has no hardware virtualization behind it",
      reason);
}

}  // namespace haneul::vmm
