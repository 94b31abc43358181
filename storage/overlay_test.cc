// SPDX-License-Identifier: Apache-2.0
#include "storage/overlay.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <thread>

#include "base/file.h"
#include "storage/overlay_format.h"
#include "storage/testing/sim_file.h"
#include "storage/testing/waiting_request.h"

namespace haneul::storage {
namespace {

using overlay::kDataOffset;
using testing::run;
using Bytes = std::vector<std::byte>;

constexpr uint64_t kSize = 64 << 20;
constexpr uint64_t kBase = 32 << 20;

Bytes filled(size_t size, int value) {
  return Bytes(size, static_cast<std::byte>(value));
}

uint64_t space_used(const UniqueFd& file) {
  struct stat info {};
  CHECK(::fstat(file.get(), &info) == 0);
  return static_cast<uint64_t>(info.st_blocks) * 512;
}

UniqueFd again(const UniqueFd& file, int flags) {
  return open_file(fmt::format("/proc/self/fd/{}", file.get()), flags).value();
}

// Overlays over real files, with a base whose bytes are all 0xbb.
class OverlayTest : public ::testing::Test {
 protected:
  OverlayTest() {
    Bytes block = filled(1 << 20, 0xbb);
    for (uint64_t at = 0; at < kBase; at += block.size()) CHECK(write_all_at(base.get(), at, block).ok());
    CHECK(create_overlay(file.get(), kSize, kBase).ok());
  }
  void open() {
    channel.reset();
    backend.reset();
    backend = open_overlay(again(file, O_RDWR), again(base, O_RDONLY)).value();
    channel = backend->open_channel(*ring);
  }
  BlockStatus go(BlockOp op, uint64_t offset, Bytes& data) { return run(*ring, *channel, op, offset, data); }
  BlockStatus go(BlockOp op, uint64_t offset = 0, uint64_t length = 0) {
    return run(*ring, *channel, op, offset, length);
  }
  Bytes read(uint64_t offset, size_t length) {
    Bytes bytes = filled(length, 0xee);
    EXPECT_EQ(go(BlockOp::kRead, offset, bytes), BlockStatus::kOk);
    return bytes;
  }
  std::string refused(UniqueFd its_file, UniqueFd its_base) {
    auto opened = open_overlay(std::move(its_file), std::move(its_base));
    return opened.ok() ? "" : opened.error().message();
  }

  UniqueFd file = make_memfd("overlay").value();
  UniqueFd base = make_memfd("base").value();
  std::unique_ptr<IoRing> ring = IoRing::create(16).value();
  std::unique_ptr<BlockBackend> backend;
  std::unique_ptr<BlockChannel> channel;
};

TEST_F(OverlayTest, BeginsAsItsBaseAndThenZeroes) {
  open();
  EXPECT_EQ(backend->size_bytes(), kSize);
  EXPECT_EQ(read(0, 4096), filled(4096, 0xbb));
  EXPECT_EQ(read(kBase, 4096), filled(4096, 0));
  auto across = read(kBase - 1024, 2048);
  EXPECT_EQ(std::count(across.begin(), across.end(), std::byte{0xbb}), 1024);
  EXPECT_LE(space_used(file), 8192u) << "nothing was copied";
}

TEST_F(OverlayTest, WritesOfAnySizeCompleteTheirBlocks) {
  open();
  Bytes data = filled(512, 1);
  EXPECT_EQ(go(BlockOp::kWrite, 1024, data), BlockStatus::kOk);
  EXPECT_EQ(go(BlockOp::kWrite, kBase - 512, data), BlockStatus::kOk);
  EXPECT_EQ(go(BlockOp::kWrite, kSize - 512, data), BlockStatus::kOk);
  Bytes large = filled(10240, 2);
  EXPECT_EQ(go(BlockOp::kWrite, 65536 + 2048, large), BlockStatus::kOk);
  for (int life = 0; life < 2; ++life) {
    auto block = read(0, 4096);
    EXPECT_EQ(std::count(block.begin(), block.end(), std::byte{0xbb}), 4096 - 512);
    EXPECT_EQ(block[1024], std::byte{1});
    EXPECT_EQ(read(kBase - 1024, 512), filled(512, 0xbb));
    EXPECT_EQ(read(kSize - 512, 512), data);
    EXPECT_EQ(read(kSize - 1024, 512), filled(512, 0));
    auto range = read(65536, 16384);
    EXPECT_EQ(std::count(range.begin(), range.end(), std::byte{2}), 10240);
    EXPECT_EQ(std::count(range.begin(), range.end(), std::byte{0xbb}), 6144);
    open();
  }
  EXPECT_EQ(file_size(base.get()).value(), kBase);
  Bytes first(4096);
  ASSERT_TRUE(read_exact_at(base.get(), 0, first).ok());
  EXPECT_EQ(first, filled(4096, 0xbb)) << "the base is untouched";
}

TEST_F(OverlayTest, DiscardHidesTheBaseAndGivesSpaceBack) {
  open();
  Bytes data = filled(8 << 20, 1);
  EXPECT_EQ(go(BlockOp::kWrite, 0, data), BlockStatus::kOk);
  EXPECT_EQ(go(BlockOp::kFlush), BlockStatus::kOk);
  uint64_t full = space_used(file);
  EXPECT_GE(full, uint64_t{8} << 20);
  EXPECT_EQ(go(BlockOp::kDiscard, 0, kSize), BlockStatus::kOk);
  EXPECT_EQ(go(BlockOp::kFlush), BlockStatus::kOk);
  EXPECT_LT(space_used(file), uint64_t{64} << 10);
  for (int life = 0; life < 2; ++life) {
    EXPECT_EQ(read(0, 1 << 20), filled(1 << 20, 0));
    EXPECT_EQ(read(kBase - 4096, 4096), filled(4096, 0)) << "not the base's again";
    open();
  }
}

TEST_F(OverlayTest, WriteZeroesIsExactToTheSector) {
  open();
  Bytes data = filled(4096, 1);
  EXPECT_EQ(go(BlockOp::kWrite, 8192, data), BlockStatus::kOk);
  // The end of a base block, all of one in the data, and the beginning of another base block.
  EXPECT_EQ(go(BlockOp::kWriteZeroes, 4096 + 3584, 512 + 4096 + 1024), BlockStatus::kOk);
  auto bytes = read(4096, 12288);
  Bytes expected = filled(12288, 0xbb);
  std::fill_n(expected.begin() + 3584, 512 + 4096 + 1024, std::byte{0});
  EXPECT_EQ(bytes, expected);
  EXPECT_EQ(go(BlockOp::kWriteZeroes, 1024, 512), BlockStatus::kOk) << "inside one block";
  EXPECT_EQ(read(512, 1536)[511], std::byte{0xbb});
  EXPECT_EQ(read(1024, 512), filled(512, 0));
}

TEST_F(OverlayTest, ADiskNeedNotEndWithAWholeBlock) {
  file = make_memfd("overlay").value();
  ASSERT_TRUE(create_overlay(file.get(), kBase + 4096 + 512, kBase).ok());
  open();
  Bytes data = filled(512, 7);
  EXPECT_EQ(go(BlockOp::kWrite, kBase + 4096, data), BlockStatus::kOk);
  open();
  EXPECT_EQ(read(kBase + 4096, 512), data);
  EXPECT_EQ(go(BlockOp::kDiscard, kBase, 4096 + 512), BlockStatus::kOk);
  EXPECT_EQ(read(kBase + 4096, 512), filled(512, 0));
  Bytes beyond(1024);
  EXPECT_EQ(go(BlockOp::kRead, kBase + 4096, beyond), BlockStatus::kOutOfRange);
}

TEST_F(OverlayTest, GrowsWhileInUseAndKeepsIt) {
  open();
  ASSERT_TRUE(backend->resize(uint64_t{1} << 40).ok());
  Bytes data = filled(4096, 5);
  EXPECT_EQ(go(BlockOp::kWrite, (uint64_t{1} << 40) - 4096, data), BlockStatus::kOk);
  open();
  EXPECT_EQ(backend->size_bytes(), uint64_t{1} << 40);
  EXPECT_EQ(read((uint64_t{1} << 40) - 4096, 4096), data);
  EXPECT_EQ(read(kSize, 4096), filled(4096, 0));
  EXPECT_LT(space_used(file), 64u << 10);
  EXPECT_FALSE(backend->resize(kSize).ok());
  EXPECT_FALSE(backend->resize((uint64_t{1} << 44) + 512).ok());
}

TEST_F(OverlayTest, OneUserAtATime) {
  open();
  auto second = open_overlay(again(file, O_RDWR), again(base, O_RDONLY));
  ASSERT_FALSE(second.ok());
  EXPECT_EQ(second.error().code(), ErrorCode::kBusy);
  EXPECT_EQ(second.error().message(),
            "the file is open as a disk elsewhere, and a writable disk has one user at a time");
  UniqueFd other = make_memfd("other").value();
  ASSERT_TRUE(create_overlay(other.get(), kSize, kBase).ok());
  EXPECT_TRUE(open_overlay(again(other, O_RDWR), again(base, O_RDONLY)).ok()) << "a base has many users";
}

TEST_F(OverlayTest, AReadOnlyDescriptorMakesAReadOnlyDisk) {
  auto opened = open_overlay(again(file, O_RDONLY), again(base, O_RDONLY)).value();
  EXPECT_TRUE(opened->read_only());
  auto its_channel = opened->open_channel(*ring);
  Bytes data = filled(512, 1);
  EXPECT_EQ(run(*ring, *its_channel, BlockOp::kWrite, 0, data), BlockStatus::kReadOnly);
  EXPECT_EQ(run(*ring, *its_channel, BlockOp::kRead, 0, data), BlockStatus::kOk);
}

TEST_F(OverlayTest, WrongFilesAreRefusedWithOneSentence) {
  EXPECT_EQ(create_overlay(file.get(), kSize, 0).error().message(),
            "an overlay is made in an empty file, and this one is not");
  UniqueFd empty = make_memfd("empty").value();
  EXPECT_EQ(create_overlay(empty.get(), 1000, 0).error().message(),
            "an overlay's size must be a multiple of 512 up to 16 TiB, not 1000 bytes");
  EXPECT_EQ(create_overlay(empty.get(), 512, 1024).error().message(),
            "a base of 1024 bytes does not fit under an overlay of 512");
  EXPECT_EQ(refused(again(empty, O_RDWR), {}), "the file is not an overlay: it has only 0 bytes");
  EXPECT_EQ(refused(again(file, O_RDWR), {}),
            "the overlay lies over a base of 33554432 bytes, and none was given");
  EXPECT_EQ(refused(again(file, O_RDWR), again(empty, O_RDONLY)),
            "the overlay was made over a base of 33554432 bytes, and the one given has 0");
  ASSERT_TRUE(create_overlay(empty.get(), kSize, 0).ok());
  EXPECT_EQ(refused(again(empty, O_RDWR), again(base, O_RDONLY)),
            "the overlay was made without a base, and one was given");
  ASSERT_EQ(::ftruncate(file.get(), static_cast<off_t>(kDataOffset + kSize - 1)), 0);
  EXPECT_EQ(refused(again(file, O_RDWR), again(base, O_RDONLY)),
            "the overlay was cut short: its file has 4363124735 bytes, not 4363124736");
}

TEST_F(OverlayTest, ADamagedMapIsRefusedByName) {
  open();
  Bytes data = filled(4096, 1);
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(go(BlockOp::kWrite, static_cast<uint64_t>(i) * 4096, data), BlockStatus::kOk);
    EXPECT_EQ(go(BlockOp::kFlush), BlockStatus::kOk);
  }
  channel.reset();
  backend.reset();
  Bytes noise = filled(8192, 0x55);
  ASSERT_TRUE(write_all_at(file.get(), overlay::kMapOffset, noise).ok());
  EXPECT_EQ(refused(again(file, O_RDWR), again(base, O_RDONLY)),
            "both copies of the overlay's map page 0 are damaged");
}

// Several threads, each with its own ring, over all the same blocks: every sector a thread owns is as it left
// it, though its block is shared with the others. Run under the thread sanitizer.
TEST_F(OverlayTest, ThreadsShareOneOverlay) {
  open();
  constexpr int kThreads = 4;
  std::vector<std::thread> threads;
  std::atomic<int> failures{0};
  for (int id = 0; id < kThreads; ++id) {
    threads.emplace_back([&, id] {
      auto own_ring = IoRing::create(8).value();
      {
        auto own_channel = backend->open_channel(*own_ring);
        std::mt19937_64 random(static_cast<uint64_t>(id));
        std::vector<int> model(256, 0xbb);
        for (int step = 0; step < 1500; ++step) {
          uint64_t which = random() % model.size();
          uint64_t offset = (which * kThreads + static_cast<uint64_t>(id)) * 512;
          Bytes sector = filled(512, static_cast<int>(random() % 250));
          auto kind = random() % 10;
          BlockStatus status = BlockStatus::kOk;
          if (kind < 5) {
            status = run(*own_ring, *own_channel, BlockOp::kWrite, offset, sector);
            model[which] = std::to_integer<int>(sector[0]);
          } else if (kind < 6) {
            status = run(*own_ring, *own_channel, BlockOp::kWriteZeroes, offset, 512);
            model[which] = 0;
          } else if (kind < 7) {
            status = run(*own_ring, *own_channel, BlockOp::kFlush);
          } else {
            status = run(*own_ring, *own_channel, BlockOp::kRead, offset, sector);
            if (sector != filled(512, model[which])) ++failures;
          }
          if (status != BlockStatus::kOk) ++failures;
        }
      }
      own_ring->leave().value();
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(failures, 0);
}

// Faults in the file beneath.
class FaultyOverlayTest : public ::testing::Test {
 protected:
  FaultyOverlayTest() {
    testing::SimFile made(medium, random);
    CHECK(create_overlay_file(made, kSize, 0).ok());
    open();
  }
  void open() {
    channel.reset();
    backend.reset();
    auto file = std::make_unique<testing::SimFile>(medium, random);
    sim = file.get();
    sim->faults.fail = [this](char kind, uint64_t offset) {
      bool map = kind == 'w' && offset < kDataOffset;
      ++counts[map ? 'm' : kind];
      return map ? errors['m'] : errors[kind];
    };
    backend = open_overlay_files(std::move(file), nullptr, false).value();
    channel = backend->open_channel(*ring);
  }
  BlockStatus go(BlockOp op, uint64_t offset = 0, size_t length = 0, int value = 0) {
    testing::WaitingRequest request;
    bytes = filled(length, value);
    if (op == BlockOp::kRead || op == BlockOp::kWrite) {
      request.set(op, offset, bytes);
    } else {
      request.set(op, offset, length);
    }
    channel->submit(request);
    while (!request.status) {
      if (sim->pending() > 0) sim->step();
      CHECK(ring->run_once(false).ok());
    }
    return *request.status;
  }

  testing::Random random{1};
  std::shared_ptr<testing::SimMedium> medium = std::make_shared<testing::SimMedium>();
  testing::SimFile* sim = nullptr;
  std::map<char, int> errors;
  std::map<char, int> counts;
  std::unique_ptr<IoRing> ring = IoRing::create(8).value();
  std::unique_ptr<BlockBackend> backend;
  std::unique_ptr<BlockChannel> channel;
  Bytes bytes;
};

TEST_F(FaultyOverlayTest, FlushesCostWhatTheDocumentSays) {
  EXPECT_EQ(go(BlockOp::kWrite, 0, 4096, 1), BlockStatus::kOk);
  EXPECT_EQ(go(BlockOp::kFlush), BlockStatus::kOk);
  EXPECT_EQ(counts['s'], 2);
  EXPECT_EQ(counts['m'], 1);
  EXPECT_EQ(go(BlockOp::kWrite, 512, 512, 2), BlockStatus::kOk);
  EXPECT_EQ(go(BlockOp::kFlush), BlockStatus::kOk);
  EXPECT_EQ(counts['s'], 3) << "nothing allocated: one sync";
  EXPECT_EQ(counts['m'], 1);
  EXPECT_EQ(counts['r'], 0);
}

TEST_F(FaultyOverlayTest, AFailedWriteLeavesTheOldContent) {
  errors['w'] = ENOSPC;
  EXPECT_EQ(go(BlockOp::kWrite, 0, 4096, 1), BlockStatus::kNoSpace);
  errors['w'] = 0;
  EXPECT_EQ(go(BlockOp::kRead, 0, 4096), BlockStatus::kOk);
  EXPECT_EQ(bytes, filled(4096, 0));
  EXPECT_EQ(go(BlockOp::kWrite, 0, 4096, 1), BlockStatus::kOk) << "once there is space";
}

TEST_F(FaultyOverlayTest, AFullDiskFailsTheFlushAndTheNextOneMakesItGood) {
  EXPECT_EQ(go(BlockOp::kWrite, 0, 4096, 1), BlockStatus::kOk);
  errors['m'] = ENOSPC;
  EXPECT_EQ(go(BlockOp::kFlush), BlockStatus::kNoSpace);
  errors['m'] = 0;
  EXPECT_EQ(go(BlockOp::kFlush), BlockStatus::kOk);
  auto left = std::make_shared<testing::SimMedium>(medium->after_power_loss(random));
  channel.reset();
  backend.reset();
  medium = left;
  open();
  EXPECT_EQ(go(BlockOp::kRead, 0, 4096), BlockStatus::kOk);
  EXPECT_EQ(bytes, filled(4096, 1));
}

TEST_F(FaultyOverlayTest, AFailedSyncIsFinal) {
  EXPECT_EQ(go(BlockOp::kWrite, 0, 4096, 1), BlockStatus::kOk);
  errors['s'] = EIO;
  EXPECT_EQ(go(BlockOp::kFlush), BlockStatus::kIoError);
  errors['s'] = 0;
  EXPECT_EQ(go(BlockOp::kFlush), BlockStatus::kIoError);
  EXPECT_EQ(counts['m'], 0) << "no state was written of data that may be gone";
}

TEST_F(FaultyOverlayTest, WithoutHolesADiscardStillHides) {
  EXPECT_EQ(go(BlockOp::kWrite, 0, 8192, 1), BlockStatus::kOk);
  errors['e'] = EOPNOTSUPP;
  EXPECT_EQ(go(BlockOp::kDiscard, 0, 8192), BlockStatus::kOk);
  EXPECT_EQ(go(BlockOp::kRead, 0, 8192), BlockStatus::kOk);
  EXPECT_EQ(bytes, filled(8192, 0));
  EXPECT_EQ(go(BlockOp::kWrite, 512, 512, 2), BlockStatus::kOk);
  EXPECT_EQ(go(BlockOp::kRead, 0, 512), BlockStatus::kOk);
  EXPECT_EQ(bytes, filled(512, 0)) << "what is left in the file never comes to light";
}

TEST_F(FaultyOverlayTest, ReadErrorsReachTheReader) {
  EXPECT_EQ(go(BlockOp::kWrite, 4096, 4096, 1), BlockStatus::kOk);
  errors['r'] = EIO;
  EXPECT_EQ(go(BlockOp::kRead, 0, 16384), BlockStatus::kIoError) << "data between zeroes";
  errors['r'] = 0;
  EXPECT_EQ(go(BlockOp::kRead, 0, 16384), BlockStatus::kOk);
}

}  // namespace
}  // namespace haneul::storage
