// SPDX-License-Identifier: Apache-2.0
// A file system that is soon full.
#pragma once

#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include <functional>
#include <string>

namespace haneul::storage::testing {

/// Runs it in a process of its own that has a tmpfs of three megabytes in the folder. It tells in its exit status what
/// did not hold, 0 for nothing; 100 is "no mounts here".
inline int on_small_file_system(const std::string& folder, const std::function<int()>& work) {
  pid_t child = ::fork();
  if (child == 0) {
    // A mount of the child's own: with a user namespace where that takes one.
    bool own = ::unshare(CLONE_NEWNS) == 0 || ::unshare(CLONE_NEWUSER | CLONE_NEWNS) == 0;
    if (!own || ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) ::_exit(100);
    if (::mount("full", folder.c_str(), "tmpfs", 0, "size=3m") != 0) ::_exit(100);
    ::_exit(work());
  }
  int status = 0;
  EXPECT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status)) << WTERMSIG(status);
  return WEXITSTATUS(status);
}

}  // namespace haneul::storage::testing
