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

/// Not so in a user namespace whose root is nobody outside: /run is not its own.
bool root_alone_writes_run() {
  struct stat run {};
  return ::geteuid() == 0 && ::stat("/run", &run) == 0 && run.st_uid == 0 &&
         (run.st_mode & (S_IWGRP | S_IWOTH)) == 0;
}

Result<ino_t> inode_of(int fd) {
  struct stat file {};
  if (::fstat(fd, &file) != 0) return errno_error("fstat");
  return file.st_ino;
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

// Any user of the network could hold its own file locked for ever. Root's lock is where nobody else can hold or plant
// it: a byte for each network, so that those of several do not wait for each other.
Result<UniqueFd> lock_network(std::chrono::seconds patience) {
  constexpr const char* kNetwork = "/proc/thread-self/ns/net";
  constexpr const char* kRootsLock = "/run/haneul-network.lock";
  UniqueFd network = TRY(open_file(kNetwork, O_RDONLY));
  const bool roots = root_alone_writes_run();
  const char* path = roots ? kRootsLock : kNetwork;
  UniqueFd file = roots ? TRY(open_file(path, O_RDWR | O_CREAT | O_NOFOLLOW)) : std::move(network);
  struct flock range {};
  range.l_type = F_WRLCK;
  range.l_whence = SEEK_SET;
  range.l_len = 1;
  if (roots) range.l_start = static_cast<off_t>(TRY(inode_of(network.get())));

  auto deadline = std::chrono::steady_clock::now() + patience;
  auto lock = [&] {
    return roots ? ::fcntl(file.get(), F_OFD_SETLK, &range) : ::flock(file.get(), LOCK_EX | LOCK_NB);
  };
  while (lock() != 0) {
    // One of the two says EACCES or EAGAIN.
    if (errno != EWOULDBLOCK && errno != EACCES) return errno_error("locking {}", path);
    if (std::chrono::steady_clock::now() > deadline) {
      return make_error(
          ErrorCode::kTimeout,
          "another cloud has been starting on this host for more than {} s: start again when it "
          "is done, or end the process that holds {} locked",
          patience.count(), path);
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  return file;
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
