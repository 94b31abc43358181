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

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr uint64_t kOperations = 100'000;
#else
constexpr uint64_t kOperations = 400'000;
#endif

class VolumeFiles : public ::testing::Test {
 protected:
  explicit VolumeFiles(const std::string& parent = "") : folder_(parent) {}

  LayerId make(int number, const LayerId& parent, uint64_t size_bytes = kThreads * kShare) {
    NewLayer layer;
    layer.id = random_layer_id();
    layer.parent = parent;
    layer.size_bytes = size_bytes;
    if (key_) layer.salt.fill(1);
    layer.key = key_;
    UniqueFd file = open_file(path(number), O_RDWR | O_CREAT).value();
    EXPECT_TRUE(create_layer(file.get(), layer).ok());
    return layer.id;
  }
  std::string path(int number) const { return folder_ / fmt::format("layer{}", number); }
  std::unique_ptr<AsyncFile> file(int number) const {
    return make_async_file(open_file(path(number), O_RDWR).value());
  }
  std::unique_ptr<Volume> open(int layers) const {
    std::vector<StackDescriptor> stack;
    for (int i = 0; i < layers; ++i) stack.push_back({open_file(path(i), O_RDWR).value(), key_});
    return open_volume(UniqueFd(), std::move(stack), {}).value();
  }
  void push_and_tidy(Volume& volume, int number);

  haneul::testing::TempFolder folder_;
  std::optional<LayerKey> key_;
};

class VolumeThreads : public VolumeFiles, public ::testing::WithParamInterface<bool> {
 protected:
  // In memory where that can be: there a flush costs nothing, and the threads meet more often.
  VolumeThreads() : VolumeFiles(::access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "") {}
};

struct Work {
  std::atomic<bool> stop{false};
  std::atomic<uint64_t> operations{0};
  uint64_t seed = 0;
};

/// Writes, zeroes, discards, flushes and reads back in its own share until told to stop; then what it should hold.
std::vector<char> work(Volume& volume, unsigned number, Work& all) {
  std::minstd_rand random(static_cast<unsigned>(all.seed + number));
  auto ring = IoRing::create(32).value();
  auto channel = volume.open_channel(*ring);
  std::vector<char> model(kShare);
  std::vector<char> buffer;
  const uint64_t begin = number * kShare;
  while (!all.stop.load()) {
    uint64_t at = random() % (kShare / 512) * 512;
    uint64_t length = std::min<uint64_t>(kShare - at, (1 + random() % 40) * 512);
    buffer.assign(length, static_cast<char>(random() % 255 + 1));
    auto bytes = std::as_writable_bytes(std::span(buffer));
    auto place = model.begin() + static_cast<std::ptrdiff_t>(at);
    uint64_t kind = random() % 11;
    if (kind < 5) {
      EXPECT_EQ(testing::run(*ring, *channel, BlockOp::kWrite, begin + at, bytes), BlockStatus::kOk);
      std::copy(buffer.begin(), buffer.end(), place);
    } else if (kind < 6) {
      EXPECT_EQ(testing::run(*ring, *channel, BlockOp::kWriteZeroes, begin + at, length, true),
                BlockStatus::kOk);
      std::fill_n(place, length, 0);
    } else if (kind < 7) {
      EXPECT_EQ(testing::run(*ring, *channel, BlockOp::kFlush), BlockStatus::kOk);
    } else {
      // What a discard leaves is zeroes or what was there: it is read, and is so from then on.
      bool discard = kind == 7;
      if (discard) {
        EXPECT_EQ(testing::run(*ring, *channel, BlockOp::kDiscard, begin + at, length), BlockStatus::kOk);
      }
      EXPECT_EQ(testing::run(*ring, *channel, BlockOp::kRead, begin + at, bytes), BlockStatus::kOk);
      for (uint64_t i = 0; i < length; ++i, ++place) {
        bool good = buffer[i] == *place || (discard && buffer[i] == 0);
        EXPECT_TRUE(good) << "byte " << begin + at + i;
        if (!good) return model;
        *place = buffer[i];
      }
    }
    all.operations.fetch_add(1);
  }
  return model;
}

// Another layer; the volume grows now and then, and the snapshot before the last is deleted again.
void VolumeFiles::push_and_tidy(Volume& volume, int number) {
  if (number % 7 == 0) {
    ASSERT_TRUE(volume.resize(volume.size_bytes() + 64_KiB).ok());
  }
  make(number, volume.top(), volume.size_bytes());
  Push push{&volume, {file(number), key_}};
  auto stalled = push_layers(std::span(&push, 1));
  ASSERT_TRUE(stalled.ok()) << stalled.error().message();
  if (number < 2 || number % 3 == 0) return;
  auto layer = file(number - 2);
  auto child = file(number - 1);
  ASSERT_TRUE(write_sums(*layer, {}).ok());
  auto punched = punch_hidden(*layer, {child.get()}, {}, {});
  ASSERT_TRUE(punched.ok()) << punched.error().message();
  ASSERT_TRUE(punch_unused(*layer, {}).ok());
}

TEST_P(VolumeThreads, RequestsAndSnapshotsFromManyThreads) {
  if (GetParam())
    key_ = derive_layer_key(StoreKey{1}, [] {
      LayerSalt salt;
      salt.fill(1);
      return salt;
    }());
  Work all;
  all.seed = testing::seed();
  const uint64_t wanted = testing::number_from("HANEUL_THREAD_OPERATIONS", kOperations) / 2;
  constexpr int kPushes = 40;
  make(0, {});
  std::vector<std::vector<char>> models(kThreads);
  {
    auto volume = open(1);
    std::vector<std::thread> threads;
    for (unsigned i = 0; i < kThreads; ++i) {
      threads.emplace_back([&, i] { models[i] = work(*volume, i, all); });
    }
    for (int i = 1; i <= kPushes && !HasFailure(); ++i) {
      while (all.operations.load() < wanted * static_cast<uint64_t>(i) / kPushes && !HasFailure())
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
      push_and_tidy(*volume, i);
    }
    all.stop.store(true);
    for (std::thread& thread : threads) thread.join();
    ASSERT_FALSE(HasFailure());
    EXPECT_EQ(volume->layers(), size_t{kPushes} + 1);
  }
  for (int i = 0; i <= kPushes; ++i) {
    auto faults = check_layer(*file(i), {}, {});
    ASSERT_TRUE(faults.ok()) << faults.error().message();
    for (const Fault& fault : *faults)
      ADD_FAILURE() << "layer " << i << ", " << fault.where << ": " << fault.what;
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
  std::printf("%llu operations\n", static_cast<unsigned long long>(all.operations.load()));
}
INSTANTIATE_TEST_SUITE_P(Plain, VolumeThreads, ::testing::Values(false));
INSTANTIATE_TEST_SUITE_P(Encrypted, VolumeThreads, ::testing::Values(true));

TEST_F(VolumeFiles, DiscardAndWriteZeroesGiveTheHostItsBlocksBack) {
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
