// SPDX-License-Identifier: Apache-2.0
// What a crash, or damage, left in a layer's file, made by hand.
#include "storage/volume/recovery.h"

#include <gtest/gtest.h>

#include <map>

#include "base/file.h"
#include "storage/crc32c.h"

namespace haneul::storage::layer {
namespace {

constexpr uint64_t kSize = 128 << 20;

class RecoveryTest : public ::testing::Test {
 protected:
  RecoveryTest() {
    NewLayer made;
    made.id = random_layer_id();
    made.size_bytes = kSize;
    CHECK(create_layer(fd.get(), made).ok());
    start = read_start(*file).value();
  }
  std::unique_ptr<AsyncFile> open() {
    return make_async_file(open_file(fmt::format("/proc/self/fd/{}", fd.get()), O_RDWR).value());
  }
  void record(uint64_t sequence, uint64_t begin, std::vector<JournalEntry> entries) {
    Page page;
    encode_journal_page(sequence, begin, entries, page);
    CHECK(file->write_now(journal_page_offset(sequence), page).ok());
  }
  JournalEntry data(uint32_t first, uint32_t count, int value) {
    std::vector<std::byte> bytes(count * kBlockBytes, static_cast<std::byte>(value));
    CHECK(file->write_now(kDataOffset + first * kBlockBytes, bytes).ok());
    return {first, count, BlockState::kData, crc32c(bytes)};
  }
  static JournalEntry zero(uint32_t first, uint32_t count) { return {first, count, BlockState::kZero, 0}; }
  void map_page(uint64_t index, uint64_t sequence, uint64_t first, uint64_t count) {
    MapPage page;
    page[first / kBlocksPerSector].sequence = sequence;
    page[first / kBlocksPerSector].states.set(first % kBlocksPerSector, count, BlockState::kData);
    Page bytes;
    encode_map_page(index, page, bytes);
    CHECK(file->write_now(map_page_offset(index), bytes).ok());
  }
  Status recover_it(Freeze freeze = Freeze::kNo) {
    start = TRY(read_start(*file));
    held.clear();
    return recover(*file, start, freeze, [this](uint64_t index, const MapPage& page, bool) -> Status {
      for (uint64_t block = 0; block < kBlocksPerMapPage; ++block) {
        BlockState state = page[block / kBlocksPerSector].states.get(block % kBlocksPerSector);
        if (state != BlockState::kBeneath) held[index * kBlocksPerMapPage + block] = state;
      }
      return {};
    });
  }
  std::string refused() {
    Status status = recover_it();
    return status.ok() ? "ok" : status.error().message();
  }
  using Held = std::map<uint64_t, BlockState>;
  static constexpr BlockState kData = BlockState::kData;
  static constexpr BlockState kZero = BlockState::kZero;

  UniqueFd fd = make_memfd("layer").value();
  std::unique_ptr<AsyncFile> file = open();
  Start start;
  Held held;
};

TEST_F(RecoveryTest, ACleanLayerIsOnlyRead) {
  ASSERT_TRUE(recover_it().ok());
  EXPECT_TRUE(held.empty());
  EXPECT_EQ(start.state.generation, 0u);
}

TEST_F(RecoveryTest, RecordsAreCarriedIntoTheMapOnce) {
  map_page(0, 0, 5, 2);
  record(1, 1, {data(9, 2, 1), zero(20, 1)});
  record(2, 1, {data(20, 1, 2)});
  ASSERT_TRUE(recover_it().ok());
  const Held expected{{5, kData}, {6, kData}, {9, kData}, {10, kData}, {20, kData}};
  EXPECT_EQ(held, expected);
  EXPECT_EQ(start.state.journal_start, 3u);
  EXPECT_EQ(start.state.generation, 1u);
  record(2, 2, {zero(5, 1)});
  ASSERT_TRUE(recover_it().ok());
  EXPECT_EQ(held, expected) << "what is left in the ring is from before the journal's start";
  EXPECT_EQ(start.state.generation, 1u);
}

TEST_F(RecoveryTest, TheLastRecordCountsOnlyWithItsData) {
  record(1, 1, {data(1, 1, 1)});
  record(2, 1, {data(3, 1, 2), data(5, 2, 3), zero(8, 1)});
  data(6, 1, 9);
  data(1, 1, 9);
  ASSERT_TRUE(recover_it().ok());
  EXPECT_EQ(held, (Held{{1, kData}, {3, kData}, {8, kZero}})) << "sealed records are not compared";
  EXPECT_EQ(start.state.journal_start, 3u);
}

TEST_F(RecoveryTest, AMapSectorKnowsWhichRecordsItHas) {
  map_page(0, 2, 100, 1);
  record(1, 1, {zero(100, 1)});
  record(2, 1, {zero(100, 1), zero(1792, 1)});
  record(3, 1, {zero(200, 1)});
  ASSERT_TRUE(recover_it().ok());
  EXPECT_EQ(held, (Held{{100, kData}, {200, kZero}, {1792, kZero}}));
}

TEST_F(RecoveryTest, SequencesBeginBeyondWhatTheMapHas) {
  map_page(1, 40, 100, 1);
  ASSERT_TRUE(recover_it().ok());
  EXPECT_EQ(start.state.journal_start, 41u) << "a record of that number would not count";
}

TEST_F(RecoveryTest, TheRingTurns) {
  for (uint64_t sequence = 200; sequence <= 400; ++sequence) {
    record(sequence, 200, {zero(static_cast<uint32_t>(sequence), 1)});
  }
  ASSERT_TRUE(recover_it().ok());
  EXPECT_EQ(held.size(), 201u);
  EXPECT_EQ(start.state.journal_start, 401u);
}

TEST_F(RecoveryTest, ARecordAcrossPagesOfTheMap) {
  record(1, 1, {zero(14330, 20000 - 14330)});
  ASSERT_TRUE(recover_it().ok());
  EXPECT_EQ(held.size(), 20000u - 14330);
  EXPECT_TRUE(held.contains(14330) && held.contains(19999));
}

TEST_F(RecoveryTest, AMissingRecordIsNamed) {
  record(1, 1, {zero(1, 1)});
  record(3, 1, {zero(3, 1)});
  EXPECT_EQ(refused(), "journal record 2 is damaged or missing, and record 3 needs it");
  record(3, 3, {zero(3, 1)});
  EXPECT_EQ(refused(), "ok") << "a record whose write failed, and then a commit by the map";
  EXPECT_EQ(held, (Held{{3, kZero}}));
  record(5, 3, {zero(3, 1)});
  EXPECT_EQ(refused(), "journal record 5 begins with record 3, and the journal with 4");
}

TEST_F(RecoveryTest, FreezingEndsTheJournalForGood) {
  record(1, 1, {data(7, 1, 1)});
  ASSERT_TRUE(freeze_layer(*file).ok());
  ASSERT_TRUE(freeze_layer(*file).ok());
  record(9, 9, {zero(8, 1)});
  ASSERT_TRUE(recover_it().ok());
  EXPECT_TRUE(start.state.frozen);
  EXPECT_EQ(start.state.generation, 1u);
  EXPECT_EQ(held, (Held{{7, kData}}));
}

TEST_F(RecoveryTest, AnOpenLayerIsNotFrozen) {
  auto other = open();
  ASSERT_TRUE(other->lock(AsyncFile::Lock::kExclusive).ok());
  Status status = freeze_layer(*file);
  EXPECT_EQ(status.error().code(), ErrorCode::kBusy);
  EXPECT_EQ(
      status.error().message(),
      "freezing a layer: the file is open as a disk elsewhere, and a writable disk has one user at a time");
  ASSERT_TRUE(other->lock(AsyncFile::Lock::kNone).ok());
  EXPECT_TRUE(freeze_layer(*file).ok());
  EXPECT_TRUE(other->lock(AsyncFile::Lock::kExclusive).ok()) << "and the lock was given back";
}

TEST_F(RecoveryTest, DamageIsNamed) {
  map_page(1, 3, 0, 1);
  std::array<std::byte, 1> flipped{std::byte{0xff}};
  ASSERT_TRUE(file->write_now(map_page_offset(1) + 70, flipped).ok());
  EXPECT_EQ(refused(), "map sector 8 does not match its checksum");
}

}  // namespace
}  // namespace haneul::storage::layer
