// SPDX-License-Identifier: Apache-2.0
#include "agent/cli/terminal.h"

#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <termios.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <span>

#include "base/file.h"

namespace haneul::agent {
namespace {

constexpr char kEscape = 0x1d;  // Ctrl-]

class RawMode {
 public:
  explicit RawMode(bool wanted) : active_(wanted && ::tcgetattr(STDIN_FILENO, &before_) == 0) {
    if (!active_) return;
    termios raw = before_;
    ::cfmakeraw(&raw);
    ::tcsetattr(STDIN_FILENO, TCSANOW, &raw);
  }
  ~RawMode() {
    if (active_) ::tcsetattr(STDIN_FILENO, TCSADRAIN, &before_);
  }
  RawMode(const RawMode&) = delete;
  RawMode& operator=(const RawMode&) = delete;

 private:
  termios before_{};
  bool active_;
};

// Signals that would end the program are read here instead, so that the terminal is put back first.
Result<UniqueFd> signals() {
  sigset_t set;
  ::sigemptyset(&set);
  for (int signal : {SIGINT, SIGTERM, SIGHUP, SIGQUIT}) ::sigaddset(&set, signal);
  ::sigprocmask(SIG_BLOCK, &set, nullptr);
  UniqueFd fd(::signalfd(-1, &set, SFD_CLOEXEC));
  if (!fd) return errno_error("signalfd");
  return fd;
}

std::span<const std::byte> bytes_of(const char* data, size_t size) {
  return std::as_bytes(std::span(data, size));
}

}  // namespace

Result<PumpEnd> pump(const UniqueFd& stream, const std::string& first, PumpOptions options) {
  UniqueFd signal = TRY(signals());
  RawMode raw(options.interactive);
  TRY(write_all(STDOUT_FILENO, bytes_of(first.data(), first.size())));
  bool reading = options.interactive || options.input;
  std::array<char, 16 << 10> buffer;
  for (;;) {
    std::array<pollfd, 3> waits = {
        {{stream.get(), POLLIN, 0}, {signal.get(), POLLIN, 0}, {reading ? STDIN_FILENO : -1, POLLIN, 0}}};
    if (::poll(waits.data(), waits.size(), -1) < 0) {
      if (errno == EINTR) continue;
      return errno_error("poll");
    }
    if (waits[1].revents != 0) return PumpEnd::kInterrupted;
    if (waits[0].revents != 0) {
      ssize_t got = ::read(stream.get(), buffer.data(), buffer.size());
      if (got <= 0) return PumpEnd::kStream;
      TRY(write_all(STDOUT_FILENO, bytes_of(buffer.data(), static_cast<size_t>(got))));
    }
    if (waits[2].revents != 0) {
      ssize_t got = ::read(STDIN_FILENO, buffer.data(), buffer.size());
      if (got <= 0 && options.interactive) return PumpEnd::kInput;
      if (got <= 0) {
        reading = false;
        ::shutdown(stream.get(), SHUT_WR);
        continue;
      }
      auto size = static_cast<size_t>(got);
      size_t escape =
          options.interactive ? std::string_view(buffer.data(), size).find(kEscape) : std::string_view::npos;
      if (escape != std::string_view::npos) size = escape;
      TRY(write_all(stream.get(), bytes_of(buffer.data(), size)));
      if (escape != std::string_view::npos) return PumpEnd::kEscape;
    }
  }
}

}  // namespace haneul::agent
