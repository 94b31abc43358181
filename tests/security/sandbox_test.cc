// SPDX-License-Identifier: Apache-2.0
// The system-call filter of each kind of thread, and the jail, tried from inside: in a child process that
// makes the call and either dies of it or tells how it went.
#include <dirent.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/capability.h>
#include <linux/futex.h>
#include <net/if.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "base/event_fd.h"
#include "base/file.h"
#include "vmm/kvm_uapi.h"
#include "vmm/sandbox/filters.h"
#include "vmm/sandbox/jail.h"

namespace haneul::vmm {
namespace {

constexpr ThreadKind kKinds[] = {ThreadKind::kControl, ThreadKind::kSpawner, ThreadKind::kVcpu,
                                 ThreadKind::kIo};
constexpr const char* kKindNames[] = {"control", "spawner", "vcpu", "io"};
const char* name_of(ThreadKind kind) {
  return kKindNames[static_cast<size_t>(kind)];
}

/// Runs `body` in a child; its wait status. The child's exit status is what body returns.
int in_child(const std::function<int()>& body) {
  pid_t child = ::fork();
  if (child == 0) {
    rlimit no_core{0, 0};
    ::setrlimit(RLIMIT_CORE, &no_core);
    ::_exit(body());
  }
  int status = 0;
  EXPECT_EQ(::waitpid(child, &status, 0), child);
  return status;
}

/// The same behind the filter of a kind of thread.
int behind_filter(ThreadKind kind, const std::function<int()>& body) {
  return in_child([&] {
    if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return 101;
    auto filters = Filters::compile();
    if (!filters.ok() || !filters->apply(kind).ok()) return 102;
    return body();
  });
}

bool killed_by_filter(int status) {
  return WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS;
}

struct Call {
  const char* name;
  std::function<void()> make;
};

long raw(long number, long a = 0, long b = 0, long c = 0, long d = 0, long e = 0, long f = 0) {
  return ::syscall(number, a, b, c, d, e, f);
}
long text(const char* pointer) {
  return reinterpret_cast<long>(pointer);
}

std::vector<Call> escapes() {
  static pid_t parent = ::getpid();
  return {
      {"open", [] { raw(SYS_open, text("/"), O_RDONLY); }},
      {"openat", [] { raw(SYS_openat, AT_FDCWD, text("/"), O_RDONLY); }},
      {"openat2", [] { raw(SYS_openat2, AT_FDCWD, text("/"), 0, 24); }},
      {"execve", [] { raw(SYS_execve, text("/bin/true"), 0, 0); }},
      {"execveat", [] { raw(SYS_execveat, AT_FDCWD, text("/bin/true"), 0, 0, 0); }},
      {"socket", [] { raw(SYS_socket, AF_UNIX, SOCK_STREAM); }},
      {"socketpair", [] { raw(SYS_socketpair, AF_UNIX, SOCK_STREAM); }},
      {"connect", [] { raw(SYS_connect, 0); }},
      {"bind", [] { raw(SYS_bind, 0); }},
      {"ptrace", [] { raw(SYS_ptrace, 0); }},
      {"process_vm_readv", [] { raw(SYS_process_vm_readv, parent); }},
      {"kill", [] { raw(SYS_kill, parent, 0); }},
      {"tgkill of another process", [] { raw(SYS_tgkill, parent, parent, 0); }},
      {"pidfd_open", [] { raw(SYS_pidfd_open, parent); }},
      {"fork", [] { raw(SYS_fork); }},
      {"vfork", [] { raw(SYS_vfork); }},
      {"clone into a user namespace", [] { raw(SYS_clone, CLONE_NEWUSER | SIGCHLD); }},
      {"clone as fork", [] { raw(SYS_clone, SIGCHLD); }},
      {"unshare", [] { raw(SYS_unshare, CLONE_NEWUSER); }},
      {"setns", [] { raw(SYS_setns, 0); }},
      {"mount", [] { raw(SYS_mount); }},
      {"chroot", [] { raw(SYS_chroot, text("/")); }},
      {"setuid", [] { raw(SYS_setuid, 0); }},
      {"capset", [] { raw(SYS_capset); }},
      {"bpf", [] { raw(SYS_bpf); }},
      {"userfaultfd", [] { raw(SYS_userfaultfd); }},
      {"perf_event_open", [] { raw(SYS_perf_event_open); }},
      {"keyctl", [] { raw(SYS_keyctl); }},
      {"unlink", [] { raw(SYS_unlink, text("/nothing")); }},
      {"getdents64", [] { raw(SYS_getdents64, 0); }},
      {"ioctl of a terminal", [] { raw(SYS_ioctl, 0, TIOCGWINSZ); }},
      {"ioctl that types into a terminal", [] { raw(SYS_ioctl, 0, TIOCSTI); }},
      {"prctl that makes it dumpable", [] { raw(SYS_prctl, PR_SET_DUMPABLE, 1); }},
      {"mmap of executable memory",
       [] { raw(SYS_mmap, 0, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1); }},
      {"mprotect to executable",
       [] { raw(SYS_mprotect, 0x10000, 4096, PROT_READ | PROT_WRITE | PROT_EXEC); }},
      {"a system call by its x32 number", [] { raw(0x40000000 + SYS_getpid); }},
  };
}

TEST(Filters, EveryEscapeKillsEveryKindOfThread) {
  for (ThreadKind kind : kKinds) {
    for (const Call& call : escapes()) {
      int status = behind_filter(kind, [&] {
        call.make();
        return 0;
      });
      EXPECT_TRUE(killed_by_filter(status)) << name_of(kind) << ": " << call.name << ", status " << status;
    }
  }
}

TEST(Filters, TheDoorOf32BitCallsIsShut) {
  for (ThreadKind kind : kKinds) {
    int status = behind_filter(kind, [] {
      long result = 20;  // getpid
      asm volatile("int $0x80" : "+a"(result)::"memory");
      return 0;
    });
    // A kernel without them answers with SIGSEGV.
    EXPECT_TRUE(WIFSIGNALED(status)) << name_of(kind);
  }
}

void expect_ioctl(ThreadKind kind, unsigned long request, bool allowed) {
  int status = behind_filter(kind, [&] {
    ::ioctl(-1, request, 0);
    return errno == EBADF ? 0 : 1;
  });
  EXPECT_EQ(allowed, WIFEXITED(status) && WEXITSTATUS(status) == 0) << name_of(kind) << " " << request;
  EXPECT_EQ(!allowed, killed_by_filter(status)) << name_of(kind) << " " << request;
}

TEST(Filters, EachKindHasItsOwnIoctls) {
  expect_ioctl(ThreadKind::kVcpu, KVM_RUN, true);
  expect_ioctl(ThreadKind::kVcpu, KVM_IRQFD, true);
  expect_ioctl(ThreadKind::kVcpu, KVM_KVMCLOCK_CTRL, true);
  expect_ioctl(ThreadKind::kIo, KVM_KVMCLOCK_CTRL, false);
  constexpr unsigned long kBuilding[] = {KVM_CREATE_VM, KVM_SET_USER_MEMORY_REGION, KVM_CREATE_VCPU,
                                         KVM_SET_REGS};
  for (unsigned long request : kBuilding) {
    expect_ioctl(ThreadKind::kVcpu, request, false);
    expect_ioctl(ThreadKind::kIo, request, false);
    expect_ioctl(ThreadKind::kControl, request, true);
  }
  expect_ioctl(ThreadKind::kIo, KVM_RUN, false);
}

TEST(Filters, OnlyTheControlThreadMakesRings) {
  for (ThreadKind kind : kKinds) {
    for (long number : {SYS_io_uring_setup, SYS_io_uring_register}) {
      int status = behind_filter(kind, [&] {
        raw(number, -1, 0);
        return 0;
      });
      EXPECT_EQ(kind != ThreadKind::kControl, killed_by_filter(status)) << name_of(kind) << " " << number;
    }
  }
}

TEST(Filters, OnlyTheControlThreadSends) {
  for (ThreadKind kind : kKinds) {
    int status = behind_filter(kind, [] {
      raw(SYS_sendto, -1);
      return 0;
    });
    EXPECT_EQ(kind != ThreadKind::kControl, killed_by_filter(status)) << name_of(kind);
  }
}

TEST(Filters, OrdinaryWorkPasses) {
  for (ThreadKind kind : kKinds) {
    int status = behind_filter(kind, [&] {
      if (::write(-1, "", 1) != -1 || errno != EBADF) return 1;
      auto event = EventFd::create();
      if (!event.ok()) return 2;
      event->signal();
      if (!event->drain()) return 3;
      std::vector<char> large(8 << 20, 'x');
      if (::prctl(PR_SET_NAME, "renamed") != 0) return 4;
      if (::syscall(SYS_futex, large.data(), FUTEX_WAKE, 1, nullptr, nullptr, 0) != 0) return 5;
      std::this_thread::sleep_for(std::chrono::microseconds(1));
      if (::syscall(SYS_tgkill, ::getpid(), ::getpid(), 0) != 0) return 6;
      return 0;
    });
    EXPECT_TRUE(WIFEXITED(status)) << name_of(kind) << " signal " << WTERMSIG(status);
    EXPECT_EQ(WEXITSTATUS(status), 0) << name_of(kind);
  }
}

TEST(Filters, TheSpawnerStartsThreadsAndBindsThem) {
  int status = in_child([] {
    ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    auto filters = Filters::compile();
    if (!filters.ok() || !filters->apply(ThreadKind::kSpawner).ok()) return 1;
    bool ran = false;
    std::thread([&] { ran = filters->apply(ThreadKind::kVcpu).ok(); }).join();
    if (!ran) return 2;
    std::thread([] { ::syscall(SYS_socket, AF_INET, SOCK_STREAM, 0); }).join();
    return 3;
  });
  EXPECT_TRUE(killed_by_filter(status)) << status;
}

// Without the allocator's part the C library makes calls of its own that are an escape here: to shrink a thread's arena it
// opens a file, to make the ninth arena it counts the processors.
TEST(Filters, ManyThreadsTakeAndGiveBackMemory) {
  int status = in_child([] {
    ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    auto filters = Filters::compile();
    std::thread([] {}).join();  // a process's first thread is prepared with a call that later ones need not
    if (!filters.ok() || !filters->apply(ThreadKind::kSpawner).ok()) return 1;
    std::atomic<int> ready{0};
    std::vector<std::thread> threads;
    for (int i = 0; i < 12; ++i) {
      threads.emplace_back([&] {
        if (!filters->apply(ThreadKind::kIo).ok()) return;
        std::vector<std::unique_ptr<char[]>> pages;
        for (int page = 0; page < 500; ++page) pages.push_back(std::make_unique<char[]>(4096));
        // All at once: an arena is shared when its thread is gone.
        for (++ready; ready < 12;) std::this_thread::yield();
      });
    }
    for (std::thread& thread : threads) thread.join();
    return ready == 12 ? 0 : 2;
  });
  EXPECT_TRUE(WIFEXITED(status)) << "signal " << WTERMSIG(status);
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

// ---- the jail ----

/// Tells in its exit status which promise does not hold, 0 for none.
int look_around(uid_t uid) {
  DIR* root = ::opendir("/");
  int seen = 0;
  while (root != nullptr && ::readdir(root) != nullptr) ++seen;
  if (seen > 2) return 1;  // "." and ".."
  for (const char* path : {"/proc", "/etc/passwd", "/dev/kvm", "/tmp", "/sys", "../../etc"}) {
    if (::access(path, F_OK) == 0) return 2;
  }
  if (::open("/file", O_CREAT | O_RDWR, 0600) >= 0 || ::mkdir("/folder", 0700) == 0) return 3;
  if (::mount("none", "/", "tmpfs", 0, nullptr) == 0) return 4;
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct sets[2];
  if (::syscall(SYS_capget, &header, sets) != 0) return 5;
  for (const auto& set : sets) {
    if (set.effective != 0 || set.permitted != 0 || set.inheritable != 0) return 6;
  }
  for (int capability = 0; capability <= CAP_LAST_CAP; ++capability) {
    if (::prctl(PR_CAPBSET_READ, capability, 0, 0, 0) == 1) return 7;
    if (::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, capability, 0, 0) == 1) return 8;
  }
  if (::getuid() != uid || ::geteuid() != uid) return 9;
  if (uid != 0 && ::setuid(0) == 0) return 10;
  if (::prctl(PR_GET_DUMPABLE, 0, 0, 0, 0) != 0) return 11;
  if (::prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 1) return 12;
  rlimit core{1, 1};
  if (::getrlimit(RLIMIT_CORE, &core) != 0 || core.rlim_max != 0) return 13;
  // Nothing but a loopback interface, and that is down.
  struct if_nameindex* list = ::if_nameindex();
  if (list == nullptr) return 14;
  for (size_t i = 0; list[i].if_index != 0; ++i) {
    if (std::string_view(list[i].if_name) != "lo") return 15;
  }
  UniqueFd socket(::socket(AF_INET, SOCK_DGRAM, 0));
  ifreq loopback{};
  std::string_view("lo").copy(loopback.ifr_name, 2);
  if (!socket || ::ioctl(socket.get(), SIOCGIFFLAGS, &loopback) != 0) return 16;
  if ((loopback.ifr_flags & IFF_UP) != 0) return 17;
  return 0;
}

TEST(Jail, OfRootIsEmptyAndSomebodyElses) {
  if (::geteuid() != 0) GTEST_SKIP() << "not root";
  int status = in_child([] {
    Status jailed = enter_jail({.uid = 65534, .gid = 65533});
    if (!jailed.ok()) {
      std::fprintf(stderr, "%s\n", jailed.error().message().c_str());
      return 100;
    }
    if (::getgid() != 65533 || ::getgroups(0, nullptr) != 0) return 99;
    return look_around(65534);
  });
  ASSERT_TRUE(WIFEXITED(status)) << status;
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

TEST(Jail, OfAnOrdinaryUserIsAsEmpty) {
  constexpr int kNoNamespaces = 98;
  int status = in_child([] {
    if (::geteuid() == 0 &&
        (::setresgid(65534, 65534, 65534) != 0 || ::setresuid(65534, 65534, 65534) != 0)) {
      return 97;
    }
    // As after an exec.
    ::prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
    Status jailed = enter_jail({});
    if (!jailed.ok()) {
      std::fprintf(stderr, "%s\n", jailed.error().message().c_str());
      return jailed.error().message().starts_with("this kernel gives no namespaces") ? kNoNamespaces : 100;
    }
    return look_around(0);  // its own 0: the outside sees the user
  });
  ASSERT_TRUE(WIFEXITED(status)) << status;
  if (WEXITSTATUS(status) == kNoNamespaces) GTEST_SKIP() << "no user namespaces here";
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

}  // namespace
}  // namespace haneul::vmm
