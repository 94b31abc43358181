// SPDX-License-Identifier: Apache-2.0
// Imports onto a disk that is full before all of the image is in the layer.
#include <sys/stat.h>

#include "storage/store/testing/store_fixture.h"
#include "storage/testing/small_file_system.h"

namespace haneul::storage {
namespace {

/// Two blocks far from each other; there is room for their data, and then for nothing.
int import_two_blocks(const std::string& folder, int image) {
  UniqueFd filler = open_file(folder + "/filler", O_RDWR | O_CREAT).value();
  auto make_room = [&](const char* step) {
    if (std::string_view(step) == "an image was read") CHECK(::ftruncate(filler.get(), 0) == 0);
  };
  auto store = Store::open(folder + "/store", {folder + "/key", false, make_room}).value();
  bool full = false;
  auto fill = [&](unsigned) {
    off_t bytes = 0;
    while (!full && ::fallocate(filler.get(), 0, bytes, 4096) == 0) bytes += 4096;
    if (!full) CHECK(::ftruncate(filler.get(), bytes - 2 * 4096) == 0);
    full = true;
    return true;
  };
  Status imported = store->import_snapshot("snap-1", image, ImageFormat::kRaw, 0, false, fill);
  if (!full) return 2;
  if (imported.ok()) return 3;
  if (imported.error().code() != ErrorCode::kNoSpace) return 4;
  if (imported.error().message() != "what was read of the image could not be made durable: the disk is full")
    return 5;
  if (store->snapshot("snap-1").ok()) return 6;
  if (haneul::testing::entries_of((folder + "/store/layers").c_str()) != 0) return 7;
  if (!store->import_snapshot("snap-1", image, ImageFormat::kRaw, 0, false, {}).ok()) return 8;
  UniqueFd out = open_file(folder + "/out", O_RDWR | O_CREAT).value();
  if (!store->export_snapshot("snap-1", out.get(), ImageFormat::kRaw, {}).ok()) return 9;
  char last = 0;
  if (!read_exact_at(out.get(), 1_GiB, std::as_writable_bytes(std::span(&last, 1))).ok()) return 10;
  return last == 'b' ? 0 : 11;
}

TEST(ImportTest, ThatIsNotDurableHasFailed) {
  haneul::testing::TempFolder folder;
  std::string path = folder / "full";
  ASSERT_EQ(::mkdir(path.c_str(), 0700), 0);
  UniqueFd image = open_file(folder / "image", O_RDWR | O_CREAT).value();
  for (auto [at, letter] : {std::pair(uint64_t{0}, 'a'), std::pair(1_GiB, 'b')}) {
    std::vector<std::byte> block(4096, static_cast<std::byte>(letter));
    ASSERT_TRUE(write_all_at(image.get(), at, block).ok());
  }
  const int status =
      testing::on_small_file_system(path, [&] { return import_two_blocks(path, image.get()); });
  if (status == 100) GTEST_SKIP() << "no mounts here: neither root nor user namespaces";
  EXPECT_EQ(status, 0);
}

}  // namespace
}  // namespace haneul::storage
