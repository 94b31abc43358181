// SPDX-License-Identifier: Apache-2.0
// EventLoop: one thread waits on many descriptors (epoll) and calls the handler of each that is ready.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>

#include "base/event_fd.h"
#include "base/result.h"
#include "base/unique_fd.h"

namespace haneul {

/// Belongs to the thread that calls run(); only stop() may be called from another.
/// Handlers may watch and unwatch descriptors, their own included.
class EventLoop {
 public:
  /// Gets the ready events, as epoll's bits (EPOLLIN, EPOLLHUP, ...).
  using Handler = std::function<void(uint32_t)>;

  static Result<EventLoop> create();

  /// Watches fd, which must stay open until unwatch(fd).
  Status watch(int fd, uint32_t events, Handler handler);
  Status change(int fd, uint32_t events);
  void unwatch(int fd);

  /// Handles events until stop().
  Status run();
  /// Handles what is ready, after waiting up to timeout_ms for the first event (-1: for ever).
  Status run_once(int timeout_ms);
  void stop();

 private:
  EventLoop(UniqueFd epoll, EventFd wake) : epoll_(std::move(epoll)), wake_(std::move(wake)) {}

  UniqueFd epoll_;
  EventFd wake_;
  // Shared so that a handler which unwatches itself is not destroyed while it runs.
  std::map<int, std::shared_ptr<Handler>> handlers_;
};

}  // namespace haneul
