// SPDX-License-Identifier: Apache-2.0
#include "agent/daemon/private_network.h"

#include <fcntl.h>
#include <linux/close_range.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>

#include "agent/cloud/crash.h"
#include "base/file.h"
#include "base/log.h"
#include "net/fabric.h"
#include "vmm/launch/launch.h"

namespace haneul::agent {
namespace {

constexpr const char* kFile = "network-holder";

// Also of one that nobody has waited for yet.
bool ended(const launch::Process& process) {
  pollfd wait{process.pidfd.get(), POLLIN, 0};
  return ::poll(&wait, 1, 0) != 0;
}

Result<launch::Process> find_holder(const std::filesystem::path& state) {
  std::string text = TRY(read_file(state / kFile, 64));
  int pid = 0;
  unsigned long ticks = 0;
  if (std::sscanf(text.c_str(), "%d %lu", &pid, &ticks) != 2) {
    return Error(ErrorCode::kNotFound, "no holder of the network");
  }
  launch::Process holder = TRY(launch::find_process(pid, ticks));
  if (ended(holder)) return Error(ErrorCode::kNotFound, "the holder of the network has ended");
  return holder;
}

// Does nothing but be there. Nothing of the daemon's stays open in it. A daemon that dies before it has recorded its
// holder leaves none behind: the pipe ends without a word.
[[noreturn]] void hold(UniqueFd recorded, UniqueFd daemons_end) {
  ::setsid();
  daemons_end.reset();
  char byte = 0;
  if (::read(recorded.get(), &byte, 1) != 1) ::_exit(1);
  ::prctl(PR_SET_NAME, "haneul-network");
  int null = ::open("/dev/null", O_RDWR);
  for (int fd = 0; fd < 3; ++fd) ::dup2(null, fd);
  ::close_range(3, ~0u, 0);
  if (::chdir("/") != 0) ::_exit(1);
  ::signal(SIGINT, SIG_IGN);
  ::signal(SIGHUP, SIG_IGN);
  for (;;) ::pause();
}

// What a crash left of a record that was being written.
void remove_half_written(const std::filesystem::path& state) {
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator(state, ignored)) {
    std::string name = entry.path().filename().string();
    if (name.starts_with(std::string(kFile) + ".")) ::unlink(entry.path().c_str());
  }
}

Status start_holder(const std::filesystem::path& state) {
  int fds[2];
  if (::pipe2(fds, O_CLOEXEC) != 0) return errno_error("pipe");
  UniqueFd recorded(fds[0]);
  UniqueFd tell(fds[1]);
  pid_t pid = ::fork();
  if (pid < 0) return errno_error("fork");
  if (pid == 0) hold(std::move(recorded), std::move(tell));
  crash_point("network-holder.forked");
  uint64_t ticks = TRY(launch::start_ticks_of(pid));
  TRY(replace_file(state / kFile, fmt::format("{} {}\n", pid, ticks)));
  crash_point("network-holder.recorded");
  if (::write(tell.get(), "r", 1) != 1) return errno_error("the holder of the network is gone");
  return {};
}

}  // namespace

Result<bool> enter_private_network(const std::filesystem::path& state) {
  auto holder = find_holder(state);
  if (holder.ok()) {
    TRY(net::enter_namespace_of(holder->pid));
    // One whose daemon died just now may go only now; its network is ours already.
    if (ended(*holder)) TRY(start_holder(state));
    return false;
  }
  remove_half_written(state);
  TRY(net::enter_private_namespace());
  TRY(start_holder(state));
  return true;
}

void leave_private_network(const std::filesystem::path& state) {
  auto holder = find_holder(state);
  if (holder.ok()) launch::kill_process(*holder);
  std::error_code ignored;
  std::filesystem::remove(state / kFile, ignored);
}

}  // namespace haneul::agent
