// SPDX-License-Identifier: Apache-2.0
// A machine's network card on a tap, in a network namespace of the test's own: what the guest sends comes out
// of the tap's interface, and is sent back.
#include <arpa/inet.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <thread>

#include "base/checked.h"
#include "tests/support/files.h"
#include "vmm/runner.h"

namespace haneul::vmm {
namespace {

constexpr uint16_t kEtherType = 0x88b5;  // local experiments, as in tests/guests/guest.cc
constexpr std::string_view kTapName = "tap0";

Result<UniqueFd> make_tap() {
  UniqueFd tap = TRY(open_file("/dev/net/tun", O_RDWR | O_NONBLOCK));
  ifreq request{};
  request.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
  kTapName.copy(request.ifr_name, IFNAMSIZ - 1);
  if (::ioctl(tap.get(), TUNSETIFF, &request) != 0) return errno_error("TUNSETIFF");
  UniqueFd control(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  request.ifr_flags = IFF_UP;
  if (::ioctl(control.get(), SIOCSIFFLAGS, &request) != 0) return errno_error("SIOCSIFFLAGS");
  return tap;
}

/// Sends back every frame of our type that the guest sent, until told to end.
class Echo {
 public:
  explicit Echo(UniqueFd socket) : socket_(std::move(socket)), thread_([this] { loop(); }) {}
  ~Echo() {
    ending_ = true;
    thread_.join();
  }
  static Result<UniqueFd> open() {
    UniqueFd socket(::socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, htons(kEtherType)));
    if (!socket) return errno_error("AF_PACKET");
    sockaddr_ll address{};
    address.sll_family = AF_PACKET;
    address.sll_protocol = htons(kEtherType);
    address.sll_ifindex = static_cast<int>(::if_nametoindex(kTapName.data()));
    if (::bind(socket.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) != 0)
      return errno_error("bind");
    timeval wait{0, 20'000};
    if (::setsockopt(socket.get(), SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof wait) != 0)
      return errno_error("SO_RCVTIMEO");
    return socket;
  }

 private:
  void loop() {
    std::array<char, 9000> frame;
    while (!ending_) {
      sockaddr_ll from{};
      socklen_t length = sizeof from;
      ssize_t got = ::recvfrom(socket_.get(), frame.data(), frame.size(), 0,
                               reinterpret_cast<sockaddr*>(&from), &length);
      if (got <= 0 || from.sll_pkttype == PACKET_OUTGOING) continue;
      (void)::send(socket_.get(), frame.data(), static_cast<size_t>(got), 0);
    }
  }
  UniqueFd socket_;
  std::atomic<bool> ending_{false};
  std::thread thread_;
};

struct Run {
  std::string console;
  uint64_t exits = 0;
};

/// Runs the guest until it spins at its end.
Result<Run> run(const UniqueFd& tap, std::string command) {
  Kvm kvm = TRY(Kvm::open());
  TRY(install_kick_handler());
  RunnerConfig config;
  config.machine.memory_bytes = 64_MiB;
  config.machine.kernel = TRY(open_file(testing::guest_kernel(), O_RDONLY));
  config.machine.command_line = std::move(command) + " stay=1";
  launch::Nic nic;
  nic.tap = TRY(duplicate(tap));
  nic.mac = {2, 0, 0, 0, 0, 1};
  config.machine.nics.push_back(std::move(nic));
  auto spawner = TRY(Spawner::create(nullptr));
  auto runner = TRY(Runner::create(std::move(config), kvm, *spawner));
  Run result;
  runner->set_console_listener([&](std::span<const std::byte> data) {
    result.console.append(reinterpret_cast<const char*>(data.data()), data.size());
    if (!result.console.ends_with("done\n")) return;
    result.exits = runner->machine().vcpus()[0]->exits().total();
    runner->machine().end({EndReason::kStopped, ""});
  });
  End end = TRY(runner->run());
  if (end.reason != EndReason::kStopped) return Error(ErrorCode::kIo, result.console + end.detail);
  return result;
}

/// In a child that has entered the namespaces; its exit status.
int exchange_frames() {
  auto tap = make_tap();
  if (!tap.ok()) {
    std::fprintf(stderr, "%s\n", tap.error().message().c_str());
    return 1;
  }
  Echo echo(Echo::open().value());
  uint64_t few_exits = 0;
  for (const char* command : {"net frames=10", "net frames=2000", "net frames=200 bytes=1400"}) {
    auto outcome = run(*tap, command);
    if (!outcome.ok()) {
      std::fprintf(stderr, "%s: %s\n", command, outcome.error().message().c_str());
      return 2;
    }
    if (few_exits == 0) few_exits = outcome->exits;
    // A few more digits are printed; a frame takes no exit.
    if (outcome->exits > few_exits + 30) {
      std::fprintf(stderr, "%s: %lu exits, ten frames took %lu\n", command, outcome->exits, few_exits);
      return 3;
    }
  }
  return 0;
}

TEST(Net, FramesComeBackAndTakeNoExits) {
  constexpr int kNoNamespace = 99;
  pid_t child = ::fork();
  if (child == 0) {
    int spaces = CLONE_NEWNET | (::geteuid() == 0 ? 0 : CLONE_NEWUSER);
    ::_exit(::unshare(spaces) == 0 ? exchange_frames() : kNoNamespace);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFEXITED(status)) << status;
  if (WEXITSTATUS(status) == kNoNamespace) GTEST_SKIP() << "no network namespace can be made here";
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

}  // namespace
}  // namespace haneul::vmm
