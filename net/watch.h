// SPDX-License-Identifier: Apache-2.0
// Watch: tells that the routes or the nftables rules of a network changed, whoever changed them. What changed is
// not told: Fabric::refresh() looks.
//
// Thread: one. Needs CAP_NET_ADMIN over the network namespace it is opened in.
#pragma once

#include <array>

#include "base/result.h"
#include "base/unique_fd.h"

namespace haneul::net {

class Watch {
 public:
  static Result<Watch> open();

  /// Readable once something changed since the last drain().
  int fd() const { return epoll_.get(); }
  void drain();

 private:
  Watch(UniqueFd epoll, std::array<UniqueFd, 2> sockets)
      : epoll_(std::move(epoll)), sockets_(std::move(sockets)) {}

  UniqueFd epoll_;
  std::array<UniqueFd, 2> sockets_;
};

}  // namespace haneul::net
