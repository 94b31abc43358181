// SPDX-License-Identifier: Apache-2.0
// What a fabric makes, refuses, repairs and takes away again.
#include "net/fabric.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <thread>

#include "net/names.h"
#include "net/netlink.h"
#include "net/testing/world.h"

namespace haneul::net::testing {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

auto ssh_of_the_host = [](const Frame& f) { return f.protocol == IPPROTO_TCP && f.to_port == 22; };

#if defined(__SANITIZE_THREAD__)
constexpr bool kThreadSanitizer = true;
#elif defined(__has_feature)
constexpr bool kThreadSanitizer = __has_feature(thread_sanitizer);
#else
constexpr bool kThreadSanitizer = false;
#endif

class FabricTest : public NetworkTest {
 protected:
  std::string refused(FabricOptions wanted, ErrorCode code) {
    std::string before = everything();
    auto fabric = Fabric::open(std::move(wanted));
    EXPECT_FALSE(fabric.ok());
    if (fabric.ok()) return "";
    EXPECT_EQ(name(fabric.error().code()), name(code));
    EXPECT_EQ(everything(), before) << "a refusal leaves nothing behind";
    return fabric.error().message();
  }
  static bool there(const std::string& link) {
    return Netlink::open().value().link(link).value().has_value();
  }
  /// An nft whose transactions the kernel refuses half way while the file `fail` is there.
  std::string breakable_nft() {
    std::filesystem::path folder =
        std::filesystem::path(::testing::TempDir()) / fmt::format("nft-{}", ::getpid());
    std::filesystem::create_directories(folder);
    fail_ = folder / "fail";
    std::ofstream(folder / "nft") << "#!/bin/sh\nif [ -e " << fail_.string()
                                  << " ] && [ \"$1\" = -f ]; then\n"
                                     "  (cat; echo 'delete table inet not-there') | nft -f -\n"
                                     "else exec nft \"$@\"; fi\n";
    ::chmod((folder / "nft").c_str(), 0755);
    return folder / "nft";
  }
  void TearDown() override {
    if (!fail_.empty()) std::filesystem::remove_all(fail_.parent_path());
  }
  std::filesystem::path fail_;
};

TEST_F(FabricTest, RemovalLeavesNothing) {
  make_outside();
  std::string before = everything();
  Fabric fabric = open(options());
  Guest guest = plug(fabric, nic(5));
  EXPECT_NE(everything(), before);
  EXPECT_EQ(run({"cat", "/proc/sys/net/ipv4/conf/eth0/forwarding"}), "1\n");
  EXPECT_EQ(run({"cat", "/proc/sys/net/ipv4/ip_forward"}), "0\n");
  ASSERT_TRUE(fabric.remove_all().ok());
  EXPECT_EQ(everything(), before);
  ASSERT_TRUE(fabric.remove_all().ok()) << "again is fine";
}

TEST_F(FabricTest, ATapVanishesWithItsDescriptorAndLeavesNoRuleBehindForLong) {
  Fabric fabric = open(options());
  Guest guest = plug(fabric, nic(5));
  EXPECT_TRUE(there(guest.nic().tap));
  guest.pull_out();
  EXPECT_FALSE(there(guest.nic().tap));
  ASSERT_TRUE(fabric.unplug(guest.nic().tap).ok());
  EXPECT_THAT(run({"nft", "list", "ruleset"}), Not(HasSubstr(guest.nic().tap)));
  EXPECT_THAT(run({"ip", "neigh"}), Not(HasSubstr("172.31.0.5")));
  ASSERT_TRUE(fabric.unplug(guest.nic().tap).ok()) << "again is fine";
  Guest again = plug(fabric, nic(5));
  EXPECT_TRUE(again.resolve(ip("172.31.0.1")));
}

TEST_F(FabricTest, UnplugTakesTheTapFromAProcessThatHoldsIt) {
  Fabric fabric = open(options());
  Guest guest = plug(fabric, nic(5));
  ASSERT_TRUE(fabric.unplug(guest.nic().tap).ok());
  EXPECT_FALSE(there(guest.nic().tap));
}

TEST_F(FabricTest, AFailingTransactionLeavesTheOldRulesInForce) {
  FabricOptions wanted = options();
  wanted.nft = breakable_nft();
  Fabric fabric = open(wanted);
  Guest guest = plug(fabric, nic(5));
  std::string before = everything();
  std::ofstream(fail_) << "x";

  Policy open_to_all;
  open_to_all.inbound = {{.peers = {Ipv4Prefix{}}}};
  Status changed = fabric.set_policy(guest.nic().tap, open_to_all);
  ASSERT_FALSE(changed.ok());
  EXPECT_THAT(changed.error().message(), HasSubstr("the firewall rules were not changed: nft says: "));
  EXPECT_FALSE(fabric.plug(nic(6)).ok());
  EXPECT_EQ(everything(), before);
  EXPECT_EQ(fabric.nics().size(), 1u);
  EXPECT_THAT(fabric.nics()[0].policy.inbound, IsEmpty());

  std::filesystem::remove(fail_);
  EXPECT_TRUE(fabric.plug(nic(6)).ok());
}

TEST_F(FabricTest, WithoutRulesNothingIsOpened) {
  FabricOptions wanted = options();
  wanted.nft = breakable_nft();
  std::ofstream(fail_) << "x";
  EXPECT_THAT(refused(wanted, ErrorCode::kIo), HasSubstr("the firewall rules were not changed"));
}

TEST_F(FabricTest, NamesThatAreTaken) {
  run({"ip", "link", "add", "hnl-han0-b", "type", "bridge"});
  EXPECT_EQ(
      refused(options(), ErrorCode::kExists),
      "there is an interface named hnl-han0-b that this cloud did not make: rename or remove it, or give "
      "the cloud another tag than han0");
  run({"ip", "link", "del", "hnl-han0-b"});

  Fabric fabric = open(options());
  std::string tap = nic(5).tap;
  run({"ip", "tuntap", "add", "dev", tap, "mode", "tap"});
  auto plugged = fabric.plug(nic(5));
  ASSERT_FALSE(plugged.ok());
  EXPECT_EQ(plugged.error().code(), ErrorCode::kExists);
  EXPECT_EQ(plugged.error().message(), fmt::format("an interface named {} is there already", tap));
  EXPECT_THAT(fabric.nics(), IsEmpty());
  EXPECT_THAT(run({"nft", "list", "ruleset"}), Not(HasSubstr(tap)));
}

TEST_F(FabricTest, RangesThatAreTaken) {
  run({"ip", "link", "add", "lan", "type", "bridge"});
  run({"ip", "addr", "add", "172.31.17.4/24", "dev", "lan"});
  EXPECT_EQ(refused(options(), ErrorCode::kExists),
            "the range 172.31.16.0/20 of zone test-1b is in use on this host (interface lan has "
            "172.31.17.4/24): free it, or run the cloud in a network of its own with `--network private`");
  run({"ip", "addr", "del", "172.31.17.4/24", "dev", "lan"});
  run({"ip", "link", "set", "lan", "up"});
  run({"ip", "route", "add", "172.16.0.0/12", "dev", "lan"});
  EXPECT_THAT(refused(options(), ErrorCode::kExists),
              HasSubstr("(there is a route to 172.16.0.0/12 through lan)"));
  run({"ip", "route", "del", "172.16.0.0/12"});
  run({"ip", "route", "add", "unreachable", "172.31.0.0/24"});
  EXPECT_THAT(refused(options(), ErrorCode::kExists), HasSubstr("(there is a route to 172.31.0.0/24"));
}

TEST_F(FabricTest, OptionsThatAreNotWellFormed) {
  FabricOptions wanted = options("TAG");
  EXPECT_EQ(refused(wanted, ErrorCode::kInvalidArgument), "'TAG' is not a tag: 1 to 4 of a-z and 0-9");
  wanted = options();
  wanted.zones[0].gateway = ip("172.31.16.1");
  EXPECT_EQ(refused(wanted, ErrorCode::kInvalidArgument),
            "zone test-1a: the gateway 172.31.16.1 is not an address of 172.31.0.0/20");
  wanted = options();
  wanted.zones[1].label = "a";
  EXPECT_EQ(refused(wanted, ErrorCode::kInvalidArgument), "two zones are named test-1b or share the label a");
  wanted = options();
  wanted.zones[1].subnet = prefix("172.31.0.0/16");
  EXPECT_EQ(refused(wanted, ErrorCode::kInvalidArgument),
            "the subnets of the zones test-1a and test-1b overlap");
  wanted = options();
  wanted.nft = "/nonexistent/nft";
  EXPECT_EQ(refused(wanted, ErrorCode::kUnsupported), "/nonexistent/nft is not a program that can be run");
}

TEST_F(FabricTest, InterfacesThatCannotBePlugged) {
  Fabric fabric = open(options());
  Guest guest = plug(fabric, nic(5));
  auto refusal = [&](auto change) {
    NicSpec spec = nic(6);
    change(spec);
    auto plugged = fabric.plug(spec);
    return plugged.ok() ? "plugged" : plugged.error().message();
  };
  std::string six = nic(6).tap;
  EXPECT_EQ(refusal([](auto& n) { n.zone = "test-1c"; }), "there is no zone test-1c");
  for (const char* bad : {"172.31.0.0", "172.31.0.1", "172.31.15.255", "172.31.16.9", "10.0.0.1"}) {
    EXPECT_EQ(refusal([&](auto& n) { n.address = ip(bad); }),
              fmt::format("{} is not an address for an instance in test-1a (172.31.0.0/20)", bad));
  }
  EXPECT_EQ(refusal([&](auto& n) { n.address = guest.address(); }),
            fmt::format("{}: its address is in use by {}", six, guest.nic().tap));
  EXPECT_EQ(refusal([&](auto& n) { n.mac = guest.mac(); }),
            fmt::format("{}: its MAC is in use by {}", six, guest.nic().tap));
  EXPECT_THAT(refusal([](auto& n) { n.tap = "eth0"; }), HasSubstr("'eth0' is not a tap name of cloud han0"));
  EXPECT_EQ(refusal([](auto&) {}), "plugged");
}

TEST_F(FabricTest, ARestartFindsTheTapsThatLive) {
  NicSpec five = nic(5);
  NicSpec six = nic(6);
  NicSpec seven = nic(7);
  std::optional<Guest> live;
  std::optional<Guest> stale;
  {
    Fabric fabric = open(options());
    live = plug(fabric, five);
    stale = plug(fabric, six);
    plug(fabric, seven).pull_out();
  }
  Fabric fabric = open(options(), {five, seven});
  EXPECT_FALSE(there(six.tap)) << "nobody vouches for it";
  ASSERT_EQ(fabric.nics().size(), 1u) << "the seventh's tap has gone";
  EXPECT_EQ(fabric.nics()[0].tap, five.tap);
  EXPECT_THAT(run({"nft", "list", "ruleset"}), Not(HasSubstr(six.tap)));
  EXPECT_THAT(run({"ip", "neigh"}), Not(HasSubstr("172.31.0.6")));
  Socket client = Socket::connect_tcp(five.address, 22);
  EXPECT_TRUE(live->receive(ssh_of_the_host));
}

TEST_F(FabricTest, OpenRepairsWhatACrashLeftHalfMade) {
  std::string bridge = "hnl-han0-a";
  {
    Netlink netlink = Netlink::open().value();
    ASSERT_TRUE(netlink.create_bridge(bridge, bridge_mac(bridge)).ok());
  }
  Fabric fabric = open(options());
  Guest guest = plug(fabric, nic(5));
  EXPECT_TRUE(guest.resolve(ip("172.31.0.1")));

  // Somebody flushed the rules, moved the address and took the tap off its bridge.
  run({"nft", "flush", "ruleset"});
  run({"ip", "addr", "flush", "dev", bridge});
  run({"ip", "addr", "add", "172.31.0.77/20", "dev", bridge});
  run({"ip", "link", "set", guest.nic().tap, "nomaster"});
  run({"ip", "link", "set", bridge, "down"});
  ASSERT_TRUE(fabric.reconcile(fabric.nics()).ok());
  EXPECT_TRUE(guest.resolve(ip("172.31.0.1")));
  EXPECT_THAT(run({"ip", "addr", "show", "dev", bridge}), Not(HasSubstr("172.31.0.77")));
  EXPECT_THAT(run({"nft", "list", "ruleset"}), HasSubstr(guest.nic().tap));
}

TEST_F(FabricTest, AZoneThatWentTakesItsBridgeWithIt) {
  { Fabric fabric = open(options()); }
  FabricOptions fewer = options();
  fewer.zones.pop_back();
  Fabric fabric = open(fewer);
  EXPECT_TRUE(there("hnl-han0-a"));
  EXPECT_FALSE(there("hnl-han0-b"));
}

TEST_F(FabricTest, TwoCloudsDoNotTouchEachOther) {
  make_outside();
  std::string before = everything();
  Fabric first = open(options());
  Guest guest = plug(first, nic(5));
  std::string alone = everything();
  {
    Fabric second = open(options("x", 30));
    NicSpec other = nic(5);
    other.tap = tap_name("x", "i-1");
    other.address = ip("172.30.0.5");
    other.mac = mac_for("i-1");
    Guest second_guest = plug(second, other);
    EXPECT_TRUE(second_guest.resolve(ip("172.30.0.1")));
    second_guest.send_ip(IPPROTO_UDP, guest.address(), udp(1, 80, "x"));
    EXPECT_TRUE(guest.silent([](const Frame& f) { return f.protocol == IPPROTO_UDP; }));
    ASSERT_TRUE(second.reconcile(second.nics()).ok());
    ASSERT_TRUE(second.remove_all().ok());
  }
  EXPECT_EQ(everything(), alone);
  EXPECT_TRUE(guest.resolve(ip("172.31.0.1")));

  // The one that goes last switches off what the first switched on.
  Fabric second = open(options("x", 30));
  ASSERT_TRUE(first.remove_all().ok());
  EXPECT_EQ(run({"cat", "/proc/sys/net/ipv4/conf/eth0/forwarding"}), "1\n");
  ASSERT_TRUE(second.remove_all().ok());
  EXPECT_EQ(everything(), before);
}

TEST_F(FabricTest, OverlappingCloudsAreTold) {
  Fabric first = open(options());
  EXPECT_THAT(refused(options("x"), ErrorCode::kExists),
              HasSubstr("(interface hnl-han0-a has 172.31.0.1/20)"));
}

TEST_F(FabricTest, AHostThatRoutesIsLeftAsItIs) {
  make_outside();
  run({"sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"});
  std::string before = everything();
  Fabric fabric = open(options());
  EXPECT_THAT(run({"nft", "list", "ruleset"}), Not(HasSubstr("! dnat")));
  ASSERT_TRUE(fabric.remove_all().ok());
  EXPECT_EQ(everything(), before);
}

TEST_F(FabricTest, WarnsOfWhatStandsInTheWay) {
  Fabric fabric = open(options());
  EXPECT_THAT(fabric.warnings(),
              ::testing::ElementsAre("this host has no default route: instances reach nothing "
                                     "outside of it"));
  make_outside();
  run({"nft", "add", "table", "ip", "filter"});
  run({"nft", "add", "chain", "ip", "filter", "FORWARD",
       "{ type filter hook forward priority 0; policy drop; }"});
  ASSERT_TRUE(fabric.reconcile({}).ok());
  EXPECT_THAT(
      fabric.warnings(),
      ::testing::ElementsAre(HasSubstr("another firewall (ip filter FORWARD) drops forwarded packets")));
}

// A daemon killed at any moment: whatever it left, the next one repairs or removes.
TEST_F(FabricTest, KilledAnywhereTheNextOneCleansUp) {
  make_outside();
  std::string before = everything();
  for (int round = 0; round < 16; round++) {
    pid_t child = ::fork();
    if (child == 0) {
      auto fabric = Fabric::open(options());
      if (!fabric.ok()) ::_exit(1);
      for (unsigned i = 5; i < 50; i++) (void)fabric->plug(nic(i));
      ::_exit(0);
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(3 + round * 11));
    ::kill(child, SIGKILL);
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFSIGNALED(status) || WEXITSTATUS(status) == 0);
    auto next = Fabric::open(options());
    ASSERT_TRUE(next.ok()) << "round " << round << ": " << next.error().message();
    if (round % 2 == 0) continue;
    ASSERT_TRUE(next->remove_all().ok());
    ASSERT_EQ(everything(), before) << "round " << round;
  }
}

/// Runs the work in a child, and returns its exit code.
int in_child(const std::function<int()>& work) {
  pid_t child = ::fork();
  if (child == 0) ::_exit(work());
  int status = 0;
  EXPECT_EQ(::waitpid(child, &status, 0), child);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

bool become_nobody() {
  return ::geteuid() != 0 || (::setgid(65534) == 0 && ::setuid(65534) == 0);
}

TEST_F(FabricTest, WithoutRightsItSaysWhatItNeeds) {
  EXPECT_EQ(in_child([&] {
              if (!become_nobody()) return 10;
              auto fabric = Fabric::open(options());
              if (fabric.ok()) return 11;
              EXPECT_EQ(fabric.error().message(),
                        "making bridges and taps in this network needs root (CAP_NET_ADMIN); `--network "
                        "private` needs none");
              return HasFailure() ? 12 : 0;
            }),
            0);
}

TEST_F(FabricTest, APrivateNetworkWithoutRoot) {
  if (kThreadSanitizer) GTEST_SKIP() << "the thread sanitizer starts a thread, and then the kernel refuses";
  make_outside();
  int ready[2];
  int finish[2];
  ASSERT_EQ(::pipe2(ready, O_CLOEXEC), 0);
  ASSERT_EQ(::pipe2(finish, O_CLOEXEC), 0);
  pid_t daemon = ::fork();
  if (daemon == 0) {
    // The namespaces of a process that is not dumpable, as one is after setuid(), belong to root.
    if (!become_nobody() || ::prctl(PR_SET_DUMPABLE, 1) != 0) ::_exit(10);
    uid_t uid = ::geteuid();
    Status entered = enter_private_namespace();
    if (!entered.ok()) std::fprintf(stderr, "%s\n", entered.error().message().c_str());
    if (!entered.ok() || ::geteuid() != uid) ::_exit(11);
    FabricOptions wanted = options();
    wanted.mode = NetworkMode::kPrivate;
    auto fabric = Fabric::open(wanted);
    bool tun = ::access("/dev/net/tun", R_OK | W_OK) == 0;
    if (!fabric.ok()) std::fprintf(stderr, "%s\n", fabric.error().message().c_str());
    if (tun ? !fabric.ok() || fabric->warnings().size() != 1
            : fabric.ok() ||
                  fabric.error().message() != "no permission to open /dev/net/tun for reading and writing") {
      ::_exit(12);
    }
    char byte = tun ? 'y' : 'n';
    if (::write(ready[1], &byte, 1) != 1) ::_exit(13);
    ::close(finish[1]);
    (void)!::read(finish[0], &byte, 1);
    ::_exit(0);
  }
  ::close(ready[1]);
  char byte = 0;
  ASSERT_EQ(::read(ready[0], &byte, 1), 1);
  EXPECT_FALSE(there("hnl-han0-a")) << "the host's network is as it was";
  EXPECT_EQ(in_child([&] {
              if (!become_nobody()) return 20;
              Status entered = enter_namespace_of(daemon);
              if (!entered.ok()) std::fprintf(stderr, "%s\n", entered.error().message().c_str());
              if (!entered.ok()) return 21;
              if (there("eth0") || !there("lo")) return 22;
              if (byte == 'y' && !there("hnl-han0-a")) return 23;
              return enter_namespace_of(daemon).ok() ? 0 : 24;
            }),
            0);
  ::close(finish[1]);
  int status = 0;
  ASSERT_EQ(::waitpid(daemon, &status, 0), daemon);
  EXPECT_EQ(status, 0);
}

}  // namespace
}  // namespace haneul::net::testing
