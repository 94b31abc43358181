// SPDX-License-Identifier: Apache-2.0
// Pool: objects that are used again and again, so that a steady load allocates nothing. One thread.
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

namespace haneul::storage {

template <typename T>
class Pool {
 public:
  /// An object that nobody uses; a new one, made from the arguments, if there is none.
  template <typename... Args>
  T& take(Args&&... args) {
    if (free_.empty()) {
      all_.push_back(std::make_unique<T>(std::forward<Args>(args)...));
      free_.reserve(all_.size());
      ++used_;
      return *all_.back();
    }
    T* object = free_.back();
    free_.pop_back();
    ++used_;
    return *object;
  }
  void give_back(T& object) {
    free_.push_back(&object);
    --used_;
  }
  size_t used() const { return used_; }

 private:
  std::vector<std::unique_ptr<T>> all_;
  std::vector<T*> free_;
  size_t used_ = 0;
};

}  // namespace haneul::storage
