// SPDX-License-Identifier: Apache-2.0
#include "net/survey.h"

#include <algorithm>

#include "net/fabric.h"

namespace haneul::net {
namespace {

bool is_bridge_by_name(const Identity& cloud, const LinkInfo& link) {
  return link.kind == "bridge" && link.name.starts_with(bridge_name(cloud.tag, ""));
}

bool is_tap_by_name(const Identity& cloud, const LinkInfo& link) {
  return link.kind == "tun" && link.name.starts_with(tap_prefix(cloud.tag));
}

}  // namespace

bool is_mark_of(const Identity& cloud, const Mark& mark) {
  return mark.tag == cloud.tag && (mark.owner.empty() || mark.owner == cloud.owner);
}

bool is_bridge_of(const Identity& cloud, const LinkInfo& link) {
  if (!is_bridge_by_name(cloud, link)) return false;
  auto mark = Mark::parse(link.alias);
  return mark ? is_mark_of(cloud, *mark)
              : link.alias.empty() && link.mac == bridge_mac(link.name, cloud.owner);
}

bool is_tap_of(const Identity& cloud, const LinkInfo& link) {
  if (!is_tap_by_name(cloud, link)) return false;
  auto mark = Mark::parse(link.alias);
  return mark ? is_mark_of(cloud, *mark) : link.alias.empty();
}

bool is_strangers(const Identity& cloud, const LinkInfo& link) {
  return (link.name.starts_with(bridge_name(cloud.tag, "")) && !is_bridge_of(cloud, link)) ||
         (link.name.starts_with(tap_prefix(cloud.tag)) && !is_tap_of(cloud, link));
}

Result<std::string> user_of(Netlink& netlink, const std::vector<LinkInfo>& links, const Identity& cloud,
                            const Ipv4Prefix& range) {
  auto owner = [&](int index) {
    return std::find_if(links.begin(), links.end(), [&](const LinkInfo& l) { return l.index == index; });
  };
  for (const InterfaceAddress& address : TRY(netlink.addresses())) {
    auto link = owner(address.link);
    if (link == links.end() || is_bridge_of(cloud, *link) || !range.overlaps(address.subnet())) continue;
    return fmt::format("interface {} has {}/{}", link->name, address.address.text(), address.length);
  }
  for (const RouteInfo& route : TRY(netlink.routes())) {
    auto link = owner(route.link);
    bool ours = link != links.end() && is_bridge_of(cloud, *link);
    if (route.destination.length == 0 || ours || !range.overlaps(route.destination)) continue;
    std::string by = link == links.end() ? "" : " through " + link->name;
    return fmt::format("there is a route to {}{}", route.destination.text(), by);
  }
  return std::string();
}

Result<std::string> choose_tag(const std::filesystem::path& state_folder, const std::string& wanted) {
  Netlink netlink = TRY(Netlink::open());
  auto links = TRY(netlink.links());
  std::string owner = owner_of(state_folder);
  std::string tag = wanted.empty() ? tag_for(state_folder) : wanted;
  constexpr int kTries = 100;
  for (int i = 0; i < kTries; ++i) {
    bool taken = std::any_of(links.begin(), links.end(), [&](const LinkInfo& link) {
      return is_strangers({tag, owner}, link);
    });
    if (!taken) return tag;
    tag = tag_for(fmt::format("{}#{}", state_folder.string(), i));
  }
  return make_error(ErrorCode::kExists,
                    "no tag for this cloud's interfaces is free: {} and {} others are taken",
                    tag_for(state_folder), kTries - 1);
}

Result<std::string> range_user(const std::string& tag, const std::filesystem::path& state_folder,
                               const Ipv4Prefix& range) {
  Netlink netlink = TRY(Netlink::open());
  auto links = TRY(netlink.links());
  return user_of(netlink, links, {tag, owner_of(state_folder)}, range);
}

}  // namespace haneul::net
