// SPDX-License-Identifier: Apache-2.0
// Disks that are full, broken or cut short under a volume: what fails, what goes on, and what is there afterwards.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <set>

#include "base/checked.h"
#include "base/file.h"
#include "storage/testing/sim_volume.h"
#include "storage/testing/small_file_system.h"
#include "storage/volume/format.h"
#include "tests/support/files.h"

namespace haneul::storage {
namespace {

using testing::below;
using testing::Random;
using testing::SimVolume;

bool in_map(uint64_t offset) {
  return offset >= layer::kMapOffset && offset < layer::kSumsOffset;
}
bool in_journal(uint64_t offset) {
  return offset >= layer::kJournalOffset && offset < layer::kMapOffset;
}
bool in_data(uint64_t offset) {
  return offset >= layer::kDataOffset;
}

/// Writes there fail with this errno.
auto writes_fail(int error, bool (*where)(uint64_t)) {
  return [error, where](char kind, uint64_t offset) { return kind == 'w' && where(offset) ? error : 0; };
}
auto syncs_fail() {
  return [](char kind, uint64_t) { return kind == 's' ? EIO : 0; };
}

void expect_sound(SimVolume& sim) {
  for (size_t i = 0; i < sim.media.size(); ++i) {
    auto faults = check_layer(*sim.look(i), {}, {});
    ASSERT_TRUE(faults.ok()) << faults.error().message();
    for (const Fault& fault : *faults)
      ADD_FAILURE() << "layer " << i << ", " << fault.where << ": " << fault.what;
  }
}

// ---- Commits ----

TEST(VolumeFaults, AFullDiskFailsTheWriteAndNothingElse) {
  SimVolume sim(64_MiB);
  ASSERT_EQ(sim.write(0, 'a'), BlockStatus::kOk);
  sim.files[0]->faults.fail = writes_fail(ENOSPC, in_data);
  EXPECT_EQ(sim.write(1, 'b'), BlockStatus::kNoSpace);
  EXPECT_EQ(sim.flush(), BlockStatus::kOk);
  EXPECT_EQ(sim.read(0), 'a');
  sim.files[0]->faults.fail = {};
  EXPECT_EQ(sim.write(1, 'b'), BlockStatus::kOk);
  EXPECT_EQ(sim.flush(), BlockStatus::kOk);
  sim.lose_power();
  expect_sound(sim);
  sim.open();
  EXPECT_EQ(sim.read(0), 'a');
  EXPECT_EQ(sim.read(1), 'b');
}

TEST(VolumeFaults, AJournalPageThatHasNoRoomFailsOneFlush) {
  SimVolume sim(64_MiB);
  ASSERT_EQ(sim.write(0, 'a'), BlockStatus::kOk);
  sim.files[0]->faults.fail = writes_fail(ENOSPC, in_journal);
  EXPECT_EQ(sim.flush(), BlockStatus::kNoSpace);
  EXPECT_EQ(sim.flush(), BlockStatus::kOk) << "by the map, which has room";
  sim.files[0]->faults.fail = {};
  ASSERT_EQ(sim.write(1, 'b'), BlockStatus::kOk);
  EXPECT_EQ(sim.flush(), BlockStatus::kOk) << "a record behind the gap";
  sim.lose_power();
  expect_sound(sim);
  sim.open();
  EXPECT_EQ(sim.read(0), 'a');
  EXPECT_EQ(sim.read(1), 'b');
}

TEST(VolumeFaults, AMapPageThatCannotBeWrittenGoesWithTheNextCommit) {
  for (int error : {ENOSPC, EIO}) {
    SimVolume sim(1_GiB);
    for (uint64_t block = 0; block < 200; ++block) ASSERT_EQ(sim.write(block * 1000, 'a'), BlockStatus::kOk);
    sim.files[0]->faults.fail = writes_fail(error, in_map);
    EXPECT_EQ(sim.flush(), status_of(error));
    EXPECT_EQ(sim.write(7, 'b'), BlockStatus::kOk);
    EXPECT_EQ(sim.flush(), status_of(error));
    sim.files[0]->faults.fail = {};
    EXPECT_EQ(sim.flush(), BlockStatus::kOk);
    sim.lose_power();
    expect_sound(sim);
    sim.open();
    for (uint64_t block = 0; block < 200; ++block) EXPECT_EQ(sim.read(block * 1000), 'a');
    EXPECT_EQ(sim.read(7), 'b');
  }
}

TEST(VolumeFaults, BlocksThatCannotBeReadBackFailTheFlush) {
  SimVolume sim(64_MiB);
  ASSERT_EQ(sim.write(0, 'a', 8), BlockStatus::kOk);  // too many for a copy: their CRC is read back
  sim.files[0]->faults.fail = [](char kind, uint64_t) { return kind == 'r' ? EIO : 0; };
  EXPECT_EQ(sim.flush(), BlockStatus::kIoError);
  EXPECT_EQ(sim.flush(), BlockStatus::kOk) << "by the map nothing is read";
  EXPECT_EQ(sim.read(0), '!');
  sim.files[0]->faults.fail = {};
  sim.lose_power();
  sim.open();
  EXPECT_EQ(sim.read(7), 'a');
}

TEST(VolumeFaults, AFailedSyncIsFinalWhoeverMetIt) {
  enum class By { kFlush, kSyncTop, kFreeze, kResize };
  for (By by : {By::kFlush, By::kSyncTop, By::kFreeze, By::kResize}) {
    SimVolume sim(64_MiB);
    sim.make_layer();
    ASSERT_EQ(sim.write(0, 'a'), BlockStatus::kOk);
    ASSERT_EQ(sim.flush(), BlockStatus::kOk);
    ASSERT_EQ(sim.write(0, 'b'), BlockStatus::kOk);
    ASSERT_TRUE(by != By::kFreeze || sim.volume->begin_push(sim.layer_file(1)).ok());
    sim.files[0]->faults.fail = syncs_fail();
    if (by == By::kFlush) {
      EXPECT_EQ(sim.flush(), BlockStatus::kIoError);
    } else if (by == By::kSyncTop) {
      EXPECT_FALSE(sim.volume->sync_top().ok());
    } else if (by == By::kResize) {
      EXPECT_FALSE(sim.volume->resize(65_MiB).ok());
    } else {
      sim.volume->hold_changes();
      sim.volume->wait_for_changes();
      sim.volume->switch_top();
      sim.volume->release_changes();
      EXPECT_FALSE(sim.volume->finish_push().ok());
    }
    sim.files[0]->faults.fail = {};
    EXPECT_EQ(sim.flush(), BlockStatus::kIoError) << static_cast<int>(by);
    EXPECT_EQ(sim.volume->sync_top().error().message(), "an earlier sync had failed") << static_cast<int>(by);
    if (by != By::kFreeze) sim.media.pop_back();
    sim.lose_power();
    ASSERT_TRUE(sim.freeze_beneath().ok());
    sim.open();
    EXPECT_EQ(sim.read(0), 'a') << "what was flushed before is there";
  }
}

// ---- Snapshots on a full disk ----

TEST(VolumeFaults, ASnapshotOnAFullDiskFailsBeforeAnythingHappened) {
  SimVolume sim(64_MiB);
  sim.make_layer();
  ASSERT_EQ(sim.write(0, 'a'), BlockStatus::kOk);
  sim.files[0]->faults.fail = writes_fail(ENOSPC, in_map);
  Status pushed = sim.push(1);
  ASSERT_FALSE(pushed.ok());
  EXPECT_EQ(pushed.error().code(), ErrorCode::kNoSpace);
  EXPECT_EQ(pushed.error().message(),
            "committing what the volume's top holds: the simulated file: No space left on device");
  sim.files.resize(1);
  EXPECT_EQ(sim.volume->layers(), 1u);
  EXPECT_EQ(sim.flush(), BlockStatus::kOk) << "a journal page has room";
  sim.files[0]->faults.fail = {};
  EXPECT_TRUE(sim.push(1).ok());
  sim.lose_power();
  expect_sound(sim);
  sim.open();
  EXPECT_EQ(sim.read(0), 'a');
}

class FullWhileFreezing : public ::testing::Test {
 protected:
  FullWhileFreezing() {
    sim.make_layer();
    CHECK(sim.write(0, 'a') == BlockStatus::kOk);
    CHECK(sim.volume->sync_top().ok());
    CHECK(sim.volume->begin_push(sim.layer_file(1)).ok());
  }
  void switch_top() {
    sim.volume->hold_changes();
    sim.volume->wait_for_changes();
    sim.volume->switch_top();
    sim.volume->release_changes();
  }
  void expect_all_there() {
    EXPECT_TRUE(sim.volume->finish_push().ok());
    EXPECT_TRUE(read_layer_info(*sim.look(0)).value().frozen);
    sim.lose_power();
    expect_sound(sim);
    sim.open();
    EXPECT_EQ(sim.read(0), 'a');
    EXPECT_EQ(sim.read(20'000), 'b');
    EXPECT_EQ(sim.read(40'000), 'c');
  }
  SimVolume sim{1_GiB};
};

TEST_F(FullWhileFreezing, FlushesFailUntilThereIsSpace) {
  ASSERT_EQ(sim.write(20'000, 'b'), BlockStatus::kOk);
  switch_top();
  sim.files[0]->faults.fail = writes_fail(ENOSPC, in_map);
  Status frozen = sim.volume->finish_push();
  ASSERT_FALSE(frozen.ok());
  EXPECT_EQ(frozen.error().code(), ErrorCode::kNoSpace);
  EXPECT_EQ(frozen.error().message(),
            "freezing the layer that was the volume's top: the simulated file: No space left on device");
  EXPECT_EQ(sim.write(40'000, 'c'), BlockStatus::kOk);
  EXPECT_EQ(sim.write(20'001, 'c'), BlockStatus::kOk) << "on a page that waits to be written";
  EXPECT_EQ(sim.read(20'000), 'b');
  EXPECT_EQ(sim.flush(), BlockStatus::kNoSpace);
  EXPECT_FALSE(sim.volume->finish_push().ok()) << "it is tried again each time";
  sim.files[0]->faults.fail = {};
  EXPECT_EQ(sim.flush(), BlockStatus::kOk) << "it writes what the freezing could not";
  {
    SCOPED_TRACE("after the flush, before the freezing");
    expect_all_there();
  }
}

TEST_F(FullWhileFreezing, WhatAFlushAnsweredMeanwhileSurvives) {
  ASSERT_EQ(sim.write(20'000, 'b'), BlockStatus::kOk);
  switch_top();
  sim.files[0]->faults.fail = writes_fail(ENOSPC, in_map);
  ASSERT_FALSE(sim.volume->finish_push().ok());
  ASSERT_EQ(sim.write(40'000, 'c'), BlockStatus::kOk);
  sim.files[0]->faults.fail = {};
  ASSERT_EQ(sim.flush(), BlockStatus::kOk);
  sim.lose_power();
  ASSERT_TRUE(sim.freeze_beneath().ok());
  expect_sound(sim);
  sim.open();
  EXPECT_EQ(sim.read(0), 'a');
  EXPECT_EQ(sim.read(20'000), 'b');
  EXPECT_EQ(sim.read(40'000), 'c');
}

TEST_F(FullWhileFreezing, TheSamePushAgainFinishesIt) {
  ASSERT_EQ(sim.write(20'000, 'b'), BlockStatus::kOk);
  switch_top();
  sim.files[0]->faults.fail = writes_fail(ENOSPC, in_map);
  ASSERT_FALSE(sim.volume->finish_push().ok());
  std::vector<Push> again;
  again.push_back({sim.volume.get(), {sim.look(1), std::nullopt}});
  EXPECT_EQ(push_layers(again).error().code(), ErrorCode::kNoSpace);
  sim.files[0]->faults.fail = {};
  ASSERT_EQ(sim.write(40'000, 'c'), BlockStatus::kOk);
  again[0].layer.file = sim.look(1);
  ASSERT_TRUE(push_layers(again).ok());
  EXPECT_EQ(sim.flush(), BlockStatus::kOk);
  expect_all_there();
}

TEST_F(FullWhileFreezing, WithAllOfItDurableFlushesGoOn) {
  switch_top();
  sim.files[0]->faults.fail = writes_fail(EIO, [](uint64_t at) { return at == layer::kStateOffset; });
  Status frozen = sim.volume->finish_push();
  ASSERT_FALSE(frozen.ok());
  ASSERT_EQ(sim.write(20'000, 'b'), BlockStatus::kOk);
  ASSERT_EQ(sim.write(40'000, 'c'), BlockStatus::kOk);
  EXPECT_EQ(sim.flush(), BlockStatus::kOk);
  sim.files[0]->faults.fail = {};
  expect_all_there();
}

// ---- Vanished data ----

TEST(VolumeFaults, ALayerThatIsCutShortFailsItsReadsAndIsNotOpened) {
  SimVolume sim(64_MiB);
  ASSERT_EQ(sim.write(0, 'a'), BlockStatus::kOk);
  ASSERT_EQ(sim.write(1000, 'b'), BlockStatus::kOk);
  ASSERT_EQ(sim.flush(), BlockStatus::kOk);
  sim.media[0]->size = sim.media[0]->durable_size = layer::kDataOffset + 4096;
  EXPECT_EQ(sim.read(0), 'a');
  EXPECT_EQ(sim.read(1000), '!');
  sim.close();
  sim.media[0]->size = layer::kDataOffset + 4096;
  EXPECT_EQ(sim.try_open().error().message(),
            "layer 0 of the stack: the layer was cut short: its file has 34359742464 bytes, not 34426847232");
}

// ---- At random ----

// One block's possible contents, now and when the power goes.
struct Cell {
  std::set<char> now{0};
  std::set<char> later{0};
};

class RandomFaults {
 public:
  explicit RandomFaults(uint64_t seed) : random_(seed), cells_(kBlocks) {}
  void run() {
    for (int i = 0; i < 300 && !::testing::Test::HasFailure(); ++i) step();
    no_faults();
    ASSERT_TRUE(sim_.volume->finish_push().ok()) << "with space it can be finished";
    for (uint64_t block = 0; block < kBlocks; ++block) read(block);
  }

 private:
  static constexpr uint64_t kBlocks = 24;
  static uint64_t place(uint64_t block) { return block * 6000; }

  void no_faults() {
    for (auto* file : sim_.files) file->faults.fail = {};
  }
  void faults(unsigned one_in) {
    for (auto* file : sim_.files) {
      file->faults.fail = [this, one_in](char kind, uint64_t) {
        if ((kind != 'w' && kind != 'r' && kind != 'e') || below(random_, one_in) != 0) return 0;
        return kind == 'w' && below(random_, 3) > 0 ? ENOSPC : EIO;
      };
    }
  }
  void step() {
    uint64_t block = below(random_, kBlocks);
    switch (below(random_, 12)) {
      case 0:
        return faults(2 + static_cast<unsigned>(below(random_, 8)));
      case 1:
        return no_faults();
      case 2:
        return read(block);
      case 3:
        return zero(block);
      case 4:
      case 5:
        return flush();
      case 6:
        if (below(random_, 3) == 0) return push();
        return;
      case 7:
        if (below(random_, 8) == 0) return crash();
        return;
      default:
        return write(block);
    }
  }
  void read(uint64_t block) {
    char found = sim_.read(place(block));
    if (found == '!') return;
    EXPECT_TRUE(cells_[block].now.contains(found)) << block << " reads " << int(found);
  }
  void wrote(uint64_t block, char value, BlockStatus status) {
    Cell& cell = cells_[block];
    cell.later.insert(value);
    // A write that failed may be there all the same.
    if (status == BlockStatus::kOk) cell.now.clear();
    cell.now.insert(value);
  }
  void write(uint64_t block) {
    char value = static_cast<char>('a' + next_++ % 26);
    wrote(block, value, sim_.write(place(block), value));
  }
  void zero(uint64_t block) { wrote(block, 0, sim_.change(BlockOp::kWriteZeroes, place(block))); }
  void flush() {
    if (sim_.flush() != BlockStatus::kOk) return;
    for (Cell& cell : cells_) cell.later = cell.now;
  }
  void push() {
    if (waiting_ == 0) waiting_ = sim_.media.size(), sim_.make_layer();
    Status pushed = sim_.push(waiting_);
    bool switched = sim_.volume->holds(sim_.id(waiting_));
    if (!switched) sim_.files.resize(waiting_);
    ASSERT_TRUE(switched || !pushed.ok());
    if (!switched) return;
    waiting_ = 0;
    if (pushed.ok()) return;
    // The same again, as the store's caller does, until there is space.
    for (int tries = 0;; ++tries) {
      if (tries == 3) no_faults();
      std::vector<Push> again;
      again.push_back({sim_.volume.get(), {sim_.look(sim_.media.size() - 1), std::nullopt}});
      if (push_layers(again).ok()) return;
      ASSERT_LT(tries, 3);
      for (uint64_t i = below(random_, 4); i > 0; --i) write(below(random_, kBlocks));
      flush();
    }
  }
  void crash() {
    no_faults();
    if (waiting_ != 0) sim_.media.pop_back(), sim_.forget_last();
    waiting_ = 0;
    sim_.lose_power();
    ASSERT_TRUE(sim_.freeze_beneath().ok());
    expect_sound(sim_);
    sim_.open();
    for (uint64_t block = 0; block < kBlocks; ++block) {
      char found = sim_.read(place(block));
      ASSERT_TRUE(cells_[block].later.contains(found))
          << block << " holds " << int(found) << " after a crash";
      cells_[block].now = cells_[block].later = {found};
    }
  }

  Random random_;
  SimVolume sim_{1_GiB};
  std::vector<Cell> cells_;
  uint64_t next_ = 0;
  size_t waiting_ = 0;  // a layer that is to be pushed; 0: none
};

TEST(VolumeFaults, WhatAFlushAnsweredIsThereWhateverFailed) {
  const uint64_t seed = testing::seed();
  for (uint64_t round = 0; round < 60 && !HasFailure(); ++round) {
    SCOPED_TRACE(::testing::Message() << "HANEUL_SEED=" << seed + round);
    RandomFaults(seed + round).run();
  }
}

// ---- A real file system that is full ----

int fill_a_file_system(const std::string& folder) {
  auto path = [&](std::string_view name) { return fmt::format("{}/{}", folder, name); };
  auto make = [&](std::string_view name, LayerId parent) {
    NewLayer made;
    made.id = random_layer_id();
    made.parent = parent;
    made.size_bytes = 1_GiB;
    CHECK(create_layer(open_file(path(name), O_RDWR | O_CREAT).value().get(), made).ok());
    return made.id;
  };
  LayerId below_id = make("0", {});
  make("1", below_id);
  auto open = [&](int layers) {
    std::vector<StackDescriptor> stack;
    for (int i = 0; i < layers; ++i)
      stack.push_back({open_file(path(std::to_string(i)), O_RDWR).value(), std::nullopt});
    return open_volume(UniqueFd(), std::move(stack), {}).value();
  };
  UniqueFd filler = open_file(path("filler"), O_RDWR | O_CREAT).value();
  if (::fallocate(filler.get(), 0, 0, 1 << 20) != 0) return 2;
  auto ring = IoRing::create(8).value();
  std::vector<std::byte> bytes(4096);
  auto write = [&](BlockChannel& channel, uint64_t block) {
    bytes.assign(4096, static_cast<std::byte>(block % 250 + 1));
    return testing::run(*ring, channel, BlockOp::kWrite, block * 5000 * 4096 % 1_GiB, bytes);
  };
  auto reads = [&](BlockChannel& channel, uint64_t block) {
    std::vector<std::byte> found(4096);
    auto status = testing::run(*ring, channel, BlockOp::kRead, block * 5000 * 4096 % 1_GiB, found);
    return status == BlockStatus::kOk &&
           found == std::vector<std::byte>(4096, static_cast<std::byte>(block % 250 + 1));
  };
  uint64_t written = 0;
  {
    auto volume = open(1);
    auto channel = volume->open_channel(*ring);
    BlockStatus status = BlockStatus::kOk;
    while ((status = write(*channel, written)) == BlockStatus::kOk) {
      if (++written == 10'000) return 3;
    }
    if (status != BlockStatus::kNoSpace) return 4;
    for (uint64_t block = 0; block < written; ++block) {
      if (!reads(*channel, block)) return 5;
    }
    Push push{volume.get(), {make_async_file(open_file(path("1"), O_RDWR).value()), std::nullopt}};
    auto pushed = push_layers(std::span(&push, 1));
    if (pushed.ok() || pushed.error().code() != ErrorCode::kNoSpace) return 6;
    if (testing::run(*ring, *channel, BlockOp::kFlush) != BlockStatus::kNoSpace) return 7;
    // Space again: everything goes on.
    if (::ftruncate(filler.get(), 0) != 0) return 8;
    if (testing::run(*ring, *channel, BlockOp::kFlush) != BlockStatus::kOk) return 9;
    if (write(*channel, written) != BlockStatus::kOk) return 10;
    ++written;
    push.layer = {make_async_file(open_file(path("1"), O_RDWR).value()), std::nullopt};
    if (!push_layers(std::span(&push, 1)).ok()) return 11;
    if (write(*channel, written) != BlockStatus::kOk) return 12;
    ++written;
  }
  for (const char* name : {"0", "1"}) {
    auto faults = check_layer(*make_async_file(open_file(path(name), O_RDONLY).value()), {}, {});
    if (!faults.ok() || !faults->empty()) return 13;
  }
  auto volume = open(2);
  auto channel = volume->open_channel(*ring);
  for (uint64_t block = 0; block < written; ++block) {
    if (!reads(*channel, block)) return 14;
  }
  return 0;
}

TEST(VolumeFaults, AFileSystemIsFilledAndFreed) {
  haneul::testing::TempFolder folder;
  std::string path = folder / "full";
  ASSERT_EQ(::mkdir(path.c_str(), 0700), 0);
  const int status = testing::on_small_file_system(path, [&] { return fill_a_file_system(path); });
  if (status == 100) GTEST_SKIP() << "no mounts here: neither root nor user namespaces";
  EXPECT_EQ(status, 0);
}

}  // namespace
}  // namespace haneul::storage
