// SPDX-License-Identifier: Apache-2.0
// The floor under every VMM's start: what a program has to do until a guest runs, and nothing else. Opens
// /dev/kvm, makes a VM with 128 MiB in one slot, an interrupt controller and a vCPU, enters the guest, whose
// first instruction writes to the serial port, and passes that byte on to standard output, as a VMM does.
#include <fcntl.h>
#include <linux/kvm.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstring>

namespace {

constexpr uint64_t kMemoryBytes = 128 << 20;
constexpr uint64_t kCodeGpa = 0x1000;
constexpr uint8_t kCode[] = {
    0xba, 0xf8, 0x03,  // mov dx, 0x3f8
    0xb0, '!',         // mov al, '!'
    0xee,              // out dx, al
    0xf4,              // hlt
};

[[noreturn]] void fail(const char* what) {
  std::perror(what);
  ::_exit(1);
}

int check(int result, const char* what) {
  if (result < 0) fail(what);
  return result;
}

void* map(int fd, size_t bytes, int flags) {
  void* place = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, flags, fd, 0);
  if (place == MAP_FAILED) fail("mmap");
  return place;
}

void give_memory(int vm) {
  auto* memory = static_cast<uint8_t*>(map(-1, kMemoryBytes, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE));
  std::memcpy(memory + kCodeGpa, kCode, sizeof kCode);
  kvm_userspace_memory_region slot{};
  slot.memory_size = kMemoryBytes;
  slot.userspace_addr = reinterpret_cast<uint64_t>(memory);
  check(::ioctl(vm, KVM_SET_USER_MEMORY_REGION, &slot), "KVM_SET_USER_MEMORY_REGION");
}

// Real mode is what a vCPU begins in, so only the place of the code has to be set.
void set_registers(int vcpu) {
  kvm_sregs special{};
  check(::ioctl(vcpu, KVM_GET_SREGS, &special), "KVM_GET_SREGS");
  special.cs.base = 0;
  special.cs.selector = 0;
  check(::ioctl(vcpu, KVM_SET_SREGS, &special), "KVM_SET_SREGS");
  kvm_regs registers{};
  registers.rip = kCodeGpa;
  registers.rflags = 2;
  check(::ioctl(vcpu, KVM_SET_REGS, &registers), "KVM_SET_REGS");
}

}  // namespace

int main() {
  int kvm = check(::open("/dev/kvm", O_RDWR | O_CLOEXEC), "/dev/kvm");
  int vm = check(::ioctl(kvm, KVM_CREATE_VM, 0), "KVM_CREATE_VM");
  give_memory(vm);
  check(::ioctl(vm, KVM_CREATE_IRQCHIP, 0), "KVM_CREATE_IRQCHIP");
  int vcpu = check(::ioctl(vm, KVM_CREATE_VCPU, 0), "KVM_CREATE_VCPU");
  int run_bytes = check(::ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0), "KVM_GET_VCPU_MMAP_SIZE");
  auto* run = static_cast<kvm_run*>(map(vcpu, static_cast<size_t>(run_bytes), MAP_SHARED));
  set_registers(vcpu);
  check(::ioctl(vcpu, KVM_RUN, 0), "KVM_RUN");
  if (run->exit_reason != KVM_EXIT_IO || run->io.port != 0x3f8) {
    std::fprintf(stderr, "floor: the guest stopped for another reason: %u\n", run->exit_reason);
    return 1;
  }
  const auto* byte = reinterpret_cast<const char*>(run) + run->io.data_offset;
  return ::write(STDOUT_FILENO, byte, 1) == 1 ? 0 : 1;
}
