// SPDX-License-Identifier: Apache-2.0
#include "agent/cloud/supervisor.h"

#include <sys/epoll.h>

#include <algorithm>

#include "base/log.h"

namespace haneul::agent {

Result<std::unique_ptr<Supervisor>> Supervisor::create() {
  EventLoop loop = TRY(EventLoop::create());
  EventFd wake = TRY(EventFd::create());
  std::unique_ptr<Supervisor> supervisor(new Supervisor(std::move(loop), std::move(wake)));
  TRY(supervisor->loop_.watch(supervisor->wake_.fd(), EPOLLIN,
                              [raw = supervisor.get()](uint32_t) { raw->wake_.drain(); }));
  supervisor->thread_ = std::thread([raw = supervisor.get()] { raw->run(); });
  return supervisor;
}

Supervisor::~Supervisor() {
  stop();
}

void Supervisor::stop() {
  {
    std::scoped_lock lock(mutex_);
    stopping_ = true;
  }
  wake_.signal();
  if (thread_.joinable()) thread_.join();
}

void Supervisor::enqueue(Callback command) {
  {
    std::scoped_lock lock(mutex_);
    commands_.push_back(std::move(command));
  }
  wake_.signal();
}

void Supervisor::when_readable(UniqueFd fd, Callback callback) {
  auto shared = std::make_shared<UniqueFd>(std::move(fd));
  enqueue([this, shared, callback = std::move(callback)] {
    Status watching = loop_.watch(shared->get(), EPOLLIN, [this, shared, callback](uint32_t) {
      loop_.unwatch(shared->get());
      callback();
    });
    if (!watching.ok()) LOG_ERROR("cannot watch a process: {}", watching.error().message());
  });
}

void Supervisor::after(std::chrono::milliseconds delay, Callback callback) {
  auto when = Clock::now() + delay;
  enqueue([this, when, callback = std::move(callback)] { timers_.emplace(when, callback); });
}

void Supervisor::run_commands() {
  std::vector<Callback> commands;
  {
    std::scoped_lock lock(mutex_);
    commands.swap(commands_);
  }
  for (const Callback& command : commands) command();
}

int Supervisor::fire_timers() {
  while (!timers_.empty() && timers_.begin()->first <= Clock::now()) {
    Callback callback = std::move(timers_.begin()->second);
    timers_.erase(timers_.begin());
    callback();
  }
  if (timers_.empty()) return -1;
  auto wait =
      std::chrono::duration_cast<std::chrono::milliseconds>(timers_.begin()->first - Clock::now()).count();
  return static_cast<int>(std::clamp<int64_t>(wait + 1, 0, 60'000));
}

void Supervisor::run() {
  for (;;) {
    {
      std::scoped_lock lock(mutex_);
      if (stopping_) return;
    }
    run_commands();
    Status status = loop_.run_once(fire_timers());
    if (!status.ok()) LOG_ERROR("the supervisor's event loop: {}", status.error().message());
  }
}

}  // namespace haneul::agent
