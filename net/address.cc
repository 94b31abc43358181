// SPDX-License-Identifier: Apache-2.0
#include "net/address.h"

#include <arpa/inet.h>

#include <charconv>

namespace haneul::net {
namespace {

/// A whole unsigned number of the base given, with no sign, space or rest.
bool parse_number(std::string_view text, int base, unsigned limit, unsigned& out) {
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out, base);
  return error == std::errc() && end == text.data() + text.size() && out <= limit;
}

}  // namespace

Result<Ipv4> Ipv4::parse(std::string_view text) {
  in_addr address{};
  // inet_pton, not inet_aton: four decimal parts and nothing else.
  if (::inet_pton(AF_INET, std::string(text).c_str(), &address) != 1 ||
      text.find('\0') != std::string_view::npos) {
    return make_error(ErrorCode::kInvalidArgument, "'{}' is not an IPv4 address", text);
  }
  return Ipv4{ntohl(address.s_addr)};
}

std::string Ipv4::text() const {
  return fmt::format("{}.{}.{}.{}", value >> 24, (value >> 16) & 255, (value >> 8) & 255, value & 255);
}

Result<Ipv4Prefix> Ipv4Prefix::parse(std::string_view text) {
  size_t slash = text.find('/');
  Ipv4Prefix prefix;
  if (slash == std::string_view::npos || !parse_number(text.substr(slash + 1), 10, 32, prefix.length)) {
    return make_error(ErrorCode::kInvalidArgument, "'{}' is not an IPv4 prefix such as 172.31.0.0/20", text);
  }
  prefix.address = TRY(Ipv4::parse(text.substr(0, slash)));
  if ((prefix.address.value & ~prefix.mask()) != 0) {
    return make_error(ErrorCode::kInvalidArgument, "'{}' has bits set outside its prefix length", text);
  }
  return prefix;
}

std::string Ipv4Prefix::text() const {
  return fmt::format("{}/{}", address.text(), length);
}

bool Ipv4Prefix::overlaps(const Ipv4Prefix& other) const {
  return length <= other.length ? contains(other.address) : other.contains(address);
}

Result<Mac> Mac::parse(std::string_view text) {
  Mac mac;
  bool ok = text.size() == 17;
  for (size_t i = 0; ok && i < 6; i++) {
    unsigned byte = 0;
    ok = parse_number(text.substr(i * 3, 2), 16, 255, byte) && (i == 5 || text[i * 3 + 2] == ':');
    mac.bytes[i] = static_cast<uint8_t>(byte);
  }
  if (!ok) return make_error(ErrorCode::kInvalidArgument, "'{}' is not a MAC address", text);
  return mac;
}

std::string Mac::text() const {
  return fmt::format("{:02x}:{:02x}:{:02x}:{:02x}:{:02x}:{:02x}", bytes[0], bytes[1], bytes[2], bytes[3],
                     bytes[4], bytes[5]);
}

}  // namespace haneul::net
