// SPDX-License-Identifier: Apache-2.0
// What a host's network has already: whose a link is, and who uses a range of addresses. Reads only.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "net/address.h"
#include "net/names.h"
#include "net/netlink.h"

namespace haneul::net {

/// Who a cloud is. Its tag is in the names of its things; another cloud may have come to the same one, but not
/// with the same state folder.
struct Identity {
  std::string tag;
  std::string owner;  ///< owner_of(the state folder)
};

/// A mark of this cloud's. Old ones name no owner.
bool is_mark_of(const Identity& cloud, const Mark& mark);
/// A bridge of this cloud's: by its mark, or by its MAC if a crash came before the mark was written.
bool is_bridge_of(const Identity& cloud, const LinkInfo& link);
/// A tap of this cloud's, or one of this tag that has no mark yet.
bool is_tap_of(const Identity& cloud, const LinkInfo& link);
/// An interface with this cloud's tag in its name that is not this cloud's.
bool is_strangers(const Identity& cloud, const LinkInfo& link);

/// Who uses addresses of the range, other than this cloud: "interface lan has 172.31.17.4/24". Empty: nobody.
Result<std::string> user_of(Netlink& netlink, const std::vector<LinkInfo>& links, const Identity& cloud,
                            const Ipv4Prefix& range);

}  // namespace haneul::net
