// SPDX-License-Identifier: Apache-2.0
// Volumes in a machine: the library's, and those of a jailed haneul-vmm process.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "base/checked.h"
#include "base/console_ring.h"
#include "storage/volume/volume.h"
#include "tests/support/files.h"
#include "vmm/embed/vm.h"
#include "vmm/launch/launch.h"

namespace haneul {
namespace {

using testing::eventually;
using ::testing::HasSubstr;
using testing::kPatience;
using testing::TempFolder;

class VolumeTest : public ::testing::Test {
 protected:
  static VmConfig config(std::string command, std::vector<VmDisk> disks) {
    VmConfig config;
    config.kernel = testing::guest_kernel();
    config.command_line = std::move(command);
    config.memory_bytes = 64_MiB;
    config.disks = std::move(disks);
    return config;
  }
  VmDisk disk(std::string name) {
    return {.path = folder_ / name, .id = "vol-1", .base = folder_.file("base", std::string(4_MiB, 'b'))};
  }
  std::string path(std::string_view name, int number) { return folder_ / fmt::format("{}{}", name, number); }
  /// The same disk, standing on these many layers.
  VmDisk disk_on(int layers) {
    VmDisk whole = disk("top0");
    for (int i = 0; i < layers; ++i) whole.layers.push_back(path("top", i));
    whole.path = path("top", layers);
    return whole;
  }

  /// The disk's first bytes, read through its layers up to this one.
  std::string content(int layers, size_t bytes) {
    std::vector<storage::StackDescriptor> stack;
    for (int i = 0; i <= layers; ++i)
      stack.push_back({open_file(path("top", i), O_RDONLY).value(), std::nullopt});
    storage::VolumeOptions options;
    options.read_only = true;
    auto volume =
        storage::open_volume(open_file(folder_ / "base", O_RDONLY).value(), std::move(stack), options);
    if (!volume.ok()) return volume.error().message();
    return read_whole(**volume, bytes);
  }
  static std::string read_whole(storage::BlockBackend& disk, size_t bytes) {
    struct Request final : storage::BlockRequest {
      void completed(storage::BlockStatus result) override { status = result; }
      std::optional<storage::BlockStatus> status;
    } request;
    std::string text(bytes, '\0');
    iovec piece{text.data(), bytes};
    request.length = bytes;
    request.data = std::span(&piece, 1);
    auto ring = storage::IoRing::create(8).value();
    auto channel = disk.open_channel(*ring);
    channel->submit(request);
    while (!request.status) CHECK(ring->run_once().ok());
    CHECK(*request.status == storage::BlockStatus::kOk);
    return text;
  }

  TempFolder folder_;
};

TEST_F(VolumeTest, TheBaseIsUntouchedAndTheSecondMachineFindsWhatTheFirstWrote) {
  for (int i = 0; i < 2; ++i) {
    auto vm = Vm::launch(config("block requests=100 check=1", {disk("top0")})).value();
    ASSERT_TRUE(vm.wait(kPatience).ok());
    EXPECT_THAT(vm.console(), HasSubstr("verified=409600\n"));
  }
  EXPECT_TRUE(read_file(folder_ / "base").value() == std::string(4_MiB, 'b'));
  std::string first = content(0, 400 << 10);
  EXPECT_FALSE(first == std::string(400 << 10, 'b'));
}

TEST_F(VolumeTest, SnapshotsDuringItsWritesDisturbNothing) {
  VmConfig busy = config("block requests=1000 check=1 stay=1", {disk("top0")});
  busy.vcpus = 2;
  auto vm = Vm::launch(busy).value();
  int taken = 0;
  while (vm.console().find("verified=") == std::string::npos && taken < 200) {
    auto stalled = vm.snapshot_disk("vol-1", path("top", taken + 1));
    ASSERT_TRUE(stalled.ok()) << stalled.error().message();
    ++taken;
  }
  ASSERT_TRUE(vm.wait_for_console("verified=4096000\n", kPatience).ok());
  ASSERT_GT(taken, 1);
  ASSERT_TRUE(vm.stop().ok());
  ASSERT_TRUE(vm.wait(kPatience).ok());
  // Once more from all its layers, to the same end.
  auto again = Vm::launch(config("block requests=1000 check=1", {disk_on(taken)})).value();
  ASSERT_TRUE(again.wait(kPatience).ok());
  EXPECT_THAT(again.console(), HasSubstr("verified=4096000\n"));
}

TEST_F(VolumeTest, ASnapshotNeverChangesAgain) {
  {
    auto vm = Vm::launch(config("block requests=64 check=1 stay=1", {disk("top0")})).value();
    ASSERT_TRUE(vm.wait_for_console("verified=", kPatience).ok());
    ASSERT_TRUE(vm.snapshot_disk("vol-1", path("top", 1)).ok());
  }
  std::string before = content(0, 256 << 10);
  EXPECT_TRUE(content(1, 256 << 10) == before);
  {
    auto second = Vm::launch(config("block requests=500 depth=8 write=1", {disk_on(1)})).value();
    ASSERT_TRUE(second.wait(kPatience).ok());
  }
  EXPECT_TRUE(content(0, 256 << 10) == before);
  EXPECT_FALSE(content(1, 256 << 10) == before);
}

TEST_F(VolumeTest, AMachineThatStartsOverHasTheNewLayersToo) {
  VmConfig again = config("reset", {disk("top0")});
  again.reset_ends = false;
  {
    auto vm = Vm::launch(again).value();
    for (int i = 1; i <= 10; ++i) {
      auto stalled = vm.snapshot_disk("vol-1", path("top", i));
      ASSERT_TRUE(stalled.ok()) << stalled.error().message();
      ASSERT_TRUE(vm.wait_for_console("!!", kPatience).ok());
    }
    ASSERT_TRUE(vm.stop().ok());
    ASSERT_TRUE(vm.wait(kPatience).ok());
  }
  EXPECT_TRUE(content(10, 4096) == std::string(4096, 'b'));
}

TEST_F(VolumeTest, WhatIsNoVolumeHasNoSnapshots) {
  std::vector<VmDisk> disks = {{.path = folder_.disk("raw", 1_MiB), .id = "vol-raw"}};
  auto vm = Vm::launch(config("spin", disks)).value();
  EXPECT_EQ(vm.snapshot_disk("vol-raw", folder_ / "new").error().message(),
            "the disk vol-raw is not copy-on-write");
  EXPECT_EQ(vm.snapshot_disk("vol-2", folder_ / "new").error().message(), "no disk vol-2 is attached");
  EXPECT_FALSE(std::filesystem::exists(folder_ / "new"));
}

TEST_F(VolumeTest, ASnapshotThatFailsLeavesNoFile) {
  { auto first = Vm::launch(config("spin", {disk("top0")})).value(); }
  VmDisk fixed = disk("top0");
  fixed.read_only = true;
  auto vm = Vm::launch(config("spin", {fixed})).value();
  auto refused = vm.snapshot_disk("vol-1", path("top", 1));
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().message(), "a volume that is open for reading only keeps its layers");
  EXPECT_FALSE(std::filesystem::exists(path("top", 1)));

  std::string theirs = folder_.file("theirs", "not ours");
  EXPECT_FALSE(vm.snapshot_disk("vol-1", theirs).ok());
  EXPECT_EQ(read_file(theirs).value(), "not ours");
}

TEST_F(VolumeTest, OneSnapshotOfADiskAtATime) {
  auto vm = Vm::launch(config("block requests=1000 check=1 stay=1", {disk("top0")})).value();
  std::atomic<int> taken = 0;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 10; ++i) {
        std::string file = folder_ / fmt::format("snapshot{}-{}", t, i);
        auto stalled = vm.snapshot_disk("vol-1", file);
        EXPECT_EQ(std::filesystem::exists(file), stalled.ok());
        if (stalled.ok()) ++taken;
        if (stalled.ok()) continue;
        EXPECT_EQ(stalled.error().code(), ErrorCode::kBusy) << stalled.error().message();
        EXPECT_EQ(stalled.error().message(),
                  "another snapshot of the disk vol-1 is under way: wait for its end");
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_GT(taken, 0);
  EXPECT_TRUE(vm.wait_for_console("verified=4096000\n", kPatience).ok());
}

/// A process as the daemon starts it.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kSanitized = true;
#else
constexpr bool kSanitized = false;
#endif

class JailedVolumeTest : public VolumeTest {
 protected:
  JailedVolumeTest() {
    ring_ = open_file(folder_ / "ring", O_RDWR | O_CREAT).value();
    status_ = open_file(folder_ / "status", O_RDWR | O_CREAT).value();
  }
  void SetUp() override {
    if (kSanitized) GTEST_SKIP() << "the sandbox has no room for a sanitizer's own system calls";
  }
  ~JailedVolumeTest() override {
    if (process_.pidfd) kill_process(process_);
  }
  UniqueFd again(std::string_view name) { return open_file(folder_ / name, O_RDWR).value(); }

  /// An empty layer in a new file, on this parent.
  storage::LayerId make(int number, const storage::LayerId& parent,
                        std::optional<storage::LayerKey> key = {}) {
    storage::NewLayer layer;
    layer.id = storage::random_layer_id();
    layer.parent = parent;
    layer.size_bytes = size_bytes_;
    layer.salt.fill(7);
    layer.key = key;
    if (!key) layer.salt = {};
    UniqueFd file = open_file(path("top", number), O_RDWR | O_CREAT).value();
    EXPECT_TRUE(storage::create_layer(file.get(), layer).ok());
    return layer.id;
  }
  launch::Layer opened(int number, int access, std::optional<storage::LayerKey> key = {}) {
    return {open_file(path("top", number), access).value(), key};
  }
  void start(std::string command, std::vector<launch::Layer> layers) {
    launch::Spec spec;
    spec.program = testing::vmm_program();
    spec.instance_id = "i-0123456789abcdef0";
    spec.uuid = "ec2a6e5c-0000-4000-8000-0123456789ab";
    spec.memory_bytes = 64_MiB;
    spec.kvm = open_file("/dev/kvm", O_RDWR).value();
    spec.kernel = open_file(testing::guest_kernel(), O_RDONLY).value();
    spec.command_line = std::move(command);
    spec.control_socket = folder_ / "control";
    spec.console_socket = folder_ / "console";
    spec.console_ring = again("ring");
    spec.status = again("status");
    spec.log = open_file(folder_ / "log", O_RDWR | O_CREAT).value();
    if (::geteuid() == 0) spec.jail.uid = spec.jail.gid = 65534;
    if (!layers.empty()) {
      launch::Disk disk;
      disk.id = "vol-1";
      disk.format = launch::DiskFormat::kVolume;
      disk.layers = std::move(layers);
      spec.disks.push_back(std::move(disk));
    }
    auto process = launch::launch(std::move(spec), kPatience);
    ASSERT_TRUE(process.ok()) << process.error().message() << read_file(folder_ / "log").value();
    process_ = std::move(process).value();
  }
  launch::VmmClient client() { return launch::VmmClient::connect(folder_ / "control").value(); }
  bool console_says(std::string_view text) {
    return eventually([&] { return read_console_ring(ring_.get()).value().find(text) != std::string::npos; });
  }
  Result<std::chrono::microseconds> push(launch::VmmClient& vmm, std::string disk, launch::Layer layer) {
    std::vector<launch::VmmClient::PushLayer> pushes;
    pushes.push_back({std::move(disk), std::move(layer)});
    return vmm.push_layers(std::move(pushes));
  }

  uint64_t size_bytes_ = 4_MiB;
  UniqueFd ring_;
  UniqueFd status_;
  launch::Process process_;
};

TEST_F(JailedVolumeTest, ALayerIsPushedOverTheControlSocket) {
  storage::LayerId below = make(0, {});
  make(1, below);
  std::vector<launch::Layer> layers;
  layers.push_back(opened(0, O_RDWR));
  start("block requests=1000 check=1 stay=1", std::move(layers));
  launch::VmmClient vmm = client();
  auto stalled = push(vmm, "vol-1", opened(1, O_RDWR));
  ASSERT_TRUE(stalled.ok()) << stalled.error().message() << read_file(folder_ / "log").value();
  EXPECT_TRUE(console_says("verified=4096000\n"));
  // Told again by a daemon that does not know: nothing happens.
  auto again = push(vmm, "vol-1", opened(1, O_RDWR));
  EXPECT_TRUE(again.ok()) << again.error().message();
  UniqueFd frozen = open_file(path("top", 0), O_RDONLY).value();
  EXPECT_TRUE(storage::read_layer_info(frozen.get()).value().frozen);
  EXPECT_EQ(push(vmm, "vol-2", opened(1, O_RDWR)).error().message(), "no disk vol-2 is attached");
  make(2, below);
  EXPECT_FALSE(push(vmm, "vol-1", opened(2, O_RDWR)).ok()) << "its parent is not the top";
  EXPECT_EQ(vmm.state().value(), "running");
}

// Requests that meet are carried out one after the other, none is refused, and each may begin with layers that the disk
// has already: so whoever asks need not know how far another came.
TEST_F(JailedVolumeTest, PushesThatMeetAreCarriedOutInOrder) {
  constexpr int kRounds = 10;
  storage::LayerId parent = make(0, {});
  for (int i = 1; i <= 2 * kRounds; ++i) parent = make(i, parent);
  std::vector<launch::Layer> layers;
  layers.push_back(opened(0, O_RDWR));
  start("block requests=1000 check=1 stay=1", std::move(layers));
  auto push_to = [&](launch::VmmClient& vmm, int from, int to) {
    std::vector<launch::VmmClient::PushLayer> pushes;
    for (int i = from; i <= to; ++i) pushes.push_back({"vol-1", opened(i, O_RDWR)});
    auto pushed = vmm.push_layers(std::move(pushes));
    EXPECT_TRUE(pushed.ok()) << pushed.error().message();
  };
  launch::VmmClient first = client();
  launch::VmmClient second = client();
  for (int round = 0; round < kRounds; ++round) {
    const int done = round * 2;
    std::thread one([&] { push_to(first, done + 1, done + 1); });
    push_to(second, std::max(1, done), done + 2);
    one.join();
  }
  EXPECT_TRUE(console_says("verified=4096000\n"));
  for (int i = 0; i < 2 * kRounds; ++i) {
    UniqueFd file = open_file(path("top", i), O_RDONLY).value();
    EXPECT_TRUE(storage::read_layer_info(file.get()).value().frozen) << i;
  }
  EXPECT_EQ(first.state().value(), "running");
}

// More than a thousand pages of the map are changed: the memory for such work comes and goes on a thread that may
// not open a file, and the C library opens one when it gives memory back to any arena but the main one.
TEST_F(JailedVolumeTest, ALayerIsPushedUnderAThousandChangedMapPages) {
  size_bytes_ = 80_GiB;
  make(1, make(0, {}));
  std::vector<launch::Layer> layers;
  layers.push_back(opened(0, O_RDWR));
  start("block requests=2500 depth=32 write=1 stay=1", std::move(layers));
  ASSERT_TRUE(console_says("requests=2500\n")) << read_file(folder_ / "log").value();
  launch::VmmClient vmm = client();
  auto stalled = push(vmm, "vol-1", opened(1, O_RDWR));
  ASSERT_TRUE(stalled.ok()) << stalled.error().message() << launch::read_ending(status_.get()).reason;
  EXPECT_EQ(vmm.state().value(), "running");
  auto frozen = storage::make_async_file(open_file(path("top", 0), O_RDONLY).value());
  EXPECT_GE(storage::layer_use(*frozen).value().data_blocks, 2450u);
}

// Closing a volume writes its map: not on the thread of the vCPU that let go of it, which may not write
// files.
TEST_F(JailedVolumeTest, TheGuestLetsGoOfAVolumeThatItWroteTo) {
  make(0, {});
  start("hotplug write=1", {});
  ASSERT_TRUE(console_says("ready\n")) << read_file(folder_ / "log").value();
  launch::VmmClient vmm = client();
  launch::Disk disk;
  disk.id = "vol-2";
  disk.format = launch::DiskFormat::kVolume;
  disk.layers.push_back(opened(0, O_RDWR));
  ASSERT_TRUE(vmm.attach_disk(std::move(disk)).ok());
  ASSERT_TRUE(console_says("id=vol-2\n"));
  ASSERT_TRUE(vmm.detach_disk("vol-2", false).ok());
  EXPECT_TRUE(eventually([&] {
    auto ids = vmm.disk_ids();
    return !ids.ok() || ids->empty();
  }));
  auto state = vmm.state();
  EXPECT_TRUE(state.ok() && *state == "running") << launch::read_ending(status_.get()).reason;
  UniqueFd file = open_file(path("top", 0), O_RDWR).value();
  EXPECT_TRUE(storage::lock_file(file.get(), true).ok()) << "it is closed";
  EXPECT_GT(storage::layer_use(*storage::make_async_file(std::move(file))).value().data_blocks, 0u);
}

TEST_F(JailedVolumeTest, ManyLayersAndKeysAreLaunchedAndAttached) {
  constexpr int kLayers = 40;
  storage::LayerKey key;
  key.fill(9);
  storage::LayerId parent{};
  auto stack = [&](int first) {
    std::vector<launch::Layer> layers;
    parent = {};
    for (int i = first; i < first + kLayers; ++i) {
      auto its_key = i % 2 == 0 ? std::optional(key) : std::nullopt;
      parent = make(i, parent, its_key);
      if (i + 1 < first + kLayers) {
        UniqueFd file = open_file(path("top", i), O_RDWR).value();
        auto async = storage::make_async_file(std::move(file));
        EXPECT_TRUE(storage::freeze_layer(*async).ok());
      }
      layers.push_back(opened(i, i + 1 < first + kLayers ? O_RDONLY : O_RDWR, its_key));
    }
    return layers;
  };
  start("hotplug", stack(0));
  ASSERT_TRUE(console_says("ready\n")) << read_file(folder_ / "log").value();
  launch::Disk disk;
  disk.id = "vol-2";
  disk.format = launch::DiskFormat::kVolume;
  disk.layers = stack(100);
  Status attached = client().attach_disk(std::move(disk));
  ASSERT_TRUE(attached.ok()) << attached.error().message();
  EXPECT_TRUE(console_says("id=vol-2\n"));
}

}  // namespace
}  // namespace haneul
