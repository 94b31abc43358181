// SPDX-License-Identifier: Apache-2.0
#include "net/program.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <climits>

#include "base/file.h"
#include "base/unique_fd.h"

namespace haneul::net {
namespace {

constexpr size_t kMaxOutputBytes = 4 << 20;

/// Puts CAP_NET_ADMIN into the ambient set, if it is in the permitted one. Safe after fork().
void keep_net_admin() {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  std::array<__user_cap_data_struct, 2> sets{};
  if (::syscall(SYS_capget, &header, sets.data()) != 0) return;
  sets[0].inheritable |= sets[0].permitted & (1u << CAP_NET_ADMIN);
  if (::syscall(SYS_capset, &header, sets.data()) != 0) return;
  ::prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_NET_ADMIN, 0, 0);
}

/// The child's part: only async-signal-safe calls, because other threads may have held locks at the fork.
[[noreturn]] void become(const char* path, char* const* argv, int input, int output, int errors,
                         pid_t parent) {
  static const char* const kEnvironment[] = {"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C", nullptr};
  sigset_t none;
  ::sigemptyset(&none);
  ::pthread_sigmask(SIG_SETMASK, &none, nullptr);
  ::signal(SIGPIPE, SIG_DFL);
  ::signal(SIGCHLD, SIG_DFL);
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != parent) ::_exit(127);
  if (::dup2(input, 0) < 0 || ::dup2(output, 1) < 0 || ::dup2(errors, 2) < 0) ::_exit(127);
  ::syscall(SYS_close_range, 3, UINT_MAX, 0);
  keep_net_admin();
  ::execve(path, argv, const_cast<char* const*>(kEnvironment));
  ::_exit(127);
}

/// Above 2, so that no dup2() of the child's overwrites one it still needs.
Result<UniqueFd> make_stream(const char* name) {
  UniqueFd low = TRY(make_memfd(name));
  UniqueFd fd(::fcntl(low.get(), F_DUPFD_CLOEXEC, 3));
  if (!fd) return errno_error("copying a descriptor");
  return fd;
}

Result<std::string> contents(int fd) {
  uint64_t size = std::min<uint64_t>(TRY(file_size(fd)), kMaxOutputBytes);
  std::string text(size, '\0');
  TRY(read_exact_at(fd, 0, std::as_writable_bytes(std::span(text))));
  return text;
}

/// Waits for the child, and kills it when the time is up. Returns the wait status.
Result<int> wait_for(pid_t pid, std::chrono::milliseconds timeout, std::string_view name) {
  UniqueFd pidfd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
  bool late = false;
  if (pidfd) {
    pollfd ready{pidfd.get(), POLLIN, 0};
    auto until = std::chrono::steady_clock::now() + timeout;
    int polled = 0;
    do {
      auto left =
          std::chrono::duration_cast<std::chrono::milliseconds>(until - std::chrono::steady_clock::now());
      polled = ::poll(&ready, 1, static_cast<int>(std::max<int64_t>(0, left.count())));
    } while (polled < 0 && errno == EINTR);
    late = polled == 0;
    if (late) ::kill(pid, SIGKILL);
  }
  int status = 0;
  while (::waitpid(pid, &status, 0) < 0) {
    if (errno != EINTR) return errno_error("waiting for {}", name);
  }
  if (late) return make_error(ErrorCode::kTimeout, "{} did not end within {} ms", name, timeout.count());
  return status;
}

}  // namespace

Result<ProgramOutcome> run_program(const std::filesystem::path& program,
                                   const std::vector<std::string>& arguments, std::string_view input,
                                   std::chrono::milliseconds timeout) {
  std::string path = program.string();
  std::string name = program.filename().string();
  UniqueFd in = TRY(make_stream("input"));
  UniqueFd out = TRY(make_stream("output"));
  UniqueFd err = TRY(make_stream("errors"));
  TRY(write_all_at(in.get(), 0, std::as_bytes(std::span(input))));

  std::vector<char*> argv{path.data()};
  std::vector<std::string> owned = arguments;
  for (std::string& argument : owned) argv.push_back(argument.data());
  argv.push_back(nullptr);

  pid_t parent = ::getpid();
  pid_t pid = ::fork();
  if (pid < 0) return errno_error("starting {}", name);
  if (pid == 0) become(path.c_str(), argv.data(), in.get(), out.get(), err.get(), parent);

  int status = TRY(wait_for(pid, timeout, name));
  ProgramOutcome outcome;
  outcome.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  outcome.output = TRY(contents(out.get()));
  outcome.errors = TRY(contents(err.get()));
  if (outcome.exit_code == 127 && outcome.errors.empty()) {
    return make_error(ErrorCode::kNotFound, "{} cannot be run", path);
  }
  return outcome;
}

Result<std::filesystem::path> find_program(std::string_view name) {
  const char* variable = ::getenv("PATH");  // NOLINT(concurrency-mt-unsafe): nobody changes it
  std::string folders = fmt::format("{}:/usr/sbin:/sbin:/usr/bin", variable == nullptr ? "" : variable);
  for (size_t start = 0; start < folders.size();) {
    size_t end = std::min(folders.find(':', start), folders.size());
    std::filesystem::path path = std::filesystem::path(folders.substr(start, end - start)) / name;
    if (path.is_absolute() && ::access(path.c_str(), X_OK) == 0) return path;
    start = end + 1;
  }
  return make_error(ErrorCode::kNotFound, "the program {} is not installed", name);
}

}  // namespace haneul::net
