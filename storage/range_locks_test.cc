// SPDX-License-Identifier: Apache-2.0
#include "storage/range_locks.h"

#include <gtest/gtest.h>

namespace haneul::storage {
namespace {

RangeLocks::Holder range(uint64_t first, uint64_t last, bool shared = false) {
  return {.first = first, .last = last, .shared = shared};
}

TEST(RangeLocks, OverlapsWaitAndComeInOrder) {
  RangeLocks locks;
  auto a = range(0, 9), b = range(9, 12), c = range(12, 20), d = range(30, 30);
  std::vector<RangeLocks::Holder*> granted;
  auto note = [&](RangeLocks::Holder& holder) { granted.push_back(&holder); };
  EXPECT_TRUE(locks.acquire(a));
  EXPECT_FALSE(locks.acquire(b));
  EXPECT_FALSE(locks.acquire(c)) << "behind b, which came first";
  EXPECT_TRUE(locks.acquire(d));
  locks.release(a, note);
  EXPECT_EQ(granted, std::vector{&b});
  locks.release(b, note);
  EXPECT_EQ(granted, (std::vector{&b, &c}));
  locks.release(c, note);
  locks.release(d, note);
  EXPECT_TRUE(locks.idle());
}

TEST(RangeLocks, SharedHoldersOverlapUntilAnExclusiveOneWaits) {
  RangeLocks locks;
  auto a = range(0, 9, true), b = range(5, 9, true), c = range(7, 7), d = range(6, 8, true);
  auto ignore = [](RangeLocks::Holder&) {};
  EXPECT_TRUE(locks.acquire(a));
  EXPECT_TRUE(locks.acquire(b));
  EXPECT_FALSE(locks.acquire(c));
  EXPECT_FALSE(locks.acquire(d)) << "or c would starve";
  EXPECT_FALSE(d.shared) << "what it waits for may change what it can share";
  locks.release(a, ignore);
  locks.release(b, ignore);
  locks.release(c, ignore);
  locks.release(d, ignore);
  EXPECT_TRUE(locks.idle());
}

}  // namespace
}  // namespace haneul::storage
