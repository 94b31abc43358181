// SPDX-License-Identifier: Apache-2.0
// LayerGuards: who works on which layer's file at this moment. Reading a whole layer (checking, copying) goes with
// reading; punching, freezing and computing sums are alone with it. A pin keeps a layer, and what is seen through
// it, for as long as somebody reads a stack that nobody in the catalog need stand on any more.
//
// Threads   thread-safe, with a lock of its own. Whether a layer is pinned is asked, and pins are made, under the
//           store's lock, so that the answer stays true.
#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <map>
#include <mutex>
#include <string>

#include "base/result.h"

namespace haneul::storage {

class LayerGuards {
 public:
  enum class Use { kRead, kAlone };
  /// Lets go when it goes.
  class Held {
   public:
    Held(LayerGuards& guards, std::string layer, Use use)
        : guards_(&guards), layer_(std::move(layer)), use_(use) {}
    Held(Held&& other) noexcept
        : guards_(std::exchange(other.guards_, nullptr)), layer_(std::move(other.layer_)), use_(other.use_) {}
    Held& operator=(Held&&) = delete;
    ~Held() {
      if (guards_ != nullptr) guards_->unlock(layer_, use_);
    }

   private:
    LayerGuards* guards_;
    std::string layer_;
    Use use_;
  };

  /// Waits for those that are in the way. `keep_on` is asked some times a second; false: kCancelled.
  Result<Held> lock(const std::string& layer, Use use, const std::function<bool()>& keep_on = {}) {
    std::unique_lock lock(mutex_);
    auto in_the_way = [&] {
      auto found = users_.find(layer);
      return found != users_.end() && (found->second.alone || use == Use::kAlone);
    };
    while (in_the_way()) {
      freed_.wait_for(lock, kAsk);
      if (!keep_on || !in_the_way()) continue;
      lock.unlock();
      bool on = keep_on();
      lock.lock();
      if (!on) return Error(ErrorCode::kCancelled, "the work was ended");
    }
    Users& users = users_[layer];
    (use == Use::kAlone ? users.alone : users.reading) += 1;
    return Held(*this, layer, use);
  }

  void pin(const std::string& layer) {
    std::lock_guard lock(mutex_);
    ++pins_[layer];
  }
  void unpin(const std::string& layer) {
    std::lock_guard lock(mutex_);
    if (--pins_[layer] == 0) pins_.erase(layer);
  }
  bool pinned(const std::string& layer) {
    std::lock_guard lock(mutex_);
    return pins_.contains(layer);
  }

 private:
  static constexpr std::chrono::milliseconds kAsk{100};
  struct Users {
    unsigned reading = 0;
    unsigned alone = 0;
  };
  void unlock(const std::string& layer, Use use) {
    {
      std::lock_guard lock(mutex_);
      Users& users = users_[layer];
      (use == Use::kAlone ? users.alone : users.reading) -= 1;
      if (users.alone == 0 && users.reading == 0) users_.erase(layer);
    }
    freed_.notify_all();
  }

  std::mutex mutex_;
  std::condition_variable freed_;
  std::map<std::string, Users> users_;
  std::map<std::string, unsigned> pins_;
};

}  // namespace haneul::storage
