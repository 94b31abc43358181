// SPDX-License-Identifier: Apache-2.0
#include "net/program.h"

#include <gtest/gtest.h>

namespace haneul::net {
namespace {

using std::chrono::milliseconds;

TEST(Program, InputOutputErrorsAndExitCode) {
  auto outcome = run_program("/bin/sh", {"-c", "cat; echo two >&2; exit 3"}, "one").value();
  EXPECT_EQ(outcome.exit_code, 3);
  EXPECT_EQ(outcome.output, "one");
  EXPECT_EQ(outcome.errors, "two\n");
}

TEST(Program, InheritsNoDescriptorAndLittleEnvironment) {
  auto outcome = run_program("/bin/sh", {"-c", "ls /proc/$$/fd; echo $LC_ALL"}).value();
  EXPECT_EQ(outcome.output.substr(0, 6), "0\n1\n2\n");
  EXPECT_NE(outcome.output.find("\nC\n"), std::string::npos);
}

TEST(Program, OneThatHangsIsEnded) {
  auto outcome = run_program("/bin/sh", {"-c", "exec sleep 60"}, {}, milliseconds(50));
  ASSERT_FALSE(outcome.ok());
  EXPECT_EQ(outcome.error().code(), ErrorCode::kTimeout);
  EXPECT_EQ(outcome.error().message(), "sh did not end within 50 ms");
}

TEST(Program, OneThatIsNotThere) {
  auto outcome = run_program("/nonexistent/nft", {});
  ASSERT_FALSE(outcome.ok());
  EXPECT_EQ(outcome.error().message(), "/nonexistent/nft cannot be run");
  EXPECT_EQ(find_program("no-such-program-here").error().message(),
            "the program no-such-program-here is not installed");
}

TEST(Program, ASignalIsToldFromAnExit) {
  EXPECT_EQ(run_program("/bin/sh", {"-c", "kill -9 $$"}).value().exit_code, 137);
}

}  // namespace
}  // namespace haneul::net
