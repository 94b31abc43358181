// SPDX-License-Identifier: Apache-2.0
// IPv4 addresses, prefixes and MAC addresses as values, in host byte order.
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"

namespace haneul::net {

/// "172.31.0.5"
struct Ipv4 {
  uint32_t value = 0;
  static Result<Ipv4> parse(std::string_view text);
  std::string text() const;
  auto operator<=>(const Ipv4&) const = default;
};

/// "172.31.0.0/20". The address has no bits outside the mask.
struct Ipv4Prefix {
  Ipv4 address;
  unsigned length = 0;
  /// Refuses a prefix with bits outside its mask, such as 172.31.0.5/20.
  static Result<Ipv4Prefix> parse(std::string_view text);
  std::string text() const;
  uint32_t mask() const { return length == 0 ? 0 : ~uint32_t{0} << (32 - length); }
  bool contains(Ipv4 address_) const { return (address_.value & mask()) == address.value; }
  bool overlaps(const Ipv4Prefix& other) const;
  auto operator<=>(const Ipv4Prefix&) const = default;
};

/// "02:1a:2b:3c:4d:5e"
struct Mac {
  std::array<uint8_t, 6> bytes{};
  static Result<Mac> parse(std::string_view text);
  std::string text() const;
  bool multicast() const { return (bytes[0] & 1) != 0; }
  auto operator<=>(const Mac&) const = default;
};

}  // namespace haneul::net
