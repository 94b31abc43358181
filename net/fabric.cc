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
#include "net/fabric_impl.h"
#include "net/tap.h"

namespace haneul::net {
namespace {

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
  return Zone{spec, bridge_name(tag, spec.label), 0};
}

}  // namespace

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

Status Fabric::Impl::check_names(const std::vector<LinkInfo>& links) {
  // Any with the tag, not the zones' alone: the tables of that tag would be another cloud's too.
  for (const LinkInfo& link : links) {
    if (!is_strangers(identity(), link)) continue;
    return make_error(ErrorCode::kExists,
                      "there is an interface named {} that this cloud did not make: rename or remove it, or "
                      "give the cloud another tag than {}",
                      link.name, options_.tag);
  }
  return {};
}

Status Fabric::Impl::check_ranges(const std::vector<LinkInfo>& links) {
  for (const Zone& zone : zones_) {
    std::string by = TRY(user_of(netlink_, links, identity(), zone.spec.subnet));
    if (by.empty()) continue;
    return make_error(
        ErrorCode::kExists,
        "the range {} of zone {} is in use on this host ({}): free it, or run the cloud in a network "
        "of its own with `--network private`",
        zone.spec.subnet.text(), zone.spec.name, by);
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
  // An unplug that failed half way left it in the rules.
  if (!TRY(netlink_.link(nic.tap))) {
    std::erase_if(nics_, [&](const NicSpec& known) { return known.tap == nic.tap; });
  }
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

Fabric::Fabric(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Fabric::Fabric(Fabric&&) noexcept = default;
Fabric& Fabric::operator=(Fabric&&) noexcept = default;
Fabric::~Fabric() = default;

Result<Fabric> Fabric::open(FabricOptions options, std::vector<NicSpec> live) {
  auto impl = TRY(Impl::create(std::move(options)));
  bool fresh = !TRY(impl->anything_there());
  Status made = impl->reconcile(std::move(live));
  // What a first start cannot finish, it takes away again.
  if (!made.ok() && fresh) {
    if (Status removed = impl->remove_all(); !removed.ok()) {
      LOG_WARNING("net {}: what a failed start made stays until the next one: {}", impl->options().tag,
                  removed.error().message());
    }
  }
  if (!made.ok()) return made.error();
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
Status Fabric::refresh() {
  return impl_->refresh();
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
