// SPDX-License-Identifier: Apache-2.0
// Supervisor: one thread that waits for VMM processes to end and for timers, and calls back. Callbacks must
// be short: they post to the Executor.
#pragma once

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "base/event_fd.h"
#include "base/event_loop.h"
#include "base/result.h"
#include "base/unique_fd.h"

namespace haneul::agent {

/// Thread-safe.
class Supervisor {
 public:
  using Callback = std::function<void()>;

  static Result<std::unique_ptr<Supervisor>> create();
  ~Supervisor();

  /// Calls back once when the descriptor becomes readable, as a pidfd does when its process ends. Takes it
  /// over.
  void when_readable(UniqueFd fd, Callback callback);
  void after(std::chrono::milliseconds delay, Callback callback);
  /// No callback runs after this returned.
  void stop();

 private:
  Supervisor(EventLoop loop, EventFd wake) : loop_(std::move(loop)), wake_(std::move(wake)) {}
  void run();
  void enqueue(Callback command);
  void run_commands();
  int fire_timers();

  using Clock = std::chrono::steady_clock;

  EventLoop loop_;
  EventFd wake_;
  std::thread thread_;
  std::multimap<Clock::time_point, Callback> timers_;  // the thread's own
  std::mutex mutex_;
  std::vector<Callback> commands_;
  bool stopping_ = false;
};

}  // namespace haneul::agent
