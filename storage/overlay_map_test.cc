// SPDX-License-Identifier: Apache-2.0
#include "storage/overlay_map.h"

#include <gtest/gtest.h>

#include <random>
#include <set>

#include "storage/testing/waiting_request.h"

namespace haneul::storage::overlay {
namespace {

TEST(OverlayMap, AgreesWithAPlainArray) {
  std::mt19937_64 random(storage::testing::seed());
  for (int round = 0; round < 20; ++round) {
    uint64_t blocks = 1 + random() % (3 * kBlocksPerPage);
    OverlayMap map(blocks);
    std::vector<BlockState> model(blocks, BlockState::kBase);
    for (int step = 0; step < 300; ++step) {
      uint64_t first = random() % blocks;
      uint64_t count =
          1 + random() % (random() % 4 == 0 ? blocks - first : std::min<uint64_t>(70, blocks - first));
      auto state = static_cast<BlockState>(random() % 3);
      map.set(first, count, state);
      std::fill_n(model.begin() + static_cast<std::ptrdiff_t>(first), count, state);
      if (random() % 50 == 0) {
        blocks += random() % 5000;
        map.grow(blocks);
        model.resize(blocks, BlockState::kBase);
      }
      if (random() % 20 == 0) {
        std::vector<uint64_t> dirty;
        map.take_dirty(dirty);
        OverlayMap copy(blocks);
        for (uint64_t index : dirty) {
          map.load(index, map.begin_write(index));
        }
      }
      uint64_t at = random() % blocks;
      OverlayMap::Run run = map.run(at, blocks - at);
      ASSERT_EQ(run.state, model[at]);
      uint64_t end = at;
      while (end < blocks && model[end] == model[at]) ++end;
      ASSERT_EQ(run.count, end - at);
      ASSERT_EQ(map.get(first), model[first]);
    }
  }
}

TEST(OverlayMap, PagesAreDirtyOnlyWhenTheyDiffer) {
  OverlayMap map(4 * kBlocksPerPage);
  map.set(0, 4 * kBlocksPerPage, BlockState::kBase);
  EXPECT_FALSE(map.dirty());
  map.set(kBlocksPerPage - 1, 2, BlockState::kData);
  std::vector<uint64_t> dirty;
  map.take_dirty(dirty);
  EXPECT_EQ(std::set(dirty.begin(), dirty.end()), (std::set<uint64_t>{0, 1}));
  for (uint64_t index : dirty) EXPECT_EQ(map.begin_write(index).sequence, 1u);
  map.written(0);
  map.mark_dirty(1);
  map.set(kBlocksPerPage - 1, 2, BlockState::kData);
  map.take_dirty(dirty);
  EXPECT_EQ(dirty, std::vector<uint64_t>{1});
  EXPECT_EQ(map.begin_write(1).sequence, 1u) << "the failed version again";
  map.set(0, 1, BlockState::kZero);
  map.take_dirty(dirty);
  EXPECT_EQ(map.begin_write(0).sequence, 2u);
}

}  // namespace
}  // namespace haneul::storage::overlay
