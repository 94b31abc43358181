// SPDX-License-Identifier: Apache-2.0
//
// Order is what makes this safe to kill at any step. Rules come before what they govern: an interface's rules
// before its tap, the tables before the bridges; and they go after it. A setting of the host is recorded in
// the bridges' alias before it is changed. Every step can be done again.
#include "net/fabric.h"

#include <linux/capability.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <set>

#include "base/log.h"
#include "net/names.h"
#include "net/netlink.h"
#include "net/nft.h"
#include "net/sysctl.h"
#include "net/tap.h"
#include "net/uplink.h"

namespace haneul::net {
namespace {

struct Zone {
  ZoneSpec spec;
  std::string bridge;
  int index = 0;  ///< the bridge's link, once it is there
};

bool is_label(std::string_view text, size_t longest) {
  return !text.empty() && text.size() <= longest && std::all_of(text.begin(), text.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
  });
}

bool have_net_admin() {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  std::array<__user_cap_data_struct, 2> sets{};
  return ::syscall(SYS_capget, &header, sets.data()) == 0 && (sets[0].effective & (1u << CAP_NET_ADMIN)) != 0;
}

/// Whether the address can be an instance's: in the subnet, and not its first, its last or the gateway's.
bool usable(const ZoneSpec& zone, Ipv4 address) {
  uint32_t host = address.value & ~zone.subnet.mask();
  return zone.subnet.contains(address) && host != 0 && host != ~zone.subnet.mask() && address != zone.gateway;
}

Result<Zone> make_zone(const std::string& tag, ZoneSpec spec) {
  if (spec.label.empty() && !spec.name.empty()) spec.label = spec.name.substr(spec.name.size() - 1);
  if (!is_label(spec.label, 2)) {
    return make_error(ErrorCode::kInvalidArgument, "zone '{}': '{}' is not a label: 1 or 2 of a-z and 0-9",
                      spec.name, spec.label);
  }
  if (spec.subnet.length < 8 || spec.subnet.length > 30 || !spec.subnet.contains(spec.subnet.address)) {
    return make_error(ErrorCode::kInvalidArgument, "zone {}: {} is not a subnet between /8 and /30",
                      spec.name, spec.subnet.text());
  }
  Ipv4 gateway = spec.gateway;
  spec.gateway = {};
  if (!usable(spec, gateway)) {
    return make_error(ErrorCode::kInvalidArgument, "zone {}: the gateway {} is not an address of {}",
                      spec.name, gateway.text(), spec.subnet.text());
  }
  spec.gateway = gateway;
  Zone zone{spec, bridge_name(tag, spec.label), 0};
  return zone;
}

}  // namespace

class Fabric::Impl {
 public:
  static Result<std::unique_ptr<Impl>> create(FabricOptions options);

  Status reconcile(std::vector<NicSpec> live);
  Result<UniqueFd> plug(const NicSpec& nic);
  Status unplug(std::string_view tap);
  Status set_policy(std::string_view tap, Policy policy);
  Status remove_all();
  std::vector<std::string> warnings();

  const FabricOptions& options() const { return options_; }
  const std::vector<NicSpec>& nics() const { return nics_; }
  const Zone* zone(std::string_view name) const;

 private:
  Impl(FabricOptions options, Netlink netlink, Nft nft)
      : options_(std::move(options)), netlink_(std::move(netlink)), nft_(std::move(nft)) {}

  Status make_zones();
  Status check_names(const std::vector<LinkInfo>& links);
  Status check_ranges(const std::vector<LinkInfo>& links);
  bool ours(const LinkInfo& link) const;
  bool our_tap(const LinkInfo& link) const;
  /// Makes the kernel's rules those of `nics`, then takes them as the present ones.
  Status apply(std::vector<NicSpec> nics);
  Status ensure_bridge(Zone& zone);
  Status ensure_address(const Zone& zone);
  Status attach(int tap, const NicSpec& nic);
  Status check_nic(const NicSpec& nic) const;
  Status remove_stale(const std::vector<LinkInfo>& links, const std::vector<NicSpec>& live);
  Status forget_stale_neighbours(const Zone& zone);

  FabricOptions options_;
  Netlink netlink_;
  Nft nft_;
  std::vector<Zone> zones_;
  std::vector<NicSpec> nics_;
  UplinkPlan uplinks_;
};

Result<std::unique_ptr<Fabric::Impl>> Fabric::Impl::create(FabricOptions options) {
  if (!is_label(options.tag, 4)) {
    return make_error(ErrorCode::kInvalidArgument, "'{}' is not a tag: 1 to 4 of a-z and 0-9", options.tag);
  }
  if (!have_net_admin()) {
    return make_error(
        ErrorCode::kPermission,
        "making bridges and taps in this network needs root (CAP_NET_ADMIN); `--network private` "
        "needs none");
  }
  Nft nft = TRY(Nft::find(options.nft));
  Netlink netlink = TRY(Netlink::open());
  std::unique_ptr<Impl> impl(new Impl(std::move(options), std::move(netlink), std::move(nft)));
  TRY(impl->make_zones());
  TRY(check_taps());
  auto links = TRY(impl->netlink_.links());
  TRY(impl->check_names(links));
  TRY(impl->check_ranges(links));
  return impl;
}

Status Fabric::Impl::make_zones() {
  std::set<std::string> seen;
  for (const ZoneSpec& spec : options_.zones) {
    Zone zone = TRY(make_zone(options_.tag, spec));
    for (const Zone& other : zones_) {
      if (other.spec.name == zone.spec.name || other.bridge == zone.bridge) {
        return make_error(ErrorCode::kInvalidArgument, "two zones are named {} or share the label {}",
                          zone.spec.name, zone.spec.label);
      }
      if (other.spec.subnet.overlaps(zone.spec.subnet)) {
        return make_error(ErrorCode::kInvalidArgument, "the subnets of the zones {} and {} overlap",
                          other.spec.name, zone.spec.name);
      }
    }
    zones_.push_back(zone);
  }
  return {};
}

const Zone* Fabric::Impl::zone(std::string_view name) const {
  auto found = std::find_if(zones_.begin(), zones_.end(), [&](const Zone& z) { return z.spec.name == name; });
  return found == zones_.end() ? nullptr : &*found;
}

/// A bridge of this cloud's: by its mark, or by its MAC if a crash came before the mark was written.
bool Fabric::Impl::ours(const LinkInfo& link) const {
  if (link.kind != "bridge" || !link.name.starts_with(bridge_name(options_.tag, ""))) return false;
  auto mark = Mark::parse(link.alias);
  return mark ? mark->tag == options_.tag : link.alias.empty() && link.mac == bridge_mac(link.name);
}

bool Fabric::Impl::our_tap(const LinkInfo& link) const {
  return link.kind == "tun" && link.name.starts_with(tap_prefix(options_.tag));
}

Status Fabric::Impl::check_names(const std::vector<LinkInfo>& links) {
  for (const LinkInfo& link : links) {
    for (const Zone& zone : zones_) {
      if (link.name != zone.bridge || ours(link)) continue;
      return make_error(
          ErrorCode::kExists,
          "there is an interface named {} that this cloud did not make: rename or remove it, or "
          "give the cloud another tag than {}",
          link.name, options_.tag);
    }
  }
  return {};
}

Status Fabric::Impl::check_ranges(const std::vector<LinkInfo>& links) {
  auto owner = [&](int index) {
    return std::find_if(links.begin(), links.end(), [&](const LinkInfo& l) { return l.index == index; });
  };
  auto taken = [](const Zone& zone, const std::string& by) {
    return make_error(ErrorCode::kExists,
                      "the range {} of zone {} is in use on this host ({}): choose another, or run the cloud "
                      "in a network of its own with `--network private`",
                      zone.spec.subnet.text(), zone.spec.name, by);
  };
  for (const InterfaceAddress& address : TRY(netlink_.addresses())) {
    auto link = owner(address.link);
    if (link == links.end() || ours(*link)) continue;
    for (const Zone& zone : zones_) {
      if (!zone.spec.subnet.overlaps(address.subnet())) continue;
      return taken(zone,
                   fmt::format("interface {} has {}/{}", link->name, address.address.text(), address.length));
    }
  }
  for (const RouteInfo& route : TRY(netlink_.routes())) {
    auto link = owner(route.link);
    if (route.destination.length == 0 || (link != links.end() && ours(*link))) continue;
    for (const Zone& zone : zones_) {
      if (!zone.spec.subnet.overlaps(route.destination)) continue;
      std::string by = link == links.end() ? "" : " through " + link->name;
      return taken(zone, fmt::format("there is a route to {}{}", route.destination.text(), by));
    }
  }
  return {};
}

Status Fabric::Impl::apply(std::vector<NicSpec> nics) {
  FirewallModel model;
  model.tag = options_.tag;
  model.operator_ports = options_.operator_ports;
  model.guarded_uplinks = uplinks_.guarded;
  for (const Zone& zone : zones_) model.zones.push_back({zone.bridge, zone.spec.subnet});
  for (const NicSpec& nic : nics) {
    const Zone* home = zone(nic.zone);
    if (home == nullptr) return make_error(ErrorCode::kNotFound, "there is no zone {}", nic.zone);
    model.nics.push_back({nic.tap, home->bridge, nic.mac, nic.address, nic.policy});
  }
  std::string rules = TRY(compile_firewall(model));
  TRY(nft_.apply(rules));
  nics_ = std::move(nics);
  return {};
}

Status Fabric::Impl::ensure_bridge(Zone& zone) {
  const std::string& name = zone.bridge;
  if (!TRY(netlink_.link(name))) TRY(netlink_.create_bridge(name, bridge_mac(name)));
  auto link = TRY(netlink_.link(name));
  if (!link) return make_error(ErrorCode::kBusy, "bridge {} vanished while it was being made", name);
  zone.index = link->index;
  std::string mark = Mark{options_.tag, uplinks_.changed}.text();
  if (link->alias != mark) TRY(netlink_.set_alias(link->index, mark));

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
  TRY(netlink_.set_alias(tap, Mark{options_.tag, {}}.text()).context(nic.tap));
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
  uplinks_ = options_.mode == NetworkMode::kHost ? TRY(plan_uplinks(netlink_, options_.tag)) : UplinkPlan{};
  TRY(remove_stale(links, live));
  TRY(apply(std::move(live)));
  for (Zone& zone : zones_) TRY(ensure_bridge(zone));
  TRY(switch_on(uplinks_));
  for (const NicSpec& nic : nics_) {
    auto link = TRY(netlink_.link(nic.tap));
    if (link) TRY(attach(link->index, nic));
  }
  for (const Zone& zone : zones_) TRY(forget_stale_neighbours(zone));
  return {};
}

Status Fabric::Impl::check_nic(const NicSpec& nic) const {
  const Zone* home = zone(nic.zone);
  if (home == nullptr) return make_error(ErrorCode::kNotFound, "there is no zone {}", nic.zone);
  if (!usable(home->spec, nic.address)) {
    return make_error(ErrorCode::kInvalidArgument, "{} is not an address for an instance in {} ({})",
                      nic.address.text(), nic.zone, home->spec.subnet.text());
  }
  for (const NicSpec& other : nics_) {
    const char* what = other.tap == nic.tap           ? "name"
                       : other.mac == nic.mac         ? "MAC"
                       : other.address == nic.address ? "address"
                                                      : nullptr;
    if (what == nullptr) continue;
    return make_error(ErrorCode::kExists, "{}: its {} is in use by {}", nic.tap, what, other.tap);
  }
  return {};
}

Result<UniqueFd> Fabric::Impl::plug(const NicSpec& nic) {
  TRY(check_nic(nic));
  std::vector<NicSpec> before = nics_;
  std::vector<NicSpec> after = nics_;
  after.push_back(nic);
  TRY(apply(std::move(after)).context(nic.tap));

  auto make = [&]() -> Result<UniqueFd> {
    UniqueFd tap = TRY(create_tap(nic.tap));
    auto link = TRY(netlink_.link(nic.tap));
    if (!link) return make_error(ErrorCode::kBusy, "tap {} vanished while it was being made", nic.tap);
    TRY(attach(link->index, nic));
    return tap;
  };
  Result<UniqueFd> tap = make();
  if (tap.ok()) return tap;
  // The tap has gone with its descriptor; rules for one that is not there let nothing through.
  if (Status undone = apply(std::move(before)); !undone.ok()) {
    LOG_WARNING("net {}: rules of {} stay until the next change: {}", options_.tag, nic.tap,
                undone.error().message());
  }
  return tap;
}

Status Fabric::Impl::unplug(std::string_view tap) {
  auto link = TRY(netlink_.link(std::string(tap)));
  if (link && our_tap(*link)) {
    Status removed = netlink_.delete_link(link->index);
    if (!removed.ok() && removed.error().code() != ErrorCode::kNotFound) {
      return std::move(removed).context(tap);
    }
  }
  auto nic = std::find_if(nics_.begin(), nics_.end(), [&](const NicSpec& n) { return n.tap == tap; });
  if (nic == nics_.end()) return {};
  const Zone* home = zone(nic->zone);
  if (home != nullptr) TRY(netlink_.delete_neighbour(home->index, nic->address));
  std::vector<NicSpec> after = nics_;
  std::erase_if(after, [&](const NicSpec& n) { return n.tap == tap; });
  return apply(std::move(after));
}

Status Fabric::Impl::set_policy(std::string_view tap, Policy policy) {
  std::vector<NicSpec> after = nics_;
  auto nic = std::find_if(after.begin(), after.end(), [&](const NicSpec& n) { return n.tap == tap; });
  if (nic == after.end()) return make_error(ErrorCode::kNotFound, "{} is not plugged", tap);
  nic->policy = std::move(policy);
  return apply(std::move(after));
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
  TRY(switch_off(netlink_, options_.tag, {changed.begin(), changed.end()}));
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

Fabric::Fabric(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Fabric::Fabric(Fabric&&) noexcept = default;
Fabric& Fabric::operator=(Fabric&&) noexcept = default;
Fabric::~Fabric() = default;

Result<Fabric> Fabric::open(FabricOptions options, std::vector<NicSpec> live) {
  auto impl = TRY(Impl::create(std::move(options)));
  TRY(impl->reconcile(std::move(live)));
  return Fabric(std::move(impl));
}

Result<UniqueFd> Fabric::plug(const NicSpec& nic) {
  return impl_->plug(nic);
}
Status Fabric::unplug(std::string_view tap) {
  return impl_->unplug(tap);
}
Status Fabric::set_policy(std::string_view tap, Policy policy) {
  return impl_->set_policy(tap, std::move(policy));
}
Status Fabric::reconcile(std::vector<NicSpec> live) {
  return impl_->reconcile(std::move(live));
}
const std::vector<NicSpec>& Fabric::nics() const {
  return impl_->nics();
}
std::vector<std::string> Fabric::warnings() {
  return impl_->warnings();
}
Status Fabric::remove_all() {
  return impl_->remove_all();
}
const FabricOptions& Fabric::options() const {
  return impl_->options();
}
std::string Fabric::bridge_of(std::string_view zone) const {
  const Zone* found = impl_->zone(zone);
  return found == nullptr ? "" : found->bridge;
}

}  // namespace haneul::net
