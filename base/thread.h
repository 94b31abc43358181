// SPDX-License-Identifier: Apache-2.0
// ThreadStarter: how code that needs a thread gets one. A sandboxed process starts threads from one place,
// each with the system-call filter of its kind; a test just starts them.
#pragma once

#include <pthread.h>

#include <functional>
#include <string>
#include <thread>

namespace haneul {

/// Thread-safe.
class ThreadStarter {
 public:
  virtual ~ThreadStarter() = default;
  /// The caller joins the thread. The name, of at most 15 bytes, is for people who look at the process.
  virtual std::thread start(std::string name, std::function<void()> body) = 0;
};

/// Starts threads from the calling thread, with no filter.
class DirectThreads final : public ThreadStarter {
 public:
  std::thread start(std::string name, std::function<void()> body) override {
    return std::thread([name = std::move(name), body = std::move(body)] {
      ::pthread_setname_np(::pthread_self(), name.substr(0, 15).c_str());
      body();
    });
  }
};

}  // namespace haneul
