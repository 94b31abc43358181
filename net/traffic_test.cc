// SPDX-License-Identifier: Apache-2.0
// Who may talk to whom, with real frames through a real kernel: an instance is a tap that the test reads and
// writes, the world outside is a namespace behind a veth.
#include <linux/if_packet.h>
#include <net/if.h>
#include <sys/socket.h>

#include <array>
#include <thread>

#include "net/names.h"
#include "net/testing/world.h"

namespace haneul::net::testing {
namespace {

/// With bridged frames passed to the IPv4 hooks by br_netfilter, as Docker has it, and without.
class TrafficTest : public NetworkTest, public ::testing::WithParamInterface<bool> {
 protected:
  void SetUp() override {
    NetworkTest::SetUp();
    if (IsSkipped()) return;
    make_outside();
    const char* setting = "/proc/sys/net/bridge/bridge-nf-call-iptables";
    if (::access(setting, F_OK) == 0) {
      run({"sh", "-c", fmt::format("echo {} > {}", GetParam() ? 1 : 0, setting)});
    } else if (GetParam()) {
      GTEST_SKIP() << "the module br_netfilter is not loaded";
    }
  }
};
INSTANTIATE_TEST_SUITE_P(BridgeFilter, TrafficTest, ::testing::Bool(),
                         [](const auto& how) { return how.param ? "On" : "Off"; });

auto udp_to(uint16_t port) {
  return [port](const Frame& f) { return f.protocol == IPPROTO_UDP && f.to_port == port; };
}
auto tcp_to(uint16_t port, uint8_t flags) {
  return [port, flags](const Frame& f) {
    return f.protocol == IPPROTO_TCP && f.to_port == port && (f.flags & 0x3f) == flags;
  };
}
Policy allowing(Protocol protocol, uint16_t port, std::string_view peer) {
  Policy policy;
  policy.inbound = {{.protocol = protocol, .from_port = port, .to_port = port, .peers = {prefix(peer)}}};
  return policy;
}

TEST_P(TrafficTest, HostReachesSshAndRepliesPass) {
  Fabric fabric = open(options());
  Guest guest = plug(fabric, nic(5));
  Socket client = Socket::connect_tcp(guest.address(), 22);
  auto syn = guest.receive(tcp_to(22, kSyn));
  ASSERT_TRUE(syn);
  EXPECT_EQ(syn->to, guest.mac());
  EXPECT_EQ(syn->source, ip("172.31.0.1"));
  guest.send_ip(IPPROTO_TCP, syn->source,
                tcp(guest.address(), syn->source, 22, syn->from_port, 1000, syn->seq + 1, kSyn | kAck));
  EXPECT_TRUE(client.connected());
  ASSERT_TRUE(guest.receive(tcp_to(22, kAck)));
  guest.send_ip(
      IPPROTO_TCP, syn->source,
      tcp(guest.address(), syn->source, 22, syn->from_port, 1001, syn->seq + 1, kAck, "SSH-2.0-x\r\n"));
  EXPECT_EQ(client.receive(), "SSH-2.0-x\r\n");
}

TEST_P(TrafficTest, HostReachesOtherPortsOnlyByARule) {
  Fabric fabric = open(options());
  Guest guest = plug(fabric, nic(5));
  Socket client = Socket::udp();
  client.send(guest.address(), 53, "x");
  EXPECT_TRUE(guest.silent(udp_to(53)));
  ASSERT_TRUE(fabric.set_policy(guest.nic().tap, allowing(Protocol::kUdp, 53, "172.31.0.1/32")).ok());
  client.send(guest.address(), 53, "x");
  EXPECT_TRUE(guest.receive(udp_to(53)));
}

TEST_P(TrafficTest, OutsideIsDroppedUnlessARuleLetsItIn) {
  Fabric fabric = open(options());
  Guest guest = plug(fabric, nic(5));
  outside([&] { run({"ip", "route", "add", "172.31.0.0/16", "via", "198.51.100.1"}); });
  std::optional<Socket> client;
  outside([&] { client = Socket::udp(); });
  client->send(guest.address(), 80, "x");
  EXPECT_TRUE(guest.silent(udp_to(80)));
  ASSERT_TRUE(fabric.set_policy(guest.nic().tap, allowing(Protocol::kUdp, 80, "198.51.100.2/32")).ok());
  client->send(guest.address(), 80, "x");
  auto seen = guest.receive(udp_to(80));
  ASSERT_TRUE(seen);
  EXPECT_EQ(seen->source, outside_address_);
  guest.send_ip(IPPROTO_UDP, seen->source, udp(80, seen->from_port, "reply"));
  sockaddr_in from{};
  EXPECT_EQ(client->receive(&from), "reply");
  EXPECT_EQ(ntohl(from.sin_addr.s_addr), guest.address().value) << "a reply is not masqueraded";
}

TEST_P(TrafficTest, OutboundIsMasqueradedAndRepliesComeBack) {
  Fabric fabric = open(options());
  Guest guest = plug(fabric, nic(5));
  std::optional<Socket> server;
  outside([&] { server = Socket::udp(53); });
  guest.send_ip(IPPROTO_UDP, outside_address_, udp(4000, 53, "question"));
  sockaddr_in from{};
  EXPECT_EQ(server->receive(&from), "question");
  EXPECT_EQ(ntohl(from.sin_addr.s_addr), host_address_.value);
  server->send(host_address_, ntohs(from.sin_port), "answer");
  auto answer = guest.receive(udp_to(4000));
  ASSERT_TRUE(answer);
  EXPECT_EQ(answer->payload, "answer");
  EXPECT_EQ(answer->source, outside_address_);
}

TEST_P(TrafficTest, OutboundRulesHold) {
  Fabric fabric = open(options());
  NicSpec spec = nic(5);
  spec.policy.outbound = {
      {.protocol = Protocol::kUdp, .from_port = 53, .to_port = 53, .peers = {prefix("0.0.0.0/0")}}};
  Guest guest = plug(fabric, spec);
  std::optional<Socket> dns;
  std::optional<Socket> other;
  outside([&] {
    dns = Socket::udp(53);
    other = Socket::udp(54);
  });
  guest.send_ip(IPPROTO_UDP, outside_address_, udp(4000, 54, "x"));
  guest.send_ip(IPPROTO_UDP, outside_address_, udp(4000, 53, "x"));
  EXPECT_TRUE(dns->receive());
  EXPECT_FALSE(other->receive(nullptr, kMoment));
}

TEST_P(TrafficTest, AnEstablishedConnectionOutlivesItsRule) {
  Fabric fabric = open(options());
  NicSpec spec = nic(5);
  spec.policy = allowing(Protocol::kTcp, 80, "0.0.0.0/0");
  Guest guest = plug(fabric, spec);
  Socket client = Socket::connect_tcp(guest.address(), 80);
  auto syn = guest.receive(tcp_to(80, kSyn));
  ASSERT_TRUE(syn);
  guest.send_ip(IPPROTO_TCP, syn->source,
                tcp(guest.address(), syn->source, 80, syn->from_port, 1, syn->seq + 1, kSyn | kAck));
  ASSERT_TRUE(client.connected());
  ASSERT_TRUE(fabric.set_policy(spec.tap, {}).ok());
  guest.send_ip(IPPROTO_TCP, syn->source,
                tcp(guest.address(), syn->source, 80, syn->from_port, 2, syn->seq + 1, kAck, "still here"));
  EXPECT_EQ(client.receive(), "still here");
  Socket second = Socket::connect_tcp(guest.address(), 80);
  EXPECT_TRUE(guest.silent(tcp_to(80, kSyn)));
}

TEST_P(TrafficTest, SpoofedMacIpv4AndArpAreDropped) {
  Fabric fabric = open(options());
  Guest guest = plug(fabric, nic(5));
  Guest victim = plug(fabric, nic(6));
  std::optional<Socket> server;
  outside([&] { server = Socket::udp(53); });
  Mac gateway = guest.resolve(ip("172.31.0.1")).value();
  auto packet = [&](Ipv4 from, const char* text) {
    return ipv4(IPPROTO_UDP, from, outside_address_, udp(4000, 53, text));
  };
  guest.send(ethernet(gateway, victim.mac(), kEtherIpv4, packet(guest.address(), "mac")));
  guest.send(ethernet(gateway, guest.mac(), kEtherIpv4, packet(victim.address(), "ip")));
  guest.send(ethernet(gateway, guest.mac(), kEtherIpv4, packet(ip("8.8.8.8"), "world")));
  guest.send(ethernet(gateway, victim.mac(), kEtherIpv4, packet(victim.address(), "both")));
  guest.send(ethernet(gateway, guest.mac(), kEtherIpv4, packet(guest.address(), "honest")));
  EXPECT_EQ(server->receive(), "honest");

  auto answered = [](const Frame& f) { return f.type == kEtherArp && f.arp_operation == 2; };
  auto ask = [&](Mac ether, Mac mac, Ipv4 address) {
    guest.send(ethernet(kBroadcast, ether, kEtherArp, arp(1, mac, address, Mac{}, ip("172.31.0.1"))));
    return !guest.silent(answered) || !victim.silent(answered);
  };
  EXPECT_FALSE(ask(guest.mac(), victim.mac(), guest.address()));
  EXPECT_FALSE(ask(guest.mac(), guest.mac(), victim.address()));
  EXPECT_FALSE(ask(victim.mac(), guest.mac(), guest.address()));
  EXPECT_FALSE(ask(guest.mac(), guest.mac(), ip("172.31.0.1")));
  EXPECT_FALSE(ask(guest.mac(), guest.mac(), Ipv4{}));
  EXPECT_TRUE(ask(guest.mac(), guest.mac(), guest.address()));
  std::string table = run({"ip", "neigh", "show", "dev", "hnl-han0-a"});
  EXPECT_NE(table.find(fmt::format("172.31.0.6 lladdr {} PERMANENT", victim.mac().text())), std::string::npos)
      << table;
}

// What the host's own network stack sees of a bridge, with a packet socket.
TEST_P(TrafficTest, OtherProtocolsEndAtTheBridge) {
  Fabric fabric = open(options());
  Guest guest = plug(fabric, nic(5));
  Mac gateway = guest.resolve(ip("172.31.0.1")).value();
  UniqueFd watcher(::socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK, htons(0x0003)));
  ASSERT_TRUE(watcher);
  sockaddr_ll where{};
  where.sll_family = AF_PACKET;
  where.sll_protocol = htons(0x0003);
  where.sll_ifindex = static_cast<int>(::if_nametoindex("hnl-han0-a"));
  ASSERT_EQ(::bind(watcher.get(), reinterpret_cast<sockaddr*>(&where), sizeof where), 0);

  Bytes honest = ipv4(IPPROTO_UDP, guest.address(), outside_address_, udp(1, 2, "x"));
  Mac all_nodes{{0x33, 0x33, 0, 0, 0, 1}};
  Mac link_local{{0x01, 0x80, 0xc2, 0, 0, 0x0e}};
  // IPv6: a router advertisement's header is enough.
  guest.send(
      ethernet(all_nodes, guest.mac(), kEtherIpv6, Bytes("\x60\0\0\0\0\x08\x3a\xff", 8) + Bytes(40, '\1')));
  guest.send(ethernet(gateway, guest.mac(), kEtherVlan, Bytes("\0\5\x08\0", 4) + honest));
  guest.send(ethernet(link_local, guest.mac(), 0x88cc, Bytes(60, 'l')));
  guest.send(ethernet(gateway, guest.mac(), 0x88b5, Bytes(60, 'e')));
  guest.send(ethernet(gateway, guest.mac(), kEtherIpv4, honest));
  std::vector<uint16_t> types;
  std::array<char, 2048> buffer{};
  for (auto end = std::chrono::steady_clock::now() + kMoment; std::chrono::steady_clock::now() < end;) {
    sockaddr_ll from{};
    socklen_t size = sizeof from;
    ssize_t got =
        ::recvfrom(watcher.get(), buffer.data(), buffer.size(), 0, reinterpret_cast<sockaddr*>(&from), &size);
    if (got > 0 && from.sll_pkttype != PACKET_OUTGOING) types.push_back(ntohs(from.sll_protocol));
  }
  EXPECT_EQ(types, std::vector<uint16_t>{kEtherIpv4});
}

TEST_P(TrafficTest, NeighboursOnOneBridgeAreFilteredToo) {
  Fabric fabric = open(options());
  Guest a = plug(fabric, nic(5));
  Guest b = plug(fabric, nic(6));
  auto b_hears = [&](std::string_view text) {
    return b.receive([&](const Frame& f) { return f.payload == text; }, kMoment).has_value();
  };
  // The bridge answers for the neighbour: the way to it is through the host.
  EXPECT_EQ(a.resolve(b.address()), bridge_mac("hnl-han0-a"));
  a.send_ip(IPPROTO_UDP, b.address(), udp(1, 80, "routed"));
  EXPECT_FALSE(b_hears("routed"));
  a.send(ethernet(b.mac(), a.mac(), kEtherIpv4,
                  ipv4(IPPROTO_UDP, a.address(), b.address(), udp(1, 80, "direct"))));
  EXPECT_FALSE(b_hears("direct"));
  a.send(ethernet(kBroadcast, a.mac(), kEtherIpv4,
                  ipv4(IPPROTO_UDP, a.address(), ip("255.255.255.255"), udp(1, 80, "broadcast"))));
  EXPECT_FALSE(b_hears("broadcast"));

  ASSERT_TRUE(fabric.set_policy(b.nic().tap, allowing(Protocol::kUdp, 80, "172.31.0.5/32")).ok());
  a.send_ip(IPPROTO_UDP, b.address(), udp(4000, 80, "allowed"));
  auto seen = b.receive(udp_to(80));
  ASSERT_TRUE(seen);
  EXPECT_EQ(seen->source, a.address()) << "the neighbour's own address, for rules that name it";
  b.send_ip(IPPROTO_UDP, a.address(), udp(80, 4000, "reply"));
  EXPECT_TRUE(a.receive(udp_to(4000)));
  b.send_ip(IPPROTO_UDP, a.address(), udp(81, 4001, "new"));
  EXPECT_TRUE(a.silent(udp_to(4001)));
}

TEST_P(TrafficTest, ZonesAreRoutedAndFiltered) {
  Fabric fabric = open(options());
  Guest a = plug(fabric, nic(5));
  Guest b = plug(fabric, nic(6, "test-1b"));
  a.send_ip(IPPROTO_UDP, b.address(), udp(4000, 80, "x"));
  EXPECT_TRUE(b.silent(udp_to(80)));
  ASSERT_TRUE(fabric.set_policy(b.nic().tap, allowing(Protocol::kUdp, 80, "172.31.0.0/20")).ok());
  a.send_ip(IPPROTO_UDP, b.address(), udp(4000, 80, "x"));
  auto seen = b.receive(udp_to(80));
  ASSERT_TRUE(seen);
  EXPECT_EQ(seen->source, a.address()) << "not masqueraded inside the cloud";
}

TEST_P(TrafficTest, InstancesStartNothingWithTheHost) {
  Fabric fabric = open(options());
  Guest guest = plug(fabric, nic(5));
  Socket listener = Socket::listen_tcp(2222);
  Socket server = Socket::udp(2223);
  Mac gateway = guest.resolve(ip("172.31.0.1")).value();
  for (const char* target : {"172.31.0.1", "172.31.16.1", "198.51.100.1", "127.0.0.1", "172.31.15.255"}) {
    Ipv4 to = ip(target);
    guest.send_ip(IPPROTO_TCP, to, tcp(guest.address(), to, 4000, 2222, 1, 0, kSyn));
    guest.send_ip(IPPROTO_UDP, to, udp(4000, 2223, "x"));
    guest.send_ip(IPPROTO_ICMP, to, icmp_echo(7));
    EXPECT_TRUE(guest.silent([](const Frame& f) { return f.type == kEtherIpv4; })) << target;
    EXPECT_FALSE(server.receive(nullptr, std::chrono::milliseconds(0))) << target;
  }
  // Not even the existence of the host's other addresses is told.
  EXPECT_FALSE(guest.resolve(host_address_, kMoment));
  EXPECT_EQ(gateway, bridge_mac("hnl-han0-a"));
}

TEST_P(TrafficTest, AHostThatDidNotRouteStillDoesNotForOthers) {
  Fabric fabric = open(options());
  Guest guest = plug(fabric, nic(5));
  run({"ip", "link", "add", "lan", "type", "veth", "peer", "name", "lan-far-end"});
  run({"ip", "link", "set", "lan-far-end", "up"});
  run({"ip", "addr", "add", "203.0.113.1/24", "dev", "lan"});
  run({"ip", "link", "set", "lan", "up"});
  UniqueFd watcher(::socket(AF_PACKET, SOCK_DGRAM | SOCK_NONBLOCK, htons(kEtherIpv4)));
  sockaddr_ll where{};
  where.sll_family = AF_PACKET;
  where.sll_protocol = htons(kEtherIpv4);
  where.sll_ifindex = static_cast<int>(::if_nametoindex("lan"));
  ASSERT_EQ(::bind(watcher.get(), reinterpret_cast<sockaddr*>(&where), sizeof where), 0);
  run({"ip", "neigh", "add", "203.0.113.9", "lladdr", "02:00:00:00:00:99", "dev", "lan"});
  std::optional<Socket> client;
  outside([&] {
    run({"ip", "route", "add", "203.0.113.0/24", "via", "198.51.100.1"});
    client = Socket::udp();
  });
  client->send(ip("203.0.113.9"), 80, "x");
  std::this_thread::sleep_for(kMoment);
  std::array<char, 2048> buffer{};
  EXPECT_LT(::recv(watcher.get(), buffer.data(), buffer.size(), 0), 0);
}

}  // namespace
}  // namespace haneul::net::testing
