// SPDX-License-Identifier: Apache-2.0
// Forwarding between the bridges and the world, switched on where it is needed and nowhere else.
//
// The kernel forwards a packet if the interface that it came in by has forwarding on. A host that routes
// already (net.ipv4.ip_forward, for Docker or a VPN) is left as it is. On any other, the bridges get it, and
// so do the interfaces with a route through a gateway, for the replies; the firewall then keeps those
// interfaces from forwarding to anything but the bridges, as before.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "net/netlink.h"
#include "net/survey.h"

namespace haneul::net {

struct UplinkPlan {
  /// Interfaces on which this cloud switches, or has switched, forwarding on. Recorded in the bridges' marks.
  std::vector<std::string> changed;
  /// Those of them that the firewall keeps from becoming routers for others.
  std::vector<std::string> guarded;
  /// No interface leads to the world.
  bool none = false;
};

/// What is to be switched on, for this cloud. Reads only.
Result<UplinkPlan> plan_uplinks(Netlink& netlink, const Identity& cloud);
Status switch_on(const UplinkPlan& plan);

/// Switches off again what the plan changed, except where another cloud relies on it or the host itself
/// routes by now.
Status switch_off(Netlink& netlink, const Identity& cloud, const std::vector<std::string>& changed);

}  // namespace haneul::net
