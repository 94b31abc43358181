// SPDX-License-Identifier: Apache-2.0
// A real VMM in its jail, seen from outside.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include "base/checked.h"
#include "base/console_ring.h"
#include "base/socket.h"
#include "tests/support/files.h"
#include "vmm/launch/launch.h"

namespace haneul::launch {
namespace {

using ::testing::HasSubstr;

Spec spec_in(const testing::TempFolder& folder, std::string command) {
  Spec spec;
  spec.program = testing::vmm_program();
  spec.uuid = "ec2a6e5c-0000-4000-8000-0123456789ab";
  spec.memory_bytes = 64_MiB;
  spec.kvm = open_file("/dev/kvm", O_RDWR).value();
  spec.kernel = open_file(testing::guest_kernel(), O_RDONLY).value();
  spec.command_line = std::move(command);
  spec.control_socket = folder / "control";
  spec.console_socket = folder / "console";
  spec.console_ring = open_file(folder / "ring", O_RDWR | O_CREAT).value();
  spec.status = open_file(folder / "status", O_RDWR | O_CREAT).value();
  spec.log = open_file(folder / "log", O_RDWR | O_CREAT).value();
  Disk disk;
  disk.id = "vol-1";
  disk.file = open_file(folder.disk("disk", 1_MiB), O_RDWR).value();
  spec.disks.push_back(std::move(disk));
  if (::geteuid() == 0) {
    spec.jail.uid = 65534;
    spec.jail.gid = 65534;
  }
  return spec;
}

TEST(JailedVmm, EveryThreadIsBound) {
  testing::TempFolder folder;
  Spec spec = spec_in(folder, "block requests=100000000 depth=4");
  spec.vcpus = 2;
  UniqueFd ring = open_file(folder / "ring", O_RDWR).value();
  bool root = ::geteuid() == 0;
  auto process = launch(std::move(spec), testing::kPatience);
  ASSERT_TRUE(process.ok()) << process.error().message() << read_file(folder / "log").value();
  std::string proc = fmt::format("/proc/{}", process->pid);
  ASSERT_TRUE(testing::eventually([&] { return read_console_ring(ring.get()).value().starts_with("!"); }));
  // The spawner, control, two vCPUs and the I/O threads: all started by the time the guest uses its disk.
  ASSERT_TRUE(testing::eventually([&] { return testing::entries_of((proc + "/task").c_str()) >= 5; }));
  for (const auto& task : std::filesystem::directory_iterator(proc + "/task")) {
    std::string status = read_file(task.path() / "status").value();
    // A thread is bound by the time it does its first work.
    EXPECT_TRUE(testing::eventually([&] {
      status = read_file(task.path() / "status").value();
      return status.find("Seccomp:\t2\n") != std::string::npos;
    })) << status;
    EXPECT_THAT(status, HasSubstr("NoNewPrivs:\t1\n"));
    for (const char* set : {"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"}) {
      EXPECT_THAT(status, HasSubstr(fmt::format("{}:\t0000000000000000\n", set)));
    }
    if (root) {
      EXPECT_THAT(status, HasSubstr("Uid:\t65534\t65534\t65534\t65534\n"));
      EXPECT_THAT(status, HasSubstr("Gid:\t65534\t65534\t65534\t65534\n"));
    }
  }
  if (root) {
    EXPECT_EQ(testing::entries_of((proc + "/root").c_str()), 0u);
    for (const char* space : {"net", "mnt", "ipc", "uts"}) {
      EXPECT_NE(std::filesystem::read_symlink(proc + "/ns/" + space),
                std::filesystem::read_symlink(std::string("/proc/self/ns/") + space));
    }
  }
  kill_process(*process);
}

// A guest could keep so many of the kernel's workers busy that its VMM may have no more threads.
TEST(JailedVmm, SurvivesThatItMayHaveNoMoreThreads) {
  if (::geteuid() != 0) GTEST_SKIP() << "not root: the limit would count all processes of this user";
  constexpr std::string_view kLimit =
      ".is a limit on threads reached: pids.max of the cgroup, or ulimit -u..: Resource temporarily "
      "unavailable";
  // Control, spawner and a vCPU, and the threads that KVM has of its own: the least with which the guest runs.
  for (rlim_t limit = 1; limit < 10; ++limit) {
    testing::TempFolder folder;
    Spec spec = spec_in(folder, "block wait=1");
    spec.jail.uid = 0x40000000 + static_cast<uid_t>(::getpid());  // a user who has no other process
    rlimit before{};
    ASSERT_EQ(::getrlimit(RLIMIT_NPROC, &before), 0);
    rlimit few{limit, before.rlim_max};
    ASSERT_EQ(::setrlimit(RLIMIT_NPROC, &few), 0);
    auto process = launch(std::move(spec), testing::kPatience);
    ASSERT_EQ(::setrlimit(RLIMIT_NPROC, &before), 0);
    if (!process.ok()) {
      EXPECT_THAT(process.error().message(),
                  ::testing::MatchesRegex(
                      fmt::format("the VMM could not start: .*cannot start the thread '.*' {}", kLimit)));
      continue;
    }
    UniqueFd ring = open_file(folder / "ring", O_RDONLY).value();
    UniqueFd console = connect_unix(folder / "console", SOCK_STREAM).value();
    ASSERT_TRUE(write_all(console.get(), std::as_bytes(std::span("q", 1))).ok());
    pollfd wait{process->pidfd.get(), POLLIN, 0};
    EXPECT_EQ(::poll(&wait, 1, 60'000), 1);
    kill_process(*process);
    UniqueFd status = open_file(folder / "status", O_RDONLY).value();
    Ending ending = read_ending(status.get());
    if (ending.reason == "kvm-error") {
      EXPECT_THAT(ending.detail, ::testing::MatchesRegex(fmt::format("KVM_RUN of vCPU 0 {}", kLimit)));
      continue;
    }
    EXPECT_EQ(ending.reason, "powered-off");
    EXPECT_THAT(read_console_ring(ring.get()).value(), HasSubstr("FAIL the device needs a reset\n"));
    EXPECT_THAT(read_file(folder / "log").value(),
                ::testing::MatchesRegex(
                    fmt::format(".* warn block vol-1: cannot start the thread 'blk vol-1' {}\n", kLimit)));
    return;
  }
  FAIL() << "the guest never ran";
}

}  // namespace
}  // namespace haneul::launch
