// SPDX-License-Identifier: Apache-2.0
// What Fabric is made of, for fabric.cc and fabric_reconcile.cc alone.
#pragma once

#include "net/fabric.h"
#include "net/names.h"
#include "net/netlink.h"
#include "net/nft.h"
#include "net/survey.h"
#include "net/uplink.h"

namespace haneul::net {

struct Zone {
  ZoneSpec spec;
  std::string bridge;
  int index = 0;  ///< the bridge's link, once it is there
};

class Fabric::Impl {
 public:
  static Result<std::unique_ptr<Impl>> create(FabricOptions options);

  Status reconcile(std::vector<NicSpec> live);
  Status refresh();
  Result<UniqueFd> plug(const NicSpec& nic);
  Status unplug(std::string_view tap);
  Status set_policy(std::string_view tap, Policy policy);
  Status remove_all();
  std::vector<std::string> warnings();

  const FabricOptions& options() const { return options_; }
  const std::vector<NicSpec>& nics() const { return nics_; }
  const Zone* zone(std::string_view name) const;
  /// Whether this host has anything of this cloud's.
  Result<bool> anything_there();

 private:
  Impl(FabricOptions options, Netlink netlink, Nft nft)
      : options_(std::move(options)), netlink_(std::move(netlink)), nft_(std::move(nft)) {}

  Status make_zones();
  Status check_names(const std::vector<LinkInfo>& links);
  Status check_ranges(const std::vector<LinkInfo>& links);
  bool ours(const LinkInfo& link) const { return is_bridge_of(identity(), link); }
  bool our_tap(const LinkInfo& link) const { return is_tap_of(identity(), link); }
  Identity identity() const { return {options_.tag, options_.owner}; }
  std::string mark() const { return Mark{options_.tag, uplinks_.changed, options_.owner}.text(); }
  /// Makes the kernel's rules those of `nics`, then takes them as the present ones.
  Status apply(std::vector<NicSpec> nics);
  Result<bool> rules_are_there() const;
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
  bool settled_ = false;  ///< marks and rules are those of uplinks_: nothing is switched on before
};

}  // namespace haneul::net
