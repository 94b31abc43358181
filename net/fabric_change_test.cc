// SPDX-License-Identifier: Apache-2.0
// A fabric beside other clouds, and on a host whose routes, rules and devices change under it.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <poll.h>
#include <sched.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <thread>

#include "base/file.h"
#include "net/fabric.h"
#include "net/names.h"
#include "net/netlink.h"
#include "net/tap.h"
#include "net/testing/world.h"
#include "net/watch.h"

namespace haneul::net::testing {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

class FabricChangeTest : public NetworkTest {
 protected:
  FabricOptions options_of(const std::string& owner, unsigned second_octet = 31) const {
    FabricOptions made = options("han0", second_octet);
    made.owner = owner;
    return made;
  }
  static bool there(const std::string& link) {
    return Netlink::open().value().link(link).value().has_value();
  }
  static std::string message_of(const Result<Fabric>& fabric) {
    return fabric.ok() ? "opened" : fabric.error().message();
  }
  /// An nft that applies nothing while the file `fail` is there.
  std::filesystem::path breakable_nft() {
    std::filesystem::path folder =
        std::filesystem::path(::testing::TempDir()) / fmt::format("nft-{}", ::getpid());
    std::filesystem::create_directories(folder);
    fail_ = folder / "fail";
    std::ofstream(folder / "nft") << "#!/bin/sh\n[ \"$1\" = -f ] && [ -e " << fail_.string()
                                  << " ] && exit 1\nexec nft \"$@\"\n";
    ::chmod((folder / "nft").c_str(), 0755);
    return folder / "nft";
  }
  void TearDown() override {
    if (!fail_.empty()) std::filesystem::remove_all(fail_.parent_path());
  }
  std::filesystem::path fail_;
};

bool told(Watch& watch) {
  pollfd wait{watch.fd(), POLLIN, 0};
  bool changed = ::poll(&wait, 1, 5000) > 0;
  watch.drain();
  return changed;
}

/// Root, and not the one of a user namespace that the test made for itself.
bool really_root() {
  struct stat run {};
  return ::geteuid() == 0 && ::stat("/run", &run) == 0 && run.st_uid == 0;
}

/// Runs the work in a child with mounts of its own, and returns its exit code.
int with_own_mounts(const std::function<int()>& work) {
  pid_t child = ::fork();
  if (child == 0) {
    bool own =
        ::unshare(CLONE_NEWNS) == 0 && ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0;
    ::_exit(own ? work() : 99);
  }
  int status = 0;
  EXPECT_EQ(::waitpid(child, &status, 0), child);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

TEST_F(FabricChangeTest, ATagThatAnotherCloudHasIsNotTaken) {
  Fabric first = open(options_of("/a"));
  Guest guest = plug(first, nic(5));
  EXPECT_THAT(run({"ip", "link", "show", "hnl-han0-a"}), HasSubstr("alias haneul:han0 state=/a"));
  EXPECT_EQ(choose_tag("/a", "han0").value(), "han0");
  std::string other = choose_tag("/b", "han0").value();
  EXPECT_NE(other, "han0");
  EXPECT_EQ(choose_tag("/b", other).value(), other);
  EXPECT_EQ(choose_tag("/c", "").value(), tag_for("/c"));

  EXPECT_EQ(
      message_of(Fabric::open(options_of("/b", 30))),
      "there is an interface named hnl-han0-a that this cloud did not make: rename or remove it, or give "
      "the cloud another tag than han0");
  EXPECT_TRUE(there(guest.nic().tap)) << "nobody but its own cloud removes a tap";
  EXPECT_TRUE(guest.resolve(ip("172.31.0.1")));
}

// The tables are named by the tag alone: the second cloud would replace the first one's rules.
TEST_F(FabricChangeTest, ATagIsTakenWhateverTheZonesAreNamed) {
  Fabric first = open(options_of("/a"));
  FabricOptions other = options_of("/b", 30);
  other.zones[0].label = "x";
  other.zones[1].label = "y";
  std::string before = everything();
  EXPECT_THAT(message_of(Fabric::open(other)), HasSubstr("that this cloud did not make"));
  EXPECT_EQ(everything(), before);
}

TEST_F(FabricChangeTest, ATagIsTakenByATapToo) {
  UniqueFd tap = create_tap("t-han0-12345678").value();
  Netlink netlink = Netlink::open().value();
  netlink.set_alias(netlink.link("t-han0-12345678").value()->index, Mark{"han0", {}, "/a"}.text()).value();
  EXPECT_THAT(message_of(Fabric::open(options_of("/b"))),
              HasSubstr("an interface named t-han0-12345678 that this cloud did not make"));
  EXPECT_EQ(message_of(Fabric::open(options_of("/a"))), "opened");
}

// A bridge of the other cloud that was renamed: its record still counts.
TEST_F(FabricChangeTest, AnUplinkThatAnotherCloudOfTheTagNeedsStaysOn) {
  make_outside();
  Netlink netlink = Netlink::open().value();
  ASSERT_TRUE(netlink.create_bridge("renamed", bridge_mac("renamed", "/b")).ok());
  netlink.set_alias(netlink.link("renamed").value()->index, Mark{"han0", {"eth0"}, "/b"}.text()).value();
  run({"sh", "-c", "echo 1 > /proc/sys/net/ipv4/conf/eth0/forwarding"});
  Fabric first = open(options_of("/a"));
  ASSERT_TRUE(first.remove_all().ok());
  EXPECT_EQ(run({"cat", "/proc/sys/net/ipv4/conf/eth0/forwarding"}), "1\n");
}

TEST_F(FabricChangeTest, ABridgeThatGotNoMarkYetHasAnOwnerToo) {
  std::string bridge = "hnl-han0-a";
  ASSERT_TRUE(Netlink::open().value().create_bridge(bridge, bridge_mac(bridge, "/a")).ok());
  EXPECT_THAT(message_of(Fabric::open(options_of("/b"))), HasSubstr("that this cloud did not make"));
  EXPECT_NE(choose_tag("/b", "han0").value(), "han0");
  EXPECT_EQ(message_of(Fabric::open(options_of("/a"))), "opened");
}

TEST_F(FabricChangeTest, ABridgeOfAnOlderDaemonIsKnown) {
  { Fabric older = open(options()); }
  EXPECT_THAT(run({"ip", "link", "show", "hnl-han0-a"}), Not(HasSubstr("state=")));
  EXPECT_EQ(choose_tag("/a", "han0").value(), "han0");
  EXPECT_EQ(message_of(Fabric::open(options_of("/a"))), "opened");
}

TEST_F(FabricChangeTest, WhoUsesARange) {
  EXPECT_EQ(range_user("han0", "/a", prefix("172.31.0.0/16")).value(), "");
  Fabric first = open(options_of("/a"));
  EXPECT_EQ(range_user("han0", "/a", prefix("172.31.0.0/16")).value(), "") << "its own";
  EXPECT_EQ(range_user("x", "/b", prefix("172.31.0.0/16")).value(), "interface hnl-han0-a has 172.31.0.1/20");
  run({"ip", "route", "add", "blackhole", "172.30.7.0/24"});
  EXPECT_EQ(range_user("x", "/b", prefix("172.30.0.0/16")).value(), "there is a route to 172.30.7.0/24");
  EXPECT_EQ(range_user("x", "/b", prefix("172.29.0.0/16")).value(), "");
}

TEST_F(FabricChangeTest, OneCloudAtATimeLooksForAPlace) {
  std::optional<UniqueFd> first = lock_network().value();
  std::atomic<bool> entered{false};
  std::thread second([&] {
    UniqueFd lock = lock_network().value();
    entered = true;
  });
  std::this_thread::sleep_for(kMoment);
  EXPECT_FALSE(entered);
  first.reset();
  second.join();
  EXPECT_TRUE(entered);
}

TEST_F(FabricChangeTest, WhoWaitsInVainForAPlaceIsToldForWhat) {
  UniqueFd held = lock_network().value();
  const char* file = really_root() ? "/run/haneul-network.lock" : "/proc/thread-self/ns/net";
  auto refused = lock_network(std::chrono::seconds(0));
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code(), ErrorCode::kTimeout);
  EXPECT_EQ(refused.error().message(),
            fmt::format("another cloud has been starting on this host for more than 0 s: start again when it "
                        "is done, or end the process that holds {} locked",
                        file));
  std::thread([] {
    ASSERT_EQ(::unshare(CLONE_NEWNET), 0);
    EXPECT_TRUE(lock_network(std::chrono::seconds(0)).ok()) << "another network";
  }).join();
}

TEST_F(FabricChangeTest, AnotherUserCannotKeepRootFromStarting) {
  if (!really_root()) GTEST_SKIP() << "not root";
  { UniqueFd once = lock_network().value(); }
  // All that such a user can open.
  UniqueFd network = open_file("/proc/thread-self/ns/net", O_RDONLY).value();
  ASSERT_EQ(::flock(network.get(), LOCK_EX | LOCK_NB), 0);
  EXPECT_TRUE(lock_network(std::chrono::seconds(0)).ok());
  struct stat file {};
  ASSERT_EQ(::lstat("/run/haneul-network.lock", &file), 0);
  EXPECT_TRUE(S_ISREG(file.st_mode));
  EXPECT_EQ(file.st_mode & 0777, 0600u);
  EXPECT_EQ(file.st_uid, 0u);
}

TEST_F(FabricChangeTest, FlushedRulesAreNoticedAndComeBack) {
  Fabric fabric = open(options());
  Guest guest = plug(fabric, nic(5));
  Watch watch = Watch::open().value();
  std::string before = everything();
  ASSERT_TRUE(fabric.refresh().ok());
  EXPECT_EQ(everything(), before);
  pollfd idle{watch.fd(), POLLIN, 0};
  EXPECT_EQ(::poll(&idle, 1, 0), 0) << "looking changes nothing";

  run({"nft", "flush", "ruleset"});
  EXPECT_TRUE(told(watch));
  EXPECT_NE(everything(), before);
  ASSERT_TRUE(fabric.refresh().ok());
  EXPECT_EQ(everything(), before);

  run({"nft", "delete", "table", "bridge", "haneul-han0"});
  ASSERT_TRUE(fabric.refresh().ok());
  EXPECT_EQ(everything(), before);
}

// As with a host whose address comes by DHCP after its boot, or a laptop that changes its network.
TEST_F(FabricChangeTest, ANewWayToTheWorldIsTaken) {
  Fabric fabric = open(options());
  Guest guest = plug(fabric, nic(5));
  EXPECT_THAT(fabric.warnings(), ::testing::ElementsAre(HasSubstr("no default route")));
  Watch watch = Watch::open().value();
  make_outside();
  EXPECT_TRUE(told(watch));
  EXPECT_EQ(run({"cat", "/proc/sys/net/ipv4/conf/eth0/forwarding"}), "0\n");
  ASSERT_TRUE(fabric.refresh().ok());
  EXPECT_EQ(run({"cat", "/proc/sys/net/ipv4/conf/eth0/forwarding"}), "1\n");
  EXPECT_THAT(fabric.warnings(), IsEmpty());
  EXPECT_THAT(run({"ip", "link", "show", "hnl-han0-b"}), HasSubstr("forwarding=eth0"));

  std::optional<Socket> server;
  outside([&] { server = Socket::udp(53); });
  guest.send_ip(IPPROTO_UDP, outside_address_, udp(4000, 53, "question"));
  sockaddr_in from{};
  ASSERT_EQ(server->receive(&from), "question");
  server->send(host_address_, ntohs(from.sin_port), "answer");
  EXPECT_TRUE(guest.receive([](const Frame& f) { return f.protocol == IPPROTO_UDP && f.to_port == 4000; }));

  ASSERT_TRUE(fabric.remove_all().ok());
  EXPECT_EQ(run({"cat", "/proc/sys/net/ipv4/conf/eth0/forwarding"}), "0\n");
}

TEST_F(FabricChangeTest, AFailedUnplugDoesNotStandInTheWayOfTheNextPlug) {
  FabricOptions wanted = options();
  wanted.nft = breakable_nft();
  Fabric fabric = open(wanted);
  Guest guest = plug(fabric, nic(5));
  std::ofstream(fail_) << "x";
  EXPECT_FALSE(fabric.unplug(guest.nic().tap).ok());
  EXPECT_FALSE(there(guest.nic().tap));
  std::filesystem::remove(fail_);

  auto again = fabric.plug(nic(5));
  ASSERT_TRUE(again.ok()) << again.error().message();
  EXPECT_EQ(fabric.nics().size(), 1u);
  EXPECT_EQ(fabric.plug(nic(5)).error().message(),
            fmt::format("{0}: its name is in use by {0}", guest.nic().tap));
}

// Forwarding without the rule that guards it would make the host a router for everybody.
TEST_F(FabricChangeTest, ForwardingWaitsForItsRule) {
  FabricOptions wanted = options();
  wanted.nft = breakable_nft();
  Fabric fabric = open(wanted);
  make_outside();
  std::ofstream(fail_) << "x";
  for (int i = 0; i < 2; ++i) {
    EXPECT_FALSE(fabric.refresh().ok());
    EXPECT_EQ(run({"cat", "/proc/sys/net/ipv4/conf/eth0/forwarding"}), "0\n");
  }
  EXPECT_FALSE(fabric.reconcile({}).ok());
  EXPECT_FALSE(fabric.refresh().ok());
  EXPECT_EQ(run({"cat", "/proc/sys/net/ipv4/conf/eth0/forwarding"}), "0\n");

  std::filesystem::remove(fail_);
  ASSERT_TRUE(fabric.refresh().ok());
  EXPECT_EQ(run({"cat", "/proc/sys/net/ipv4/conf/eth0/forwarding"}), "1\n");
  EXPECT_THAT(run({"nft", "list", "ruleset"}), HasSubstr("eth0"));
}

TEST_F(FabricChangeTest, AHostWithoutTun) {
  std::string before = everything();
  EXPECT_EQ(with_own_mounts([&] {
              if (::mount("none", "/dev/net", "tmpfs", 0, nullptr) != 0) return 98;
              auto fabric = Fabric::open(options());
              EXPECT_EQ(
                  message_of(fabric),
                  "there is no /dev/net/tun: load the kernel module `tun`, or give the container the device "
                  "/dev/net/tun");
              return HasFailure() ? 1 : 0;
            }),
            0);
  EXPECT_EQ(everything(), before);
}

TEST_F(FabricChangeTest, AFirstStartThatFailsHalfWayLeavesNothing) {
  make_outside();
  std::string before = everything();
  EXPECT_EQ(with_own_mounts([&] {
              const char* settings = "/proc/sys/net";
              if (::mount(settings, settings, nullptr, MS_BIND, nullptr) != 0) return 98;
              unsigned long read_only = MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC;
              if (::mount(nullptr, settings, nullptr, read_only, nullptr) != 0) return 97;
              EXPECT_THAT(message_of(Fabric::open(options())), HasSubstr("Read-only file system"));
              return HasFailure() ? 1 : 0;
            }),
            0);
  EXPECT_EQ(everything(), before);
}

}  // namespace
}  // namespace haneul::net::testing
