// SPDX-License-Identifier: Apache-2.0
#include "net/testing/frames.h"

#include <netinet/in.h>

namespace haneul::net::testing {
namespace {

Bytes number(uint64_t value, size_t size) {
  Bytes text(size, '\0');
  for (size_t i = 0; i < size; i++) text[size - 1 - i] = static_cast<char>(value >> (8 * i));
  return text;
}

uint64_t number_at(std::string_view text, size_t offset, size_t size) {
  uint64_t value = 0;
  for (size_t i = 0; i < size; i++) {
    value = value << 8 | (offset + i < text.size() ? static_cast<uint8_t>(text[offset + i]) : 0u);
  }
  return value;
}

Bytes bytes(const Mac& mac) {
  return Bytes(mac.bytes.begin(), mac.bytes.end());
}

Mac mac_at(std::string_view text, size_t offset) {
  Mac mac;
  for (size_t i = 0; i < 6; i++) mac.bytes[i] = static_cast<uint8_t>(number_at(text, offset + i, 1));
  return mac;
}

/// The Internet checksum (RFC 1071).
uint16_t checksum(std::string_view text) {
  uint64_t sum = 0;
  for (size_t i = 0; i < text.size(); i += 2) sum += number_at(text, i, 2);
  while (sum >> 16 != 0) sum = (sum & 0xffff) + (sum >> 16);
  return static_cast<uint16_t>(~sum);
}

}  // namespace

Bytes ethernet(Mac to, Mac from, uint16_t type, std::string_view payload) {
  return bytes(to) + bytes(from) + number(type, 2) + Bytes(payload);
}

Bytes arp(uint16_t operation, Mac sender_mac, Ipv4 sender, Mac target_mac, Ipv4 target) {
  return number(1, 2) + number(kEtherIpv4, 2) + number(6, 1) + number(4, 1) + number(operation, 2) +
         bytes(sender_mac) + number(sender.value, 4) + bytes(target_mac) + number(target.value, 4);
}

Bytes ipv4(uint8_t protocol, Ipv4 from, Ipv4 to, std::string_view payload) {
  Bytes header = number(0x45, 1) + number(0, 1) + number(20 + payload.size(), 2) + number(0, 4) +
                 number(64, 1) + number(protocol, 1) + number(0, 2) + number(from.value, 4) +
                 number(to.value, 4);
  header.replace(10, 2, number(checksum(header), 2));
  return header + Bytes(payload);
}

Bytes udp(uint16_t from_port, uint16_t to_port, std::string_view payload) {
  // A checksum of 0 is "none", RFC 768.
  return number(from_port, 2) + number(to_port, 2) + number(8 + payload.size(), 2) + number(0, 2) +
         Bytes(payload);
}

Bytes tcp(Ipv4 from, Ipv4 to, uint16_t from_port, uint16_t to_port, uint32_t seq, uint32_t ack, uint8_t flags,
          std::string_view payload) {
  Bytes segment = number(from_port, 2) + number(to_port, 2) + number(seq, 4) + number(ack, 4) +
                  number(0x50, 1) + number(flags, 1) + number(0xffff, 2) + number(0, 4) + Bytes(payload);
  Bytes pseudo =
      number(from.value, 4) + number(to.value, 4) + number(IPPROTO_TCP, 2) + number(segment.size(), 2);
  segment.replace(16, 2, number(checksum(pseudo + segment), 2));
  return segment;
}

Bytes icmp_echo(uint16_t id) {
  Bytes message = number(8, 1) + number(0, 3) + number(id, 2) + number(1, 2);
  message.replace(2, 2, number(checksum(message), 2));
  return message;
}

std::optional<Frame> Frame::parse(std::string_view frame) {
  if (frame.size() < 14) return std::nullopt;
  Frame seen;
  seen.to = mac_at(frame, 0);
  seen.from = mac_at(frame, 6);
  seen.type = static_cast<uint16_t>(number_at(frame, 12, 2));
  std::string_view body = frame.substr(14);
  if (seen.type == kEtherArp) {
    seen.arp_operation = static_cast<uint16_t>(number_at(body, 6, 2));
    seen.arp_sender_mac = mac_at(body, 8);
    seen.source.value = static_cast<uint32_t>(number_at(body, 14, 4));
    seen.destination.value = static_cast<uint32_t>(number_at(body, 24, 4));
  }
  if (seen.type != kEtherIpv4 || body.size() < 20) return seen;
  seen.protocol = static_cast<uint8_t>(number_at(body, 9, 1));
  seen.source.value = static_cast<uint32_t>(number_at(body, 12, 4));
  seen.destination.value = static_cast<uint32_t>(number_at(body, 16, 4));
  std::string_view inner = body.substr(0, number_at(body, 2, 2)).substr((number_at(body, 0, 1) & 15) * 4);
  if (seen.protocol == IPPROTO_ICMP) {
    seen.icmp_type = static_cast<uint8_t>(number_at(inner, 0, 1));
    return seen;
  }
  seen.from_port = static_cast<uint16_t>(number_at(inner, 0, 2));
  seen.to_port = static_cast<uint16_t>(number_at(inner, 2, 2));
  if (seen.protocol == IPPROTO_UDP) seen.payload = Bytes(inner.substr(std::min<size_t>(8, inner.size())));
  if (seen.protocol == IPPROTO_TCP && inner.size() >= 20) {
    seen.seq = static_cast<uint32_t>(number_at(inner, 4, 4));
    seen.ack = static_cast<uint32_t>(number_at(inner, 8, 4));
    seen.flags = static_cast<uint8_t>(number_at(inner, 13, 1));
    seen.payload = Bytes(inner.substr(std::min<size_t>((number_at(inner, 12, 1) >> 4) * 4, inner.size())));
  }
  return seen;
}

}  // namespace haneul::net::testing
