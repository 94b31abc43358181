// SPDX-License-Identifier: Apache-2.0
#include "vmm/sandbox/filters.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <linux/futex.h>
#include <linux/if_tun.h>
#include <linux/seccomp.h>
#include <malloc.h>
#include <sched.h>
#include <seccomp.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <memory>
#include <set>

#include "base/file.h"
#include "vmm/kvm_uapi.h"

namespace haneul::vmm {
namespace {

using Context = std::unique_ptr<void, decltype(&::seccomp_release)>;

/// Collects rules; the first failure is kept and reported by finish().
class Builder {
 public:
  Builder() : context_(::seccomp_init(SCMP_ACT_KILL_PROCESS), &::seccomp_release) {}

  void allow(std::initializer_list<int> calls) {
    for (int call : calls) {
      if (plain_.insert(call).second) note(::seccomp_rule_add(context_.get(), SCMP_ACT_ALLOW, call, 0), call);
    }
  }
  /// Allows the call where its argument equals one of the values.
  void allow_values(int call, unsigned argument, std::initializer_list<uint64_t> values) {
    for (uint64_t value : values) {
      if (!valued_.insert({call, argument, value}).second) continue;
      scmp_arg_cmp compare{argument, SCMP_CMP_MASKED_EQ, 0xffffffff, value};
      note(::seccomp_rule_add_array(context_.get(), SCMP_ACT_ALLOW, call, 1, &compare), call);
    }
  }
  /// Allows the call where none of these bits is set in its argument.
  void allow_without_bits(int call, unsigned argument, uint64_t bits) {
    if (!valued_.insert({call, argument, bits}).second) return;
    scmp_arg_cmp compare{argument, SCMP_CMP_MASKED_EQ, bits, 0};
    note(::seccomp_rule_add_array(context_.get(), SCMP_ACT_ALLOW, call, 1, &compare), call);
  }

  /// The call fails with ENOSYS, as on a kernel that does not know it.
  void unknown(int call) { note(::seccomp_rule_add(context_.get(), SCMP_ACT_ERRNO(ENOSYS), call, 0), call); }

  Result<std::vector<sock_filter>> finish() {
    if (failure_ != 0)
      return Error::from_errno(failure_, fmt::format("seccomp rule for system call {}", failed_call_));
    UniqueFd file = TRY(make_memfd("filter"));
    int exported = ::seccomp_export_bpf(context_.get(), file.get());
    if (exported < 0) return Error::from_errno(-exported, "compiling a seccomp filter");
    std::vector<sock_filter> program(TRY(file_size(file.get())) / sizeof(sock_filter));
    TRY(read_exact_at(file.get(), 0, std::as_writable_bytes(std::span(program))));
    return program;
  }

 private:
  void note(int outcome, int call) {
    if (outcome == 0 || failure_ != 0) return;
    failure_ = -outcome;
    failed_call_ = call;
  }
  Context context_;
  std::set<int> plain_;
  std::set<std::tuple<int, unsigned, uint64_t>> valued_;
  int failure_ = 0;
  int failed_call_ = 0;
};

// What the C library needs in any thread: memory, locks, signals, time, and the end.
void allow_runtime(Builder& b) {
  b.allow({SYS_brk, SYS_munmap, SYS_madvise, SYS_futex, SYS_rt_sigreturn, SYS_rt_sigprocmask, SYS_sigaltstack,
           SYS_restart_syscall, SYS_exit, SYS_exit_group, SYS_gettid, SYS_getpid, SYS_sched_yield,
           SYS_clock_gettime, SYS_clock_nanosleep, SYS_nanosleep, SYS_getrandom, SYS_mremap});
  // Memory is never executable.
  b.allow_without_bits(SYS_mmap, 2, PROT_EXEC);
  b.allow_without_bits(SYS_mprotect, 2, PROT_EXEC);
  b.allow_values(SYS_tgkill, 0, {static_cast<uint64_t>(::getpid())});
  b.allow_values(SYS_prctl, 0, {PR_SET_NAME});
  b.allow({SYS_read, SYS_write, SYS_writev, SYS_close, SYS_eventfd2});
}

void allow_vcpu(Builder& b) {
  allow_runtime(b);
  b.allow_values(SYS_ioctl, 1,
                 {KVM_RUN, KVM_IRQFD, KVM_IOEVENTFD, KVM_SET_GSI_ROUTING, KVM_GET_REGS, KVM_KVMCLOCK_CTRL});
  // A guest's driver brings its network device up by a register write, and the device tells the tap what it
  // may send.
  b.allow_values(SYS_ioctl, 1, {TUNSETOFFLOAD, TUNSETVNETHDRSZ});
}

void allow_io(Builder& b) {
  allow_runtime(b);
  // Rings are made by the control thread, restricted (storage/io_ring.cc).
  b.allow({SYS_io_uring_enter, SYS_readv, SYS_preadv, SYS_pwritev, SYS_pread64, SYS_pwrite64, SYS_fallocate,
           SYS_fdatasync, SYS_fsync, SYS_poll, SYS_ppoll});
  // A snapshot looks at the layer that it puts on top.
  b.allow({SYS_fstat, SYS_lseek});
  b.allow_values(SYS_newfstatat, 3, {AT_EMPTY_PATH});
  // A vector that the guest reprogrammed is routed when it is next raised.
  b.allow_values(SYS_ioctl, 1, {KVM_IRQFD, KVM_SET_GSI_ROUTING});
}

void allow_control(Builder& b) {
  allow_vcpu(b);
  allow_io(b);
  b.allow({SYS_io_uring_setup, SYS_io_uring_register, SYS_epoll_create1, SYS_epoll_wait, SYS_epoll_pwait,
           SYS_epoll_ctl, SYS_accept4, SYS_recvmsg, SYS_sendmsg, SYS_recvfrom, SYS_sendto, SYS_memfd_create,
           SYS_ftruncate, SYS_flock});
  b.allow_values(SYS_setsockopt, 2, {SO_SNDBUF});
  b.allow_values(SYS_fcntl, 1, {F_DUPFD_CLOEXEC, F_GETFL, F_SETFL, F_GETFD, F_OFD_SETLK, F_OFD_GETLK});
  // A reset builds the next machine, and a disk may come.
  b.allow_values(SYS_ioctl, 1,
                 {KVM_GET_API_VERSION, KVM_CHECK_EXTENSION, KVM_GET_VCPU_MMAP_SIZE, KVM_GET_SUPPORTED_CPUID,
                  KVM_CREATE_VM, KVM_SET_USER_MEMORY_REGION, KVM_SET_IDENTITY_MAP_ADDR, KVM_SET_TSS_ADDR,
                  KVM_CREATE_IRQCHIP, KVM_CREATE_VCPU, KVM_SET_CPUID2, KVM_SET_MSRS, KVM_GET_SREGS,
                  KVM_SET_SREGS, KVM_SET_REGS, BLKGETSIZE64, TUNGETIFF});
}

void allow_spawner(Builder& b) {
  allow_vcpu(b);
  allow_io(b);
  b.unknown(SYS_clone3);
  // glibc falls back to clone() when clone3() is unknown, and only clone()'s flags can be looked at.
  b.allow_values(SYS_clone, 0,
                 {CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM |
                  CLONE_SETTLS | CLONE_PARENT_SETTID | CLONE_CHILD_CLEARTID});
  b.allow({SYS_set_robust_list, SYS_rseq});
  b.allow_values(SYS_seccomp, 0, {SECCOMP_SET_MODE_FILTER});
}

}  // namespace

Result<Filters> Filters::compile() {
  // glibc gives threads arenas of their own. To shrink one it reads /proc/sys/vm/overcommit_memory, to make the ninth
  // it counts the processors: calls that are an escape here, made by any free() or malloc(). The main arena needs brk
  // and mmap alone.
  CHECK(::mallopt(M_ARENA_MAX, 1) == 1);
  Filters filters;
  using Rules = void (*)(Builder&);
  constexpr std::array<Rules, 4> kRules = {allow_control, allow_spawner, allow_vcpu, allow_io};
  for (size_t i = 0; i < kRules.size(); ++i) {
    Builder builder;
    kRules[i](builder);
    filters.programs_[i] = TRY(builder.finish());
  }
  return filters;
}

Status Filters::apply(ThreadKind kind) const {
  const auto& program = programs_[static_cast<size_t>(kind)];
  sock_fprog header{static_cast<unsigned short>(program.size()), const_cast<sock_filter*>(program.data())};
  if (::syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &header) != 0) return errno_error("seccomp");
  return {};
}

}  // namespace haneul::vmm
