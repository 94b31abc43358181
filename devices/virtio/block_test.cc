// SPDX-License-Identifier: Apache-2.0
#include "devices/virtio/block.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <random>
#include <set>

#include "base/file.h"
#include "devices/testing/driver.h"
#include "devices/virtio/block_format.h"
#include "storage/raw.h"
#include "storage/testing/held_backend.h"

namespace haneul::devices::virtio {
namespace {

using block::RequestHeader;
using block::Segment;
using testing::Driver;
using testing::DriverQueue;
using testing::GuestRam;
using testing::Request;
using Bytes = std::vector<std::byte>;

constexpr uint64_t kDiskBytes = 8 << 20;

Bytes pattern(size_t size, unsigned seed) {
  std::mt19937 random(seed);
  Bytes bytes(size);
  for (auto& byte : bytes) byte = static_cast<std::byte>(random());
  return bytes;
}

RequestHeader header(uint32_t type, uint64_t sector = 0) {
  RequestHeader made;
  made.type = type;
  made.sector = sector;
  return made;
}

Segment segment(uint64_t sector, uint32_t sectors, uint32_t flags = 0) {
  Segment made;
  made.sector = sector;
  made.num_sectors = sectors;
  made.flags = flags;
  return made;
}

// A driver over a disk in memory.
class BlockTest : public ::testing::Test {
 protected:
  void start(BlockOptions options = {.id = "vol-0123456789abcdef0", .queues = 1, .read_only = false},
             Driver::Options driver_options = {}, bool read_only_file = false) {
    file = make_memfd("disk").value();
    CHECK(::ftruncate(file.get(), kDiskBytes) == 0);
    auto backend = storage::open_raw(UniqueFd(::dup(file.get())), {.read_only = read_only_file}).value();
    start_with(std::move(options), driver_options, std::move(backend));
  }
  void start_with(BlockOptions options, Driver::Options driver_options,
                  std::unique_ptr<storage::BlockBackend> backend) {
    auto device = make_block(std::move(options), std::move(backend)).value();
    block_device = device.get();
    driver = std::make_unique<Driver>(ram, std::move(device), driver_options);
  }

  // Waits for this request's answer; its status byte, which is the last of the last buffer.
  int answer(const Request& request, uint32_t* written = nullptr, size_t queue = 0) {
    auto used = driver->wait_used(queue);
    if (!used || used->head != request.head) return -1;
    if (written != nullptr) *written = used->written;
    const auto& last = request.buffers.back();
    return std::to_integer<int>(ram.read(GuestAddress{last.address.value + last.length - 1}, 1)[0]);
  }
  int run(testing::ChainBuilder& chain, uint32_t* written = nullptr) {
    Request request = chain.submit();
    last_request = request;
    driver->kick(0);
    return answer(request, written);
  }
  testing::ChainBuilder chain() { return driver->queue(0).chain(); }

  int write(uint64_t sector, const Bytes& data) {
    auto builder = chain();
    builder.readable_object(header(block::kOut, sector)).readable(data).writable(1);
    return run(builder);
  }
  int read(uint64_t sector, uint32_t length, Bytes& out) {
    auto builder = chain();
    builder.readable_object(header(block::kIn, sector)).writable(length).writable(1);
    uint32_t written = 0;
    int status = run(builder, &written);
    out = ram.read(last_request.buffers[1].address, length);
    if (status == block::kOk) {
      EXPECT_EQ(written, length + 1);
    }
    return status;
  }
  int segments(uint32_t type, const std::vector<Segment>& list) {
    auto builder = chain();
    builder.readable_object(header(type));
    if (!list.empty()) builder.readable(std::as_bytes(std::span(list)));
    builder.writable(1);
    return run(builder);
  }
  Bytes file_bytes(uint64_t offset, size_t length) {
    Bytes bytes(length);
    EXPECT_TRUE(read_exact_at(file.get(), offset, bytes).ok());
    return bytes;
  }

  GuestRam ram{32_MiB};
  UniqueFd file;
  Block* block_device = nullptr;
  std::unique_ptr<Driver> driver;
  Request last_request;
};

TEST_F(BlockTest, WritesAndReads) {
  start();
  Bytes data = pattern(64 << 10, 1);
  EXPECT_EQ(write(8, data), block::kOk);
  EXPECT_EQ(file_bytes(4096, data.size()), data);
  Bytes back;
  EXPECT_EQ(read(8, 64 << 10, back), block::kOk);
  EXPECT_EQ(back, data);
  auto builder = chain();
  builder.readable_object(header(block::kFlush)).writable(1);
  EXPECT_EQ(run(builder), block::kOk);
  EXPECT_EQ(block_device->statistics().reads, 1u);
  EXPECT_EQ(block_device->statistics().written_bytes, data.size());
  EXPECT_EQ(block_device->statistics().flushes, 1u);
  EXPECT_EQ(block_device->statistics().errors, 0u);
}

TEST_F(BlockTest, ConfigurationDescribesTheDisk) {
  start({.id = "vol-1", .queues = 3, .read_only = false});
  block::Config config;
  auto bytes = driver->config(0, block::kConfigBytes);
  std::memcpy(&config, bytes.data(), bytes.size());
  EXPECT_EQ(config.capacity, kDiskBytes / 512);
  EXPECT_EQ(config.blk_size, 512u);
  EXPECT_EQ(config.physical_block_exp, 3);
  EXPECT_EQ(config.num_queues, 3);
  EXPECT_EQ(config.seg_max, 126u);
  EXPECT_EQ(config.max_discard_seg, kMaxSegments);
  // Any part of it, at any width.
  for (uint32_t at = 0; at < block::kConfigBytes; ++at) {
    for (uint32_t width = 1; at + width <= block::kConfigBytes && width <= 8; ++width) {
      EXPECT_EQ(driver->config(at, width), Bytes(bytes.begin() + at, bytes.begin() + at + width));
    }
  }
  EXPECT_EQ(driver->device().features() & block::kFeatureMultiQueue, block::kFeatureMultiQueue);
  EXPECT_EQ(driver->device().features() & block::kFeatureReadOnly, 0u);
}

TEST_F(BlockTest, ADisksOnlyQueueIsLarger) {
  start({.id = "vol-1", .queues = 1, .read_only = false});
  block::Config config;
  auto bytes = driver->config(0, block::kConfigBytes);
  std::memcpy(&config, bytes.data(), bytes.size());
  EXPECT_EQ(config.num_queues, 1);
  EXPECT_EQ(config.seg_max, 254u);
  EXPECT_EQ(driver->device().features() & block::kFeatureMultiQueue, 0u);
}

TEST_F(BlockTest, TheSerialIsTheVolumesId) {
  start();
  auto builder = chain();
  builder.readable_object(header(block::kGetId)).writable(20).writable(1);
  uint32_t written = 0;
  EXPECT_EQ(run(builder, &written), block::kOk);
  EXPECT_EQ(written, 21u);
  auto id = ram.read(last_request.buffers[1].address, 20);
  EXPECT_EQ(std::string(reinterpret_cast<char*>(id.data()), 20), "vol-0123456789abcdef");
}

// Section 2.6.4: nothing about the descriptors' borders means anything.
TEST_F(BlockTest, HeaderDataAndStatusMayBeCutAnywhere) {
  start();
  std::mt19937 random(7);
  for (int round = 0; round < 200; ++round) {
    Bytes data = pattern(1024, static_cast<unsigned>(round));
    RequestHeader head = header(block::kOut, 100);
    Bytes out(sizeof head);
    std::memcpy(out.data(), &head, sizeof head);
    out.insert(out.end(), data.begin(), data.end());
    auto cut = [&](size_t total) {
      std::set<size_t> cuts;
      for (int i = 0; i < 5; ++i) cuts.insert(1 + random() % (total - 1));
      cuts.insert(total);
      return cuts;
    };
    auto builder = chain();
    if (round % 2 == 0) builder.indirect();
    size_t from = 0;
    for (size_t to : cut(out.size())) {
      builder.readable(std::span(out).subspan(from, to - from));
      from = to;
    }
    builder.writable(1);
    ASSERT_EQ(run(builder), block::kOk);
    ASSERT_EQ(file_bytes(100 * 512, 1024), data);

    auto reader = chain();
    head.type = block::kIn;
    Bytes in(sizeof head);
    std::memcpy(in.data(), &head, sizeof head);
    reader.readable(std::span(in).first(3)).readable(std::span(in).subspan(3));
    from = 0;
    for (size_t to : cut(1025)) {
      reader.writable(static_cast<uint32_t>(to - from));
      from = to;
    }
    ASSERT_EQ(run(reader), block::kOk);
    Bytes got;
    for (const auto& buffer : last_request.buffers) {
      if (!buffer.writable) continue;
      auto bytes = ram.read(buffer.address, buffer.length);
      got.insert(got.end(), bytes.begin(), bytes.end());
    }
    got.pop_back();
    ASSERT_EQ(got, data);
  }
}

TEST_F(BlockTest, DiscardAndWriteZeroes) {
  start();
  Bytes data = pattern(64 << 10, 3);
  EXPECT_EQ(write(0, data), block::kOk);
  EXPECT_EQ(segments(block::kDiscard, {segment(0, 8), segment(16, 8)}), block::kOk);
  EXPECT_EQ(file_bytes(0, 4096), Bytes(4096));
  EXPECT_EQ(file_bytes(4096, 4096), Bytes(data.begin() + 4096, data.begin() + 8192));
  EXPECT_EQ(file_bytes(8192, 4096), Bytes(4096));
  EXPECT_EQ(segments(block::kWriteZeroes, {segment(9, 1), segment(11, 2, block::kSegmentUnmap)}), block::kOk);
  EXPECT_EQ(file_bytes(9 * 512, 512), Bytes(512));
  EXPECT_EQ(file_bytes(11 * 512, 1024), Bytes(1024));
  EXPECT_EQ(file_bytes(10 * 512, 512), Bytes(data.begin() + 5120, data.begin() + 5632));
  EXPECT_EQ(segments(block::kDiscard, {segment(5, 0)}), block::kOk) << "nothing to do";
}

TEST_F(BlockTest, DiscardAndWriteZeroesArithmeticIsChecked) {
  start();
  Bytes data = pattern(kDiskBytes / 8, 4);
  EXPECT_EQ(write(0, data), block::kOk);
  uint64_t end = kDiskBytes / 512;
  for (uint32_t type : {block::kDiscard, block::kWriteZeroes}) {
    EXPECT_EQ(segments(type, {segment(end, 1)}), block::kIoError);
    EXPECT_EQ(segments(type, {segment(end - 1, 2)}), block::kIoError);
    EXPECT_EQ(segments(type, {segment(UINT64_MAX, 1)}), block::kIoError);
    EXPECT_EQ(segments(type, {segment(UINT64_MAX - 7, 8)}), block::kIoError) << "wraps to 0";
    EXPECT_EQ(segments(type, {segment(UINT64_MAX / 512 + 1, 8)}), block::kIoError) << "wraps in bytes";
    EXPECT_EQ(segments(type, {segment(0, UINT32_MAX)}), block::kIoError) << "more than the limit";
    EXPECT_EQ(segments(type, {segment(0, 1), segment(end, 1)}), block::kIoError)
        << "the second is checked first";
    EXPECT_EQ(segments(type, {segment(0, 1, 2)}), block::kUnsupported) << "a flag nobody knows";
    EXPECT_EQ(segments(type, {}), block::kIoError);
    EXPECT_EQ(segments(type, std::vector<Segment>(kMaxSegments + 1, segment(0, 1))), block::kIoError);
    auto builder = chain();
    Segment one = segment(0, 1);
    builder.readable_object(header(type)).readable(std::as_bytes(std::span(&one, 1)).first(15)).writable(1);
    EXPECT_EQ(run(builder), block::kIoError) << "a segment cut short";
  }
  EXPECT_EQ(segments(block::kDiscard, {segment(0, 1, block::kSegmentUnmap)}), block::kUnsupported);
  EXPECT_EQ(file_bytes(0, data.size()), data) << "nothing happened";
}

TEST_F(BlockTest, SectorPlusCountCannotOverflow) {
  start();
  Bytes data = pattern(1024, 5);
  uint64_t end = kDiskBytes / 512;
  for (uint64_t sector : {end, end - 1, UINT64_MAX, UINT64_MAX - 1, UINT64_MAX / 512, UINT64_MAX / 512 + 1,
                          uint64_t{1} << 55}) {
    EXPECT_EQ(write(sector, data), block::kIoError) << sector;
    Bytes back;
    EXPECT_EQ(read(sector, 1024, back), block::kIoError) << sector;
    EXPECT_EQ(back, Bytes(1024, std::byte{0xa5})) << "the buffer was not touched";
  }
  EXPECT_EQ(file_bytes(0, 4096), Bytes(4096));
  EXPECT_EQ(write(end - 2, data), block::kOk);
}

TEST_F(BlockTest, UnalignedAndEmptyTransfersAreErrors) {
  start();
  for (uint32_t length : {1u, 511u, 513u, 1000u}) {
    EXPECT_EQ(write(0, pattern(length, 6)), block::kIoError);
    Bytes back;
    EXPECT_EQ(read(0, length, back), block::kIoError);
  }
  auto builder = chain();
  builder.readable_object(header(block::kOut)).writable(1);
  EXPECT_EQ(run(builder), block::kIoError);
}

TEST_F(BlockTest, UnknownTypesAreUnsupported) {
  start();
  for (uint32_t type : {2u, 3u, 5u, 9u, 10u, 12u, 14u, 255u, 0x80000000u, 0xffffffffu}) {
    auto builder = chain();
    builder.readable_object(header(type)).writable(512).writable(1);
    EXPECT_EQ(run(builder), block::kUnsupported) << type;
  }
}

TEST_F(BlockTest, AReadOnlyDiskRefusesEveryChange) {
  start({.id = "vol-1", .queues = 1, .read_only = true});
  EXPECT_EQ(driver->features() & (block::kFeatureReadOnly | block::kFeatureDiscard), block::kFeatureReadOnly);
  EXPECT_EQ(write(0, pattern(512, 7)), block::kIoError);
  EXPECT_EQ(segments(block::kDiscard, {segment(0, 8)}), block::kUnsupported);
  EXPECT_EQ(segments(block::kWriteZeroes, {segment(0, 8)}), block::kUnsupported);
  EXPECT_EQ(file_bytes(0, 512), Bytes(512));
  Bytes back;
  EXPECT_EQ(read(0, 512, back), block::kOk);
  auto builder = chain();
  builder.readable_object(header(block::kFlush)).writable(1);
  EXPECT_EQ(run(builder), block::kOk);
}

TEST_F(BlockTest, DiscardThatWasNotNegotiatedIsUnsupported) {
  start({.id = "vol-1", .queues = 1, .read_only = false},
        {.features = ~(block::kFeatureDiscard | block::kFeatureWriteZeroes)});
  EXPECT_EQ(segments(block::kDiscard, {segment(0, 8)}), block::kUnsupported);
  EXPECT_EQ(segments(block::kWriteZeroes, {segment(0, 8)}), block::kUnsupported);
}

TEST_F(BlockTest, ARequestWithoutHeaderOrStatusBreaksTheQueue) {
  start();
  chain().readable(pattern(15, 8)).writable(1).submit();
  driver->kick(0);
  ASSERT_TRUE(driver->host().wait_for_needs_reset());
  EXPECT_THAT(driver->host().reasons(),
              ::testing::ElementsAre(::testing::HasSubstr("a block request without a header or a status")));
  driver->reset();
  ASSERT_TRUE(driver->activate().ok());
  EXPECT_EQ(write(0, pattern(512, 9)), block::kOk) << "a reset heals it";
  chain().readable_object(header(block::kFlush)).submit();
  driver->kick(0);
  ASSERT_TRUE(driver->host().wait_for_needs_reset());
}

TEST_F(BlockTest, BuffersOutsideRamBreakTheQueue) {
  start();
  chain().readable_object(header(block::kIn)).writable_at(GuestAddress{1}, 512).writable(1).submit();
  driver->kick(0);
  ASSERT_TRUE(driver->host().wait_for_needs_reset());
}

TEST_F(BlockTest, MediumErrorsReachTheGuest) {
  start();
  EXPECT_EQ(write(kDiskBytes / 512 - 8, pattern(4096, 10)), block::kOk);
  CHECK(::ftruncate(file.get(), 4096) == 0);
  Bytes back;
  EXPECT_EQ(read(8, 512, back), block::kIoError) << "the file ends before the disk does";
  EXPECT_EQ(read(0, 512, back), block::kOk);
}

TEST_F(BlockTest, WithoutFlushEveryWriteIsWrittenThrough) {
  auto [backend, control] = storage::testing::make_held_backend(kDiskBytes);
  control->hold(false);
  start_with({.id = "vol-1", .queues = 1, .read_only = false}, {.features = ~block::kFeatureFlush},
             std::move(backend));
  EXPECT_EQ(write(0, pattern(512, 11)), block::kOk);
  EXPECT_EQ(control->count(storage::BlockOp::kWrite), 1u);
  EXPECT_EQ(control->count(storage::BlockOp::kFlush), 1u);
}

TEST_F(BlockTest, ManyRequestsInFlightOnManyQueues) {
  start({.id = "vol-1", .queues = 4, .read_only = false});
  std::mt19937 random(12);
  struct Pending {
    Request request;
    uint64_t sector;
    Bytes data;
  };
  for (int round = 0; round < 10; ++round) {
    uint64_t mark = ram.mark();
    std::vector<std::vector<Pending>> pending(4);
    for (size_t queue = 0; queue < 4; ++queue) {
      for (uint64_t i = 0; i < 40; ++i) {
        uint64_t sector = (queue * 40 + i) * 16;
        Bytes data = pattern(8192, static_cast<unsigned>(random()));
        auto request = driver->queue(queue)
                           .chain()
                           .readable_object(header(block::kOut, sector))
                           .readable(data)
                           .writable(1)
                           .submit();
        pending[queue].push_back({request, sector, data});
      }
      driver->kick(queue);
    }
    for (size_t queue = 0; queue < 4; ++queue) {
      std::set<uint16_t> heads;
      for (const Pending& one : pending[queue]) heads.insert(one.request.head);
      for (size_t i = 0; i < pending[queue].size(); ++i) {
        auto used = driver->wait_used(queue);
        ASSERT_TRUE(used);
        EXPECT_EQ(heads.erase(used->head), 1u);
      }
      for (const Pending& one : pending[queue]) {
        EXPECT_EQ(ram.read(one.request.buffers[2].address, 1)[0], std::byte{0});
        EXPECT_EQ(file_bytes(one.sector * 512, one.data.size()), one.data);
      }
    }
    ram.rewind(mark);
  }
}

// Section 2.4.1 and design: after reset() returns nothing touches guest memory.
TEST_F(BlockTest, ResetDuringIoWaitsForIt) {
  auto [backend, control] = storage::testing::make_held_backend(kDiskBytes);
  start_with({.id = "vol-1", .queues = 1, .read_only = false}, {}, std::move(backend));
  auto request = chain().readable_object(header(block::kIn)).writable(4096).writable(1).submit();
  driver->kick(0);
  ASSERT_TRUE(control->wait_for_held(1));
  std::thread resetter([&] { driver->device().reset(); });
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  EXPECT_EQ(control->held(), 1u) << "the reset waits";
  control->release_all();
  resetter.join();
  auto before = ram.read(request.buffers[1].address, 4096);
  EXPECT_EQ(before, Bytes(4096)) << "the held read ended";
  ram.write(request.buffers[1].address, Bytes(4096, std::byte{0x77}));
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  EXPECT_EQ(ram.read(request.buffers[1].address, 4096), Bytes(4096, std::byte{0x77}));
}

TEST_F(BlockTest, LettingGoTakesNothingNewAndDoesNotWait) {
  auto [backend, control] = storage::testing::make_held_backend(kDiskBytes);
  start_with({.id = "vol-1", .queues = 1, .read_only = false}, {}, std::move(backend));
  auto first = chain().readable_object(header(block::kIn)).writable(4096).writable(1).submit();
  driver->kick(0);
  ASSERT_TRUE(control->wait_for_held(1));
  while (driver->queue(0).available_event() != 1) std::this_thread::yield();  // it looks at the queue still
  driver->device().let_go();
  EXPECT_EQ(control->held(), 1u) << "it did not wait";
  chain().readable_object(header(block::kIn)).writable(4096).writable(1).submit();
  driver->kick(0);
  control->release_all();
  EXPECT_EQ(answer(first), block::kOk);
  driver->device().reset();
  EXPECT_EQ(control->count(storage::BlockOp::kRead), 1u);
  EXPECT_FALSE(driver->wait_used(0, std::chrono::milliseconds(0)).has_value());
}

TEST_F(BlockTest, PauseHoldsStillAndResumeForgetsNothing) {
  start();
  ASSERT_TRUE(driver->device().pause().ok());
  auto request = chain().readable_object(header(block::kIn)).writable(4096).writable(1).submit();
  driver->kick(0);
  EXPECT_FALSE(driver->wait_used(0, std::chrono::milliseconds(50)));
  ASSERT_TRUE(driver->device().resume().ok());
  EXPECT_EQ(answer(request), block::kOk);
}

TEST_F(BlockTest, WithoutAThreadItDoesNotResume) {
  start();
  ASSERT_TRUE(driver->device().pause().ok());
  driver->threads().refuse = true;
  Status resumed = driver->device().resume();
  ASSERT_FALSE(resumed.ok());
  EXPECT_EQ(resumed.error().message(), "no thread is left for 'blk vol-0123456789abcdef0'");
  driver->threads().refuse = false;
  ASSERT_TRUE(driver->device().resume().ok());
  auto request = chain().readable_object(header(block::kIn)).writable(4096).writable(1).submit();
  driver->kick(0);
  EXPECT_EQ(answer(request), block::kOk);
}

TEST_F(BlockTest, ResetAndActivateManyTimes) {
  start();
  for (int i = 0; i < 50; ++i) {
    uint64_t mark = ram.mark();
    for (int n = 0; n < 20; ++n) {
      chain()
          .readable_object(header(block::kOut, static_cast<uint64_t>(n) * 8))
          .readable(pattern(4096, 1))
          .writable(1)
          .submit();
    }
    driver->kick(0);
    driver->reset();
    ASSERT_TRUE(driver->activate().ok());
    EXPECT_EQ(write(0, pattern(512, 2)), block::kOk);
    (void)mark;
    if (i % 8 == 7) {
      driver->device().reset();
      ram.rewind(1_MiB);
      driver->reset();
      ASSERT_TRUE(driver->activate().ok());
    }
  }
}

TEST_F(BlockTest, ResizeTellsTheGuest) {
  start();
  ASSERT_TRUE(block_device->resize(2 * kDiskBytes).ok());
  EXPECT_EQ(driver->host().config_changes(), 1);
  uint64_t capacity = load_le<uint64_t>(driver->config(0, 8).data());
  EXPECT_EQ(capacity, 2 * kDiskBytes / 512);
  EXPECT_EQ(write(kDiskBytes / 512 + 8, pattern(512, 3)), block::kOk);
  auto smaller = block_device->resize(512);
  ASSERT_FALSE(smaller.ok());
  EXPECT_EQ(smaller.error().code(), ErrorCode::kInvalidArgument);
}

TEST(BlockOptions, AreChecked) {
  auto [first, control] = storage::testing::make_held_backend(kDiskBytes);
  EXPECT_EQ(make_block({.id = "", .queues = 1, .read_only = false}, std::move(first)).error().message(),
            "a disk needs an id and 1 to 16 queues");
  auto [second, other] = storage::testing::make_held_backend(kDiskBytes);
  EXPECT_EQ(make_block({.id = "x", .queues = 17, .read_only = false}, std::move(second)).error().code(),
            ErrorCode::kInvalidArgument);
}

// The guest rewrites header and data as fast as it can while the device works: whatever the device reads, it
// answers each request once and stays inside the disk.
TEST_F(BlockTest, HeadersChangedWhileTheyAreReadAreHarmless) {
#ifdef __SANITIZE_THREAD__
  GTEST_SKIP() << "the race is the guest's, and meant";
#endif
  start();
  std::atomic<bool> done{false};
  auto place = ram.allocate(16);
  std::thread vandal([&] {
    std::mt19937_64 random(1);
    while (!done) {
      RequestHeader evil =
          header(static_cast<uint32_t>(random() % 16), random() % 3 == 0 ? random() : random() % 64);
      ram.memory().write_object(place, evil);
    }
  });
  for (int i = 0; i < 3000; ++i) {
    uint64_t mark = ram.mark();
    auto builder = chain();
    builder.readable_at(place, 16).readable(Bytes(512)).writable(512).writable(1);
    int status = run(builder);
    EXPECT_TRUE(status == block::kOk || status == block::kIoError || status == block::kUnsupported);
    ram.rewind(mark);
  }
  done = true;
  vandal.join();
  EXPECT_TRUE(driver->host().reasons().empty());
  EXPECT_EQ(file_size(file.get()).value(), kDiskBytes);
}

}  // namespace
}  // namespace haneul::devices::virtio
