// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <sched.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <thread>

#include "base/file.h"
#include "net/fabric.h"
#include "net/netlink.h"

namespace haneul::net {
namespace {

Status write_proc(const std::string& path, const std::string& text) {
  UniqueFd file = TRY(open_file(path, O_WRONLY));
  return write_all(file.get(), std::as_bytes(std::span(text))).context(path);
}

Error refused(int number) {
  if (number == EINVAL) {
    return make_error(ErrorCode::kInternal, "a private network must be entered before any thread starts");
  }
  if (number == EPERM || number == ENOSPC || number == ENOSYS || number == EUSERS) {
    return make_error(
        ErrorCode::kPermission,
        "this kernel lets no unprivileged process have a network of its own (user namespaces are "
        "off: see the sysctls user.max_user_namespaces, kernel.unprivileged_userns_clone and "
        "kernel.apparmor_restrict_unprivileged_userns): run haneuld as root");
  }
  return Error::from_errno(number, "making a private network namespace");
}

/// Inside, the process keeps its numbers: files, sockets and ssh go on seeing the same user.
Status map_own_ids(uid_t uid, gid_t gid) {
  // Without this the kernel does not let an unprivileged process map its group (user_namespaces(7)).
  TRY(write_proc("/proc/self/setgroups", "deny"));
  TRY(write_proc("/proc/self/uid_map", fmt::format("{} {} 1", uid, uid)));
  return write_proc("/proc/self/gid_map", fmt::format("{} {} 1", gid, gid));
}

Result<bool> same_namespace(const std::string& ours, const std::string& theirs) {
  struct stat a {};
  struct stat b {};
  if (::stat(ours.c_str(), &a) != 0) return errno_error("{}", ours);
  if (::stat(theirs.c_str(), &b) != 0) return errno_error("{}", theirs);
  return a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

}  // namespace

Status enter_private_namespace() {
  uid_t uid = ::geteuid();
  gid_t gid = ::getegid();
  if (::unshare(CLONE_NEWNET) != 0) {
    if (errno != EPERM) return refused(errno);
    if (::unshare(CLONE_NEWUSER | CLONE_NEWNET) != 0) return refused(errno);
    Status mapped = map_own_ids(uid, gid);
    if (!mapped.ok() && mapped.error().code() == ErrorCode::kPermission) return refused(EPERM);
    TRY(std::move(mapped));
  }
  Netlink netlink = TRY(Netlink::open());
  auto lo = TRY(netlink.link("lo"));
  if (!lo) return make_error(ErrorCode::kInternal, "a new network namespace has no lo");
  return netlink.set_up(lo->index);
}

// The namespace's own file is locked: it is there exactly as long as the network is.
Result<UniqueFd> lock_network() {
  constexpr auto kPatience = std::chrono::seconds(30);
  UniqueFd network = TRY(open_file("/proc/thread-self/ns/net", O_RDONLY));
  auto deadline = std::chrono::steady_clock::now() + kPatience;
  while (::flock(network.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) return errno_error("locking this network");
    if (std::chrono::steady_clock::now() > deadline) {
      return make_error(ErrorCode::kTimeout,
                        "another cloud has been starting on this host for more than {} s", kPatience.count());
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  return network;
}

Status enter_namespace_of(pid_t pid) {
  const std::string folder = fmt::format("/proc/{}/ns/", pid);
  const std::string context = fmt::format("entering the network of process {}", pid);
  // Opened before the first change, because that may take away the right to open the second.
  UniqueFd user = TRY(open_file(folder + "user", O_RDONLY).context(context));
  UniqueFd net = TRY(open_file(folder + "net", O_RDONLY).context(context));
  // The user namespace first: it gives the right to enter the network that belongs to it.
  if (!TRY(same_namespace("/proc/self/ns/user", folder + "user")) &&
      ::setns(user.get(), CLONE_NEWUSER) != 0) {
    return errno_error("{}", context);
  }
  if (!TRY(same_namespace("/proc/self/ns/net", folder + "net")) && ::setns(net.get(), CLONE_NEWNET) != 0) {
    return errno_error("{}", context);
  }
  return {};
}

}  // namespace haneul::net
