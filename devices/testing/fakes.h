// SPDX-License-Identifier: Apache-2.0
// The machine around a device, for tests: interrupts that are counted, vectors and doorbells that are plain
// objects, a host that remembers what it was told. All thread-safe.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "base/thread.h"
#include "devices/interrupt.h"
#include "devices/virtio/device.h"

namespace haneul::devices::testing {

using std::chrono_literals::operator""s;

class CountingInterrupt : public Interrupt {
 public:
  void trigger() override {
    {
      std::lock_guard lock(mutex_);
      ++count_;
    }
    changed_.notify_all();
  }
  int count() const {
    std::lock_guard lock(mutex_);
    return count_;
  }
  /// Waits until at least so many have been triggered in all.
  bool wait_for(int count, std::chrono::milliseconds timeout = 10s) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, timeout, [&] { return count_ >= count; });
  }

 private:
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  int count_ = 0;
};

class RecordingHost : public virtio::DeviceHost {
 public:
  void config_changed() override {
    std::lock_guard lock(mutex_);
    ++config_changes_;
    changed_.notify_all();
  }
  void needs_reset(std::string_view reason) override {
    std::lock_guard lock(mutex_);
    reasons_.emplace_back(reason);
    changed_.notify_all();
  }
  int config_changes() const {
    std::lock_guard lock(mutex_);
    return config_changes_;
  }
  std::vector<std::string> reasons() const {
    std::lock_guard lock(mutex_);
    return reasons_;
  }
  bool wait_for_needs_reset(std::chrono::milliseconds timeout = 10s) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, timeout, [&] { return !reasons_.empty(); });
  }

 private:
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  int config_changes_ = 0;
  std::vector<std::string> reasons_;
};

/// Threads as long as there are any.
class ScarceThreads : public ThreadStarter {
 public:
  Result<std::thread> start(std::string name, std::function<void()> body) override {
    if (refuse) return make_error(ErrorCode::kBusy, "no thread is left for '{}'", name);
    return start_thread(std::move(name), std::move(body));
  }
  std::atomic<bool> refuse{false};
};

/// Vectors that count what they fire, by the message's data. Messages nobody routed count as lost.
class FakeMsiController : public MsiController {
 public:
  explicit FakeMsiController(size_t capacity = 1024) : state_(std::make_shared<State>()) {
    state_->free = capacity;
  }
  Result<std::unique_ptr<MsiVector>> allocate() override {
    std::lock_guard lock(state_->mutex);
    if (state_->free == 0) return make_error(ErrorCode::kNoSpace, "no vector is left");
    --state_->free;
    return std::unique_ptr<MsiVector>(std::make_unique<Vector>(state_));
  }
  int fired(uint32_t data) const {
    std::lock_guard lock(state_->mutex);
    auto found = state_->fired.find(data);
    return found == state_->fired.end() ? 0 : found->second;
  }
  bool wait_for(uint32_t data, int count, std::chrono::milliseconds timeout = 10s) {
    std::unique_lock lock(state_->mutex);
    return state_->changed.wait_for(lock, timeout, [&] { return state_->fired[data] >= count; });
  }
  /// What was fired last.
  MsiMessage last() const {
    std::lock_guard lock(state_->mutex);
    return state_->last;
  }
  size_t free_vectors() const {
    std::lock_guard lock(state_->mutex);
    return state_->free;
  }
  /// How often a vector was given a new message.
  int routes() const {
    std::lock_guard lock(state_->mutex);
    return state_->routes;
  }

 private:
  struct State {
    mutable std::mutex mutex;
    std::condition_variable changed;
    std::map<uint32_t, int> fired;
    MsiMessage last;
    size_t free = 0;
    int routes = 0;
  };
  class Vector : public MsiVector {
   public:
    explicit Vector(std::shared_ptr<State> state) : state_(std::move(state)) {}
    ~Vector() override {
      std::lock_guard lock(state_->mutex);
      ++state_->free;
    }
    Status route(const MsiMessage& message) override {
      std::lock_guard lock(state_->mutex);
      message_ = message;
      ++state_->routes;
      return {};
    }
    void trigger() override {
      std::lock_guard lock(state_->mutex);
      if (!message_) return;
      state_->last = *message_;
      ++state_->fired[message_->data];
      state_->changed.notify_all();
    }

   private:
    std::shared_ptr<State> state_;
    std::optional<MsiMessage> message_;
  };
  std::shared_ptr<State> state_;
};

/// A guest's write that a doorbell takes: ring().
class FakeDoorbells : public DoorbellRegistrar {
 public:
  Status bind(GuestAddress address, const EventFd& event) override {
    std::lock_guard lock(mutex_);
    if (refuse_) return make_error(ErrorCode::kNoSpace, "no doorbell is left");
    if (!bound_.emplace(address, event.fd()).second) {
      return make_error(ErrorCode::kExists, "a doorbell is at {:#x}", address.value);
    }
    events_[address] = &event;
    return {};
  }
  void unbind(GuestAddress address, const EventFd& event) override {
    std::lock_guard lock(mutex_);
    auto found = bound_.find(address);
    CHECK(found != bound_.end() && found->second == event.fd());
    bound_.erase(found);
    events_.erase(address);
  }
  /// False if nothing is bound there: the write would exit.
  bool ring(GuestAddress address) const {
    std::lock_guard lock(mutex_);
    auto found = events_.find(address);
    if (found == events_.end()) return false;
    found->second->signal();
    return true;
  }
  std::vector<GuestAddress> bound() const {
    std::lock_guard lock(mutex_);
    std::vector<GuestAddress> addresses;
    for (const auto& [address, fd] : bound_) addresses.push_back(address);
    return addresses;
  }
  void refuse(bool on) {
    std::lock_guard lock(mutex_);
    refuse_ = on;
  }

 private:
  mutable std::mutex mutex_;
  std::map<GuestAddress, int> bound_;
  std::map<GuestAddress, const EventFd*> events_;
  bool refuse_ = false;
};

}  // namespace haneul::devices::testing
