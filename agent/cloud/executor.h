// SPDX-License-Identifier: Apache-2.0
// Executor: a few threads that do blocking work. Jobs with the same key run one after the other, in the order
// in which they were posted; jobs of different keys run side by side.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace haneul::agent {

/// Thread-safe. Jobs may post.
class Executor {
 public:
  using Job = std::function<void()>;

  explicit Executor(unsigned threads);
  /// Drops what has not begun, waits for what has.
  ~Executor();
  Executor(const Executor&) = delete;
  Executor& operator=(const Executor&) = delete;

  /// After stop() jobs are dropped.
  void post(const std::string& key, Job job);
  void stop();
  /// Waits until nothing is queued and nothing runs (for tests).
  void wait_idle();

 private:
  void work();

  std::mutex mutex_;
  std::condition_variable wake_;
  std::condition_variable idle_;
  std::map<std::string, std::deque<Job>> waiting_;  ///< by key; a key that is here is ready or running
  std::deque<std::string> ready_;
  unsigned running_ = 0;
  bool stopping_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace haneul::agent
