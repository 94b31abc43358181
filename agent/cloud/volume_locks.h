// SPDX-License-Identifier: Apache-2.0
// VolumeLocks: whoever opens volumes for a VMM, puts a layer on them, resizes or deletes them holds them
// meanwhile, so that "is it open" stays true as long as it matters.
//
// Thread-safe. Several volumes are taken at once, all or none: nobody waits while holding some.
#pragma once

#include <condition_variable>
#include <mutex>
#include <set>
#include <string>
#include <vector>

namespace haneul::agent {

class VolumeLocks {
 public:
  /// Lets go when it goes.
  class Held {
   public:
    Held(VolumeLocks& locks, std::vector<std::string> ids) : locks_(&locks), ids_(std::move(ids)) {}
    Held(Held&& other) noexcept : locks_(other.locks_), ids_(std::move(other.ids_)) { other.ids_.clear(); }
    Held& operator=(Held&&) = delete;
    ~Held() { locks_->unlock(ids_); }

   private:
    VolumeLocks* locks_;
    std::vector<std::string> ids_;
  };

  /// Waits until none of them is held.
  [[nodiscard]] Held lock(std::vector<std::string> ids) {
    std::unique_lock lock(mutex_);
    freed_.wait(lock, [&] {
      for (const std::string& id : ids) {
        if (held_.contains(id)) return false;
      }
      return true;
    });
    held_.insert(ids.begin(), ids.end());
    return {*this, std::move(ids)};
  }

 private:
  void unlock(const std::vector<std::string>& ids) {
    if (ids.empty()) return;
    {
      std::scoped_lock lock(mutex_);
      for (const std::string& id : ids) held_.erase(id);
    }
    freed_.notify_all();
  }

  std::mutex mutex_;
  std::condition_variable freed_;
  std::set<std::string> held_;
};

}  // namespace haneul::agent
