// SPDX-License-Identifier: Apache-2.0
// RangeLocks: which ranges of blocks are being changed, so that changes which must not overlap come one after
// the other, first come first served. Linear in the requests under way, which are a few hundred at most.
//
// Not thread-safe: the volume's lock guards it. Holders stay in place while they hold or wait.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace haneul::storage {

class RangeLocks {
 public:
  struct Holder {
    uint64_t first = 0;
    uint64_t last = 0;  // inclusive
    bool shared = false;
  };

  /// True: held now. False: waiting, for exclusive use; release() of another will grant it.
  bool acquire(Holder& holder);
  /// Calls granted(Holder&) for each that waited and holds now.
  template <typename Granted>
  void release(Holder& holder, Granted granted) {
    remove(holder);
    for (size_t i = 0; i < waiting_.size();) {
      if (conflicts(*waiting_[i], i)) {
        ++i;
        continue;
      }
      Holder* next = waiting_[i];
      waiting_.erase(waiting_.begin() + static_cast<std::ptrdiff_t>(i));
      held_.push_back(next);
      granted(*next);
    }
  }
  /// Whether anyone holds or waits for one of these blocks (first to last, inclusive).
  bool touches(uint64_t first, uint64_t last) const;
  bool idle() const { return held_.empty() && waiting_.empty(); }

 private:
  static bool clash(const Holder& a, const Holder& b) {
    return a.first <= b.last && b.first <= a.last && !(a.shared && b.shared);
  }
  // With a holder, or with one of the first `before` that wait.
  bool conflicts(const Holder& holder, size_t before) const;
  void remove(Holder& holder);

  std::vector<Holder*> held_;
  std::vector<Holder*> waiting_;
};

}  // namespace haneul::storage
