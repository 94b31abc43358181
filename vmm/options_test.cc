// SPDX-License-Identifier: Apache-2.0
#include "vmm/options.h"

#include <gtest/gtest.h>

#include <fcntl.h>

#include "base/checked.h"
#include "base/file.h"
#include "tests/support/files.h"

namespace haneul::vmm {
namespace {

Result<Options> parse(std::vector<std::string> words) {
  words.insert(words.begin(), "haneul-vmm");
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  return parse_options(static_cast<int>(words.size()), argv.data());
}

std::string error_of(std::vector<std::string> words) {
  auto options = parse(std::move(words));
  if (options.ok()) return "it was taken";
  EXPECT_EQ(options.error().code(), ErrorCode::kInvalidArgument) << options.error().message();
  return options.error().message();
}

TEST(Options, AWholeMachine) {
  testing::TempFolder folder;
  std::string file = folder.disk("file", 4096);
  Options options = parse({"--kernel",
                           file,
                           "--initrd",
                           file,
                           "--initrd",
                           file,
                           "--cmdline",
                           "a b=c",
                           "--memory",
                           "3G",
                           "--vcpus",
                           "4",
                           "--disk",
                           "file=" + file + ",id=vol-1",
                           "--disk",
                           "layer=" + file + ",format=volume,base=" + file + ",ro",
                           "--uuid",
                           "ec2",
                           "--product",
                           "t2.micro",
                           "--huge-pages",
                           "--no-entropy",
                           "--paused",
                           "--reset-ends",
                           "--jail",
                           "--uid",
                           "7",
                           "--gid",
                           "8",
                           "--status",
                           folder / "status",
                           "--console"})
                        .value();
  const MachineConfig& machine = options.runner.machine;
  EXPECT_TRUE(machine.kernel);
  EXPECT_EQ(machine.initrds.size(), 2u);
  EXPECT_EQ(machine.command_line, "a b=c");
  EXPECT_EQ(machine.memory_bytes, 3_GiB);
  EXPECT_EQ(machine.vcpus, 4u);
  ASSERT_EQ(machine.disks.size(), 2u);
  EXPECT_EQ(machine.disks[0].id, "vol-1");
  EXPECT_EQ(machine.disks[0].format, launch::DiskFormat::kRaw);
  EXPECT_FALSE(machine.disks[0].read_only);
  EXPECT_EQ(machine.disks[1].format, launch::DiskFormat::kVolume);
  EXPECT_TRUE(machine.disks[1].base);
  EXPECT_TRUE(machine.disks[1].read_only);
  EXPECT_EQ(machine.uuid, "ec2");
  EXPECT_EQ(machine.product, "t2.micro");
  EXPECT_TRUE(machine.huge_pages);
  EXPECT_FALSE(machine.entropy);
  EXPECT_TRUE(options.runner.start_paused);
  EXPECT_TRUE(options.runner.reset_ends);
  EXPECT_TRUE(options.jail && options.filter);
  EXPECT_EQ(options.uid, 7u);
  EXPECT_EQ(options.gid, 8u);
  EXPECT_TRUE(options.status);
  EXPECT_TRUE(options.console_to_stdout);
}

TEST(Options, ANetworkInterface) {
  UniqueFd tap = make_memfd("tap").value();
  std::string text = fmt::format("tap=fd:{},mac=02:00:0A:0b:fe:ff,mtu=9001", tap.release());
  Options options = parse({"--kernel", "/dev/null", "--net", text}).value();
  const launch::Nic& nic = options.runner.machine.nics.at(0);
  EXPECT_EQ(nic.mac, (std::array<uint8_t, 6>{2, 0, 10, 11, 254, 255}));
  EXPECT_EQ(nic.mtu, 9001);
}

TEST(Options, WhatTakesNoMachine) {
  EXPECT_EQ(parse({"--help"}).value().action, Options::Action::kHelp);
  EXPECT_EQ(parse({"--version"}).value().action, Options::Action::kVersion);
  EXPECT_EQ(parse({"--probe"}).value().action, Options::Action::kProbe);
}

TEST(Options, EveryMistakeIsNamed) {
  EXPECT_EQ(error_of({}), "--kernel is missing");
  EXPECT_EQ(error_of({"--nonsense"}), "there is no option --nonsense");
  EXPECT_EQ(error_of({"--memory"}), "--memory needs a value");
  EXPECT_EQ(error_of({"stray"}), "'stray' is not an option");
  EXPECT_EQ(error_of({"--memory", "much"}), "--memory: 'much' is not a number");
  EXPECT_EQ(error_of({"--memory", ""}), "--memory: '' is not a number");
  EXPECT_EQ(error_of({"--memory", "-1"}), "--memory: '-1' is not a number");
  EXPECT_EQ(error_of({"--memory", "99999999T"}), "--memory: '99999999T' is not a size that fits in 64 bits");
  EXPECT_EQ(error_of({"--vcpus", "two"}), "--vcpus: 'two' is not a number");
  EXPECT_EQ(error_of({"--vcpus", "99999999999"}), "--vcpus: '99999999999' is not a number");
  EXPECT_EQ(error_of({"--kernel", "fd:987"}), "--kernel: --kernel: 'fd:987' is not an open descriptor");
  EXPECT_EQ(error_of({"--kvm-fd", "x"}), "--kvm-fd: 'x' is not a number");
}

TEST(Options, DisksAndInterfacesAreComplete) {
  constexpr std::string_view kDisk =
      "' is not file=FILE or layer=FILE..., with format=raw|volume, base=FILE, keys=fd:N, id=TEXT, "
      "ro";
  for (std::string text : {"size=1", "file=a,format=qcow2", "file=a,ro=1", ",", "file=a,,"}) {
    EXPECT_EQ(error_of({"--disk", text}), fmt::format("--disk: '{}{}", text, kDisk));
  }
  EXPECT_EQ(error_of({"--disk", "format=volume"}),
            "--disk: 'format=volume' is not complete: layer=FILE is missing");
  EXPECT_EQ(error_of({"--disk", "format=volume,layer=/dev/null,file=/dev/null"}),
            fmt::format("--disk: 'format=volume,layer=/dev/null,file=/dev/null{}", kDisk));
  EXPECT_EQ(error_of({"--disk", "file=/dev/null,layer=/dev/null"}),
            fmt::format("--disk: 'file=/dev/null,layer=/dev/null{}", kDisk));
  EXPECT_EQ(error_of({"--disk", "id=vol-1"}), "--disk: 'id=vol-1' is not complete: file=FILE is missing");
  EXPECT_EQ(error_of({"--net", "mtu=1500"}), "--net: 'mtu=1500' is not complete: tap=fd:N is missing");
  EXPECT_EQ(error_of({"--net", "tap=tap0"}),
            "--net: 'tap=tap0' is not tap=fd:N[,mac=AA:BB:CC:DD:EE:FF][,mtu=N]");
  for (std::string mac : {"02:00:00:00:00", "02-00-00-00-00-01", "02:00:00:00:00:0g", "2:0:0:0:0:0:0:0:0"}) {
    EXPECT_EQ(error_of({"--net", "mac=" + mac}), fmt::format("--net: '{}' is not a MAC address", mac));
  }
  EXPECT_EQ(error_of({"--net", "mtu=65536"}), "--net: '65536' is not a number");
}

TEST(Options, AVolumeHasItsLayersAndTheirKeys) {
  testing::TempFolder folder;
  std::string lower = folder.disk("lower", 4096);
  std::string upper = folder.disk("upper", 4096);
  std::string records(130, '\0');
  records[65] = 1;
  std::fill(records.begin() + 66, records.end(), 'k');
  UniqueFd keys = make_memfd("keys").value();
  write_all(keys.get(), std::as_bytes(std::span(records))).value();
  int passed = keys.release();
  Options options =
      parse({"--kernel", "/dev/null", "--disk",
             fmt::format("format=volume,id=vol1,layer={},layer={},keys=fd:{}", lower, upper, passed)})
          .value();
  const launch::Disk& disk = options.runner.machine.disks.at(0);
  EXPECT_EQ(disk.format, launch::DiskFormat::kVolume);
  ASSERT_EQ(disk.layers.size(), 2u);
  EXPECT_EQ(::fcntl(disk.layers[0].file.get(), F_GETFL) & O_ACCMODE, O_RDONLY);
  EXPECT_EQ(::fcntl(disk.layers[1].file.get(), F_GETFL) & O_ACCMODE, O_RDWR);
  EXPECT_FALSE(disk.layers[0].key);
  ASSERT_TRUE(disk.layers[1].key);
  EXPECT_EQ(disk.layers[1].key->front(), 'k');
  EXPECT_EQ(disk.layers[1].key->back(), 'k');
}

TEST(Options, AFileThatIsNotThere) {
  auto options = parse({"--kernel", "/nowhere/kernel"});
  ASSERT_FALSE(options.ok());
  EXPECT_EQ(options.error().message(), "--kernel: cannot open /nowhere/kernel: No such file or directory");
}

}  // namespace
}  // namespace haneul::vmm
