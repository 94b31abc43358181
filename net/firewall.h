// SPDX-License-Identifier: Apache-2.0
// What a cloud lets through, as a model, and the pure function that turns the model into nftables rules.
//
// The whole of a cloud's policy is two tables of its own, "bridge haneul-TAG" (anti-spoofing, frame by frame)
// and "inet haneul-TAG" (who may talk to whom, with connection tracking). A change replaces both in one
// transaction, so that the kernel always runs either the old policy or the new one, whole.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"
#include "net/address.h"

namespace haneul::net {

enum class Protocol { kAny, kTcp, kUdp, kIcmp };

/// One thing that is allowed. Security groups become lists of these.
struct Rule {
  Protocol protocol = Protocol::kAny;
  /// TCP and UDP: the ports, both included. Other protocols ignore them.
  uint16_t from_port = 0;
  uint16_t to_port = 65535;
  /// ICMP: -1 is any.
  int icmp_type = -1;
  int icmp_code = -1;
  /// The other side: where inbound traffic comes from, or outbound traffic goes to. Empty: nobody.
  std::vector<Ipv4Prefix> peers = {};

  bool operator==(const Rule&) const = default;
};

/// What one network interface may do. The default is EC2's new security group: nothing in, everything out,
/// and replies to what was allowed.
struct Policy {
  std::vector<Rule> inbound = {};
  std::vector<Rule> outbound = {Rule{.peers = {Ipv4Prefix{}}}};

  bool operator==(const Policy&) const = default;
};

struct FirewallNic {
  std::string tap;
  std::string bridge;
  Mac mac;
  Ipv4 address;
  Policy policy = {};
};

struct FirewallZone {
  std::string bridge;
  Ipv4Prefix subnet;
};

struct FirewallModel {
  std::string tag;
  std::vector<FirewallZone> zones;
  std::vector<FirewallNic> nics;
  /// TCP ports on which this host itself may reach every instance, whatever the instance's policy says.
  std::vector<uint16_t> operator_ports = {22};
  /// Interfaces on which we switched forwarding on: they forward to our bridges and nowhere else.
  std::vector<std::string> guarded_uplinks;
};

/// The text for `nft -f`: replaces the cloud's two tables. The same model gives the same text, byte for byte.
/// kInvalidArgument if a name, address or rule in the model is not well formed.
Result<std::string> compile_firewall(const FirewallModel& model);

/// The text for `nft -f` that removes the cloud's two tables, there or not.
Result<std::string> compile_removal(const std::string& tag);

}  // namespace haneul::net
