// SPDX-License-Identifier: Apache-2.0
// What a cloud's network is for good: the range of its VPC, and the tag of its interfaces. Chosen at the first start,
// recorded in the state before anything is made, and kept: addresses of instances come from it.
#pragma once

#include <filesystem>
#include <functional>
#include <optional>
#include <string>

#include "agent/ops/shape.h"
#include "agent/state/store.h"
#include "net/address.h"

namespace haneul::agent {

struct NetworkRecord {
  static constexpr const char* kKind = "network";
  static constexpr const char* kId = "vpc";
  std::string vpc;  ///< "172.31.0.0/16"
  /// Another one than recorded may be taken while none of the cloud's interfaces is there.
  std::string tag;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    visit({.name = "vpc"}, &NetworkRecord::vpc);
    visit({.name = "tag"}, &NetworkRecord::tag);
  }
};

/// A /16 for a VPC, as --vpc takes it; kInvalidArgument with the reason.
Result<net::Ipv4Prefix> parse_vpc(const std::string& text);

/// What is asked of the network that the cloud is going to be in. Both are called with the network locked.
struct NetworkSurvey {
  /// The tag wanted (empty: any), or another one if that is taken.
  std::function<Result<std::string>(const std::string& wanted)> choose_tag;
  /// Who uses the range already, in words; empty: nobody.
  std::function<Result<std::string>(const std::string& tag, const net::Ipv4Prefix& range)> user_of;
};

/// The recorded network, or a new one that is recorded now. `wanted` is the range asked for; nullopt: 172.31.0.0/16,
/// or the next free of 172.30 to 172.16. kExists: it is in use, or the record has another one.
Result<NetworkRecord> settle_network(StateStore& store, const std::optional<net::Ipv4Prefix>& wanted,
                                     const NetworkSurvey& survey);

}  // namespace haneul::agent
