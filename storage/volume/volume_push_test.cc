// SPDX-License-Identifier: Apache-2.0
// Putting layers on a volume in use: what holds changes back, what goes on, and what the old top keeps.
#include <gtest/gtest.h>

#include <thread>

#include "base/checked.h"
#include "storage/testing/sim_volume.h"
#include "storage/volume/format.h"

namespace haneul::storage {
namespace {

using testing::SimVolume;
using testing::WaitingRequest;

constexpr uint64_t kPageBlocks = layer::kBlocksPerMapPage;

uint64_t calls(const SimVolume& sim) {
  uint64_t all = 0;
  for (const auto* file : sim.files) all += file->blocking_calls + file->pending();
  return all;
}

// The stall, in work done: nothing is encoded, read or written while changes are held back, whether one page of the map is
// dirty or two thousand.
TEST(VolumePush, TheHoldCostsTheSameWhateverIsDirty) {
  for (uint64_t pages : {1, 2000}) {
    SimVolume sim(2100 * kPageBlocks * 4096);
    sim.make_layer();
    ASSERT_TRUE(sim.volume->begin_push(sim.layer_file(1)).ok());
    for (uint64_t page = 0; page < pages; ++page)
      ASSERT_EQ(sim.write(page * kPageBlocks, 'a'), BlockStatus::kOk);
    uint64_t encoded = sim.volume->pages_encoded();
    uint64_t called = calls(sim);
    sim.volume->hold_changes();
    sim.volume->wait_for_changes();
    sim.volume->switch_top();
    sim.volume->release_changes();
    EXPECT_EQ(sim.volume->pages_encoded(), encoded) << pages;
    EXPECT_EQ(calls(sim), called) << pages;
    ASSERT_TRUE(sim.volume->finish_push().ok());
    EXPECT_EQ(sim.volume->pages_encoded(), encoded + pages);
    EXPECT_EQ(layer_use(*sim.look(0)).value().data_blocks, pages);
  }
}

// What was written before the push is committed before it, so that flushes wait for little afterwards.
TEST(VolumePush, TheTopIsCommittedBeforeTheHold) {
  SimVolume sim(100 * kPageBlocks * 4096);
  for (uint64_t page = 0; page < 90; ++page) ASSERT_EQ(sim.write(page * kPageBlocks, 'a'), BlockStatus::kOk);
  ASSERT_TRUE(sim.volume->sync_top().ok());
  EXPECT_EQ(sim.volume->pages_encoded(), 90u);
  sim.make_layer();
  ASSERT_TRUE(sim.push(1).ok());
  EXPECT_EQ(sim.volume->pages_encoded(), 90u);
}

TEST(VolumePush, ChangesGoOnWhileACommitIsWaitedFor) {
  SimVolume sim(64_MiB);
  sim.make_layer();
  ASSERT_EQ(sim.write(1, 'a'), BlockStatus::kOk);
  WaitingRequest flush;
  flush.set(BlockOp::kFlush);
  sim.submit(flush);  // its commit has the turn from here on
  Status begun;
  std::thread pusher(
      [&, layer = sim.layer_file(1)]() mutable { begun = sim.volume->begin_push(std::move(layer)); });
  for (int i = 0; i < 20; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    std::vector<std::byte> bytes(4096, std::byte{'b'});
    WaitingRequest write;
    write.set(BlockOp::kWrite, (10 + i) * 4096, bytes);
    sim.submit(write);
    // The commit's own operation waits; the write's, submitted later, is done.
    while (!write.status) {
      ASSERT_FALSE(flush.status);
      if (sim.files[0]->pending() > 1) sim.files[0]->step_last();
      sim.turn_ring();
    }
    EXPECT_EQ(*write.status, BlockStatus::kOk);
  }
  while (!flush.status) sim.turn();
  EXPECT_EQ(*flush.status, BlockStatus::kOk);
  pusher.join();
  ASSERT_TRUE(begun.ok()) << begun.error().message();
  sim.volume->cancel_push();
  sim.files.resize(1);
  EXPECT_EQ(sim.write(1, 'c'), BlockStatus::kOk);
  EXPECT_EQ(sim.flush(), BlockStatus::kOk);
}

// Between the switch and the end of the freezing the new top takes blocks of pages that are not written yet.
TEST(VolumePush, TheOldTopIsWhatItWasAtTheSwitch) {
  constexpr uint64_t kPages = 40;
  SimVolume sim(kPages * kPageBlocks * 4096);
  sim.make_layer();
  ASSERT_TRUE(sim.volume->begin_push(sim.layer_file(1)).ok());
  for (uint64_t page = 0; page < kPages; ++page) {
    ASSERT_EQ(sim.write(page * kPageBlocks, 'a', 3), BlockStatus::kOk);
    ASSERT_EQ(sim.change(BlockOp::kDiscard, page * kPageBlocks + 1), BlockStatus::kOk);
  }
  sim.volume->hold_changes();
  sim.volume->wait_for_changes();
  sim.volume->switch_top();
  sim.volume->release_changes();
  for (uint64_t page = 0; page < kPages; page += 2) {
    ASSERT_EQ(sim.write(page * kPageBlocks, 'b', 4), BlockStatus::kOk);
    ASSERT_EQ(sim.change(BlockOp::kWriteZeroes, (page + 1) * kPageBlocks, 5), BlockStatus::kOk);
  }
  ASSERT_TRUE(sim.volume->finish_push().ok());
  LayerUse old = layer_use(*sim.look(0)).value();
  EXPECT_EQ(old.data_blocks, kPages * 2);
  LayerUse top = [&] {
    EXPECT_EQ(sim.flush(), BlockStatus::kOk);
    return layer_use(*sim.look(1)).value();
  }();
  EXPECT_EQ(top.data_blocks, kPages / 2 * 4);
  EXPECT_EQ(top.zero_blocks, kPages / 2 * 5 - kPages / 2 * 3);
}

// Copies of the old top's pages are bounded: changes that want more wait until some are written.
TEST(VolumePush, ChangesWaitForRoomAmongTheCopies) {
  constexpr uint64_t kPages = 1100;
  SimVolume sim(kPages * kPageBlocks * 4096);
  sim.make_layer();
  ASSERT_TRUE(sim.volume->begin_push(sim.layer_file(1)).ok());
  for (uint64_t page = 0; page < kPages; ++page)
    ASSERT_EQ(sim.write(page * kPageBlocks, 'a'), BlockStatus::kOk);
  sim.volume->hold_changes();
  sim.volume->wait_for_changes();
  sim.volume->switch_top();
  sim.volume->release_changes();
  for (uint64_t page = 0; page < 1024; ++page)
    ASSERT_EQ(sim.write(page * kPageBlocks + 1, 'b'), BlockStatus::kOk);
  std::vector<std::byte> bytes(4096, std::byte{'c'});
  WaitingRequest one_more;
  one_more.set(BlockOp::kWrite, 1050 * kPageBlocks * 4096, bytes);
  sim.submit(one_more);
  sim.settle();
  EXPECT_FALSE(one_more.status);
  ASSERT_EQ(sim.write(5, 'd'), BlockStatus::kOk) << "that page is copied";
  ASSERT_TRUE(sim.volume->finish_push().ok());
  sim.settle();
  ASSERT_TRUE(one_more.status);
  EXPECT_EQ(*one_more.status, BlockStatus::kOk);
  EXPECT_EQ(sim.read(1050 * kPageBlocks), 'c');
  EXPECT_EQ(layer_use(*sim.look(0)).value().data_blocks, kPages);
}

// A block that was flushed a moment ago keeps its content until its record is sealed: on that top, not on the next.
TEST(VolumePush, ARewriteOfWhatWasJustFlushedDoesNotWaitForTheFreezing) {
  SimVolume sim(64_MiB);
  sim.make_layer();
  ASSERT_EQ(sim.write(7, 'a'), BlockStatus::kOk);
  ASSERT_EQ(sim.flush(), BlockStatus::kOk);
  ASSERT_TRUE(sim.volume->begin_push(sim.layer_file(1)).ok());
  std::vector<std::byte> bytes(4096, std::byte{'b'});
  WaitingRequest again;
  again.set(BlockOp::kWrite, uint64_t{7} * 4096, bytes);
  sim.submit(again);
  sim.settle();
  EXPECT_FALSE(again.status) << "the push has the turn, and the record is not sealed";
  sim.volume->hold_changes();
  sim.volume->wait_for_changes();
  sim.volume->switch_top();
  sim.volume->release_changes();
  sim.settle();
  EXPECT_EQ(again.status, BlockStatus::kOk);
  ASSERT_TRUE(sim.volume->finish_push().ok());
  sim.settle();
  EXPECT_EQ(sim.flush(), BlockStatus::kOk);
  EXPECT_EQ(sim.read(7), 'b');
  EXPECT_EQ(layer_use(*sim.look(0)).value().data_blocks, 1u);
  EXPECT_EQ(layer_use(*sim.look(1)).value().data_blocks, 1u);
  EXPECT_TRUE(check_layer(*sim.look(0), {}, {}).value().empty());
}

TEST(VolumePush, SeveralLayersInOneRequestAndTheSameRequestAgain) {
  SimVolume sim(64_MiB);
  ASSERT_EQ(sim.write(1, 'a'), BlockStatus::kOk);
  for (int i = 0; i < 3; ++i) sim.make_layer();
  auto pushes = [&](size_t first) {
    std::vector<Push> all;
    for (size_t layer = first; layer <= 3; ++layer)
      all.push_back({sim.volume.get(), {sim.look(layer), std::nullopt}});
    return all;
  };
  std::vector<Push> all = pushes(2);
  Result<std::chrono::microseconds> gap = push_layers(all);
  EXPECT_EQ(gap.error().message(),
            fmt::format("layer {} was made for {}, and the volume's top is {}", to_string(sim.id(2)),
                        to_string(sim.id(1)), to_string(sim.id(0))));
  EXPECT_EQ(sim.volume->layers(), 1u);
  std::vector<Push> two;
  two.push_back({sim.volume.get(), sim.layer_file(1)});
  two.push_back({sim.volume.get(), sim.layer_file(2)});
  ASSERT_TRUE(push_layers(two).ok());
  EXPECT_EQ(sim.volume->top(), sim.id(2));
  // With what the disk has already, on top and further down.
  std::vector<Push> three;
  for (size_t layer : {1, 2}) three.push_back({sim.volume.get(), {sim.look(layer), std::nullopt}});
  three.push_back({sim.volume.get(), sim.layer_file(3)});
  ASSERT_TRUE(push_layers(three).ok());
  EXPECT_EQ(sim.volume->layers(), 4u);
  std::vector<Push> again = pushes(1);
  ASSERT_TRUE(push_layers(again).ok());
  EXPECT_EQ(sim.volume->layers(), 4u);
  EXPECT_EQ(sim.read(1), 'a');
  for (size_t layer = 0; layer < 3; ++layer) EXPECT_TRUE(read_layer_info(*sim.look(layer)).value().frozen);
}

TEST(VolumePush, OfSeveralVolumesAllOrNone) {
  SimVolume good(64_MiB);
  SimVolume bad(64_MiB);
  good.make_layer();
  bad.make_layer();
  bad.make_layer();
  std::vector<Push> pushes;
  pushes.push_back({good.volume.get(), good.layer_file(1)});
  pushes.push_back({bad.volume.get(), {bad.look(2), std::nullopt}});
  EXPECT_FALSE(push_layers(pushes).ok());
  good.files.resize(1);
  EXPECT_EQ(good.volume->layers(), 1u);
  EXPECT_EQ(good.write(1, 'a'), BlockStatus::kOk);
  EXPECT_EQ(good.flush(), BlockStatus::kOk);
  EXPECT_TRUE(good.push(1).ok()) << "nothing is left of the first try";
}

}  // namespace
}  // namespace haneul::storage
