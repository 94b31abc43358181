// SPDX-License-Identifier: Apache-2.0
// Netlink: links, addresses, routes and neighbours of the network namespace it was opened in (rtnetlink(7)).
//
// Thread: one at a time. Errors carry what was attempted and the kernel's reason; kNotFound, kExists and
// kPermission are told apart.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "net/address.h"

struct nl_sock;
struct nl_msg;

namespace haneul::net {

struct LinkInfo {
  int index = 0;
  std::string name;
  std::string kind;   ///< "bridge", "tun" (taps too), "veth", ... or "" for hardware
  std::string alias;  ///< the text an administrator sees in `ip link`
  int master = 0;     ///< index of the bridge it is a port of, or 0
  Mac mac;
  bool up = false;
};

struct InterfaceAddress {
  int link = 0;
  Ipv4 address;
  unsigned length = 0;
  Ipv4Prefix subnet() const;
};

struct RouteInfo {
  Ipv4Prefix destination;
  int link = 0;  ///< 0: none, such as a blackhole
  bool gateway = false;
};

struct NeighbourInfo {
  int link = 0;
  Ipv4 address;
  Mac mac;
  bool permanent = false;
};

class Netlink {
 public:
  static Result<Netlink> open();

  Result<std::vector<LinkInfo>> links();
  Result<std::optional<LinkInfo>> link(const std::string& name);
  Result<std::vector<InterfaceAddress>> addresses();
  /// The main table's.
  Result<std::vector<RouteInfo>> routes();
  /// The ARP table's entries of one link.
  Result<std::vector<NeighbourInfo>> neighbours(int link);

  /// A bridge without spanning tree and multicast snooping, down.
  Status create_bridge(const std::string& name, const Mac& mac);
  Status delete_link(int link);
  Status set_alias(int link, const std::string& alias);
  Status set_up(int link);
  Status set_master(int link, int bridge);
  /// No IPv6 link-local address of its own making.
  Status disable_ipv6_address_generation(int link);
  /// A bridge port that exchanges frames with the host alone, learns no MACs and is sent only frames that are
  /// for it.
  Status isolate_port(int link);

  Status add_address(int link, Ipv4 address, unsigned length);
  Status delete_address(const InterfaceAddress& address);
  /// A fixed ARP entry on a bridge, and a fixed forwarding entry on a port of it.
  Status set_neighbour(int bridge, Ipv4 address, const Mac& mac);
  Status delete_neighbour(int bridge, Ipv4 address);
  Status set_port_mac(int port, const Mac& mac);

 private:
  struct SocketDeleter {
    void operator()(nl_sock* socket) const;
  };
  struct MessageDeleter {
    void operator()(nl_msg* message) const;
  };
  using Message = std::unique_ptr<nl_msg, MessageDeleter>;

  explicit Netlink(nl_sock* socket) : socket_(socket) {}
  Message link_message(int type, int flags, int family, int link, unsigned set_flags = 0);
  Status send(Message message, const std::string& what);
  Status neighbour_message(int type, int flags, unsigned family, int link, uint16_t state,
                           uint8_t entry_flags, std::optional<Ipv4> address, std::optional<Mac> mac,
                           const std::string& what);

  std::unique_ptr<nl_sock, SocketDeleter> socket_;
};

}  // namespace haneul::net
