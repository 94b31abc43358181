// SPDX-License-Identifier: Apache-2.0
// Linux in our VMM: the tiny image, with Debian's unmodified kernel and with the fast one. A boot takes its
// time where processors are emulated, so one boot tries much: a user-data script in the guest says what it
// sees in lines "T name value;" and waits for what the test does to its machine.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cstdlib>

#include "base/checked.h"
#include "tests/support/files.h"
#include "tests/support/newc.h"
#include "vmm/embed/vm.h"

namespace haneul {
namespace {

using std::chrono::seconds;
using ::testing::HasSubstr;
using ::testing::StartsWith;

constexpr seconds kBoot{300};
constexpr seconds kStep{60};
constexpr std::string_view kVolume = "vol0123456789abcdef0";

constexpr std::string_view kTour = R"sh(#!/bin/sh
exec >/dev/ttyS0 2>&1
wait_for() { until eval "$1"; do usleep 20000; done; }
echo "T cpus $(grep -c '^processor' /proc/cpuinfo);"
echo "T clock $(cat /sys/devices/system/clocksource/clocksource0/current_clocksource);"
echo "T memory_kib $(awk '/^MemTotal/ {print $2}' /proc/meminfo);"
echo "T vendor $(cat /sys/class/dmi/id/sys_vendor);"
echo "T uuid $(cat /sys/class/dmi/id/product_uuid);"
echo "T serial $(cat /sys/class/dmi/id/product_serial);"
echo "T root_serial $(cat /sys/block/vda/serial);"
echo "T generation $(cat /sys/bus/acpi/devices/HNL0001:00/hid);"
echo "T entropy $(head -c 16 /dev/hwrng | wc -c);"
echo "T errors $(dmesg | grep -c -e 'ACPI Error' -e 'ACPI BIOS' -e 'BUG:' -e 'PCI: Fatal');"
echo "T config_space $(dmesg | grep -c 'PCI: Using configuration type 1');"
echo "T described done;"
wait_for '[ -b /dev/vdb ]'
echo "T vdb $(cat /sys/block/vdb/serial) $(cat /sys/block/vdb/size);"
wait_for '[ -e /dev/disk/by-id/virtio-vol0123456789abcdef0 ]'
echo "T link $(readlink -f /dev/disk/by-id/virtio-vol0123456789abcdef0);"
mke2fs -q -F /dev/vdb && mount /dev/vdb /mnt && echo kept >/mnt/file && umount /mnt
echo "T written $?;"
wait_for '[ "$(cat /sys/block/vdb/size)" = 131072 ]'
mount /dev/vdb /mnt && resize2fs /dev/vdb >/dev/null 2>&1
echo "T grown $(cat /mnt/file);"
umount /mnt
wait_for '[ ! -b /dev/vdb ] && [ ! -h /dev/disk/by-id/virtio-vol0123456789abcdef0 ]'
echo "T gone yes;"
wait_for '[ -b /dev/vdb ]'
mount /dev/vdb /mnt
echo "T again $(cat /mnt/file);"
umount /mnt
sync
reboot
)sh";

class LinuxTest : public ::testing::Test {
 protected:
  static std::filesystem::path image(const char* variable) {
    const char* folder = std::getenv(variable);
    return folder != nullptr ? folder : "";
  }

  VmConfig config(const std::filesystem::path& image, std::string_view user_data) {
    testing::NewcArchive about;
    about.folder("etc");
    about.folder("etc/haneul");
    about.file("etc/haneul/instance.env", "INSTANCE_ID='i-0123456789abcdef0'\nHOSTNAME='ip-172-31-0-9'\n");
    about.file("etc/haneul/authorized_keys", "");
    about.file("etc/haneul/user-data", user_data);
    VmConfig config;
    config.kernel = image / "kernel";
    config.initrds = {image / "initrd", folder_.file("about", about.finish())};
    config.command_line = "console=ttyS0 root=/dev/vda quiet panic=1 8250.nr_uarts=1";
    config.memory_bytes = 256_MiB;
    config.disks = {{.path = folder_ / "root", .id = "vol00000000000000001", .base = image / "root.img"}};
    config.reset_ends = false;
    return config;
  }

  /// What the guest said about `name`.
  static std::string said(Vm& vm, std::string_view name) {
    // Not by wait_for_console(): the lines come beside the login prompt, in any order.
    std::string mark = fmt::format("T {} ", name);
    std::string value;
    bool came = testing::eventually([&] {
      std::string text = vm.console();
      size_t at = text.find(mark);
      size_t end = text.find(';', at);
      if (at == std::string::npos || end == std::string::npos) return false;
      value = text.substr(at + mark.size(), end - at - mark.size());
      return true;
    });
    if (!came) return fmt::format("nothing about {}: {}", name, vm.console());
    return value;
  }

  testing::TempFolder folder_;
};

TEST_F(LinuxTest, DebiansKernelLivesAWholeLife) {
  std::filesystem::path tiny = image("HANEUL_TINY");
  ASSERT_TRUE(std::filesystem::exists(tiny / "image.json")) << "no image in " << tiny;
  VmConfig machine = config(tiny, kTour);
  machine.vcpus = 2;
  auto vm = Vm::launch(machine);
  ASSERT_TRUE(vm.ok()) << vm.error().message();
  Status up = vm->wait_for_console("ip-172-31-0-9 login: ", kBoot);
  ASSERT_TRUE(up.ok()) << up.error().message();

  // What the processor, the memory map, ACPI and SMBIOS told the kernel.
  EXPECT_EQ(said(*vm, "cpus"), "2");
  EXPECT_EQ(said(*vm, "clock"), "kvm-clock");
  int memory_kib = std::atoi(said(*vm, "memory_kib").c_str());
  EXPECT_GT(memory_kib, 200 << 10);
  EXPECT_LT(memory_kib, 256 << 10);
  EXPECT_NE(said(*vm, "vendor"), "");
  EXPECT_THAT(said(*vm, "uuid"), StartsWith("ec2"));
  EXPECT_THAT(said(*vm, "serial"), StartsWith("ec2"));
  EXPECT_EQ(said(*vm, "root_serial"), "vol00000000000000001");
  // The kernel has found the machine's generation ID; this one has the driver for it as a module, not in the image.
  EXPECT_EQ(said(*vm, "generation"), "HNL0001");
  EXPECT_EQ(said(*vm, "entropy"), "16");
  EXPECT_EQ(said(*vm, "errors"), "0");
  EXPECT_EQ(said(*vm, "config_space"), "1");
  ASSERT_EQ(said(*vm, "described"), "done");

  // A disk comes, grows, goes, and comes again.
  VmDisk volume{.path = folder_.disk("data", 32_MiB), .id = std::string(kVolume)};
  auto before = std::chrono::steady_clock::now();
  ASSERT_TRUE(vm->attach_disk(volume).ok());
  EXPECT_EQ(said(*vm, "vdb"), fmt::format("{} 65536", kVolume));
  std::chrono::duration<double> took = std::chrono::steady_clock::now() - before;
  std::printf("the guest had the new disk after %.3f s\n", took.count());
  EXPECT_EQ(said(*vm, "link"), "/dev/vdb");
  EXPECT_EQ(said(*vm, "written"), "0");
  ASSERT_TRUE(vm->resize_disk(kVolume, 64_MiB).ok());
  EXPECT_EQ(said(*vm, "grown"), "kept");
  Status gone = vm->detach_disk(kVolume, false, kStep);
  EXPECT_TRUE(gone.ok()) << gone.error().message();
  EXPECT_EQ(said(*vm, "gone"), "yes");
  ASSERT_TRUE(vm->attach_disk(volume).ok());
  EXPECT_EQ(said(*vm, "again"), "kept");

  // The script reboots; the next machine has the same disks.
  up = vm->wait_for_console("ip-172-31-0-9 login: ", kBoot);
  ASSERT_TRUE(up.ok()) << up.error().message();
  EXPECT_EQ(vm->disk_ids().size(), 2u);
  ASSERT_TRUE(vm->press_power_button().ok());
  auto end = vm->wait(kStep);
  ASSERT_TRUE(end.ok()) << end.error().message() << vm->console();
  EXPECT_EQ(end->reason, "powered-off") << end->detail;
}

TEST_F(LinuxTest, TheFastKernelBootsAndPowersOff) {
  std::filesystem::path tiny = image("HANEUL_TINY_FAST");
  if (!std::filesystem::exists(tiny / "image.json"))
    GTEST_SKIP() << "no image in " << tiny << ": ./check integration makes it";
  auto vm = Vm::launch(config(tiny, "#!/bin/sh\necho \"T fast $(uname -s);\" >/dev/ttyS0\n"));
  ASSERT_TRUE(vm.ok()) << vm.error().message();
  Status up = vm->wait_for_console("ip-172-31-0-9 login: ", kBoot);
  ASSERT_TRUE(up.ok()) << up.error().message();
  EXPECT_EQ(said(*vm, "fast"), "Linux");
  ASSERT_TRUE(vm->press_power_button().ok());
  auto end = vm->wait(kStep);
  ASSERT_TRUE(end.ok()) << end.error().message() << vm->console();
  EXPECT_EQ(end->reason, "powered-off") << end->detail;
}

}  // namespace
}  // namespace haneul
