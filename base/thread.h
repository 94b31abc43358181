// SPDX-License-Identifier: Apache-2.0
// ThreadStarter: how code that needs a thread gets one. A sandboxed process starts threads from one place,
// each with the system-call filter of its kind; a test just starts them.
#pragma once

#include <pthread.h>

#include <functional>
#include <string>
#include <system_error>
#include <thread>

#include "base/result.h"

namespace haneul {

/// A thread with a name, of which the system keeps 15 bytes. The error: this user or the process's cgroup has
/// all the threads that it may have.
inline Result<std::thread> start_thread(std::string name, std::function<void()> body) {
  std::string full_name = name;
  try {
    return std::thread([name = std::move(name), body = std::move(body)] {
      ::pthread_setname_np(::pthread_self(), name.substr(0, 15).c_str());
      body();
    });
  } catch (const std::system_error& error) {
    return Error::from_errno(error.code().value(),
                             fmt::format("cannot start the thread '{}' (is a limit on threads reached: "
                                         "pids.max of the cgroup, or ulimit -u?)",
                                         full_name));
  }
}

/// Thread-safe.
class ThreadStarter {
 public:
  virtual ~ThreadStarter() = default;
  /// The caller joins the thread. Errors as of start_thread(), whose name is for people who look at the
  /// process.
  virtual Result<std::thread> start(std::string name, std::function<void()> body) = 0;
};

/// Starts threads from the calling thread, with no filter.
class DirectThreads final : public ThreadStarter {
 public:
  Result<std::thread> start(std::string name, std::function<void()> body) override {
    return start_thread(std::move(name), std::move(body));
  }
};

}  // namespace haneul
