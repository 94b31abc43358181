// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <memory>

#include "base/checked.h"
#include "base/endian.h"
#include "base/file.h"
#include "base/log.h"
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

TEST(Log, ALimiterLetsABurstThroughAndThenOneEachInterval) {
  LogLimiter limiter(std::chrono::milliseconds(200), 3);
  std::chrono::steady_clock::time_point now(std::chrono::hours(1));
  auto allowed = [&] {
    int count = 0;
    for (int i = 0; i < 100; ++i) count += limiter.allow(now) ? 1 : 0;
    return count;
  };
  EXPECT_EQ(allowed(), 3);
  now += std::chrono::milliseconds(199);
  EXPECT_EQ(allowed(), 0);
  now += std::chrono::milliseconds(1);
  EXPECT_EQ(allowed(), 1);
  now += std::chrono::hours(1);
  EXPECT_EQ(allowed(), 3);
}

TEST(Log, ABudgetBindsTheWholeProcessAndErrorsHaveTheirOwn) {
  int pipe_fds[2];
  ASSERT_EQ(::pipe(pipe_fds), 0);
  pid_t child = ::fork();
  if (child == 0) {
    ::dup2(pipe_fds[1], STDERR_FILENO);
    set_log_budget(2, std::chrono::hours(1));
    for (int i = 0; i < 10; ++i) LOG_WARNING("line {}", i);
    for (int i = 0; i < 10; ++i) LOG_ERROR("error {}", i);
    ::_exit(0);
  }
  ::close(pipe_fds[1]);
  std::string text;
  char buffer[4096];
  for (ssize_t got = 0; (got = ::read(pipe_fds[0], buffer, sizeof buffer)) > 0;)
    text.append(buffer, static_cast<size_t>(got));
  ::close(pipe_fds[0]);
  ASSERT_EQ(::waitpid(child, nullptr, 0), child);
  EXPECT_THAT(text, ::testing::MatchesRegex("[^\n]* line 0\n[^\n]* line 1\n"
                                            "[^\n]* error 0 .8 lines before this one were left out.\n"
                                            "[^\n]* error 1\n"));
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
