// SPDX-License-Identifier: Apache-2.0
#include "net/watch.h"

#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <cerrno>

namespace haneul::net {
namespace {

Result<UniqueFd> subscribe(int protocol, int group, const char* to) {
  UniqueFd fd(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, protocol));
  if (!fd) return errno_error("opening a netlink socket");
  sockaddr_nl any{};
  any.nl_family = AF_NETLINK;
  if (::bind(fd.get(), reinterpret_cast<const sockaddr*>(&any), sizeof any) != 0 ||
      ::setsockopt(fd.get(), SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &group, sizeof group) != 0) {
    return errno_error("listening to changes of {}", to);
  }
  return fd;
}

}  // namespace

Result<Watch> Watch::open() {
  std::array<UniqueFd, 2> sockets = {TRY(subscribe(NETLINK_ROUTE, RTNLGRP_IPV4_ROUTE, "routes")),
                                     TRY(subscribe(NETLINK_NETFILTER, NFNLGRP_NFTABLES, "firewall rules"))};
  UniqueFd epoll(::epoll_create1(EPOLL_CLOEXEC));
  if (!epoll) return errno_error("epoll_create1");
  for (const UniqueFd& socket : sockets) {
    epoll_event event{.events = EPOLLIN, .data = {.fd = socket.get()}};
    if (::epoll_ctl(epoll.get(), EPOLL_CTL_ADD, socket.get(), &event) != 0) return errno_error("epoll_ctl");
  }
  return Watch(std::move(epoll), std::move(sockets));
}

void Watch::drain() {
  std::array<char, 16 << 10> ignored;
  for (const UniqueFd& socket : sockets_) {
    // ENOBUFS: there were more changes than the socket could hold. That is a change as well.
    while (::recv(socket.get(), ignored.data(), ignored.size(), 0) >= 0 || errno == EINTR ||
           errno == ENOBUFS) {
    }
  }
}

}  // namespace haneul::net
