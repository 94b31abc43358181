// SPDX-License-Identifier: Apache-2.0
//
// The part of Fabric that makes the kernel's state match: from any state, again after somebody changed it, and
// down to nothing.
#include <algorithm>
#include <set>
#include <sstream>

#include "base/log.h"
#include "net/fabric_impl.h"
#include "net/sysctl.h"

namespace haneul::net {

Status Fabric::Impl::ensure_bridge(Zone& zone) {
  const std::string& name = zone.bridge;
  if (!TRY(netlink_.link(name))) TRY(netlink_.create_bridge(name, bridge_mac(name, options_.owner)));
  auto link = TRY(netlink_.link(name));
  if (!link) return make_error(ErrorCode::kBusy, "bridge {} vanished while it was being made", name);
  zone.index = link->index;
  if (link->alias != mark()) TRY(netlink_.set_alias(link->index, mark()));

  TRY(disable_ipv6(name));
  // The ports are isolated from one another, so the bridge answers ARP for the whole subnet and routes
  // between them, by the same interface: that is what the "private VLAN" kind of proxy ARP is for.
  TRY(write_ipv4_setting(name, "proxy_arp_pvlan", 1));
  TRY(write_ipv4_setting(name, "forwarding", 1));
  TRY(write_ipv4_setting(name, "send_redirects", 0));
  TRY(write_ipv4_setting(name, "accept_redirects", 0));
  // Only the gateway's own address is answered for, not every other that this host has.
  TRY(write_ipv4_setting(name, "arp_ignore", 1));
  TRY(ensure_address(zone));
  return netlink_.set_up(link->index).context(name);
}

Status Fabric::Impl::ensure_address(const Zone& zone) {
  bool there = false;
  for (const InterfaceAddress& address : TRY(netlink_.addresses())) {
    if (address.link != zone.index) continue;
    if (address.address == zone.spec.gateway && address.length == zone.spec.subnet.length) {
      there = true;
    } else {
      TRY(netlink_.delete_address(address).context(zone.bridge));
    }
  }
  if (there) return {};
  return netlink_.add_address(zone.index, zone.spec.gateway, zone.spec.subnet.length).context(zone.bridge);
}

/// Puts a tap on its bridge; again is fine. It comes up last, when nothing about it is open any more.
Status Fabric::Impl::attach(int tap, const NicSpec& nic) {
  const Zone* home = zone(nic.zone);
  CHECK(home != nullptr);
  TRY(netlink_.set_alias(tap, Mark{options_.tag, {}, options_.owner}.text()).context(nic.tap));
  TRY(disable_ipv6(nic.tap));
  TRY(netlink_.set_master(tap, home->index).context(nic.tap));
  TRY(netlink_.isolate_port(tap).context(nic.tap));
  TRY(netlink_.set_port_mac(tap, nic.mac).context(nic.tap));
  TRY(netlink_.set_neighbour(home->index, nic.address, nic.mac).context(nic.tap));
  return netlink_.set_up(tap).context(nic.tap);
}

Status Fabric::Impl::remove_stale(const std::vector<LinkInfo>& links, const std::vector<NicSpec>& live) {
  for (const LinkInfo& link : links) {
    bool stale_tap = our_tap(link) && std::none_of(live.begin(), live.end(),
                                                   [&](const NicSpec& nic) { return nic.tap == link.name; });
    bool stale_bridge = ours(link) && std::none_of(zones_.begin(), zones_.end(),
                                                   [&](const Zone& z) { return z.bridge == link.name; });
    if (!stale_tap && !stale_bridge) continue;
    Status removed = netlink_.delete_link(link.index);
    // Its holder may have closed it since the list was made.
    if (!removed.ok() && removed.error().code() != ErrorCode::kNotFound) {
      return std::move(removed).context(link.name);
    }
  }
  return {};
}

Status Fabric::Impl::forget_stale_neighbours(const Zone& zone) {
  for (const NeighbourInfo& entry : TRY(netlink_.neighbours(zone.index))) {
    bool known = std::any_of(nics_.begin(), nics_.end(),
                             [&](const NicSpec& nic) { return nic.address == entry.address; });
    if (entry.permanent && !known) TRY(netlink_.delete_neighbour(zone.index, entry.address));
  }
  return {};
}

Status Fabric::Impl::reconcile(std::vector<NicSpec> live) {
  auto links = TRY(netlink_.links());
  std::erase_if(live, [&](const NicSpec& nic) {
    return std::none_of(links.begin(), links.end(),
                        [&](const LinkInfo& link) { return our_tap(link) && link.name == nic.tap; });
  });
  UplinkPlan plan =
      options_.mode == NetworkMode::kHost ? TRY(plan_uplinks(netlink_, identity())) : UplinkPlan{};
  settled_ = false;
  uplinks_ = std::move(plan);
  TRY(remove_stale(links, live));
  TRY(apply(std::move(live)));
  for (Zone& zone : zones_) TRY(ensure_bridge(zone));
  settled_ = true;
  TRY(switch_on(uplinks_));
  for (const NicSpec& nic : nics_) {
    auto link = TRY(netlink_.link(nic.tap));
    if (link) TRY(attach(link->index, nic));
  }
  for (const Zone& zone : zones_) TRY(forget_stale_neighbours(zone));
  return {};
}

Result<bool> Fabric::Impl::rules_are_there() const {
  std::istringstream tables(TRY(nft_.list({"tables"})));
  unsigned found = 0;
  for (std::string line; std::getline(tables, line);) {
    bool ours = line == fmt::format("table bridge haneul-{}", options_.tag) ||
                line == fmt::format("table inet haneul-{}", options_.tag);
    found += ours ? 1 : 0;
  }
  return found == 2;
}

// What is to be switched on is recorded first, as everywhere.
Status Fabric::Impl::refresh() {
  UplinkPlan plan =
      options_.mode == NetworkMode::kHost ? TRY(plan_uplinks(netlink_, identity())) : UplinkPlan{};
  if (plan.changed != uplinks_.changed || plan.guarded != uplinks_.guarded) settled_ = false;
  uplinks_ = std::move(plan);
  bool there = TRY(rules_are_there());
  if (!there) LOG_WARNING("net {}: somebody removed the firewall's rules; they are put back", options_.tag);
  if (!settled_ || !there) TRY(apply(nics_));
  if (!settled_) {
    for (const Zone& zone : zones_) TRY(netlink_.set_alias(zone.index, mark()).context(zone.bridge));
  }
  settled_ = true;
  return switch_on(uplinks_);
}

Result<bool> Fabric::Impl::anything_there() {
  for (const LinkInfo& link : TRY(netlink_.links())) {
    if (ours(link) || our_tap(link)) return true;
  }
  return false;
}

Status Fabric::Impl::remove_all() {
  std::set<std::string> changed(uplinks_.changed.begin(), uplinks_.changed.end());
  for (const LinkInfo& link : TRY(netlink_.links())) {
    if (!ours(link)) continue;
    auto mark = Mark::parse(link.alias);
    if (mark) changed.insert(mark->forwarding.begin(), mark->forwarding.end());
  }
  // The record of what was changed goes last: with the last bridge, after the settings are back.
  auto links = TRY(netlink_.links());
  auto bridge = std::find_if(links.begin(), links.end(), [&](const LinkInfo& l) { return ours(l); });
  for (const LinkInfo& link : links) {
    if (!our_tap(link) && !(ours(link) && link.index != bridge->index)) continue;
    Status removed = netlink_.delete_link(link.index);
    if (!removed.ok() && removed.error().code() != ErrorCode::kNotFound) {
      return std::move(removed).context(link.name);
    }
  }
  TRY(switch_off(netlink_, identity(), {changed.begin(), changed.end()}));
  if (bridge != links.end()) TRY(netlink_.delete_link(bridge->index).context(bridge->name));
  std::string removal = TRY(compile_removal(options_.tag));
  TRY(nft_.apply(removal));
  nics_.clear();
  uplinks_ = {};
  return {};
}

std::vector<std::string> Fabric::Impl::warnings() {
  std::vector<std::string> all;
  if (options_.mode == NetworkMode::kPrivate) {
    all.push_back("a private network has no way out: instances reach this host's ssh and nothing else");
    return all;
  }
  if (uplinks_.none) {
    all.push_back("this host has no default route: instances reach nothing outside of it");
  }
  auto listing = nft_.list({"chains"});
  if (!listing.ok()) return all;
  for (const std::string& chain : dropping_forward_chains(*listing, "haneul-")) {
    all.push_back(
        fmt::format("another firewall ({0}) drops forwarded packets by default, so instances may reach "
                    "nothing outside; it "
                    "has to accept interfaces hnl-{1}-*, with Docker's for example by `iptables -I "
                    "DOCKER-USER -i hnl-{1}-+ "
                    "-j ACCEPT` and `iptables -I DOCKER-USER -o hnl-{1}-+ -j ACCEPT`",
                    chain, options_.tag));
  }
  if (listing->find("table inet firewalld ") != std::string::npos) {
    all.push_back(
        fmt::format("firewalld runs here: let it trust the bridges, `firewall-cmd --zone=trusted "
                    "--add-interface={}` and so on",
                    zones_.empty() ? "" : zones_[0].bridge));
  }
  return all;
}

}  // namespace haneul::net
