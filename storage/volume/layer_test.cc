// SPDX-License-Identifier: Apache-2.0
// Making a layer, and looking at it.
#include "storage/volume/layer.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "storage/volume/format.h"

namespace haneul::storage {
namespace {

class LayerTest : public ::testing::Test {
 protected:
  NewLayer like(uint64_t size = 64 << 20) {
    NewLayer made;
    made.id = random_layer_id();
    made.size_bytes = size;
    return made;
  }
  std::string refused(const NewLayer& made) { return create_layer(file.get(), made).error().message(); }
  UniqueFd file = make_memfd("layer").value();
};

TEST_F(LayerTest, IdsThereAndBack) {
  LayerId id = random_layer_id();
  EXPECT_NE(id, random_layer_id());
  EXPECT_EQ(parse_layer_id(to_string(id)).value(), id);
  EXPECT_EQ(to_string(LayerId{}), "00000000000000000000000000000000");
  for (const char* bad : {"", "0", "g0112233445566778899aabbccddeeff", "00112233445566778899AABBCCDDEEFF"}) {
    EXPECT_EQ(parse_layer_id(bad).error().message(),
              fmt::format("a layer's id has 32 hexadecimal digits, and '{}' is none", bad));
  }
}

TEST_F(LayerTest, ANewLayerIsWhatWasAskedForAndHoldsNothing) {
  NewLayer made = like((uint64_t{1} << 40) + 512);
  made.parent = random_layer_id();
  ASSERT_TRUE(create_layer(file.get(), made).ok());
  LayerInfo info = read_layer_info(file.get()).value();
  EXPECT_EQ(info.id, made.id);
  EXPECT_EQ(info.parent, made.parent);
  EXPECT_EQ(info.size_bytes, made.size_bytes);
  EXPECT_EQ(info.raw_base_bytes, 0u);
  EXPECT_FALSE(info.frozen || info.sums_complete || info.encrypted);
  struct stat status {};
  ASSERT_EQ(::fstat(file.get(), &status), 0);
  EXPECT_LE(status.st_blocks * 512, 8192);
  EXPECT_EQ(static_cast<uint64_t>(status.st_size), (uint64_t{1} << 35) + (uint64_t{1} << 40) + 4096);
}

TEST_F(LayerTest, WrongRequestsAreRefusedAndLeaveTheFileEmpty) {
  EXPECT_EQ(refused(like(100)), "a volume's size must be a multiple of 512 up to 16 TiB, not 100 bytes");
  NewLayer made = like();
  made.parent = made.id;
  EXPECT_EQ(refused(made), fmt::format("a layer needs an id of its own, not {}", to_string(made.id)));
  made = like();
  made.id = {};
  EXPECT_EQ(refused(made), "a layer needs an id of its own, not 00000000000000000000000000000000");
  made = like();
  made.parent = random_layer_id();
  made.raw_base_bytes = 512;
  EXPECT_EQ(refused(made),
            fmt::format("only the lowest layer lies on a raw base, and {} has a parent", to_string(made.id)));
  EXPECT_EQ(file_size(file.get()).value(), 0u);
  ASSERT_TRUE(create_layer(file.get(), like()).ok());
  Status again = create_layer(file.get(), like());
  EXPECT_EQ(again.error().code(), ErrorCode::kExists);
  EXPECT_EQ(again.error().message(), "a layer is made in an empty file, and this one is not");
}

TEST_F(LayerTest, AnotherFileIsNoLayer) {
  EXPECT_EQ(read_layer_info(file.get()).error().message(), "the file is not a layer: it has only 0 bytes");
  ASSERT_TRUE(create_layer(file.get(), like(64 << 20)).ok());
  ASSERT_EQ(::ftruncate(file.get(), static_cast<off_t>(layer::kDataOffset)), 0);
  EXPECT_EQ(read_layer_info(file.get()).error().message(),
            "the layer was cut short: its file has 34359738368 bytes, not 34426847232");
  std::array<std::byte, 8> noise{};
  ASSERT_TRUE(write_all_at(file.get(), 0, noise).ok());
  Result<LayerInfo> read = read_layer_info(file.get());
  EXPECT_EQ(read.error().message(), "the file is not a layer: its first bytes are not HNLLAYER");
  EXPECT_EQ(read.error().code(), ErrorCode::kCorrupt);
}

}  // namespace
}  // namespace haneul::storage
