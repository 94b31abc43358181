// SPDX-License-Identifier: Apache-2.0
//
// Reads go through libnl-route's caches. Changes are messages written here with libnl's attribute functions:
// libnl-route knows neither port isolation nor several changes to a link in one message.
#include "net/netlink.h"

#include <arpa/inet.h>
#include <linux/if_bridge.h>
#include <linux/if_link.h>
#include <linux/neighbour.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <netlink/msg.h>
#include <netlink/netlink.h>
#include <netlink/route/addr.h>
#include <netlink/route/link.h>
#include <netlink/route/neighbour.h>
#include <netlink/route/route.h>

#include <algorithm>
#include <cstring>

namespace haneul::net {
namespace {

Error netlink_error(int code, const std::string& what) {
  ErrorCode kind = ErrorCode::kIo;
  switch (-code) {
    case NLE_PERM:
    case NLE_NOACCESS:
      kind = ErrorCode::kPermission;
      break;
    case NLE_EXIST:
      kind = ErrorCode::kExists;
      break;
    case NLE_OBJ_NOTFOUND:
    case NLE_NODEV:
      kind = ErrorCode::kNotFound;
      break;
    case NLE_BUSY:
      kind = ErrorCode::kBusy;
      break;
    case NLE_OPNOTSUPP:
    case NLE_AF_NOSUPPORT:
      kind = ErrorCode::kUnsupported;
      break;
    case NLE_INVAL:
    case NLE_RANGE:
      kind = ErrorCode::kInvalidArgument;
      break;
    default:
      break;
  }
  return make_error(kind, "{}: {}", what, nl_geterror(code));
}

struct CacheDeleter {
  void operator()(nl_cache* cache) const { nl_cache_free(cache); }
};
using Cache = std::unique_ptr<nl_cache, CacheDeleter>;

template <typename Object, typename Visit>
void for_each(const Cache& cache, Visit visit) {
  for (nl_object* object = nl_cache_get_first(cache.get()); object != nullptr;
       object = nl_cache_get_next(object)) {
    visit(reinterpret_cast<Object*>(object));
  }
}

std::optional<Ipv4> ipv4_of(nl_addr* address) {
  if (address == nullptr || nl_addr_get_family(address) != AF_INET || nl_addr_get_len(address) != 4) {
    return std::nullopt;
  }
  uint32_t raw = 0;
  std::memcpy(&raw, nl_addr_get_binary_addr(address), 4);
  return Ipv4{ntohl(raw)};
}

std::optional<Mac> mac_of(nl_addr* address) {
  if (address == nullptr || nl_addr_get_len(address) != 6) return std::nullopt;
  Mac mac;
  std::memcpy(mac.bytes.data(), nl_addr_get_binary_addr(address), 6);
  return mac;
}

LinkInfo info_of(rtnl_link* link) {
  auto text = [](const char* s) { return std::string(s == nullptr ? "" : s); };
  LinkInfo info;
  info.index = rtnl_link_get_ifindex(link);
  info.name = text(rtnl_link_get_name(link));
  info.kind = text(rtnl_link_get_type(link));
  info.alias = text(rtnl_link_get_ifalias(link));
  info.master = rtnl_link_get_master(link);
  info.mac = mac_of(rtnl_link_get_addr(link)).value_or(Mac{});
  info.up = (rtnl_link_get_flags(link) & IFF_UP) != 0;
  return info;
}

void put_ipv4(nl_msg* message, int attribute, Ipv4 address) {
  uint32_t raw = htonl(address.value);
  CHECK(nla_put(message, attribute, sizeof raw, &raw) == 0);
}

}  // namespace

Ipv4Prefix InterfaceAddress::subnet() const {
  Ipv4Prefix prefix{address, length};
  prefix.address.value &= prefix.mask();
  return prefix;
}

void Netlink::SocketDeleter::operator()(nl_sock* socket) const {
  nl_socket_free(socket);
}

void Netlink::MessageDeleter::operator()(nl_msg* message) const {
  nlmsg_free(message);
}

Result<Netlink> Netlink::open() {
  nl_sock* socket = nl_socket_alloc();
  CHECK(socket != nullptr);
  Netlink netlink(socket);
  if (int code = nl_connect(socket, NETLINK_ROUTE); code < 0) {
    return netlink_error(code, "opening a netlink socket");
  }
  return netlink;
}

Result<std::vector<LinkInfo>> Netlink::links() {
  nl_cache* raw = nullptr;
  if (int code = rtnl_link_alloc_cache(socket_.get(), AF_UNSPEC, &raw); code < 0) {
    return netlink_error(code, "listing the interfaces");
  }
  Cache cache(raw);
  std::vector<LinkInfo> all;
  for_each<rtnl_link>(cache, [&](rtnl_link* link) { all.push_back(info_of(link)); });
  return all;
}

Result<std::optional<LinkInfo>> Netlink::link(const std::string& name) {
  rtnl_link* link = nullptr;
  int code = rtnl_link_get_kernel(socket_.get(), 0, name.c_str(), &link);
  if (code == -NLE_NODEV || code == -NLE_OBJ_NOTFOUND) return std::optional<LinkInfo>{};
  if (code < 0) return netlink_error(code, "looking up interface " + name);
  std::optional<LinkInfo> info = info_of(link);
  rtnl_link_put(link);
  return info;
}

Result<std::vector<InterfaceAddress>> Netlink::addresses() {
  nl_cache* raw = nullptr;
  if (int code = rtnl_addr_alloc_cache(socket_.get(), &raw); code < 0) {
    return netlink_error(code, "listing the addresses");
  }
  Cache cache(raw);
  std::vector<InterfaceAddress> all;
  for_each<rtnl_addr>(cache, [&](rtnl_addr* address) {
    auto ipv4 = ipv4_of(rtnl_addr_get_local(address));
    if (!ipv4) return;
    all.push_back(
        {rtnl_addr_get_ifindex(address), *ipv4, static_cast<unsigned>(rtnl_addr_get_prefixlen(address))});
  });
  return all;
}

Result<std::vector<RouteInfo>> Netlink::routes() {
  nl_cache* raw = nullptr;
  if (int code = rtnl_route_alloc_cache(socket_.get(), AF_INET, 0, &raw); code < 0) {
    return netlink_error(code, "listing the routes");
  }
  Cache cache(raw);
  std::vector<RouteInfo> all;
  for_each<rtnl_route>(cache, [&](rtnl_route* route) {
    if (rtnl_route_get_table(route) != RT_TABLE_MAIN) return;
    nl_addr* to = rtnl_route_get_dst(route);
    RouteInfo info;
    info.destination.length = to == nullptr ? 0 : nl_addr_get_prefixlen(to);
    info.destination.address = ipv4_of(to).value_or(Ipv4{});
    for (int i = 0; i < std::max(1, rtnl_route_get_nnexthops(route)); i++) {
      rtnl_nexthop* hop = rtnl_route_nexthop_n(route, i);
      info.link = hop == nullptr ? 0 : rtnl_route_nh_get_ifindex(hop);
      info.gateway = hop != nullptr && rtnl_route_nh_get_gateway(hop) != nullptr;
      all.push_back(info);
    }
  });
  return all;
}

Result<std::vector<NeighbourInfo>> Netlink::neighbours(int link) {
  nl_cache* raw = nullptr;
  if (int code = rtnl_neigh_alloc_cache(socket_.get(), &raw); code < 0) {
    return netlink_error(code, "listing the neighbours");
  }
  Cache cache(raw);
  std::vector<NeighbourInfo> all;
  for_each<rtnl_neigh>(cache, [&](rtnl_neigh* neighbour) {
    auto address = ipv4_of(rtnl_neigh_get_dst(neighbour));
    if (!address || rtnl_neigh_get_ifindex(neighbour) != link) return;
    all.push_back({link, *address, mac_of(rtnl_neigh_get_lladdr(neighbour)).value_or(Mac{}),
                   (rtnl_neigh_get_state(neighbour) & NUD_PERMANENT) != 0});
  });
  return all;
}

Netlink::Message Netlink::link_message(int type, int flags, int family, int link, unsigned set_flags) {
  Message message(nlmsg_alloc_simple(type, flags));
  CHECK(message != nullptr);
  ifinfomsg header{};
  header.ifi_family = static_cast<unsigned char>(family);
  header.ifi_index = link;
  header.ifi_flags = set_flags;
  header.ifi_change = set_flags;
  CHECK(nlmsg_append(message.get(), &header, sizeof header, NLMSG_ALIGNTO) == 0);
  return message;
}

Status Netlink::send(Message message, const std::string& what) {
  if (int code = nl_send_auto(socket_.get(), message.get()); code < 0) return netlink_error(code, what);
  if (int code = nl_wait_for_ack(socket_.get()); code < 0) return netlink_error(code, what);
  return {};
}

Status Netlink::create_bridge(const std::string& name, const Mac& mac) {
  Message message = link_message(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, AF_UNSPEC, 0);
  nl_msg* m = message.get();
  CHECK(nla_put_string(m, IFLA_IFNAME, name.c_str()) == 0);
  CHECK(nla_put(m, IFLA_ADDRESS, 6, mac.bytes.data()) == 0);
  nlattr* info = nla_nest_start(m, IFLA_LINKINFO);
  CHECK(nla_put_string(m, IFLA_INFO_KIND, "bridge") == 0);
  nlattr* data = nla_nest_start(m, IFLA_INFO_DATA);
  CHECK(nla_put_u32(m, IFLA_BR_STP_STATE, 0) == 0);
  CHECK(nla_put_u8(m, IFLA_BR_MCAST_SNOOPING, 0) == 0);
  nla_nest_end(m, data);
  nla_nest_end(m, info);
  return send(std::move(message), "creating bridge " + name);
}

Status Netlink::delete_link(int link) {
  return send(link_message(RTM_DELLINK, 0, AF_UNSPEC, link), "removing an interface");
}

Status Netlink::set_alias(int link, const std::string& alias) {
  Message message = link_message(RTM_SETLINK, 0, AF_UNSPEC, link);
  // Without the final zero, as the kernel keeps it.
  CHECK(nla_put(message.get(), IFLA_IFALIAS, static_cast<int>(alias.size()), alias.data()) == 0);
  return send(std::move(message), "naming an interface as ours");
}

Status Netlink::set_up(int link) {
  return send(link_message(RTM_SETLINK, 0, AF_UNSPEC, link, IFF_UP), "bringing an interface up");
}

Status Netlink::set_master(int link, int bridge) {
  Message message = link_message(RTM_SETLINK, 0, AF_UNSPEC, link);
  CHECK(nla_put_u32(message.get(), IFLA_MASTER, static_cast<uint32_t>(bridge)) == 0);
  return send(std::move(message), "putting an interface on its bridge");
}

Status Netlink::disable_ipv6_address_generation(int link) {
  Message message = link_message(RTM_SETLINK, 0, AF_UNSPEC, link);
  nl_msg* m = message.get();
  nlattr* families = nla_nest_start(m, IFLA_AF_SPEC);
  nlattr* inet6 = nla_nest_start(m, AF_INET6);
  CHECK(nla_put_u8(m, IFLA_INET6_ADDR_GEN_MODE, IN6_ADDR_GEN_MODE_NONE) == 0);
  nla_nest_end(m, inet6);
  nla_nest_end(m, families);
  return send(std::move(message), "switching off IPv6 address generation");
}

Status Netlink::isolate_port(int link) {
  Message message = link_message(RTM_SETLINK, 0, AF_BRIDGE, link);
  nl_msg* m = message.get();
  nlattr* port = nla_nest_start(m, IFLA_PROTINFO | NLA_F_NESTED);
  CHECK(nla_put_u8(m, IFLA_BRPORT_ISOLATED, 1) == 0);
  CHECK(nla_put_u8(m, IFLA_BRPORT_LEARNING, 0) == 0);
  CHECK(nla_put_u8(m, IFLA_BRPORT_UNICAST_FLOOD, 0) == 0);
  CHECK(nla_put_u8(m, IFLA_BRPORT_MCAST_FLOOD, 0) == 0);
  nla_nest_end(m, port);
  return send(std::move(message), "isolating a bridge port");
}

Status Netlink::add_address(int link, Ipv4 address, unsigned length) {
  Message message(nlmsg_alloc_simple(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE));
  CHECK(message != nullptr);
  ifaddrmsg header{};
  header.ifa_family = AF_INET;
  header.ifa_prefixlen = static_cast<unsigned char>(length);
  header.ifa_index = static_cast<uint32_t>(link);
  CHECK(nlmsg_append(message.get(), &header, sizeof header, NLMSG_ALIGNTO) == 0);
  put_ipv4(message.get(), IFA_LOCAL, address);
  put_ipv4(message.get(), IFA_ADDRESS, address);
  Ipv4Prefix subnet = InterfaceAddress{link, address, length}.subnet();
  put_ipv4(message.get(), IFA_BROADCAST, Ipv4{subnet.address.value | ~subnet.mask()});
  return send(std::move(message), "adding address " + address.text());
}

Status Netlink::delete_address(const InterfaceAddress& address) {
  Message message(nlmsg_alloc_simple(RTM_DELADDR, 0));
  CHECK(message != nullptr);
  ifaddrmsg header{};
  header.ifa_family = AF_INET;
  header.ifa_prefixlen = static_cast<unsigned char>(address.length);
  header.ifa_index = static_cast<uint32_t>(address.link);
  CHECK(nlmsg_append(message.get(), &header, sizeof header, NLMSG_ALIGNTO) == 0);
  put_ipv4(message.get(), IFA_LOCAL, address.address);
  return send(std::move(message), "removing address " + address.address.text());
}

Status Netlink::neighbour_message(int type, int flags, unsigned family, int link, uint16_t state,
                                  uint8_t entry_flags, std::optional<Ipv4> address, std::optional<Mac> mac,
                                  const std::string& what) {
  Message message(nlmsg_alloc_simple(type, flags));
  CHECK(message != nullptr);
  ndmsg header{};
  header.ndm_family = static_cast<uint8_t>(family);
  header.ndm_ifindex = link;
  header.ndm_state = state;
  header.ndm_flags = entry_flags;
  CHECK(nlmsg_append(message.get(), &header, sizeof header, NLMSG_ALIGNTO) == 0);
  if (address) put_ipv4(message.get(), NDA_DST, *address);
  if (mac) CHECK(nla_put(message.get(), NDA_LLADDR, 6, mac->bytes.data()) == 0);
  return send(std::move(message), what);
}

Status Netlink::set_neighbour(int bridge, Ipv4 address, const Mac& mac) {
  return neighbour_message(RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, AF_INET, bridge, NUD_PERMANENT, 0,
                           address, mac, "fixing the MAC of " + address.text());
}

Status Netlink::delete_neighbour(int bridge, Ipv4 address) {
  Status done = neighbour_message(RTM_DELNEIGH, 0, AF_INET, bridge, 0, 0, address, std::nullopt,
                                  "forgetting the MAC of " + address.text());
  if (!done.ok() && done.error().code() == ErrorCode::kNotFound) return {};
  return done;
}

Status Netlink::set_port_mac(int port, const Mac& mac) {
  return neighbour_message(RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, AF_BRIDGE, port, NUD_NOARP, NTF_MASTER,
                           std::nullopt, mac, "fixing the port of " + mac.text());
}

}  // namespace haneul::net
