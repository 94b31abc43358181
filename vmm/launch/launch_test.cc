// SPDX-License-Identifier: Apache-2.0
// Real haneul-vmm processes in their jails, with the freestanding guest of tests/guests.
#include "vmm/launch/launch.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include <nlohmann/json.hpp>

#include "base/checked.h"
#include "base/console_ring.h"
#include "base/socket.h"
#include "tests/support/files.h"

namespace haneul::launch {
namespace {

using testing::eventually;
using ::testing::HasSubstr;
using testing::kPatience;
using ::testing::StartsWith;

class LaunchTest : public ::testing::Test {
 protected:
  LaunchTest() {
    ring_ = open_file(folder_ / "ring", O_RDWR | O_CREAT).value();
    status_ = open_file(folder_ / "status", O_RDWR | O_CREAT).value();
  }
  ~LaunchTest() override {
    for (const Process& process : processes_) kill_process(process);
  }

  UniqueFd again(std::string_view name) { return open_file(folder_ / name, O_RDWR).value(); }

  Spec spec(std::string command) {
    Spec spec;
    spec.program = testing::vmm_program();
    spec.instance_id = "i-0123456789abcdef0";
    spec.uuid = "ec2a6e5c-0000-4000-8000-0123456789ab";
    spec.product = "t2.micro";
    spec.memory_bytes = 64_MiB;
    spec.kvm = open_file("/dev/kvm", O_RDWR).value();
    spec.kernel = open_file(testing::guest_kernel(), O_RDONLY).value();
    spec.command_line = std::move(command);
    spec.control_socket = folder_ / "control";
    spec.console_socket = folder_ / "console";
    spec.console_ring = again("ring");
    spec.status = again("status");
    spec.log = open_file(folder_ / "log", O_RDWR | O_CREAT).value();
    if (::geteuid() == 0) {
      spec.jail.uid = 65534;
      spec.jail.gid = 65534;
    }
    return spec;
  }

  Process& start(std::string command) { return start(spec(std::move(command))); }
  Process& start(Spec spec) {
    auto process = launch(std::move(spec), kPatience);
    if (!process.ok()) ADD_FAILURE() << process.error().message() << "\n" << log();
    processes_.push_back(std::move(process).value());
    return processes_.back();
  }
  VmmClient client() { return VmmClient::connect(folder_ / "control").value(); }

  std::string log() { return read_file(folder_ / "log").value(); }
  std::string console() { return read_console_ring(ring_.get()).value(); }
  bool console_says(std::string_view text) {
    return eventually([&] { return console().find(text) != std::string::npos; });
  }
  static bool has_ended(const Process& process) {
    pollfd wait{process.pidfd.get(), POLLIN, 0};
    return ::poll(&wait, 1, static_cast<int>(std::chrono::milliseconds(kPatience).count())) == 1;
  }
  Ending ending_of(const Process& process) {
    EXPECT_TRUE(has_ended(process));
    reap_process(process);
    return read_ending(status_.get());
  }
  std::string error_of(Spec bad) {
    auto process = launch(std::move(bad), kPatience);
    if (!process.ok()) return process.error().message();
    kill_process(*process);
    return "it was launched";
  }
  void expect_nothing_left(size_t descriptors) {
    EXPECT_FALSE(std::filesystem::exists(folder_ / "control"));
    EXPECT_FALSE(std::filesystem::exists(folder_ / "console"));
    EXPECT_EQ(testing::open_descriptors(), descriptors);
    EXPECT_EQ(::waitpid(-1, nullptr, WNOHANG), -1) << "a child is left";
    EXPECT_EQ(errno, ECHILD);
  }

  testing::TempFolder folder_;
  UniqueFd ring_;
  UniqueFd status_;
  std::vector<Process> processes_;
};

TEST_F(LaunchTest, RunsAGuestToItsEnd) {
  Process& process = start("hello");
  Ending ending = ending_of(process);
  EXPECT_EQ(ending.reason, "powered-off") << log();
  EXPECT_EQ(ending.detail, "");
  EXPECT_EQ(read_file(folder_ / "status").value(), "{\"reason\":\"powered-off\",\"detail\":\"\"}\n");
  EXPECT_EQ(console(), "!hello\ndone\n");
  EXPECT_EQ(log(), "");
}

TEST_F(LaunchTest, PausesResumesAndCounts) {
  start("spin");
  ASSERT_TRUE(console_says("spinning"));
  VmmClient vmm = client();
  EXPECT_EQ(vmm.state().value(), "running");
  ASSERT_TRUE(vmm.pause().ok());
  EXPECT_EQ(vmm.state().value(), "paused");
  ASSERT_TRUE(vmm.resume().ok());
  EXPECT_EQ(vmm.state().value(), "running");
  EXPECT_TRUE(vmm.press_power_button().ok());
  auto numbers = nlohmann::json::parse(vmm.statistics().value());
  ASSERT_EQ(numbers["vcpus"].size(), 1u);
  // "!" and "spinning\n", a byte each.
  EXPECT_EQ(numbers["vcpus"][0]["pio"], 10);
  EXPECT_EQ(numbers["memory_bytes"], 64_MiB);
}

TEST_F(LaunchTest, DisksComeGrowAndGo) {
  Spec with_disk = spec("hotplug");
  Disk root;
  root.id = "vol-root";
  root.file = open_file(folder_.disk("root", 1_MiB), O_RDWR).value();
  with_disk.disks.push_back(std::move(root));
  start(std::move(with_disk));
  ASSERT_TRUE(console_says("ready"));
  VmmClient vmm = client();
  folder_.disk("data", 1_MiB);
  auto attach = [&](std::string id) {
    Disk disk;
    disk.id = std::move(id);
    disk.file = again("data");
    return vmm.attach_disk(std::move(disk));
  };
  Status attached = attach("vol-data");
  ASSERT_TRUE(attached.ok()) << attached.error().message() << log();
  EXPECT_TRUE(console_says("id=vol-data\n"));
  EXPECT_THAT(vmm.disk_ids().value(), ::testing::ElementsAre("vol-root", "vol-data"));
  Status twice = attach("vol-data");
  ASSERT_FALSE(twice.ok());
  EXPECT_EQ(twice.error().code(), ErrorCode::kExists);
  EXPECT_EQ(twice.error().message(), "the disk vol-data is attached already");

  Status grown = vmm.resize_disk("vol-data", 2_MiB);
  ASSERT_TRUE(grown.ok()) << grown.error().message() << log();
  EXPECT_EQ(std::filesystem::file_size(folder_ / "data"), 2_MiB);

  ASSERT_TRUE(vmm.detach_disk("vol-data", false).ok());
  EXPECT_TRUE(eventually([&] { return vmm.disk_ids().value().size() == 1; }));
  ASSERT_TRUE(attach("vol-again").ok());
  ASSERT_TRUE(vmm.detach_disk("vol-again", true).ok());
  EXPECT_THAT(vmm.disk_ids().value(), ::testing::ElementsAre("vol-root"));
  Status none = vmm.detach_disk("vol-again", true);
  EXPECT_EQ(none.error().code(), ErrorCode::kNotFound);
  EXPECT_EQ(none.error().message(), "no disk vol-again is attached");
}

TEST_F(LaunchTest, AnAttachedDiskOutlivesAReset) {
  start("hotplug");
  ASSERT_TRUE(console_says("ready"));
  VmmClient vmm = client();
  folder_.disk("data", 1_MiB);
  // The last of the three stays: the detached ones of the same name must not be taken for it.
  for (int i = 0; i < 3; ++i) {
    if (i > 0) {
      ASSERT_TRUE(vmm.detach_disk("vol-data", true).ok()) << log() << console();
    }
    Disk disk;
    disk.id = "vol-data";
    disk.file = again("data");
    Status attached = vmm.attach_disk(std::move(disk));
    ASSERT_TRUE(attached.ok()) << i << ": " << attached.error().message() << log() << console();
  }
  Status reset = vmm.reset();
  ASSERT_TRUE(reset.ok()) << reset.error().message() << log() << console();
  EXPECT_TRUE(eventually([&] {
    std::string text = console();
    return text.find("ready\n", text.find("ready\n") + 1) != std::string::npos;
  })) << log()
      << console();
  EXPECT_THAT(vmm.disk_ids().value(), ::testing::ElementsAre("vol-data")) << log() << console();
}

TEST_F(LaunchTest, ShutsDownWhenAsked) {
  Process& process = start("spin");
  ASSERT_TRUE(client().shut_down().ok());
  Ending ending = ending_of(process);
  EXPECT_EQ(ending.reason, "stopped") << log();
  EXPECT_EQ(ending.detail, "asked for");
  EXPECT_EQ(find_process(process.pid, process.start_ticks).error().code(), ErrorCode::kNotFound);
}

TEST_F(LaunchTest, AKilledVmmHasNoLastWords) {
  Process& process = start("spin");
  EXPECT_TRUE(find_process(process.pid, process.start_ticks).ok());
  auto other = find_process(process.pid, process.start_ticks + 1);
  ASSERT_FALSE(other.ok());
  EXPECT_EQ(other.error().code(), ErrorCode::kNotFound);
  EXPECT_EQ(other.error().message(), fmt::format("process {} is another one by now", process.pid));
  kill_process(process);
  kill_process(process);
  EXPECT_EQ(read_ending(status_.get()).reason, "vanished");
  EXPECT_FALSE(find_process(process.pid, process.start_ticks).ok());
}

TEST_F(LaunchTest, AFaultInTheGuestIsTheEnding) {
  Ending ending = ending_of(start("3fault"));
  EXPECT_TRUE(ending.reason == "triple-fault" || ending.reason == "kvm-error") << ending.reason;
  EXPECT_NE(ending.detail, "");
  EXPECT_EQ(log(), fmt::format("haneul-vmm: {}: {}\n", ending.reason, ending.detail));
}

TEST_F(LaunchTest, OutlivesItsLauncherAndIsFoundAgain) {
  auto [mine, its] = socket_pair(SOCK_SEQPACKET).value();
  pid_t launcher = ::fork();
  ASSERT_GE(launcher, 0);
  if (launcher == 0) {
    auto process = launch(spec("spin"), kPatience);
    std::string text = process.ok() ? fmt::format("{} {}", process->pid, process->start_ticks) : "failed";
    (void)send_packet(its.get(), text);
    ::_exit(0);
  }
  its.reset();
  Packet packet = receive_packet(mine.get()).value();
  ASSERT_EQ(::waitpid(launcher, nullptr, 0), launcher);
  char* rest = nullptr;
  auto pid = static_cast<pid_t>(std::strtol(packet.text.c_str(), &rest, 10));
  auto found = find_process(pid, std::strtoull(rest, nullptr, 10));
  ASSERT_TRUE(found.ok()) << packet.text << log();
  ASSERT_TRUE(console_says("spinning"));
  EXPECT_EQ(client().state().value(), "running");
  ASSERT_TRUE(client().shut_down().ok());
  EXPECT_EQ(ending_of(*found).reason, "stopped");
}

TEST_F(LaunchTest, AFailedLaunchSaysWhyAndLeavesNothing) {
  {
    Spec bad = spec("hello");
    bad.kernel = open_file(folder_.file("letter", "Dear Sir or Madam,\n"), O_RDONLY).value();
    EXPECT_EQ(
        error_of(std::move(bad)),
        "the VMM could not start: the kernel cannot be used: it is neither an ELF vmlinux nor a bzImage");
  }
  size_t descriptors = testing::open_descriptors();
  {
    Spec bad = spec("hello");
    bad.memory_bytes = 1;
    EXPECT_EQ(error_of(std::move(bad)),
              "the VMM could not start: memory must be a multiple of 2 MiB up to 4 TiB, not 1 bytes");
  }
  expect_nothing_left(descriptors);
  {
    Spec bad = spec("hello");
    bad.kvm = open_file("/dev/null", O_RDWR).value();
    EXPECT_EQ(error_of(std::move(bad)),
              "the VMM could not start: the KVM descriptor is not /dev/kvm (KVM_GET_API_VERSION): "
              "Inappropriate ioctl for device");
  }
  expect_nothing_left(descriptors);
  {
    Spec bad = spec("hello");
    bad.program = folder_ / "nothing";
    EXPECT_EQ(error_of(std::move(bad)),
              fmt::format("cannot run {}: No such file or directory", folder_ / "nothing"));
  }
  expect_nothing_left(descriptors);
  {
    Spec bad = spec("hello");
    bad.program = "/bin/true";
    EXPECT_EQ(error_of(std::move(bad)),
              "the VMM could not start: it ended without a reason, see the instance's log");
  }
  expect_nothing_left(descriptors);
}

// Descriptors run out at each step of a launch, those after the fork included.
TEST_F(LaunchTest, ALaunchThatRunsOutOfDescriptorsLeavesNothing) {
  int failures = 0;
  for (bool launched = false; !launched; ++failures) {
    ASSERT_LT(failures, 40);
    Spec one = spec("spin");
    size_t descriptors = testing::open_descriptors();
    size_t of_spec = 5;  // kvm, kernel, console_ring, status, log
    rlimit before{};
    ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &before), 0);
    auto next = static_cast<rlim_t>(UniqueFd(::dup(STDIN_FILENO)).get());
    rlimit tight{next + static_cast<rlim_t>(failures), before.rlim_max};
    ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &tight), 0);
    auto process = launch(std::move(one), kPatience);
    ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &before), 0);
    launched = process.ok();
    if (launched) {
      kill_process(*process);
    } else {
      EXPECT_THAT(process.error().message(), HasSubstr("Too many open files"));
      expect_nothing_left(descriptors - of_spec);
    }
  }
  EXPECT_GE(failures, 6) << "two sockets, a pipe, /dev/null, a pidfd";
}

TEST_F(LaunchTest, AVmmThatCannotEnterItsCgroupIsNoVmm) {
  Spec limited = spec("spin");
  // A cgroup.procs that can be opened and takes nothing.
  std::filesystem::create_directory(folder_ / "cgroup");
  std::filesystem::create_symlink("/dev/full", folder_ / "cgroup/cgroup.procs");
  limited.jail.cgroup = folder_ / "cgroup";
  EXPECT_EQ(error_of(std::move(limited)),
            fmt::format("the VMM could not start: the VMM cannot enter its cgroup {}", folder_ / "cgroup"));
}

TEST_F(LaunchTest, SomebodyElsesSocketIsLeftAlone) {
  start("spin");
  EXPECT_EQ(error_of(spec("spin")),
            fmt::format("{} is already served by a live process", folder_ / "control"));
  EXPECT_EQ(client().state().value(), "running");

  Spec other = spec("spin");
  other.control_socket = folder_ / "other";
  EXPECT_EQ(error_of(std::move(other)),
            fmt::format("{} is already served by a live process", folder_ / "console"));
  EXPECT_FALSE(std::filesystem::exists(folder_ / "other"));
  EXPECT_TRUE(connect_unix(folder_ / "console", SOCK_STREAM).ok());
}

TEST_F(LaunchTest, ADeadOnesSocketIsReplaced) {
  kill_process(start("spin"));
  ASSERT_TRUE(std::filesystem::exists(folder_ / "control"));
  start("spin");
  EXPECT_EQ(client().state().value(), "running");
}

// ---- clients of all kinds ----

std::string answer_to(int socket, std::string_view text) {
  send_packet(socket, text).value();
  auto packet = receive_packet(socket);
  return packet.ok() ? packet->text : packet.error().message();
}

TEST_F(LaunchTest, NonsenseOnTheControlSocketGetsASentence) {
  start("spin");
  UniqueFd socket = connect_unix(folder_ / "control", SOCK_SEQPACKET).value();
  for (std::string_view text : {"what?", "[1,2]", "{", "\xff\xfe", "12"}) {
    EXPECT_EQ(answer_to(socket.get(), text),
              R"({"code":"invalid argument","error":"the request is not a JSON object","ok":false})");
  }
  // Deep enough to overflow the stack of a recursive parser.
  std::string deep(60'000, '[');
  EXPECT_THAT(answer_to(socket.get(), deep), HasSubstr("not a JSON object"));
  EXPECT_THAT(answer_to(socket.get(), R"({"op":")" + std::string(20'000, 'x') + "\"}"),
              StartsWith(R"({"code":"unsupported","error":"there is no operation 'xxx)"));
  EXPECT_EQ(answer_to(socket.get(), R"({"op":7})"),
            R"({"code":"unsupported","error":"there is no operation ''","ok":false})");
  EXPECT_EQ(
      answer_to(socket.get(), R"({"op":"attach-disk","id":"vol-1","format":"raw"})"),
      R"({"code":"invalid argument","error":"attach-disk needs an id, a format (raw or volume) and the descriptors of its files","ok":false})");
  EXPECT_EQ(answer_to(socket.get(), R"({"op":"resize-disk","id":"vol-1","size_bytes":-1})"),
            R"({"code":"invalid argument","error":"resize-disk needs size_bytes","ok":false})");
  EXPECT_EQ(client().state().value(), "running");
}

TEST_F(LaunchTest, AnOversizedPacketEndsItsSenderAlone) {
  start("spin");
  UniqueFd socket = connect_unix(folder_ / "control", SOCK_SEQPACKET).value();
  std::string large(kMaxPacketBytes + 1, ' ');
  ASSERT_EQ(::send(socket.get(), large.data(), large.size(), MSG_NOSIGNAL),
            static_cast<ssize_t>(large.size()));
  EXPECT_EQ(receive_packet(socket.get()).error().code(), ErrorCode::kCancelled);
  EXPECT_EQ(client().state().value(), "running");
}

TEST_F(LaunchTest, TwentyClientsAtOnce) {
  start("spin");
  std::vector<UniqueFd> sockets;
  for (int i = 0; i < 20; ++i) sockets.push_back(connect_unix(folder_ / "control", SOCK_SEQPACKET).value());
  size_t served = 0;
  for (const UniqueFd& socket : sockets) {
    if (!send_packet(socket.get(), R"({"op":"state"})").ok()) continue;
    auto packet = receive_packet(socket.get());
    if (packet.ok() && packet->text == R"({"ok":true,"state":"running"})") ++served;
  }
  EXPECT_EQ(served, 16u);
  sockets.clear();
  EXPECT_TRUE(eventually([&] {
    auto late = VmmClient::connect(folder_ / "control");
    return late.ok() && late->state().ok();
  }));
}

TEST_F(LaunchTest, AClientThatNeverReadsIsDropped) {
  start("spin");
  UniqueFd deaf = connect_unix(folder_ / "control", SOCK_SEQPACKET).value();
  bool dropped = eventually([&] {
    constexpr std::string_view kText = R"({"op":"statistics"})";
    ssize_t sent = ::send(deaf.get(), kText.data(), kText.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    return sent < 0 && errno == EPIPE;
  });
  EXPECT_TRUE(dropped);
  EXPECT_EQ(client().state().value(), "running");
}

TEST_F(LaunchTest, AConsoleThatIsNotReadTakesNoTimeOfTheGuest) {
  start("flood bytes=100000000");
  UniqueFd deaf = connect_unix(folder_ / "console", SOCK_STREAM).value();
  VmmClient vmm = client();
  // More than any socket buffer holds.
  EXPECT_TRUE(eventually([&] {
    return nlohmann::json::parse(vmm.statistics().value())["vcpus"][0]["pio"].get<uint64_t>() > 50'000;
  }));
}

std::string read_console_until(int socket, std::string_view text) {
  std::string all;
  while (all.find(text) == std::string::npos) {
    pollfd wait{socket, POLLIN, 0};
    if (::poll(&wait, 1, static_cast<int>(std::chrono::milliseconds(kPatience).count())) != 1) break;
    char buffer[4096];
    ssize_t got = ::recv(socket, buffer, sizeof buffer, 0);
    if (got <= 0) break;
    all.append(buffer, static_cast<size_t>(got));
  }
  return all;
}

TEST_F(LaunchTest, TheConsoleSocketHasWhatWasAndWhatComes) {
  Process& process = start("echo");
  ASSERT_TRUE(console_says("ready"));
  UniqueFd first = connect_unix(folder_ / "console", SOCK_STREAM).value();
  UniqueFd second = connect_unix(folder_ / "console", SOCK_STREAM).value();
  EXPECT_EQ(read_console_until(second.get(), "ready\n"), "!ready\n");
  std::string text;
  for (int i = 0; text.size() < 20'000; ++i) text += fmt::format("{:05} ", i);
  ASSERT_TRUE(write_all(first.get(), std::as_bytes(std::span(text))).ok());
  EXPECT_EQ(read_console_until(second.get(), text.substr(text.size() - 6)), text);
  ASSERT_TRUE(write_all(second.get(), std::as_bytes(std::span("q", 1))).ok());
  EXPECT_EQ(ending_of(process).reason, "powered-off");
  EXPECT_EQ(read_console_until(second.get(), "done\n"), "done\n");
}

TEST_F(LaunchTest, AReaderOfAFloodGetsEveryByte) {
  // More than the ring holds: what a reader gets, it got while the guest wrote.
  constexpr size_t kBytes = 2 * kConsoleRingBytes;
  start(fmt::format("flood bytes={}", kBytes));
  UniqueFd reader = connect_unix(folder_ / "console", SOCK_STREAM).value();
  std::string expected = "!";
  for (size_t i = 0; i < kBytes; ++i) expected += static_cast<char>('a' + i % 26);
  std::string got = read_console_until(reader.get(), "done\n");
  EXPECT_TRUE(got == expected + "\ndone\n")
      << got.size() << " bytes, the end: " << got.substr(got.size() - 20);
}

TEST_F(LaunchTest, WhatWasTypedTooEarlyReachesTheNextMachine) {
  start("echo");
  ASSERT_TRUE(console_says("ready"));
  VmmClient vmm = client();
  ASSERT_TRUE(vmm.pause().ok());
  UniqueFd console = connect_unix(folder_ / "console", SOCK_STREAM).value();
  // The serial line takes the first 4 KiB, which the reset wipes out; the rest waits.
  std::string text = std::string(12'000, 'x') + "END";
  ASSERT_TRUE(write_all(console.get(), std::as_bytes(std::span(text))).ok());
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  ASSERT_TRUE(vmm.reset().ok());
  ASSERT_TRUE(vmm.resume().ok());
  EXPECT_THAT(read_console_until(console.get(), "END"), HasSubstr("xEND"));
}

// ---- a VMM that its guest has taken over ----

// It keeps all connections waiting, those of closed clients too.
TEST_F(LaunchTest, AVmmThatTakesNoConnectionCannotHoldItsClient) {
  UniqueFd listening = listen_unix(folder_ / "deaf", SOCK_SEQPACKET).value();
  Result<UniqueFd> socket = UniqueFd();
  int connected = 0;
  for (; socket.ok(); ++connected)
    socket = connect_unix(folder_ / "deaf", SOCK_SEQPACKET, std::chrono::milliseconds(20));
  EXPECT_GT(connected, 60);
  auto begin = std::chrono::steady_clock::now();
  auto client = VmmClient::connect(folder_ / "deaf");
  ASSERT_FALSE(client.ok());
  EXPECT_EQ(client.error().code(), ErrorCode::kTimeout);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(30));
}

class FalseVmm {
 public:
  explicit FalseVmm(const std::string& path, std::string answer)
      : listening_(listen_unix(path, SOCK_SEQPACKET).value()), thread_([this, answer = std::move(answer)] {
          UniqueFd socket = accept_unix(listening_.get()).value();
          while (receive_packet(socket.get()).ok()) (void)send_packet(socket.get(), answer);
        }) {}
  ~FalseVmm() { thread_.join(); }

 private:
  UniqueFd listening_;
  std::thread thread_;
};

TEST_F(LaunchTest, AnswersOfAFalseVmmAreHarmless) {
  struct Case {
    std::string answer;
    std::string error;
  };
  const Case cases[] = {
      {"hello", "the VMM answered something that is not JSON"},
      {"[]", "the VMM answered something that is not JSON"},
      {std::string(60'000, '['), "the VMM answered something that is not JSON"},
      {R"({"ok":"yes"})", "the VMM answered neither yes nor no"},
      {R"({})", "the VMM answered neither yes nor no"},
      {R"({"ok":false,"code":[],"error":{}})", ""},
  };
  for (const Case& c : cases) {
    FalseVmm vmm(folder_ / "false", c.answer);
    auto client = VmmClient::connect(folder_ / "false").value();
    EXPECT_EQ(client.state().error().message(), c.error);
    EXPECT_EQ(client.statistics().error().message(), c.error);
    EXPECT_EQ(client.disk_ids().error().message(), c.error);
    EXPECT_EQ(client.pause().error().message(), c.error);
  }
  for (std::string answer : {R"({"ok":true})", R"({"ok":true,"state":1,"statistics":{},"ids":[1]})",
                             R"({"ok":true,"ids":{"a":null}})"}) {
    FalseVmm vmm(folder_ / "false", answer);
    auto client = VmmClient::connect(folder_ / "false").value();
    EXPECT_EQ(client.state().value(), "");
    EXPECT_EQ(client.statistics().value(), "");
    (void)client.disk_ids();
  }
}

TEST_F(LaunchTest, LastWordsOfAFalseVmmAreHarmless) {
  for (std::string_view text : {"", "{", "[]", "{}", R"({"reason":1})", R"({"reason":{},"detail":[]})"}) {
    UniqueFd file = open_file(folder_.file("words", text), O_RDONLY).value();
    EXPECT_EQ(read_ending(file.get()).reason, "vanished") << text;
  }
  UniqueFd file = open_file(folder_.file("words", R"({"reason":"reset","detail":7})"), O_RDONLY).value();
  EXPECT_EQ(read_ending(file.get()).reason, "reset");
  EXPECT_EQ(read_ending(file.get()).detail, "");
}

}  // namespace
}  // namespace haneul::launch
