// SPDX-License-Identifier: Apache-2.0
#include "agent/daemon/private_network.h"

#include <fcntl.h>
#include <linux/close_range.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>

#include "base/file.h"
#include "base/log.h"
#include "net/fabric.h"
#include "vmm/launch/launch.h"

namespace haneul::agent {
namespace {

constexpr const char* kFile = "network-holder";

Result<launch::Process> find_holder(const std::filesystem::path& state) {
  std::string text = TRY(read_file(state / kFile, 64));
  int pid = 0;
  unsigned long ticks = 0;
  if (std::sscanf(text.c_str(), "%d %lu", &pid, &ticks) != 2) {
    return Error(ErrorCode::kNotFound, "no holder of the network");
  }
  return launch::find_process(pid, ticks);
}

// Does nothing but be there. Nothing of the daemon's stays open in it.
[[noreturn]] void hold() {
  ::setsid();
  ::prctl(PR_SET_NAME, "haneul-network");
  int null = ::open("/dev/null", O_RDWR);
  for (int fd = 0; fd < 3; ++fd) ::dup2(null, fd);
  ::close_range(3, ~0u, 0);
  if (::chdir("/") != 0) ::_exit(1);
  ::signal(SIGINT, SIG_IGN);
  ::signal(SIGHUP, SIG_IGN);
  for (;;) ::pause();
}

Result<uint64_t> start_ticks(pid_t pid) {
  std::string stat = TRY(read_file(fmt::format("/proc/{}/stat", pid), 4096));
  size_t at = stat.rfind(')');
  for (int field = 2; field < 22 && at != std::string::npos; ++field) at = stat.find(' ', at + 1);
  if (at == std::string::npos) return Error(ErrorCode::kInternal, "/proc/PID/stat is too short");
  return std::strtoull(stat.c_str() + at, nullptr, 10);
}

Status start_holder(const std::filesystem::path& state) {
  pid_t pid = ::fork();
  if (pid < 0) return errno_error("fork");
  if (pid == 0) hold();
  uint64_t ticks = TRY(start_ticks(pid));
  return replace_file(state / kFile, fmt::format("{} {}\n", pid, ticks));
}

}  // namespace

Result<bool> enter_private_network(const std::filesystem::path& state) {
  auto holder = find_holder(state);
  if (holder.ok()) {
    TRY(net::enter_namespace_of(holder->pid));
    return false;
  }
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
