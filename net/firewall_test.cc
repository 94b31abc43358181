// SPDX-License-Identifier: Apache-2.0
#include "net/firewall.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace haneul::net {
namespace {

using testing::HasSubstr;
using testing::Not;

Ipv4 ip(std::string_view text) {
  return Ipv4::parse(text).value();
}
Ipv4Prefix prefix(std::string_view text) {
  return Ipv4Prefix::parse(text).value();
}

FirewallModel two_nics() {
  FirewallModel model;
  model.tag = "han0";
  model.zones = {{"hnl-han0-a", prefix("172.31.0.0/20")}, {"hnl-han0-b", prefix("172.31.16.0/20")}};
  model.nics = {
      {"t-han0-00000002", "hnl-han0-b", Mac::parse("02:00:00:00:00:02").value(), ip("172.31.16.5"), {}},
      {"t-han0-00000001", "hnl-han0-a", Mac::parse("02:00:00:00:00:01").value(), ip("172.31.0.5"), {}},
  };
  return model;
}

std::string compiled(const FirewallModel& model) {
  auto text = compile_firewall(model);
  return text.ok() ? *text : "error: " + text.error().message();
}

// The whole policy of a cloud with two instances and the default group: nothing in, everything out.
TEST(Firewall, GoldenDefault) {
  EXPECT_EQ(compiled(two_nics()), R"(add table bridge haneul-han0
delete table bridge haneul-han0
add table inet haneul-han0
delete table inet haneul-han0
table bridge haneul-han0 {
  set nics {
    type ifname . ether_addr . ipv4_addr
    elements = { "t-han0-00000001" . 02:00:00:00:00:01 . 172.31.0.5, "t-han0-00000002" . 02:00:00:00:00:02 . 172.31.16.5 }
  }
  chain prerouting {
    type filter hook prerouting priority -300; policy accept;
    iifname != "t-han0-*" accept
    ether type ip iifname . ether saddr . ip saddr @nics accept
    ether type arp arp htype 1 arp ptype ip arp hlen 6 arp plen 4 iifname . ether saddr . arp saddr ip @nics iifname . arp saddr ether . arp saddr ip @nics accept
    drop
  }
  chain input {
    type filter hook input priority -200; policy accept;
    iifname "t-han0-*" ether daddr & ff:ff:ff:ff:ff:f0 == 01:80:c2:00:00:00 drop
  }
  chain forward {
    type filter hook forward priority -200; policy accept;
    iifname "t-han0-*" oifname "t-han0-*" drop
  }
}
table inet haneul-han0 {
  set bridges {
    type ifname
    elements = { "hnl-han0-a", "hnl-han0-b" }
  }
  chain egress {
    iifname . ip saddr vmap { "hnl-han0-a" . 172.31.0.5 : return, "hnl-han0-b" . 172.31.16.5 : return }
    drop
  }
  chain ingress {
    drop
  }
  chain prerouting {
    type filter hook prerouting priority -150; policy accept;
    iifname @bridges ct state new fib daddr type local drop comment "instances start nothing with this host"
  }
  chain input {
    type filter hook input priority 0; policy accept;
    iifname != @bridges accept
    ct state established,related accept
    drop
  }
  chain forward {
    type filter hook forward priority 0; policy accept;
    iifname != @bridges oifname != @bridges accept
    ct state established,related accept
    ct state invalid drop
    iifname @bridges jump egress
    oifname @bridges goto ingress
  }
  chain output {
    type filter hook output priority 0; policy accept;
    oifname != @bridges accept
    icmp type redirect drop
    ct state established,related accept
    tcp dport { 22 } accept comment "this host is the operator's"
    goto ingress
  }
  chain postrouting {
    type nat hook postrouting priority 100; policy accept;
    ip saddr { 172.31.0.0/20, 172.31.16.0/20 } oifname != @bridges masquerade
  }
}
)");
}

TEST(Firewall, RulesOfAnInterface) {
  FirewallModel model = two_nics();
  model.nics.pop_back();
  model.nics[0].policy.inbound = {
      {.protocol = Protocol::kTcp, .from_port = 22, .to_port = 22, .peers = {Ipv4Prefix{}}},
      {.protocol = Protocol::kTcp,
       .from_port = 8000,
       .to_port = 8080,
       .peers = {prefix("10.1.0.0/16"), prefix("10.0.0.0/8"), prefix("192.0.2.1/32")}},
      {.protocol = Protocol::kUdp, .peers = {prefix("10.0.0.0/8")}},
      {.protocol = Protocol::kIcmp, .icmp_type = 8, .peers = {Ipv4Prefix{}}},
      {.protocol = Protocol::kIcmp, .icmp_type = 3, .icmp_code = 4, .peers = {Ipv4Prefix{}}},
      {.protocol = Protocol::kIcmp, .peers = {prefix("10.0.0.0/8")}},
      {.peers = {prefix("172.31.0.7/32")}},
      {.peers = {}},
  };
  model.nics[0].policy.outbound = {
      {.protocol = Protocol::kTcp, .from_port = 443, .to_port = 443, .peers = {Ipv4Prefix{}}}};
  EXPECT_THAT(compiled(model), HasSubstr(R"(  chain in-t-han0-00000002 {
    tcp dport 22 accept
    ip saddr { 10.0.0.0/8, 192.0.2.1/32 } tcp dport 8000-8080 accept
    ip saddr 10.0.0.0/8 ip protocol udp accept
    icmp type 8 accept
    icmp type 3 icmp code 4 accept
    ip saddr 10.0.0.0/8 ip protocol icmp accept
    ip saddr 172.31.0.7/32 accept
    drop
  }
  chain out-t-han0-00000002 {
    tcp dport 443 return
    drop
  }
  chain egress {
    iifname . ip saddr vmap { "hnl-han0-b" . 172.31.16.5 : goto out-t-han0-00000002 }
    drop
  }
  chain ingress {
    ip daddr vmap { 172.31.16.5 : goto in-t-han0-00000002 }
    drop
  }
)"));
}

TEST(Firewall, NobodyAndNothing) {
  FirewallModel model;
  model.tag = "x";
  model.operator_ports = {};
  std::string text = compiled(model);
  EXPECT_THAT(text, Not(HasSubstr("elements")));
  EXPECT_THAT(text, Not(HasSubstr("vmap")));
  EXPECT_THAT(text, Not(HasSubstr("masquerade")));
  EXPECT_THAT(text, Not(HasSubstr("tcp dport")));

  model = two_nics();
  for (auto& nic : model.nics) nic.policy.outbound.clear();
  EXPECT_THAT(compiled(model), HasSubstr("  chain egress {\n    drop\n  }\n"));
}

TEST(Firewall, GuardedUplinksForwardOnlyToTheBridges) {
  FirewallModel model = two_nics();
  model.guarded_uplinks = {"eth0"};
  EXPECT_THAT(
      compiled(model),
      HasSubstr("policy accept;\n    iifname \"eth0\" oifname != @bridges ct state new ct status ! dnat "
                "drop\n    iifname != @bridges"));
}

TEST(Firewall, TheOrderOfInterfacesDoesNotMatter) {
  FirewallModel model = two_nics();
  std::string text = compiled(model);
  std::swap(model.nics[0], model.nics[1]);
  EXPECT_EQ(compiled(model), text);
}

TEST(Firewall, RefusesWhatIsNotWellFormed) {
  auto broken = [](auto change) {
    FirewallModel model = two_nics();
    change(model);
    return compiled(model);
  };
  EXPECT_EQ(broken([](auto& m) { m.tag = "toolong"; }),
            "error: 'toolong' is not a tag: 1 to 4 of a-z and 0-9");
  EXPECT_EQ(broken([](auto& m) { m.nics[0].tap = "t-han0-\" drop"; }),
            "error: 't-han0-\" drop' is not a tap name of cloud han0");
  EXPECT_EQ(broken([](auto& m) { m.nics[0].tap = "eth0"; }), "error: 'eth0' is not a tap name of cloud han0");
  EXPECT_EQ(broken([](auto& m) { m.zones[0].bridge = "a b"; }), "error: 'a b' is not a bridge name");
  EXPECT_EQ(broken([](auto& m) { m.guarded_uplinks = {"a;b"}; }), "error: 'a;b' is not an interface name");
  EXPECT_EQ(broken([](auto& m) { m.nics[0].address = ip("172.31.0.9"); }),
            "error: t-han0-00000002: 172.31.0.9 is not in the subnet of a bridge 'hnl-han0-b'");
  EXPECT_EQ(broken([](auto& m) { m.nics[0].mac.bytes[0] = 1; }),
            "error: t-han0-00000002: 01:00:00:00:00:02 is not a unicast MAC");
  EXPECT_EQ(broken([](auto& m) { m.nics.push_back(m.nics[0]); }),
            "error: t-han0-00000002: its name, MAC or address is there twice");
  EXPECT_EQ(broken([](auto& m) {
              m.nics[0].policy.inbound = {{.protocol = Protocol::kTcp, .from_port = 2, .to_port = 1}};
            }),
            "error: t-han0-00000002: the port range 2-1 is empty");
  EXPECT_EQ(
      broken([](auto& m) { m.nics[0].policy.inbound = {{.protocol = Protocol::kIcmp, .icmp_code = 4}}; }),
      "error: t-han0-00000002: ICMP type -1 code 4 is not one");
  EXPECT_EQ(broken([](auto& m) {
              m.nics[0].policy.inbound = {{.peers = {Ipv4Prefix{ip("10.0.0.1"), 8}}}};
            }),
            "error: t-han0-00000002: 10.0.0.1/8 is not a prefix");
}

TEST(Firewall, Removal) {
  EXPECT_EQ(compile_removal("han0").value(), R"(add table bridge haneul-han0
delete table bridge haneul-han0
add table inet haneul-han0
delete table inet haneul-han0
)");
  EXPECT_FALSE(compile_removal("").ok());
}

}  // namespace
}  // namespace haneul::net
