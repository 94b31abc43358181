// SPDX-License-Identifier: Apache-2.0
// A volume on real files, used by several threads at once while layers are pushed. For the thread sanitizer
// too.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <atomic>
#include <random>
#include <thread>

#include "base/checked.h"
#include "base/file.h"
#include "storage/testing/waiting_request.h"
#include "storage/volume/volume.h"
#include "tests/support/files.h"

namespace haneul::storage {
namespace {

constexpr unsigned kThreads = 4;
constexpr uint64_t kShare = 2_MiB;  // of the volume, each thread's own

class VolumeThreads : public ::testing::Test {
 protected:
  LayerId make(int number, const LayerId& parent) {
    NewLayer layer;
    layer.id = random_layer_id();
    layer.parent = parent;
    layer.size_bytes = kThreads * kShare;
    UniqueFd file = open_file(path(number), O_RDWR | O_CREAT).value();
    EXPECT_TRUE(create_layer(file.get(), layer).ok());
    return layer.id;
  }
  std::string path(int number) const { return folder_ / fmt::format("layer{}", number); }
  std::unique_ptr<Volume> open(int layers) const {
    std::vector<StackDescriptor> stack;
    for (int i = 0; i < layers; ++i) stack.push_back({open_file(path(i), O_RDWR).value(), std::nullopt});
    return open_volume(UniqueFd(), std::move(stack), {}).value();
  }

  haneul::testing::TempFolder folder_;
};

/// Writes, zeroes, flushes and reads back in its own share until told to stop; then what it should hold.
std::vector<char> work(Volume& volume, unsigned number, const std::atomic<bool>& stop, uint64_t seed) {
  std::minstd_rand random(static_cast<unsigned>(seed + number));
  auto ring = IoRing::create(32).value();
  auto channel = volume.open_channel(*ring);
  std::vector<char> model(kShare);
  std::vector<char> buffer;
  const uint64_t begin = number * kShare;
  while (!stop.load()) {
    uint64_t at = random() % (kShare / 512) * 512;
    uint64_t length = std::min<uint64_t>(kShare - at, (1 + random() % 40) * 512);
    buffer.assign(length, static_cast<char>(random() % 255 + 1));
    auto bytes = std::as_writable_bytes(std::span(buffer));
    uint64_t kind = random() % 10;
    if (kind < 5) {
      EXPECT_EQ(testing::run(*ring, *channel, BlockOp::kWrite, begin + at, bytes), BlockStatus::kOk);
      std::copy(buffer.begin(), buffer.end(), model.begin() + static_cast<std::ptrdiff_t>(at));
    } else if (kind < 6) {
      EXPECT_EQ(testing::run(*ring, *channel, BlockOp::kWriteZeroes, begin + at, length, true),
                BlockStatus::kOk);
      std::fill_n(model.begin() + static_cast<std::ptrdiff_t>(at), length, 0);
    } else if (kind < 7) {
      EXPECT_EQ(testing::run(*ring, *channel, BlockOp::kFlush), BlockStatus::kOk);
    } else {
      EXPECT_EQ(testing::run(*ring, *channel, BlockOp::kRead, begin + at, bytes), BlockStatus::kOk);
      EXPECT_TRUE(std::equal(buffer.begin(), buffer.end(), model.begin() + static_cast<std::ptrdiff_t>(at)));
    }
  }
  return model;
}

TEST_F(VolumeThreads, RequestsAndSnapshotsFromManyThreads) {
  const uint64_t seed = testing::seed();
  constexpr int kPushes = 25;
  LayerId top = make(0, {});
  std::vector<std::vector<char>> models(kThreads);
  {
    auto volume = open(1);
    std::atomic<bool> stop{false};
    std::vector<std::thread> threads;
    for (unsigned i = 0; i < kThreads; ++i) {
      threads.emplace_back([&, i] { models[i] = work(*volume, i, stop, seed); });
    }
    for (int i = 1; i <= kPushes; ++i) {
      top = make(i, top);
      Push push{volume.get(), {make_async_file(open_file(path(i), O_RDWR).value()), std::nullopt}};
      auto stalled = push_layers(std::span(&push, 1));
      EXPECT_TRUE(stalled.ok()) << stalled.error().message();
    }
    stop.store(true);
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(volume->layers(), size_t{kPushes} + 1);
  }
  auto volume = open(kPushes + 1);
  auto ring = IoRing::create(8).value();
  auto channel = volume->open_channel(*ring);
  for (unsigned i = 0; i < kThreads; ++i) {
    std::vector<char> found(kShare);
    EXPECT_EQ(
        testing::run(*ring, *channel, BlockOp::kRead, i * kShare, std::as_writable_bytes(std::span(found))),
        BlockStatus::kOk);
    EXPECT_TRUE(found == models[i]) << "thread " << i;
  }
}

TEST_F(VolumeThreads, DiscardAndWriteZeroesGiveTheHostItsBlocksBack) {
  auto blocks = [&](int number) {
    struct stat info {};
    CHECK(::stat(path(number).c_str(), &info) == 0);
    return static_cast<uint64_t>(info.st_blocks) * 512;
  };
  make(1, make(0, {}));
  auto volume = open(1);
  auto ring = IoRing::create(8).value();
  auto channel = volume->open_channel(*ring);
  std::vector<std::byte> bytes(1_MiB, std::byte{'x'});
  auto write_all = [&] {
    for (uint64_t at = 0; at < kThreads * kShare; at += bytes.size())
      ASSERT_EQ(testing::run(*ring, *channel, BlockOp::kWrite, at, bytes), BlockStatus::kOk);
    ASSERT_EQ(testing::run(*ring, *channel, BlockOp::kFlush), BlockStatus::kOk);
  };
  write_all();
  const uint64_t full = blocks(0);
  ASSERT_GE(full, kThreads * kShare);
  ASSERT_EQ(testing::run(*ring, *channel, BlockOp::kDiscard, 1_MiB, 3_MiB), BlockStatus::kOk);
  EXPECT_LE(blocks(0), full - 3_MiB + 64_KiB) << "the file system may want some for itself";
  ASSERT_EQ(testing::run(*ring, *channel, BlockOp::kWriteZeroes, 4_MiB, 2_MiB, true), BlockStatus::kOk);
  EXPECT_LE(blocks(0), full - 5_MiB + 64_KiB);
  // Above a snapshot the same, and the snapshot keeps its own.
  Push push{volume.get(), {make_async_file(open_file(path(1), O_RDWR).value()), std::nullopt}};
  ASSERT_TRUE(push_layers(std::span(&push, 1)).ok());
  const uint64_t snapshot = blocks(0);
  write_all();
  ASSERT_GE(blocks(1), kThreads * kShare);
  ASSERT_EQ(testing::run(*ring, *channel, BlockOp::kDiscard, 0, kThreads * kShare), BlockStatus::kOk);
  ASSERT_EQ(testing::run(*ring, *channel, BlockOp::kFlush), BlockStatus::kOk);
  EXPECT_LE(blocks(1), 64_KiB) << "but for header, state, journal and map";
  EXPECT_EQ(blocks(0), snapshot);
}

TEST_F(VolumeThreads, WhatIsFrozenCanBeReadWhileTheVolumeIsOpen) {
  const LayerId lowest = make(0, {});
  auto volume = open(1);
  VolumeOptions read_only;
  read_only.read_only = true;
  auto read = [&] {
    std::vector<StackDescriptor> stack;
    stack.push_back({open_file(path(0), O_RDONLY).value(), std::nullopt});
    return open_volume(UniqueFd(), std::move(stack), read_only);
  };
  ASSERT_FALSE(read().ok());
  EXPECT_EQ(read().error().code(), ErrorCode::kBusy);
  make(1, lowest);
  Push push{volume.get(), {make_async_file(open_file(path(1), O_RDWR).value()), std::nullopt}};
  ASSERT_TRUE(push_layers(std::span(&push, 1)).ok());
  auto frozen = read();
  EXPECT_TRUE(frozen.ok()) << frozen.error().message();
}

}  // namespace
}  // namespace haneul::storage
