// SPDX-License-Identifier: Apache-2.0
#include "base/event_loop.h"

#include <sys/epoll.h>

#include <array>
#include <cerrno>

namespace haneul {

Result<EventLoop> EventLoop::create() {
  UniqueFd epoll(::epoll_create1(EPOLL_CLOEXEC));
  if (!epoll) return errno_error("epoll_create1");
  EventFd wake = TRY(EventFd::create());
  epoll_event event{.events = EPOLLIN, .data = {.fd = wake.fd()}};
  if (::epoll_ctl(epoll.get(), EPOLL_CTL_ADD, wake.fd(), &event) != 0) return errno_error("epoll_ctl");
  return EventLoop(std::move(epoll), std::move(wake));
}

Status EventLoop::watch(int fd, uint32_t events, Handler handler) {
  epoll_event event{.events = events, .data = {.fd = fd}};
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) != 0) {
    return errno_error("watching file descriptor {}", fd);
  }
  handlers_[fd] = std::make_shared<Handler>(std::move(handler));
  return {};
}

Status EventLoop::change(int fd, uint32_t events) {
  epoll_event event{.events = events, .data = {.fd = fd}};
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, fd, &event) != 0) {
    return errno_error("watching file descriptor {}", fd);
  }
  return {};
}

void EventLoop::unwatch(int fd) {
  if (handlers_.erase(fd) != 0) ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, nullptr);
}

Status EventLoop::run_once(int timeout_ms) {
  std::array<epoll_event, 32> events;
  int count = ::epoll_wait(epoll_.get(), events.data(), events.size(), timeout_ms);
  if (count < 0) {
    if (errno == EINTR) return {};
    return errno_error("epoll_wait");
  }
  for (int i = 0; i < count; ++i) {
    const epoll_event& event = events[static_cast<size_t>(i)];
    if (event.data.fd == wake_.fd()) return Error(ErrorCode::kCancelled, "stopped");
    auto found = handlers_.find(event.data.fd);
    if (found == handlers_.end()) continue;
    std::shared_ptr<Handler> handler = found->second;
    (*handler)(event.events);
  }
  return {};
}

Status EventLoop::run() {
  for (;;) {
    Status status = run_once(-1);
    if (status.ok()) continue;
    if (status.error().code() == ErrorCode::kCancelled) {
      wake_.drain();
      return {};
    }
    return status;
  }
}

void EventLoop::stop() {
  wake_.signal();
}

}  // namespace haneul
