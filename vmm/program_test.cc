// SPDX-License-Identifier: Apache-2.0
// haneul-vmm as it is used by hand: its exit statuses and what it says.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include <functional>

#include "base/checked.h"
#include "tests/support/files.h"

namespace haneul {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

struct Outcome {
  int status = -1;
  std::string output;
  std::string errors;
};

class ProgramTest : public ::testing::Test {
 protected:
  /// `prepare` runs in the child before the program; false: it cannot be had here (status 99).
  Outcome run(std::vector<std::string> words, const std::function<bool()>& prepare = {}) {
    words.insert(words.begin(), testing::vmm_program());
    std::vector<char*> argv;
    for (std::string& word : words) argv.push_back(word.data());
    argv.push_back(nullptr);
    UniqueFd out = open_file(folder_ / "out", O_RDWR | O_CREAT | O_TRUNC).value();
    UniqueFd err = open_file(folder_ / "err", O_RDWR | O_CREAT | O_TRUNC).value();
    pid_t child = ::fork();
    if (child == 0) {
      ::dup2(out.get(), STDOUT_FILENO);
      ::dup2(err.get(), STDERR_FILENO);
      if (prepare && !prepare()) ::_exit(99);
      ::execv(argv[0], argv.data());
      ::_exit(98);
    }
    int status = 0;
    EXPECT_EQ(::waitpid(child, &status, 0), child);
    return {WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status),
            read_file(folder_ / "out").value(), read_file(folder_ / "err").value()};
  }
  static std::vector<std::string> guest(std::string command) {
    return {"--kernel", testing::guest_kernel(), "--memory", "64M", "--console", "--cmdline", command};
  }

  testing::TempFolder folder_;
};

TEST_F(ProgramTest, AGoodEndIsStatus0) {
  Outcome outcome = run(guest("hello"));
  EXPECT_EQ(outcome.status, 0);
  EXPECT_EQ(outcome.output, "!hello\ndone\n");
  EXPECT_EQ(outcome.errors, "");
}

TEST_F(ProgramTest, TheSameInTheJail) {
  auto words = guest("block requests=10 check=1");
  words.insert(words.end(), {"--jail", "--disk", "file=" + folder_.disk("disk", 1_MiB) + ",id=vol-1",
                             "--status", folder_ / "status"});
  Outcome outcome = run(words);
  EXPECT_EQ(outcome.status, 0) << outcome.errors;
  EXPECT_EQ(outcome.output, "!verified=40960\ndone\n");
  EXPECT_EQ(read_file(folder_ / "status").value(), "{\"reason\":\"powered-off\",\"detail\":\"\"}\n");
}

TEST_F(ProgramTest, AFailureIsStatus1) {
  Outcome outcome = run({"--kernel", folder_.file("text", "hello"), "--status", folder_ / "status"});
  EXPECT_EQ(outcome.status, 1);
  EXPECT_EQ(outcome.errors,
            "haneul-vmm: the kernel cannot be used: it is neither an ELF vmlinux nor a bzImage\n");
  EXPECT_EQ(read_file(folder_ / "status").value(),
            "{\"reason\":\"failed\",\"detail\":\"the kernel cannot be used: it is neither an ELF vmlinux nor "
            "a bzImage\"}\n");
}

TEST_F(ProgramTest, WrongUsageIsStatus2) {
  Outcome outcome = run({"--vcpus", "many"});
  EXPECT_EQ(outcome.status, 2);
  EXPECT_EQ(outcome.errors, "haneul-vmm: --vcpus: 'many' is not a number\nSee haneul-vmm --help.\n");
}

TEST_F(ProgramTest, AGuestsFaultIsStatus4) {
  Outcome outcome = run(guest("3fault"));
  EXPECT_EQ(outcome.status, 4);
  EXPECT_TRUE(outcome.errors.starts_with("haneul-vmm: triple-fault: ") ||
              outcome.errors.starts_with("haneul-vmm: kvm-error: "))
      << outcome.errors;
}

TEST_F(ProgramTest, HelpAndVersion) {
  Outcome help = run({"--help"});
  EXPECT_EQ(help.status, 0);
  EXPECT_THAT(help.output, StartsWith("Usage: haneul-vmm --kernel FILE [OPTION...]\n"));
  Outcome version = run({"--version"});
  EXPECT_EQ(version.status, 0);
  EXPECT_THAT(version.output, ::testing::MatchesRegex("haneul-vmm [0-9]+\\.[0-9]+\\.[0-9]+\n"));
}

TEST_F(ProgramTest, TheProbeHasAVerdict) {
  Outcome outcome = run({"--probe"});
  if (outcome.status == 0) {
    EXPECT_EQ(outcome.output, "this KVM runs Linux guests\n");
  } else {
    EXPECT_EQ(outcome.status, 3);
    EXPECT_THAT(
        outcome.errors,
        ::testing::MatchesRegex("haneul-vmm: this machine's /dev/kvm cannot run Linux guests: it stops at "
                                "an instruction that every kernel uses .exit reason [0-9]+.; it has no "
                                "hardware virtualization behind it\n"));
  }
}

// ---- machines without a usable KVM, in a mount namespace of the child's ----

bool own_mounts() {
  int spaces = CLONE_NEWNS | (::geteuid() == 0 ? 0 : CLONE_NEWUSER);
  return ::unshare(spaces) == 0 && ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0;
}

#define RUN_OR_SKIP(outcome, words, ...)     \
  Outcome outcome = run(words, __VA_ARGS__); \
  if (outcome.status == 99) GTEST_SKIP() << "no mount namespace can be made here"

TEST_F(ProgramTest, NoKvmIsStatus3) {
  RUN_OR_SKIP(outcome, guest("hello"),
              [] { return own_mounts() && ::mount("none", "/dev", "tmpfs", 0, nullptr) == 0; });
  EXPECT_EQ(outcome.status, 3);
  EXPECT_EQ(
      outcome.errors,
      "haneul-vmm: this machine offers no virtualization: load kvm_intel or kvm_amd, or switch it on in the "
      "firmware: cannot open /dev/kvm: No such file or directory\n");
}

TEST_F(ProgramTest, NoPermissionIsStatus3) {
  // Devices do not open on a mount that forbids them, for root neither.
  RUN_OR_SKIP(outcome, guest("hello"), [] {
    return own_mounts() && ::mount("/dev/kvm", "/dev/kvm", nullptr, MS_BIND, nullptr) == 0 &&
           ::mount(nullptr, "/dev/kvm", nullptr, MS_REMOUNT | MS_BIND | MS_NODEV | MS_NOSUID | MS_NOEXEC,
                   nullptr) == 0;
  });
  EXPECT_EQ(outcome.status, 3);
  EXPECT_EQ(outcome.errors,
            "haneul-vmm: add yourself to the group kvm (usermod -aG kvm USER) and log in again: cannot open "
            "/dev/kvm: Permission denied\n");
}

TEST_F(ProgramTest, SomethingElseInPlaceOfKvmIsStatus3) {
  RUN_OR_SKIP(outcome, guest("hello"), [] {
    return own_mounts() && ::mount("/dev/null", "/dev/kvm", nullptr, MS_BIND, nullptr) == 0;
  });
  EXPECT_EQ(outcome.status, 3);
  EXPECT_THAT(outcome.errors, HasSubstr("the KVM descriptor is not /dev/kvm"));
}

}  // namespace
}  // namespace haneul
