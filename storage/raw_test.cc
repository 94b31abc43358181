// SPDX-License-Identifier: Apache-2.0
#include "storage/raw.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>

#include "base/file.h"
#include "storage/testing/sim_file.h"
#include "storage/testing/waiting_request.h"

namespace haneul::storage {
namespace {

using testing::run;
using Bytes = std::vector<std::byte>;

UniqueFd disk_file(uint64_t size) {
  UniqueFd file = make_memfd("disk").value();
  CHECK(::ftruncate(file.get(), static_cast<off_t>(size)) == 0);
  return file;
}
UniqueFd again(const UniqueFd& file, int flags) {
  return open_file(fmt::format("/proc/self/fd/{}", file.get()), flags).value();
}

class RawTest : public ::testing::Test {
 protected:
  void open(uint64_t size = 1 << 20) {
    file = disk_file(size);
    backend = open_raw(UniqueFd(::dup(file.get())), {}).value();
    channel = backend->open_channel(*ring);
  }
  std::unique_ptr<IoRing> ring = IoRing::create(8).value();
  UniqueFd file;
  std::unique_ptr<BlockBackend> backend;
  std::unique_ptr<BlockChannel> channel;
};

TEST_F(RawTest, WritesReadsAndZeroes) {
  open();
  Bytes data(8192, std::byte{0x5a});
  EXPECT_EQ(run(*ring, *channel, BlockOp::kWrite, 512, data), BlockStatus::kOk);
  Bytes back(8192);
  EXPECT_EQ(run(*ring, *channel, BlockOp::kRead, 512, back), BlockStatus::kOk);
  EXPECT_EQ(back, data);
  EXPECT_EQ(run(*ring, *channel, BlockOp::kFlush), BlockStatus::kOk);
  for (bool may_unmap : {false, true}) {
    EXPECT_EQ(run(*ring, *channel, BlockOp::kWrite, 512, data), BlockStatus::kOk);
    EXPECT_EQ(run(*ring, *channel, BlockOp::kWriteZeroes, 1024, 4096, may_unmap), BlockStatus::kOk);
    EXPECT_EQ(run(*ring, *channel, BlockOp::kRead, 512, back), BlockStatus::kOk);
    EXPECT_EQ(std::count(back.begin(), back.end(), std::byte{0}), 4096) << may_unmap;
  }
  EXPECT_EQ(run(*ring, *channel, BlockOp::kDiscard, 0, 1 << 20), BlockStatus::kOk);
  struct stat info {};
  ASSERT_EQ(::fstat(file.get(), &info), 0);
  EXPECT_EQ(info.st_blocks, 0) << "the space is given back";
  EXPECT_EQ(info.st_size, 1 << 20);
}

TEST_F(RawTest, RefusesWhatIsNotOnTheDisk) {
  open();
  Bytes sector(512);
  EXPECT_EQ(run(*ring, *channel, BlockOp::kRead, 1 << 20, sector), BlockStatus::kOutOfRange);
  EXPECT_EQ(run(*ring, *channel, BlockOp::kWrite, UINT64_MAX - 511, sector), BlockStatus::kOutOfRange);
  EXPECT_EQ(run(*ring, *channel, BlockOp::kRead, 1, sector), BlockStatus::kOutOfRange);
  EXPECT_EQ(run(*ring, *channel, BlockOp::kDiscard, 0, (1 << 20) + 512), BlockStatus::kOutOfRange);
  EXPECT_EQ(run(*ring, *channel, BlockOp::kDiscard, 512, UINT64_MAX - 1023), BlockStatus::kOutOfRange);
  EXPECT_EQ(run(*ring, *channel, BlockOp::kRead, 0, 0), BlockStatus::kOk);
}

TEST_F(RawTest, AFileThatWasCutIsAnIoError) {
  open();
  ASSERT_EQ(::ftruncate(file.get(), 1000), 0);
  Bytes data(4096);
  EXPECT_EQ(run(*ring, *channel, BlockOp::kRead, 0, data), BlockStatus::kIoError);
  EXPECT_EQ(run(*ring, *channel, BlockOp::kRead, 8192, data), BlockStatus::kIoError);
}

TEST_F(RawTest, AFullFileSystemIsNoSpaceAndGoesAway) {
  open();
  Bytes data(4096, std::byte{1});
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  rlimit small{.rlim_cur = 65536, .rlim_max = before.rlim_max};
  ::signal(SIGXFSZ, SIG_IGN);
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  EXPECT_EQ(run(*ring, *channel, BlockOp::kWrite, 65536, data), BlockStatus::kNoSpace);
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &before), 0);
  EXPECT_EQ(run(*ring, *channel, BlockOp::kWrite, 65536, data), BlockStatus::kOk);
}

TEST_F(RawTest, AReadOnlyDiskRefusesChanges) {
  file = disk_file(4096);
  backend = open_raw(again(file, O_RDONLY), {.read_only = true}).value();
  channel = backend->open_channel(*ring);
  Bytes data(512);
  EXPECT_EQ(run(*ring, *channel, BlockOp::kRead, 0, data), BlockStatus::kOk);
  EXPECT_EQ(run(*ring, *channel, BlockOp::kWrite, 0, data), BlockStatus::kReadOnly);
  EXPECT_EQ(run(*ring, *channel, BlockOp::kDiscard, 0, 512), BlockStatus::kReadOnly);
  EXPECT_EQ(run(*ring, *channel, BlockOp::kFlush), BlockStatus::kOk);
  EXPECT_EQ(open_raw(again(file, O_RDONLY), {}).error().message(),
            "the disk's file is open for reading only");
}

TEST_F(RawTest, OneWriterOrManyReaders) {
  file = disk_file(4096);
  auto writer = open_raw(again(file, O_RDWR), {}).value();
  auto second = open_raw(again(file, O_RDWR), {});
  ASSERT_FALSE(second.ok());
  EXPECT_EQ(second.error().code(), ErrorCode::kBusy);
  EXPECT_EQ(second.error().message(),
            "the file is open as a disk elsewhere, and a writable disk has one user at a time");
  EXPECT_EQ(open_raw(again(file, O_RDONLY), {.read_only = true}).error().code(), ErrorCode::kBusy);
  writer.reset();
  auto reader = open_raw(again(file, O_RDONLY), {.read_only = true}).value();
  auto other = open_raw(again(file, O_RDONLY), {.read_only = true}).value();
  EXPECT_EQ(open_raw(again(file, O_RDWR), {}).error().code(), ErrorCode::kBusy);
}

TEST_F(RawTest, Grows) {
  open();
  ASSERT_TRUE(backend->resize(2 << 20).ok());
  EXPECT_EQ(backend->size_bytes(), 2u << 20);
  Bytes data(512, std::byte{9});
  EXPECT_EQ(run(*ring, *channel, BlockOp::kWrite, (2 << 20) - 512, data), BlockStatus::kOk);
  EXPECT_EQ(backend->resize(1 << 20).error().message(),
            "a disk of 2097152 bytes cannot become one of 1048576");
  EXPECT_FALSE(backend->resize((2 << 20) + 1).ok());
}

TEST_F(RawTest, OnlyFilesAndBlockDevices) {
  int ends[2];
  ASSERT_EQ(::pipe2(ends, O_CLOEXEC), 0);
  UniqueFd one(ends[0]), two(ends[1]);
  EXPECT_FALSE(open_raw(std::move(one), {.read_only = true}).ok());
  EXPECT_EQ(open_raw(disk_file(4096), {.read_only = false, .direct = true}).error().code(),
            ErrorCode::kUnsupported);
}

// Faults that no real file makes on demand.
class FaultyRawTest : public ::testing::Test {
 protected:
  FaultyRawTest() {
    medium->size = 1 << 20;
    auto file = std::make_unique<testing::SimFile>(medium, random);
    sim = file.get();
    backend = open_raw_file(std::move(file), false).value();
    channel = backend->open_channel(*ring);
  }
  BlockStatus go(testing::WaitingRequest& request) {
    channel->submit(request);
    while (!request.status) {
      if (sim->pending() > 0) sim->step();
      CHECK(ring->run_once(false).ok());
    }
    return *request.status;
  }
  BlockStatus go(BlockOp op, uint64_t offset, Bytes& data) {
    testing::WaitingRequest request;
    request.set(op, offset, data);
    return go(request);
  }
  BlockStatus go(BlockOp op, uint64_t offset = 0, uint64_t length = 0) {
    testing::WaitingRequest request;
    request.set(op, offset, length);
    return go(request);
  }

  testing::Random random{1};
  std::shared_ptr<testing::SimMedium> medium = std::make_shared<testing::SimMedium>();
  testing::SimFile* sim = nullptr;
  std::unique_ptr<IoRing> ring = IoRing::create(8).value();
  std::unique_ptr<BlockBackend> backend;
  std::unique_ptr<BlockChannel> channel;
};

TEST_F(FaultyRawTest, ShortTransfersAreContinued) {
  sim->faults.short_one_in = 2;
  Bytes data(64 << 10, std::byte{3});
  Bytes back(64 << 10);
  for (int i = 0; i < 50; ++i) {
    EXPECT_EQ(go(BlockOp::kWrite, 0, data), BlockStatus::kOk);
    EXPECT_EQ(go(BlockOp::kRead, 0, back), BlockStatus::kOk);
    ASSERT_EQ(back, data);
  }
}

TEST_F(FaultyRawTest, ErrorsBecomeStatuses) {
  int error = 0;
  sim->faults.fail = [&](char, uint64_t) { return error; };
  Bytes data(512);
  error = EIO;
  EXPECT_EQ(go(BlockOp::kRead, 0, data), BlockStatus::kIoError);
  EXPECT_EQ(go(BlockOp::kWrite, 0, data), BlockStatus::kIoError);
  error = ENOSPC;
  EXPECT_EQ(go(BlockOp::kWrite, 0, data), BlockStatus::kNoSpace);
  error = EINTR;
  EXPECT_EQ(go(BlockOp::kWrite, 0, data), BlockStatus::kIoError)
      << "an interruption is repeated, not for ever";
}

TEST_F(FaultyRawTest, AFailedSyncIsFinal) {
  int error = EIO;
  sim->faults.fail = [&](char kind, uint64_t) { return kind == 's' ? error : 0; };
  EXPECT_EQ(go(BlockOp::kFlush), BlockStatus::kIoError);
  error = 0;
  EXPECT_EQ(go(BlockOp::kFlush), BlockStatus::kIoError);
}

TEST_F(FaultyRawTest, WithoutHolesZeroesAreWrittenAndDiscardsDoNothing) {
  sim->faults.fail = [&](char kind, uint64_t) { return kind == 'e' ? EOPNOTSUPP : 0; };
  Bytes data(1 << 20, std::byte{3});
  EXPECT_EQ(go(BlockOp::kWrite, 0, data), BlockStatus::kOk);
  EXPECT_EQ(go(BlockOp::kDiscard, 0, 1 << 20), BlockStatus::kOk);
  Bytes back(1 << 20);
  EXPECT_EQ(go(BlockOp::kRead, 0, back), BlockStatus::kOk);
  EXPECT_EQ(back, data);
  EXPECT_EQ(go(BlockOp::kWriteZeroes, 512, (1 << 20) - 1024), BlockStatus::kOk);
  EXPECT_EQ(go(BlockOp::kRead, 0, back), BlockStatus::kOk);
  EXPECT_EQ(std::count(back.begin(), back.end(), std::byte{0}), (1 << 20) - 1024);
}

}  // namespace
}  // namespace haneul::storage
