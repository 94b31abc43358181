// SPDX-License-Identifier: Apache-2.0
// A real VMM in its jail, seen from outside.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/checked.h"
#include "base/console_ring.h"
#include "tests/support/files.h"
#include "vmm/launch/launch.h"

namespace haneul::launch {
namespace {

using ::testing::HasSubstr;

TEST(JailedVmm, EveryThreadIsBound) {
  testing::TempFolder folder;
  UniqueFd ring = open_file(folder / "ring", O_RDWR | O_CREAT).value();
  Spec spec;
  spec.program = testing::vmm_program();
  spec.uuid = "ec2a6e5c-0000-4000-8000-0123456789ab";
  spec.memory_bytes = 64_MiB;
  spec.vcpus = 2;
  spec.kvm = open_file("/dev/kvm", O_RDWR).value();
  spec.kernel = open_file(testing::guest_kernel(), O_RDONLY).value();
  spec.command_line = "block requests=100000000 depth=4";
  spec.control_socket = folder / "control";
  spec.console_socket = folder / "console";
  spec.console_ring = open_file(folder / "ring", O_RDWR).value();
  spec.status = open_file(folder / "status", O_RDWR | O_CREAT).value();
  spec.log = open_file(folder / "log", O_RDWR | O_CREAT).value();
  Disk disk;
  disk.id = "vol-1";
  disk.file = open_file(folder.disk("disk", 1_MiB), O_RDWR).value();
  spec.disks.push_back(std::move(disk));
  bool root = ::geteuid() == 0;
  if (root) {
    spec.jail.uid = 65534;
    spec.jail.gid = 65534;
  }
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

}  // namespace
}  // namespace haneul::launch
