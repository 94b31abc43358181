// SPDX-License-Identifier: Apache-2.0
// Spawner: the one thread that starts the others, each with the system-call filter of its kind
// (sandbox/filters.h).
#pragma once

#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "base/thread.h"
#include "vmm/sandbox/filters.h"

namespace haneul::vmm {

/// Thread-safe. Outlives the threads it started.
class Spawner {
 public:
  /// filters: null for none (a library in somebody's test); outlives the spawner. Fails where a process may
  /// have no second thread.
  static Result<std::unique_ptr<Spawner>> create(const Filters* filters);
  ~Spawner();
  Spawner(const Spawner&) = delete;
  Spawner& operator=(const Spawner&) = delete;

  ThreadStarter& vcpus() { return vcpus_; }
  ThreadStarter& io() { return io_; }

 private:
  class Starter final : public ThreadStarter {
   public:
    Starter(Spawner& owner, ThreadKind kind) : owner_(owner), kind_(kind) {}
    Result<std::thread> start(std::string name, std::function<void()> body) override;

   private:
    Spawner& owner_;
    ThreadKind kind_;
  };
  struct Order {
    ThreadKind kind;
    std::string name;
    std::function<void()> body;
    std::optional<Result<std::thread>> started;
  };
  explicit Spawner(const Filters* filters) : filters_(filters) {}
  void loop();

  const Filters* filters_;
  Starter vcpus_{*this, ThreadKind::kVcpu};
  Starter io_{*this, ThreadKind::kIo};
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Order*> orders_;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace haneul::vmm
