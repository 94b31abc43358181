// SPDX-License-Identifier: Apache-2.0
// Ethernet frames made and read by hand, for tests that play an instance, honest or not, on a tap.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "net/address.h"

namespace haneul::net::testing {

using Bytes = std::string;

constexpr uint16_t kEtherIpv4 = 0x0800;
constexpr uint16_t kEtherArp = 0x0806;
constexpr uint16_t kEtherIpv6 = 0x86dd;
constexpr uint16_t kEtherVlan = 0x8100;
constexpr uint8_t kSyn = 0x02;
constexpr uint8_t kAck = 0x10;
constexpr Mac kBroadcast{{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}};

Bytes ethernet(Mac to, Mac from, uint16_t type, std::string_view payload);
Bytes arp(uint16_t operation, Mac sender_mac, Ipv4 sender, Mac target_mac, Ipv4 target);
Bytes ipv4(uint8_t protocol, Ipv4 from, Ipv4 to, std::string_view payload);
Bytes udp(uint16_t from_port, uint16_t to_port, std::string_view payload);
Bytes tcp(Ipv4 from, Ipv4 to, uint16_t from_port, uint16_t to_port, uint32_t seq, uint32_t ack, uint8_t flags,
          std::string_view payload = {});
Bytes icmp_echo(uint16_t id);

/// What a frame says. Fields that its protocol does not have are 0.
struct Frame {
  Mac to;
  Mac from;
  uint16_t type = 0;
  uint16_t arp_operation = 0;
  Mac arp_sender_mac;
  uint8_t protocol = 0;
  Ipv4 source;  ///< of ARP: the sender
  Ipv4 destination;
  uint16_t from_port = 0;
  uint16_t to_port = 0;
  uint8_t icmp_type = 0;
  uint32_t seq = 0;
  uint32_t ack = 0;
  uint8_t flags = 0;
  Bytes payload;

  static std::optional<Frame> parse(std::string_view frame);
};

}  // namespace haneul::net::testing
