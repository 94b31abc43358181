// SPDX-License-Identifier: Apache-2.0
//
// How a packet of an instance passes. The bridge table sees every frame first: what does not carry the tap's
// own MAC and IPv4 address (ARP: both, twice) ends there, and so does every other protocol, IPv6 included.
// The ports of a bridge are isolated, so a frame can only go up into the host, which answers ARP for the
// whole subnet; from there all traffic, between two neighbours too, is routed and so meets the inet table:
//
//   instance -> host       prerouting and input: only replies
//   instance -> elsewhere  forward: egress (the sender's outbound rules), then ingress if it goes to an instance
//   elsewhere -> instance  forward: ingress (the receiver's inbound rules)
//   host -> instance       output: the operator's ports, then ingress
//
// Every base chain has policy accept and ends what it refuses by a rule. While a transaction is prepared the
// kernel may already call the new, still empty chains beside the old ones: they must then decide nothing.
#include "net/firewall.h"

#include <algorithm>
#include <cctype>
#include <set>

namespace haneul::net {
namespace {

bool good_interface_name(std::string_view name) {
  return !name.empty() && name.size() <= 15 && name != "." && name != ".." &&
         std::all_of(name.begin(), name.end(), [](unsigned char c) {
           return std::isalnum(c) != 0 || c == '-' || c == '_' || c == '.' || c == '@';
         });
}

bool good_tag(std::string_view tag) {
  return !tag.empty() && tag.size() <= 4 && std::all_of(tag.begin(), tag.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
  });
}

Status check_rule(const Rule& rule) {
  if (rule.from_port > rule.to_port) {
    return make_error(ErrorCode::kInvalidArgument, "the port range {}-{} is empty", rule.from_port,
                      rule.to_port);
  }
  if (rule.icmp_type < -1 || rule.icmp_type > 255 || rule.icmp_code < -1 || rule.icmp_code > 255 ||
      (rule.icmp_type == -1 && rule.icmp_code != -1)) {
    return make_error(ErrorCode::kInvalidArgument, "ICMP type {} code {} is not one", rule.icmp_type,
                      rule.icmp_code);
  }
  for (const Ipv4Prefix& peer : rule.peers) {
    if (peer.length > 32 || (peer.address.value & ~peer.mask()) != 0) {
      return make_error(ErrorCode::kInvalidArgument, "{} is not a prefix", peer.text());
    }
  }
  return {};
}

Status check_nic(const FirewallModel& model, const FirewallNic& nic) {
  if (!good_interface_name(nic.tap) || !nic.tap.starts_with("t-" + model.tag + "-")) {
    return make_error(ErrorCode::kInvalidArgument, "'{}' is not a tap name of cloud {}", nic.tap, model.tag);
  }
  auto zone = std::find_if(model.zones.begin(), model.zones.end(),
                           [&](const FirewallZone& z) { return z.bridge == nic.bridge; });
  if (zone == model.zones.end() || !zone->subnet.contains(nic.address)) {
    return make_error(ErrorCode::kInvalidArgument, "{}: {} is not in the subnet of a bridge '{}'", nic.tap,
                      nic.address.text(), nic.bridge);
  }
  if (nic.mac.multicast() || nic.mac == Mac{}) {
    return make_error(ErrorCode::kInvalidArgument, "{}: {} is not a unicast MAC", nic.tap, nic.mac.text());
  }
  for (const auto* rules : {&nic.policy.inbound, &nic.policy.outbound}) {
    for (const Rule& rule : *rules) TRY(check_rule(rule).context(nic.tap));
  }
  return {};
}

Status check_model(const FirewallModel& model) {
  if (!good_tag(model.tag)) {
    return make_error(ErrorCode::kInvalidArgument, "'{}' is not a tag: 1 to 4 of a-z and 0-9", model.tag);
  }
  for (const FirewallZone& zone : model.zones) {
    if (!good_interface_name(zone.bridge)) {
      return make_error(ErrorCode::kInvalidArgument, "'{}' is not a bridge name", zone.bridge);
    }
  }
  for (const std::string& uplink : model.guarded_uplinks) {
    if (!good_interface_name(uplink)) {
      return make_error(ErrorCode::kInvalidArgument, "'{}' is not an interface name", uplink);
    }
  }
  std::set<std::string> taps;
  std::set<Ipv4> addresses;
  std::set<Mac> macs;
  for (const FirewallNic& nic : model.nics) {
    TRY(check_nic(model, nic));
    if (!taps.insert(nic.tap).second || !addresses.insert(nic.address).second ||
        !macs.insert(nic.mac).second) {
      return make_error(ErrorCode::kInvalidArgument, "{}: its name, MAC or address is there twice", nic.tap);
    }
  }
  return {};
}

/// Sorted, and without prefixes that another one contains.
std::vector<Ipv4Prefix> normal(std::vector<Ipv4Prefix> prefixes) {
  std::sort(prefixes.begin(), prefixes.end());
  std::vector<Ipv4Prefix> kept;
  for (const Ipv4Prefix& prefix : prefixes) {
    // In this order a containing prefix always comes before what it contains.
    if (kept.empty() || !kept.back().overlaps(prefix)) kept.push_back(prefix);
  }
  return kept;
}

template <typename Items, typename Text>
std::string joined(const Items& items, Text text) {
  std::string all;
  for (const auto& item : items) all += (all.empty() ? "" : ", ") + text(item);
  return all;
}

/// The match of a rule: "ip saddr 10.0.0.0/8 tcp dport 80 ", or "" for everything.
std::string match(const Rule& rule, std::string_view peer_field) {
  std::string text;
  auto peers = normal(rule.peers);
  if (peers.size() == 1 && peers[0].length > 0) {
    text = fmt::format("ip {} {} ", peer_field, peers[0].text());
  } else if (peers.size() > 1) {
    text = fmt::format("ip {} {{ {} }} ", peer_field,
                       joined(peers, [](const Ipv4Prefix& p) { return p.text(); }));
  }
  if (rule.protocol == Protocol::kIcmp) {
    if (rule.icmp_type < 0) return text + "ip protocol icmp ";
    text += fmt::format("icmp type {} ", rule.icmp_type);
    return rule.icmp_code < 0 ? text : text + fmt::format("icmp code {} ", rule.icmp_code);
  }
  if (rule.protocol == Protocol::kAny) return text;
  const char* name = rule.protocol == Protocol::kTcp ? "tcp" : "udp";
  if (rule.from_port == 0 && rule.to_port == 65535) return text + fmt::format("ip protocol {} ", name);
  if (rule.from_port == rule.to_port) return text + fmt::format("{} dport {} ", name, rule.from_port);
  return text + fmt::format("{} dport {}-{} ", name, rule.from_port, rule.to_port);
}

/// One chain with the rules of one direction of one interface. Nothing allowed needs no chain.
std::string policy_chain(const std::string& chain, const std::vector<Rule>& rules,
                         std::string_view peer_field, std::string_view verdict) {
  std::string text = fmt::format("  chain {} {{\n", chain);
  for (const Rule& rule : rules) {
    if (!rule.peers.empty()) text += fmt::format("    {}{}\n", match(rule, peer_field), verdict);
  }
  return text + "    drop\n  }\n";
}

bool allows_anything(const std::vector<Rule>& rules) {
  return std::any_of(rules.begin(), rules.end(), [](const Rule& rule) { return !rule.peers.empty(); });
}

bool allows_everything(const std::vector<Rule>& rules) {
  return std::any_of(rules.begin(), rules.end(), [](const Rule& rule) {
    return rule.protocol == Protocol::kAny &&
           std::any_of(rule.peers.begin(), rule.peers.end(),
                       [](const Ipv4Prefix& peer) { return peer.length == 0; });
  });
}

std::string replace_table(std::string_view family, const std::string& tag) {
  // "add" first, because deleting a table that is not there fails.
  return fmt::format("add table {0} haneul-{1}\ndelete table {0} haneul-{1}\n", family, tag);
}

std::string bridge_table(const FirewallModel& model) {
  std::string elements = joined(model.nics, [](const FirewallNic& nic) {
    return fmt::format("\"{}\" . {} . {}", nic.tap, nic.mac.text(), nic.address.text());
  });
  std::string text = fmt::format("table bridge haneul-{} {{\n", model.tag);
  text += "  set nics {\n    type ifname . ether_addr . ipv4_addr\n";
  if (!elements.empty()) text += fmt::format("    elements = {{ {} }}\n", elements);
  text += "  }\n";
  text += fmt::format(R"(  chain prerouting {{
    type filter hook prerouting priority -300; policy accept;
    iifname != "t-{0}-*" accept
    ether type ip iifname . ether saddr . ip saddr @nics accept
    ether type arp arp htype 1 arp ptype ip arp hlen 6 arp plen 4 iifname . ether saddr . arp saddr ip @nics iifname . arp saddr ether . arp saddr ip @nics accept
    drop
  }}
  chain input {{
    type filter hook input priority -200; policy accept;
    iifname "t-{0}-*" ether daddr & ff:ff:ff:ff:ff:f0 == 01:80:c2:00:00:00 drop
  }}
  chain forward {{
    type filter hook forward priority -200; policy accept;
    iifname "t-{0}-*" oifname "t-{0}-*" drop
  }}
}}
)",
                      model.tag);
  return text;
}

std::string dispatch_chains(const FirewallModel& model) {
  std::string chains;
  std::string egress;
  std::string ingress;
  for (const FirewallNic& nic : model.nics) {
    std::string in = "in-" + nic.tap;
    std::string out = "out-" + nic.tap;
    if (allows_anything(nic.policy.inbound)) {
      chains += policy_chain(in, nic.policy.inbound, "saddr", "accept");
      ingress += fmt::format("{}{} : goto {}", ingress.empty() ? "" : ", ", nic.address.text(), in);
    }
    if (!allows_anything(nic.policy.outbound)) continue;
    std::string verdict = "return";
    if (!allows_everything(nic.policy.outbound)) {
      chains += policy_chain(out, nic.policy.outbound, "daddr", "return");
      verdict = "goto " + out;
    }
    egress += fmt::format("{}\"{}\" . {} : {}", egress.empty() ? "" : ", ", nic.bridge, nic.address.text(),
                          verdict);
  }
  chains += "  chain egress {\n";
  if (!egress.empty()) chains += fmt::format("    iifname . ip saddr vmap {{ {} }}\n", egress);
  chains += "    drop\n  }\n  chain ingress {\n";
  if (!ingress.empty()) chains += fmt::format("    ip daddr vmap {{ {} }}\n", ingress);
  return chains + "    drop\n  }\n";
}

std::string inet_table(const FirewallModel& model) {
  std::string text = fmt::format("table inet haneul-{} {{\n  set bridges {{\n    type ifname\n", model.tag);
  if (!model.zones.empty()) {
    text += fmt::format("    elements = {{ {} }}\n", joined(model.zones, [](const FirewallZone& zone) {
                          return fmt::format("\"{}\"", zone.bridge);
                        }));
  }
  text += "  }\n" + dispatch_chains(model);

  // Before another program's destination NAT (-100) can turn an address of this host into something else.
  text += R"(  chain prerouting {
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
)";
  for (const std::string& uplink : model.guarded_uplinks) {
    text +=
        fmt::format("    iifname \"{}\" oifname != @bridges ct state new ct status ! dnat drop\n", uplink);
  }
  text += R"(    iifname != @bridges oifname != @bridges accept
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
)";
  if (!model.operator_ports.empty()) {
    text += fmt::format("    tcp dport {{ {} }} accept comment \"this host is the operator's\"\n",
                        joined(std::set<uint16_t>(model.operator_ports.begin(), model.operator_ports.end()),
                               [](uint16_t port) { return std::to_string(port); }));
  }
  text += "    goto ingress\n  }\n";
  text += "  chain postrouting {\n    type nat hook postrouting priority 100; policy accept;\n";
  if (!model.zones.empty()) {
    std::vector<Ipv4Prefix> subnets;
    for (const FirewallZone& zone : model.zones) subnets.push_back(zone.subnet);
    text += fmt::format("    ip saddr {{ {} }} oifname != @bridges masquerade\n",
                        joined(normal(subnets), [](const Ipv4Prefix& p) { return p.text(); }));
  }
  return text + "  }\n}\n";
}

}  // namespace

Result<std::string> compile_firewall(const FirewallModel& model) {
  TRY(check_model(model));
  FirewallModel sorted = model;
  std::sort(sorted.nics.begin(), sorted.nics.end(),
            [](const FirewallNic& a, const FirewallNic& b) { return a.tap < b.tap; });
  return replace_table("bridge", model.tag) + replace_table("inet", model.tag) + bridge_table(sorted) +
         inet_table(sorted);
}

Result<std::string> compile_removal(const std::string& tag) {
  if (!good_tag(tag)) return make_error(ErrorCode::kInvalidArgument, "'{}' is not a tag", tag);
  return replace_table("bridge", tag) + replace_table("inet", tag);
}

}  // namespace haneul::net
