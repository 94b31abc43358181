// SPDX-License-Identifier: Apache-2.0
#include "net/uplink.h"

#include <algorithm>
#include <map>
#include <set>

#include "net/sysctl.h"

namespace haneul::net {
namespace {

/// net.ipv4.ip_forward.
Result<bool> host_routes() {
  return TRY(read_ipv4_setting("all", "forwarding")) != 0;
}

}  // namespace

Result<UplinkPlan> plan_uplinks(Netlink& netlink, const Identity& cloud) {
  std::map<int, std::string> names;
  std::set<std::string> ours;
  std::set<std::string> others;
  for (const LinkInfo& link : TRY(netlink.links())) {
    names[link.index] = link.name;
    auto mark = link.kind == "bridge" ? Mark::parse(link.alias) : std::nullopt;
    if (!mark) continue;
    auto& recorded = is_mark_of(cloud, *mark) ? ours : others;
    recorded.insert(mark->forwarding.begin(), mark->forwarding.end());
  }
  std::set<std::string> uplinks;
  for (const RouteInfo& route : TRY(netlink.routes())) {
    auto name = names.find(route.link);
    if (name == names.end()) continue;
    // A default route without a gateway is a point-to-point link's, such as a VPN's or a modem's.
    if (route.gateway || route.destination.length == 0) uplinks.insert(name->second);
  }
  UplinkPlan plan;
  plan.none = uplinks.empty();
  bool routes = TRY(host_routes());
  std::set<std::string> changed;
  for (const std::string& name : uplinks) {
    // One that another cloud switched on is recorded by both: the last of them switches it off.
    bool off = TRY(read_ipv4_setting(name, "forwarding")) == 0;
    if (off || others.contains(name)) changed.insert(name);
  }
  for (const auto& [index, name] : names) {
    if (ours.contains(name)) changed.insert(name);
  }
  plan.changed.assign(changed.begin(), changed.end());
  if (!routes) plan.guarded = plan.changed;
  return plan;
}

Status switch_on(const UplinkPlan& plan) {
  for (const std::string& name : plan.changed) {
    if (TRY(read_ipv4_setting(name, "forwarding")) == 0) TRY(write_ipv4_setting(name, "forwarding", 1));
  }
  return {};
}

Status switch_off(Netlink& netlink, const Identity& cloud, const std::vector<std::string>& changed) {
  if (TRY(host_routes())) return {};
  std::set<std::string> needed;
  std::set<std::string> there;
  for (const LinkInfo& link : TRY(netlink.links())) {
    there.insert(link.name);
    auto mark = Mark::parse(link.alias);
    if (mark && !is_mark_of(cloud, *mark)) needed.insert(mark->forwarding.begin(), mark->forwarding.end());
  }
  for (const std::string& name : changed) {
    if (!there.contains(name) || needed.contains(name)) continue;
    if (TRY(read_ipv4_setting(name, "forwarding")) != 0) TRY(write_ipv4_setting(name, "forwarding", 0));
  }
  return {};
}

}  // namespace haneul::net
