// SPDX-License-Identifier: Apache-2.0
#include "base/event_fd.h"

#include <sys/eventfd.h>

#include <cerrno>
#include <cstdint>

namespace haneul {

Result<EventFd> EventFd::create() {
  UniqueFd fd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!fd) return errno_error("eventfd");
  return EventFd(std::move(fd));
}

void EventFd::signal() const {
  uint64_t one = 1;
  // EAGAIN: the counter is full, so the waiter is already due to wake.
  ssize_t written = 0;
  do {
    written = ::write(fd_.get(), &one, sizeof one);
  } while (written < 0 && errno == EINTR);
}

bool EventFd::drain() const {
  uint64_t count = 0;
  ssize_t got = 0;
  do {
    got = ::read(fd_.get(), &count, sizeof count);
  } while (got < 0 && errno == EINTR);
  return got == sizeof count;
}

}  // namespace haneul
