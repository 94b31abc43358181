// SPDX-License-Identifier: Apache-2.0
// Fabric: the network of one cloud on this host. A Linux bridge per zone, a tap per instance, and the two
// nftables tables that say who may talk to whom.
//
// Everything it makes carries the cloud's tag in its name and its alias, so that it finds its own things
// again after a crash and never touches another's. The kernel holds the state; the daemon's database holds
// the intent. open() with the list of live interfaces makes the one match the other, from any state that a
// kill -9 may have left.
//
// Thread: one at a time; calls block for some milliseconds (netlink, one run of `nft`).
// Needs: CAP_NET_ADMIN over the network namespace it is opened in, /dev/net/tun, the program nft.
// Lifetime: destroying the object changes nothing in the kernel; remove_all() does.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "net/address.h"
#include "net/firewall.h"

namespace haneul::net {

/// Which network the cloud lives in. kHost: this process's, with outbound traffic masqueraded to the world.
/// kPrivate: a namespace that enter_private_namespace() made; it has no way out.
enum class NetworkMode { kHost, kPrivate };

struct ZoneSpec {
  std::string name;   ///< "us-east-1a", for messages and lookups
  std::string label;  ///< 1 or 2 of [a-z0-9], unique in the cloud: the end of the bridge's name. Empty: the
                      ///< last character of name
  Ipv4Prefix subnet;  ///< "172.31.0.0/20"
  Ipv4 gateway;       ///< the host's address in it, "172.31.0.1"
};

struct FabricOptions {
  std::string tag = "han0";  ///< 1 to 4 of [a-z0-9]: what tells one cloud of a host from another
  std::string owner = {};    ///< owner_of(the state folder): whose the tag is
  std::vector<ZoneSpec> zones;
  NetworkMode mode = NetworkMode::kHost;
  /// TCP ports on which the host reaches every instance (`haneul ssh`).
  std::vector<uint16_t> operator_ports = {22};
  /// The nft program. Empty: searched in PATH, /usr/sbin and /sbin.
  std::filesystem::path nft;
};

/// One network interface of an instance.
struct NicSpec {
  std::string tap;   ///< tap_name(tag, id)
  std::string zone;  ///< ZoneSpec::name
  Mac mac;
  Ipv4 address;
  Policy policy = {};  ///< default: nothing in, everything out
};

/// The tap's name for an instance's or interface's id, always the same: "t-han0-1a2b3c4d".
std::string tap_name(std::string_view tag, std::string_view id);
/// A tag for a state folder, always the same for the same path: 4 hex digits.
std::string tag_for(const std::filesystem::path& state_folder);
/// A locally administered unicast MAC for an interface's id, always the same.
Mac mac_for(std::string_view id);
/// A state folder as FabricOptions::owner: its path, or a hash of one that is too long for an alias.
std::string owner_of(const std::filesystem::path& state_folder);

/// `wanted`, or else tag_for(), or else another tag: one that no interface of another cloud in this network has.
Result<std::string> choose_tag(const std::filesystem::path& state_folder, const std::string& wanted);
/// Who in this network uses addresses of the range, other than this cloud: "interface lan has 172.31.17.4/24".
/// Empty: nobody.
Result<std::string> range_user(const std::string& tag, const std::filesystem::path& state_folder,
                               const Ipv4Prefix& range);
/// Held by who looks for a free tag and range, until its bridges are there: one at a time in a network. kTimeout.
Result<UniqueFd> lock_network(std::chrono::seconds patience = std::chrono::seconds(30));

class Fabric {
 public:
  /// Makes or repairs the bridges and rules; `live` are the interfaces whose VMMs run on. Taps of ours that
  /// are not in `live` are removed; interfaces in `live` whose tap is gone are forgotten (see nics()).
  /// kExists: a name or range is taken, and by whom. kPermission, kUnsupported: what the host lacks.
  static Result<Fabric> open(FabricOptions options, std::vector<NicSpec> live = {});
  Fabric(Fabric&&) noexcept;
  Fabric& operator=(Fabric&&) noexcept;
  ~Fabric();

  /// Lets the interface in: rules first, then a tap on the zone's bridge. The descriptor is the tap
  /// (IFF_TAP | IFF_NO_PI | IFF_VNET_HDR, one queue, header size and offloads at the kernel's defaults); the
  /// tap lives as long as a descriptor of it is open. kExists: its name, MAC or address is in use.
  Result<UniqueFd> plug(const NicSpec& nic);
  /// Removes the tap if it is still there, and its rules. One that is not plugged is fine.
  Status unplug(std::string_view tap);
  /// A new policy for a plugged interface. Established connections live on.
  Status set_policy(std::string_view tap, Policy policy);

  /// As open() does, with the interfaces that live now. Also puts back rules that somebody flushed.
  Status reconcile(std::vector<NicSpec> live);
  /// After routes or rules of this host changed: switches forwarding on where a new way to the world leads, and
  /// puts the rules back if somebody removed them. Changes nothing if nothing is amiss.
  Status refresh();
  /// The interfaces it has rules for.
  const std::vector<NicSpec>& nics() const;
  /// Sentences for the operator: what on this host stands in the instances' way, such as another firewall.
  std::vector<std::string> warnings();

  /// Removes taps, bridges, rules, and sets back the settings that it changed, unless another cloud needs
  /// them.
  Status remove_all();

  const FabricOptions& options() const;
  std::string bridge_of(std::string_view zone) const;

 private:
  class Impl;
  explicit Fabric(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

/// Moves this process into a network namespace of its own with only `lo` in it; without root into a user
/// namespace as well, in which it keeps its user and group numbers. Before threads start, and before sockets
/// that the host's network is to reach would be opened in the wrong place: open those first.
Status enter_private_namespace();

/// Moves this process into the network (and user) namespace of a running process, for `haneul ssh` to reach
/// the instances of a private cloud. No threads may run. Does nothing if they are the same.
Status enter_namespace_of(pid_t pid);

}  // namespace haneul::net
