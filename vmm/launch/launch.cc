// SPDX-License-Identifier: Apache-2.0
#include "vmm/launch/launch.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>
#include <tuple>

#include "base/file.h"
#include "base/socket.h"
#include "vmm/launch/reply.h"

namespace haneul::launch {
namespace {

constexpr std::array<std::string_view, 2> kFormatNames = {"raw", "volume"};

/// The arguments and the descriptors that stay open across exec, both ready before fork: between fork and
/// exec a process that had threads may only make system calls.
class Command {
 public:
  explicit Command(const std::filesystem::path& program) { words_.push_back(program.string()); }
  void add(std::string_view option) { words_.push_back(fmt::format("--{}", option)); }
  void add(std::string_view option, std::string value) {
    add(option);
    words_.push_back(std::move(value));
  }
  std::string pass(const UniqueFd& fd) {
    kept_.push_back(fd.get());
    return fmt::format("fd:{}", fd.get());
  }
  std::string pass_number(const UniqueFd& fd) {
    kept_.push_back(fd.get());
    return std::to_string(fd.get());
  }
  std::span<const int> kept() const { return kept_; }
  std::vector<char*> argv() {
    std::vector<char*> list;
    for (std::string& word : words_) list.push_back(word.data());
    list.push_back(nullptr);
    return list;
  }

 private:
  std::vector<std::string> words_;
  std::vector<int> kept_;
};

/// 65 bytes for each layer: whether it has a key, and the key. In memory only; empty if no layer has one.
Result<UniqueFd> key_file(const std::vector<Layer>& layers) {
  if (std::none_of(layers.begin(), layers.end(), [](const Layer& l) { return l.key.has_value(); }))
    return UniqueFd();
  UniqueFd file = TRY(make_memfd("keys"));
  std::string content;
  for (const Layer& layer : layers) {
    content.push_back(layer.key ? 1 : 0);
    auto key = layer.key.value_or(std::array<uint8_t, 64>{});
    content.append(key.begin(), key.end());
  }
  TRY(write_all(file.get(), std::as_bytes(std::span(content))));
  return file;
}

Status add_disks(Command& command, std::vector<UniqueFd>& key_files, const std::vector<Disk>& disks) {
  for (const Disk& disk : disks) {
    std::string text = fmt::format("format={},id={}", name(disk.format), disk.id);
    if (disk.file) text += fmt::format(",file={}", command.pass(disk.file));
    if (disk.base) text += fmt::format(",base={}", command.pass(disk.base));
    for (const Layer& layer : disk.layers) text += fmt::format(",layer={}", command.pass(layer.file));
    key_files.push_back(TRY(key_file(disk.layers)));
    if (key_files.back()) text += fmt::format(",keys={}", command.pass(key_files.back()));
    if (disk.read_only) text += ",ro";
    command.add("disk", std::move(text));
  }
  return {};
}

void add_nics(Command& command, const std::vector<Nic>& nics) {
  for (const Nic& nic : nics) {
    const auto& m = nic.mac;
    command.add("net", fmt::format("tap={},mac={:02x}:{:02x}:{:02x}:{:02x}:{:02x}:{:02x},mtu={}",
                                   command.pass(nic.tap), m[0], m[1], m[2], m[3], m[4], m[5], nic.mtu));
  }
}

/// A socket file that goes away again unless the launch comes to a good end. Somebody else's is never
/// touched.
class SocketFile {
 public:
  Status listen(const std::filesystem::path& path, int type) {
    fd_ = TRY(listen_unix(path, type));
    path_ = path;
    return {};
  }
  ~SocketFile() {
    if (!path_.empty()) ::unlink(path_.c_str());
  }
  SocketFile() = default;
  SocketFile(SocketFile&& other) noexcept
      : fd_(std::move(other.fd_)), path_(std::exchange(other.path_, std::filesystem::path())) {}
  SocketFile& operator=(SocketFile&&) = delete;

  void keep() { path_.clear(); }
  const UniqueFd& fd() const { return fd_; }

 private:
  UniqueFd fd_;
  std::filesystem::path path_;
};

struct Channels {
  SocketFile control;
  SocketFile console;
  UniqueFd ready_read;
  UniqueFd ready_write;
};

Result<Command> make_command(const Spec& spec, const Channels& channels, std::vector<UniqueFd>& key_files) {
  Command command(spec.program);
  command.add("memory", std::to_string(spec.memory_bytes));
  command.add("vcpus", std::to_string(spec.vcpus));
  if (spec.huge_pages) command.add("huge-pages");
  command.add("uuid", spec.uuid);
  if (!spec.product.empty()) command.add("product", spec.product);
  command.add("kvm-fd", command.pass_number(spec.kvm));
  command.add("kernel", command.pass(spec.kernel));
  for (const UniqueFd& initrd : spec.initrds) command.add("initrd", command.pass(initrd));
  command.add("cmdline", spec.command_line);
  TRY(add_disks(command, key_files, spec.disks));
  add_nics(command, spec.nics);
  command.add("control", command.pass(channels.control.fd()));
  command.add("console-listener", command.pass(channels.console.fd()));
  command.add("console-ring", command.pass(spec.console_ring));
  command.add("status", command.pass(spec.status));
  command.add("ready-fd", command.pass_number(channels.ready_write));
  if (spec.jail.enabled) {
    command.add("jail");
    if (spec.jail.uid) command.add("uid", std::to_string(*spec.jail.uid));
    if (spec.jail.gid) command.add("gid", std::to_string(*spec.jail.gid));
  }
  return command;
}

/// What the child needs between fork and exec, all of it ready before.
struct Child {
  std::vector<char*> argv;
  std::span<const int> kept;
  int log;
  int null;
  int cgroup;  ///< -1: none
  /// The last words, and where, of one that cannot enter its cgroup.
  std::string no_cgroup;
  int status;
};

// In the child, after fork: only system calls.
[[noreturn]] void become_vmm(const Child& child) {
  ::setsid();
  // Outside of it, it would run without limits.
  if (child.cgroup >= 0 && ::write(child.cgroup, "0", 1) != 1) {
    std::ignore = ::pwrite(child.status, child.no_cgroup.data(), child.no_cgroup.size(), 0);
    ::_exit(126);
  }
  int null = child.null;
  ::dup2(null, STDIN_FILENO);
  ::dup2(null, STDOUT_FILENO);
  ::dup2(child.log, STDERR_FILENO);
  for (int fd : child.kept) ::fcntl(fd, F_SETFD, 0);
  // A volume with a long history has many layers, each with a descriptor.
  rlimit files{};
  if (::getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur < files.rlim_max) {
    files.rlim_cur = files.rlim_max;
    ::setrlimit(RLIMIT_NOFILE, &files);
  }
  sigset_t none;
  ::sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  ::signal(SIGPIPE, SIG_IGN);
  char* const environment[] = {nullptr};
  ::execve(child.argv[0], child.argv.data(), environment);
  ::_exit(127);
}

Result<UniqueFd> open_pidfd(pid_t pid) {
  UniqueFd fd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
  if (!fd) return errno_error("pidfd_open of {}", pid);
  return fd;
}

std::string last_words(std::string_view reason, std::string_view detail) {
  nlohmann::json words = {{"reason", reason}, {"detail", detail}};
  return words.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

// The VMM's word that it entered the guest, its end, or the deadline.
Status await_ready(const UniqueFd& ready, const UniqueFd& status, std::chrono::milliseconds timeout) {
  pollfd waits[] = {{ready.get(), POLLIN, 0}};
  int count = 0;
  do {
    count = ::poll(waits, 1, static_cast<int>(timeout.count()));
  } while (count < 0 && errno == EINTR);
  char byte = 0;
  if (count > 0 && ::read(ready.get(), &byte, 1) == 1) return {};
  if (count == 0) {
    return make_error(ErrorCode::kTimeout, "the VMM did not start the guest within {} s",
                      timeout.count() / 1000);
  }
  Ending ending = read_ending(status.get());
  return make_error(
      ErrorCode::kIo, "the VMM could not start: {}",
      ending.reason == "failed" ? ending.detail : "it ended without a reason, see the instance's log");
}

/// A child that is killed and collected unless the launch comes to a good end.
class Launched {
 public:
  explicit Launched(pid_t pid) : pid_(pid) {}
  ~Launched() {
    if (pid_ < 0) return;
    // Not collected yet, so the number is still this child's.
    ::kill(pid_, SIGKILL);
    while (::waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
    }
  }
  Launched(const Launched&) = delete;
  Launched& operator=(const Launched&) = delete;
  void keep() { pid_ = -1; }

 private:
  pid_t pid_;
};

Result<Channels> make_channels(const Spec& spec) {
  Channels channels;
  TRY(channels.control.listen(spec.control_socket, SOCK_SEQPACKET));
  TRY(channels.console.listen(spec.console_socket, SOCK_STREAM));
  int pipe_fds[2];
  if (::pipe2(pipe_fds, O_CLOEXEC) != 0) return errno_error("pipe");
  channels.ready_read.reset(pipe_fds[0]);
  channels.ready_write.reset(pipe_fds[1]);
  return channels;
}

Result<Process> start(const Spec& spec, std::chrono::milliseconds timeout) {
  Channels channels = TRY(make_channels(spec));
  UniqueFd null = TRY(open_file("/dev/null", O_RDWR));
  UniqueFd cgroup;
  if (!spec.jail.cgroup.empty()) cgroup = TRY(open_file(spec.jail.cgroup / "cgroup.procs", O_WRONLY));
  if (::access(spec.program.c_str(), X_OK) != 0) return errno_error("cannot run {}", spec.program.string());
  std::ignore = ::ftruncate(spec.status.get(), 0);
  std::vector<UniqueFd> key_files;
  Command command = TRY(make_command(spec, channels, key_files));
  Child child{
      command.argv(),
      command.kept(),
      spec.log ? spec.log.get() : null.get(),
      null.get(),
      cgroup.get(),
      last_words("failed", fmt::format("the VMM cannot enter its cgroup {}", spec.jail.cgroup.string())),
      spec.status.get()};

  pid_t pid = ::fork();
  if (pid < 0) return errno_error("fork");
  if (pid == 0) become_vmm(child);

  Launched launched(pid);
  Process process;
  process.pid = pid;
  process.pidfd = TRY(open_pidfd(pid));
  process.start_ticks = TRY(start_ticks_of(pid));
  channels.ready_write.reset();
  TRY(await_ready(channels.ready_read, spec.status, timeout));
  launched.keep();
  channels.control.keep();
  channels.console.keep();
  return process;
}

}  // namespace

std::string_view name(DiskFormat format) {
  return kFormatNames.at(static_cast<size_t>(format));
}

std::optional<DiskFormat> parse_disk_format(std::string_view name) {
  auto found = std::find(kFormatNames.begin(), kFormatNames.end(), name);
  if (found == kFormatNames.end()) return std::nullopt;
  return static_cast<DiskFormat>(found - kFormatNames.begin());
}

Result<Process> launch(Spec spec, std::chrono::milliseconds timeout) {
  return start(spec, timeout);
}

Result<uint64_t> start_ticks_of(pid_t pid) {
  std::string stat = TRY(read_file(fmt::format("/proc/{}/stat", pid)));
  // The name in parentheses may hold anything; the fields are counted from its end.
  size_t at = stat.rfind(')');
  for (int field = 2; field < 22 && at != std::string::npos; ++field) at = stat.find(' ', at + 1);
  if (at == std::string::npos) return make_error(ErrorCode::kInternal, "/proc/{}/stat is too short", pid);
  return std::strtoull(stat.c_str() + at, nullptr, 10);
}

Result<Process> find_process(pid_t pid, uint64_t start_ticks) {
  Process process;
  process.pid = pid;
  process.pidfd = TRY(open_pidfd(pid));
  process.start_ticks = TRY(start_ticks_of(pid));
  if (process.start_ticks != start_ticks) {
    return make_error(ErrorCode::kNotFound, "process {} is another one by now", pid);
  }
  return process;
}

void kill_process(const Process& process) {
  if (::syscall(SYS_pidfd_send_signal, process.pidfd.get(), SIGKILL, nullptr, 0) != 0 && errno != ESRCH)
    return;
  pollfd wait{process.pidfd.get(), POLLIN, 0};
  while (::poll(&wait, 1, -1) < 0 && errno == EINTR) {
  }
  reap_process(process);
}

void reap_process(const Process& process) {
  siginfo_t info{};
  // P_PIDFD; ECHILD says that it is not our child, which is fine.
  (void)::waitid(static_cast<idtype_t>(3), static_cast<id_t>(process.pidfd.get()), &info, WEXITED | WNOHANG);
}

Ending read_ending(int status_fd) {
  Ending ending{"vanished", ""};
  char text[8192];
  ssize_t got = ::pread(status_fd, text, sizeof text, 0);
  if (got <= 0) return ending;
  auto parsed = nlohmann::json::parse(text, text + got, nullptr, false);
  if (!parsed.is_object() || text_of(parsed, "reason").empty()) return ending;
  ending.reason = text_of(parsed, "reason");
  ending.detail = text_of(parsed, "detail");
  return ending;
}

}  // namespace haneul::launch
