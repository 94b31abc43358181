// SPDX-License-Identifier: Apache-2.0
// EventFd: a counter in the kernel that one thread adds to and another waits for.
#pragma once

#include "base/result.h"
#include "base/unique_fd.h"

namespace haneul {

/// Thread-safe: signal() and drain() may be called from any thread.
class EventFd {
 public:
  /// Non-blocking and close-on-exec.
  static Result<EventFd> create();
  /// Takes over a descriptor that is known to be an eventfd.
  explicit EventFd(UniqueFd fd) : fd_(std::move(fd)) {}

  void signal() const;
  /// Takes the count and sets it to zero; false if it was zero.
  bool drain() const;
  int fd() const { return fd_.get(); }

 private:
  UniqueFd fd_;
};

}  // namespace haneul
