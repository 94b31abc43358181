// SPDX-License-Identifier: Apache-2.0
#include "vmm/sandbox/jail.h"

#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <string_view>

#include "base/file.h"

namespace haneul::vmm {
namespace {

// One id inside, ours outside; supplementary groups are given up for good.
Status map_own_user(uid_t uid, gid_t gid) {
  auto write_map = [](const char* path, const std::string& text) -> Status {
    UniqueFd fd = TRY(open_file(path, O_WRONLY));
    return write_all(fd.get(), std::as_bytes(std::span(text)));
  };
  TRY(write_map("/proc/self/setgroups", "deny"));
  TRY(write_map("/proc/self/uid_map", fmt::format("0 {} 1\n", uid)));
  return write_map("/proc/self/gid_map", fmt::format("0 {} 1\n", gid));
}

Status enter_namespaces() {
  constexpr int kSpaces = CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP;
  if (::geteuid() == 0) {
    if (::unshare(kSpaces) == 0) return {};
    if (errno != EPERM) return errno_error("unshare");
  }
  uid_t uid = ::geteuid();
  gid_t gid = ::getegid();
  if (::unshare(CLONE_NEWUSER | kSpaces) != 0) {
    return errno_error(
        "this kernel gives no namespaces to unprivileged users (is kernel.unprivileged_userns_clone or "
        "user.max_user_namespaces set to 0?)");
  }
  return map_own_user(uid, gid);
}

// An empty tmpfs becomes the root, and the old root is let go.
Status enter_empty_root() {
  if (::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0)
    return errno_error("making mounts private");
  constexpr unsigned long kFlags = MS_NOSUID | MS_NODEV | MS_NOEXEC;
  if (::mount("none", "/proc", "tmpfs", kFlags, "size=4k,nr_inodes=2,mode=000") != 0) {
    return errno_error("mounting an empty root");
  }
  if (::chdir("/proc") != 0) return errno_error("chdir");
  if (::syscall(SYS_pivot_root, ".", ".") != 0) return errno_error("pivot_root");
  if (::umount2(".", MNT_DETACH) != 0) return errno_error("letting go of the old root");
  if (::mount(nullptr, "/", nullptr, MS_REMOUNT | MS_BIND | MS_RDONLY | kFlags, nullptr) != 0) {
    return errno_error("making the root read-only");
  }
  if (::chdir("/") != 0) return errno_error("chdir");
  return {};
}

Status drop_privileges(const JailOptions& options) {
  // Nothing can come back through the bounding set or an exec of a set-uid file.
  for (int capability = 0; capability <= CAP_LAST_CAP; ++capability)
    ::prctl(PR_CAPBSET_DROP, capability, 0, 0, 0);
  if (options.gid) {
    if (::setgroups(0, nullptr) != 0) return errno_error("setgroups");
    if (::setresgid(*options.gid, *options.gid, *options.gid) != 0) return errno_error("setresgid");
  }
  if (options.uid && ::setresuid(*options.uid, *options.uid, *options.uid) != 0)
    return errno_error("setresuid");
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  std::array<__user_cap_data_struct, 2> none{};
  if (::syscall(SYS_capset, &header, none.data()) != 0) return errno_error("capset");
  if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return errno_error("PR_SET_NO_NEW_PRIVS");
  // Guest memory must not end in a core file, nor be read by another process of the same user.
  if (::prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0) return errno_error("PR_SET_DUMPABLE");
  rlimit no_core{0, 0};
  if (::setrlimit(RLIMIT_CORE, &no_core) != 0) return errno_error("setrlimit");
  return {};
}

}  // namespace

Status enter_jail(const JailOptions& options) {
  TRY(enter_namespaces());
  TRY(enter_empty_root());
  return drop_privileges(options);
}

}  // namespace haneul::vmm
