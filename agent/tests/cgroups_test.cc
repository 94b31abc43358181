// SPDX-License-Identifier: Apache-2.0
// What a host without cgroups is told, and the numbers. A real VMM in its cgroup:
// tests/integration/storage_story.sh.
#include "agent/daemon/cgroups.h"

#include <gtest/gtest.h>

#include "base/checked.h"
#include "tests/support/files.h"

namespace haneul::agent {
namespace {

TEST(Cgroups, AHostWithoutThemIsToldApart) {
  haneul::testing::TempFolder folder;
  auto none =
      Cgroups::create(folder.file("mounts", "proc /proc proc rw 0 0\ncgroup /x cgroup rw 0 0\n"), "tag");
  EXPECT_EQ(none.error().message(), "this host has no cgroup version 2");
  EXPECT_EQ(none.error().code(), ErrorCode::kUnsupported);
  // A folder that is no hierarchy: nothing is made in it.
  std::filesystem::create_directory(folder / "cg");
  auto false_one =
      Cgroups::create(folder.file("mounts", "cgroup2 " + (folder / "cg") + " cgroup2 rw 0 0\n"), "tag");
  EXPECT_EQ(false_one.error().code(), ErrorCode::kNotFound);
  EXPECT_FALSE(std::filesystem::exists(folder / "cg/haneul-tag"));
}

TEST(Cgroups, LimitsFollowFromTheType) {
  CgroupLimits limits = limits_for(4_GiB, 2);
  EXPECT_EQ(limits.memory_bytes, 5_GiB + 128_MiB + 30 * 64_MiB);
  EXPECT_EQ(limits.cpus, 3u);
  EXPECT_EQ(limits.pids, 64 + 2 * 4 + 30 * 16u);
}

// Another instance's may be empty because its VMM is just about to enter it.
TEST(Cgroups, OnlyOnesOwnIsDropped) {
  haneul::testing::TempFolder folder;
  std::filesystem::create_directories(folder / "cg/haneul-tag");
  folder.file("cg/cgroup.subtree_control", "");
  folder.file("cg/haneul-tag/cgroup.subtree_control", "");
  auto groups =
      Cgroups::create(folder.file("mounts", "cgroup2 " + (folder / "cg") + " cgroup2 rw 0 0\n"), "tag")
          .value();
  for (const char* id : {"i-1", "i-2"}) std::filesystem::create_directory(groups.folder() / id);
  groups.drop("i-1");
  EXPECT_FALSE(std::filesystem::exists(groups.folder() / "i-1"));
  EXPECT_TRUE(std::filesystem::exists(groups.folder() / "i-2"));
  groups.drop("i-1");
}

}  // namespace
}  // namespace haneul::agent
