// SPDX-License-Identifier: Apache-2.0
#include "storage/volume/volume_map.h"

#include <gtest/gtest.h>

#include <random>

#include "base/checked.h"

namespace haneul::storage::volume {
namespace {

TEST(VolumeMap, SaysWhatItWasTold) {
  constexpr uint64_t kBlocks = 11'000;
  VolumeMap map(kBlocks);
  std::vector<Owner> model(kBlocks);
  std::minstd_rand random(7);
  for (int i = 0; i < 60'000; ++i) {
    uint64_t first = random() % kBlocks;
    uint64_t count = 1 + random() % std::min<uint64_t>(kBlocks - first, random() % 64 == 0  ? 6000
                                                                        : random() % 4 == 0 ? 700
                                                                                            : 9);
    size_t layer = random() % (i < 20'000 ? 3 : i < 40'000 ? 400 : 5000);
    Owner owner = random() % 8 == 0 ? Owner() : random() % 4 == 0 ? Owner::zero(layer) : Owner::data(layer);
    map.set(first, count, owner);
    std::fill_n(model.begin() + static_cast<std::ptrdiff_t>(first), count, owner);
    uint64_t at = random() % kBlocks;
    VolumeMap::Run run = map.run(at, 1000);
    ASSERT_EQ(run.owner, model[at]);
    uint64_t expected = 1;
    while (expected < 1000 && at + expected < kBlocks && model[at + expected] == model[at]) ++expected;
    ASSERT_EQ(run.count, expected) << "from " << at;
  }
  for (uint64_t block = 0; block < kBlocks; ++block) ASSERT_EQ(map.get(block), model[block]);
}

TEST(VolumeMap, ARegionThatAgreesAgainCostsNothing) {
  VolumeMap map(1 << 20);
  size_t empty = map.bytes();
  EXPECT_EQ(empty, 0u);
  map.set(100, 1, Owner::data(0));
  size_t one = map.bytes();
  map.set(0, 4096, Owner::data(1));
  EXPECT_LT(map.bytes(), one);
}

// FORMAT.md and the issue promise at most 1 MiB for 10 GiB written, in any order.
TEST(VolumeMap, TenGigabytesInRandomOrderTakeLessThanAMegabyte) {
  constexpr uint64_t kBlocks = (10ull << 30) / 4096;
  VolumeMap map(kBlocks);
  size_t most = 0;
  uint64_t block = 0;
  for (uint64_t i = 0; i < kBlocks; ++i) {
    block = (block + 1'000'003) % kBlocks;
    map.set(block, 1, Owner::data(0));
    most = std::max(most, map.bytes());
  }
  EXPECT_TRUE(map.all(0, kBlocks, Owner::data(0)));
  EXPECT_LE(most, 1_MiB);
  EXPECT_LE(map.bytes(), 128_KiB);
}

// With history, over 10 GiB: each block in any of so many layers, which no map can tell in less than log2 of their number
// bits (1 MiB is 3.3 bits a block); and a base on which each further layer rewrote some blocks.
TEST(VolumeMap, MemoryWithHistory) {
  constexpr uint64_t kBlocks = (10ull << 30) / 4096;
  struct Case {
    size_t layers;
    double random_mib;
    double rewritten_mib;
  };
  for (Case each : {Case{2, 0.4, 0.4}, Case{8, 1.0, 1.0}, Case{64, 2.1, 1.7}}) {
    std::minstd_rand random(3);
    VolumeMap any(kBlocks);
    for (uint64_t block = 0; block < kBlocks; ++block) any.set(block, 1, Owner::data(random() % each.layers));
    EXPECT_LE(static_cast<double>(any.bytes()) / (1 << 20), each.random_mib) << each.layers;
    // 256 MiB of 64 KiB writes, and 16 MiB of 4 KiB writes, in each snapshot's time.
    VolumeMap history(kBlocks);
    history.set(0, kBlocks, Owner::data(0));
    for (size_t layer = 1; layer < each.layers; ++layer) {
      for (int i = 0; i < 4096; ++i) {
        history.set(random() % (kBlocks / 16) * 16, 16, Owner::data(layer));
        history.set(random() % kBlocks, 1, Owner::data(layer));
      }
    }
    EXPECT_LE(static_cast<double>(history.bytes()) / (1 << 20), each.rewritten_mib) << each.layers;
    std::printf("%zu layers: %.2f MiB at random, %.2f MiB rewritten\n", each.layers,
                static_cast<double>(any.bytes()) / (1 << 20),
                static_cast<double>(history.bytes()) / (1 << 20));
  }
}

// A guest that writes one block in each MiB of the largest volume, to make its VMM's memory grow.
TEST(VolumeMap, ThinlySpreadWritesTakeLittle) {
  VolumeMap map((1ull << 40) / 4096);
  for (uint64_t block = 77; block < map.blocks(); block += 256) map.set(block, 1, Owner::data(0));
  EXPECT_LE(map.bytes(), 12_MiB) << "of a TiB";
}

TEST(VolumeMap, SixteenTebibytesOfNothingCostKilobytes) {
  VolumeMap map((16ull << 40) / 4096);
  map.set(map.blocks() - 1, 1, Owner::data(0));
  EXPECT_LE(map.bytes(), 64_KiB);
  EXPECT_EQ(map.run(0, map.blocks()).count, map.blocks() - 1);
}

TEST(VolumeMap, AsManyLayersAsThereAreBlocks) {
  VolumeMap map(512);
  for (uint64_t block = 0; block < 512; ++block) map.set(block, 1, Owner::data(block * 60));
  for (uint64_t block = 0; block < 512; ++block) ASSERT_EQ(map.get(block), Owner::data(block * 60));
  EXPECT_EQ(Owner::data(kMaxLayers - 1).layer(), kMaxLayers - 1);
  EXPECT_TRUE(Owner::zero(kMaxLayers - 1).is_zero());
}

}  // namespace
}  // namespace haneul::storage::volume
