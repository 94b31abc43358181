// SPDX-License-Identifier: Apache-2.0
// Transfers of several threads through one pool of buffers.
#include "storage/volume/bounce.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cstring>
#include <thread>

namespace haneul::storage {
namespace {

// Nobody else may write to a buffer between begun() and end().
class Transfer final : public BounceTransfer {
 public:
  void start(BouncePool& pool, IoRing& ring, size_t bytes, std::atomic<int>& done) {
    bytes_ = bytes;
    done_ = &done;
    ring_ = &ring;
    begin(pool, ring, bytes);
  }

 private:
  void begun() override {
    std::memset(buffer(), static_cast<int>(reinterpret_cast<uintptr_t>(this) >> 4), bytes_);
    ring_->defer(*this, 0);
  }
  void moved(int32_t) override {
    for (size_t at = 0; at < bytes_; at += 97)
      EXPECT_EQ(buffer()[at], static_cast<std::byte>(reinterpret_cast<uintptr_t>(this) >> 4));
    end();
    done_->fetch_add(1);
  }

  size_t bytes_ = 0;
  std::atomic<int>* done_ = nullptr;
  IoRing* ring_ = nullptr;
};

TEST(BouncePool, ThreadsShareItAndNoneWaitsForEver) {
  constexpr int kThreads = 4;
  constexpr int kAtOnce = 60;
  constexpr int kRounds = 20;
  BouncePool pool;
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&pool] {
      auto ring = std::move(IoRing::create(8)).value();
      std::vector<std::unique_ptr<Transfer>> transfers;
      for (int t = 0; t < kAtOnce; ++t) transfers.push_back(std::make_unique<Transfer>());
      for (int round = 0; round < kRounds; ++round) {
        std::atomic<int> done{0};
        for (int t = 0; t < kAtOnce; ++t)
          transfers[static_cast<size_t>(t)]->start(pool, *ring, t % 3 == 0 ? 20'000 : 4096, done);
        while (done < kAtOnce) EXPECT_TRUE(ring->run_once().ok());
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_LE(pool.bytes(), 4u << 20);
}

}  // namespace
}  // namespace haneul::storage
