// SPDX-License-Identifier: Apache-2.0
#include "agent/cloud/executor.h"

namespace haneul::agent {

Executor::Executor(unsigned threads) {
  for (unsigned i = 0; i < threads; ++i) threads_.emplace_back([this] { work(); });
}

Executor::~Executor() {
  stop();
}

void Executor::stop() {
  {
    std::scoped_lock lock(mutex_);
    stopping_ = true;
    ready_.clear();
  }
  wake_.notify_all();
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
  waiting_.clear();
}

void Executor::post(const std::string& key, Job job) {
  std::scoped_lock lock(mutex_);
  if (stopping_) return;
  auto [queue, is_new] = waiting_.try_emplace(key);
  queue->second.push_back(std::move(job));
  if (!is_new) return;
  ready_.push_back(key);
  wake_.notify_one();
}

void Executor::wait_idle() {
  std::unique_lock lock(mutex_);
  idle_.wait(lock, [this] { return stopping_ || (waiting_.empty() && running_ == 0); });
}

void Executor::work() {
  std::unique_lock lock(mutex_);
  for (;;) {
    wake_.wait(lock, [this] { return stopping_ || !ready_.empty(); });
    if (stopping_) return;
    std::string key = std::move(ready_.front());
    ready_.pop_front();
    auto queue = waiting_.find(key);
    Job job = std::move(queue->second.front());
    queue->second.pop_front();
    ++running_;
    lock.unlock();
    job();
    job = nullptr;
    lock.lock();
    --running_;
    queue = waiting_.find(key);
    if (queue->second.empty()) {
      waiting_.erase(queue);
    } else {
      ready_.push_back(std::move(key));
      wake_.notify_one();
    }
    idle_.notify_all();
  }
}

}  // namespace haneul::agent
