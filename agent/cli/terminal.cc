// SPDX-License-Identifier: Apache-2.0
#include "agent/cli/terminal.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <termios.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <optional>
#include <string_view>

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
    // Not after what is still to be shown: a terminal that nobody reads would keep us.
    if (active_) ::tcsetattr(STDIN_FILENO, TCSANOW, &before_);
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

constexpr size_t kChunk = 4096;  // what poll() promises to take of a pipe that is writable
constexpr size_t kMostHeld = 1 << 20;

// Bytes on their way out, held back as long as the other side does not take them.
class Held {
 public:
  void add(std::string_view bytes) { bytes_ += bytes; }
  bool empty() const { return at_ == bytes_.size(); }
  size_t size() const { return bytes_.size() - at_; }
  size_t room() const { return size() >= kMostHeld ? 0 : kMostHeld - size(); }
  void clear() {
    bytes_.clear();
    at_ = 0;
  }
  /// To a descriptor that is ready for it; false if it takes no more for good.
  bool write_to(int fd) {
    ssize_t wrote = ::write(fd, bytes_.data() + at_, std::min(size(), kChunk));
    if (wrote < 0) return errno == EINTR || errno == EAGAIN;
    at_ += static_cast<size_t>(wrote);
    if (empty()) clear();
    return true;
  }

 private:
  std::string bytes_;
  size_t at_ = 0;
};

// Neither side waits for the other: a guest that does not read its console must not make the keys that leave it dead.
class Pump {
 public:
  Pump(const UniqueFd& stream, PumpOptions options)
      : stream_(stream), options_(options), reading_(options.interactive || options.input) {}
  Result<PumpEnd> run(const std::string& first, const UniqueFd& signal);

 private:
  short wanted_of_stream() const;
  bool wants_input() const { return reading_ && (options_.interactive || in_.room() > 0); }
  void write_stream();
  void close_input();
  bool read_stream();
  std::optional<PumpEnd> read_input();

  const UniqueFd& stream_;
  const PumpOptions options_;
  Held in_;   // from standard input to the stream
  Held out_;  // from the stream to standard output
  size_t dropped_ = 0;
  bool reading_;
  bool input_closed_ = false;
  bool ended_ = false;
  std::array<char, 16 << 10> buffer_;
};

short Pump::wanted_of_stream() const {
  int events = 0;
  if (!ended_ && out_.room() > 0) events |= POLLIN;
  if (!ended_ && !in_.empty()) events |= POLLOUT;
  return static_cast<short>(events);
}

void Pump::write_stream() {
  if (in_.write_to(stream_.get())) return;
  // It takes nothing more; what it still says is to be read all the same.
  in_.clear();
  input_closed_ = true;
}

void Pump::close_input() {
  input_closed_ = true;
  ::shutdown(stream_.get(), SHUT_WR);
}

bool Pump::read_stream() {
  ssize_t got = ::read(stream_.get(), buffer_.data(), buffer_.size());
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return true;
  if (got <= 0) return false;
  out_.add({buffer_.data(), static_cast<size_t>(got)});
  return true;
}

std::optional<PumpEnd> Pump::read_input() {
  ssize_t got = ::read(STDIN_FILENO, buffer_.data(), buffer_.size());
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return std::nullopt;
  if (got <= 0) {
    reading_ = false;
    return options_.interactive ? std::optional(PumpEnd::kInput) : std::nullopt;
  }
  std::string_view typed(buffer_.data(), static_cast<size_t>(got));
  size_t escape = options_.interactive ? typed.find(kEscape) : std::string_view::npos;
  typed = typed.substr(0, escape);
  // A paste without end into a guest that takes nothing: the keyboard is read on for the sake of the escape.
  size_t taken = input_closed_ ? 0 : std::min(typed.size(), in_.room());
  in_.add(typed.substr(0, taken));
  dropped_ += typed.size() - taken;
  return escape == std::string_view::npos ? std::nullopt : std::optional(PumpEnd::kEscape);
}

Result<PumpEnd> Pump::run(const std::string& first, const UniqueFd& signal) {
  out_.add(first);
  std::optional<PumpEnd> end;
  while (!end) {
    if (ended_ && out_.empty()) return PumpEnd::kStream;
    if (options_.input && !reading_ && in_.empty() && !input_closed_) close_input();
    short wanted = wanted_of_stream();
    std::array<pollfd, 4> waits = {{{wanted == 0 ? -1 : stream_.get(), wanted, 0},
                                    {signal.get(), POLLIN, 0},
                                    {wants_input() ? STDIN_FILENO : -1, POLLIN, 0},
                                    {out_.empty() ? -1 : STDOUT_FILENO, POLLOUT, 0}}};
    if (::poll(waits.data(), waits.size(), -1) < 0) {
      if (errno == EINTR) continue;
      return errno_error("poll");
    }
    if (waits[1].revents != 0) end = PumpEnd::kInterrupted;
    if (waits[2].revents != 0 && !end) end = read_input();
    short stream = waits[0].revents;
    if ((stream & (POLLOUT | POLLERR)) != 0 && !in_.empty()) write_stream();
    if ((stream & (POLLIN | POLLHUP | POLLERR)) != 0 && out_.room() > 0 && !read_stream()) ended_ = true;
    if (waits[3].revents != 0 && !out_.write_to(STDOUT_FILENO))
      return errno_error("writing to standard output");
  }
  // The last keys before the escape, if the instance takes them at once.
  if (*end == PumpEnd::kEscape && !in_.empty()) in_.write_to(stream_.get());
  if (size_t lost = in_.size() + dropped_; options_.interactive && lost > 0)
    fmt::print(stderr, "\r\n{} bytes of what was typed were not taken by the instance", lost);
  return *end;
}

}  // namespace

Result<PumpEnd> pump(const UniqueFd& stream, const std::string& first, PumpOptions options) {
  UniqueFd signal = TRY(signals());
  int flags = ::fcntl(stream.get(), F_GETFL);
  if (flags < 0 || ::fcntl(stream.get(), F_SETFL, flags | O_NONBLOCK) != 0) return errno_error("fcntl");
  RawMode raw(options.interactive);
  return Pump(stream, options).run(first, signal);
}

}  // namespace haneul::agent
