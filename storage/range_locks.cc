// SPDX-License-Identifier: Apache-2.0
#include "storage/range_locks.h"

#include <algorithm>

#include "base/result.h"

namespace haneul::storage {

bool RangeLocks::acquire(Holder& holder) {
  if (!conflicts(holder, waiting_.size())) {
    held_.push_back(&holder);
    return true;
  }
  holder.shared = false;
  waiting_.push_back(&holder);
  return false;
}

bool RangeLocks::conflicts(const Holder& holder, size_t before) const {
  auto clashes = [&](const Holder* other) { return clash(*other, holder); };
  return std::any_of(held_.begin(), held_.end(), clashes) ||
         std::any_of(waiting_.begin(), waiting_.begin() + static_cast<std::ptrdiff_t>(before), clashes);
}

bool RangeLocks::touches(uint64_t first, uint64_t last) const {
  auto inside = [&](const Holder* holder) { return holder->first <= last && first <= holder->last; };
  return std::any_of(held_.begin(), held_.end(), inside) ||
         std::any_of(waiting_.begin(), waiting_.end(), inside);
}

void RangeLocks::remove(Holder& holder) {
  auto found = std::find(held_.begin(), held_.end(), &holder);
  CHECK(found != held_.end());
  *found = held_.back();
  held_.pop_back();
}

}  // namespace haneul::storage
