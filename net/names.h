// SPDX-License-Identifier: Apache-2.0
// How a cloud's things in the kernel are named, and how it knows them for its own.
//
// A bridge is hnl-TAG-LABEL with a MAC that follows from that name, a tap is t-TAG-HASH, the tables are
// haneul-TAG. Bridges and taps carry a mark in their alias, with the cloud's state folder: two clouds may have come
// to the same tag. A bridge's also holds what the cloud changed on the host, because that lives exactly as long as
// the kernel's other state: "haneul:han0 forwarding=eth0 state=/var/lib/haneul".
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "net/address.h"

namespace haneul::net {

std::string bridge_name(std::string_view tag, std::string_view label);
/// Given at a bridge's creation, so that one whose alias a crash kept from being written is still known.
Mac bridge_mac(std::string_view bridge, std::string_view owner = {});
std::string tap_prefix(std::string_view tag);

/// The mark in an alias.
struct Mark {
  std::string tag;
  std::vector<std::string> forwarding = {};  ///< interfaces on which this cloud switched forwarding on
  std::string owner = {};                    ///< the state folder, as owner_of() has it; empty in old marks

  /// As long as an alias may be, interfaces that do not fit are left out.
  std::string text() const;
  /// nullopt: not a mark of any cloud.
  static std::optional<Mark> parse(std::string_view alias);
};

}  // namespace haneul::net
