// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <memory>

#include "base/checked.h"
#include "base/endian.h"
#include "base/file.h"
#include "base/result.h"

namespace haneul {
namespace {

Result<std::unique_ptr<int>> make_number(bool good) {
  if (!good) return Error(ErrorCode::kNotFound, "no number");
  return std::make_unique<int>(7);
}

Result<int> doubled(bool good) {
  auto number = TRY(make_number(good).context("doubling"));
  return *number * 2;
}

TEST(Result, TryPassesMoveOnlyValuesAndAddsContext) {
  EXPECT_EQ(doubled(true).value(), 14);
  auto failed = doubled(false);
  ASSERT_FALSE(failed.ok());
  EXPECT_EQ(failed.error().code(), ErrorCode::kNotFound);
  EXPECT_EQ(failed.error().message(), "doubling: no number");
}

TEST(Result, ErrnoKeepsItsNumberAndText) {
  auto opened = open_file("/nonexistent/file", 0);
  ASSERT_FALSE(opened.ok());
  EXPECT_EQ(opened.error().number(), ENOENT);
  EXPECT_EQ(opened.error().message(), "cannot open /nonexistent/file: No such file or directory");
}

TEST(Checked, RefusesWhatWraps) {
  EXPECT_EQ(checked_add<uint64_t>(~0ull, 1), std::nullopt);
  EXPECT_EQ(checked_add<uint32_t>(1u, 2u), 3u);
  EXPECT_EQ(checked_mul<uint64_t>(1ull << 63, 2), std::nullopt);
  EXPECT_EQ(checked_align_up(~0ull, 4096), std::nullopt);
  EXPECT_EQ(checked_align_up(1, 4096), 4096u);
  EXPECT_TRUE(range_within(0, 10, 10));
  EXPECT_FALSE(range_within(1, 10, 10));
  EXPECT_FALSE(range_within(~0ull, 2, ~0ull));
}

TEST(Endian, StoresLittleEndianBytes) {
  le32 value = 0x11223344;
  unsigned char bytes[4];
  std::memcpy(bytes, &value, 4);
  EXPECT_EQ(bytes[0], 0x44);
  EXPECT_EQ(be16(0x1234).value(), 0x1234);
}

TEST(File, ReplaceIsWholeAndReadHasALimit) {
  char folder[] = "/tmp/haneul-base-XXXXXX";
  ASSERT_NE(::mkdtemp(folder), nullptr);
  std::filesystem::path path = std::filesystem::path(folder) / "state";
  ASSERT_TRUE(replace_file(path, "one").ok());
  ASSERT_TRUE(replace_file(path, "two!").ok());
  EXPECT_EQ(read_file(path).value(), "two!");
  EXPECT_EQ(read_file(path, 3).error().code(), ErrorCode::kOutOfRange);
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder), {}), 1);
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace haneul
