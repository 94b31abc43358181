// SPDX-License-Identifier: Apache-2.0
// What is asked of a machine at the very moment at which its guest resets itself, and what a snapshot holds up.
#include "vmm/runner.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/epoll.h>

#include <future>

#include "base/checked.h"
#include "storage/volume/layer.h"
#include "tests/support/files.h"
#include "vmm/arch/x86_64/boot.h"

namespace haneul::vmm {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

/// Those of this name wait, once started, until they are let go.
class HeldThreads final : public ThreadStarter {
 public:
  explicit HeldThreads(std::string name) : name_(std::move(name)) {}
  ~HeldThreads() { let_go(); }
  Result<std::thread> start(std::string name, std::function<void()> body) override {
    if (name != name_) return start_thread(std::move(name), std::move(body));
    return start_thread(std::move(name), [go = go_, body = std::move(body)] {
      go.wait();
      body();
    });
  }
  void let_go() {
    if (!std::exchange(open_, true)) gate_.set_value();
  }

 private:
  const std::string name_;
  std::promise<void> gate_;
  const std::shared_future<void> go_ = gate_.get_future().share();
  bool open_ = false;
};

/// As many threads as it is told.
class CountedThreads final : public ThreadStarter {
 public:
  explicit CountedThreads(int count) : left_(count) {}
  Result<std::thread> start(std::string name, std::function<void()> body) override {
    if (left_-- == 0) return make_error(ErrorCode::kBusy, "no thread is left for '{}'", name);
    return start_thread(std::move(name), std::move(body));
  }

 private:
  int left_;
};

class RunnerTest : public ::testing::Test {
 protected:
  RunnerTest() {
    install_kick_handler().value();
    config_.machine.memory_bytes = 64_MiB;
    config_.machine.kernel = open_file(testing::guest_kernel(), O_RDONLY).value();
    spawner_ = Spawner::create(nullptr).value();
  }

  void make(std::string command) {
    config_.machine.command_line = std::move(command);
    runner_ = Runner::create(std::move(config_), kvm_, *spawner_).value();
    runner_->set_console_listener([this](std::span<const std::byte> data) {
      std::lock_guard lock(mutex_);
      console_.append(reinterpret_cast<const char*>(data.data()), data.size());
      if (on_text_ && console_.find(text_) != std::string::npos) std::exchange(on_text_, {})();
    });
    ASSERT_TRUE(runner_->loop()
                    .watch(work_.fd(), EPOLLIN,
                           [this](uint32_t) {
                             work_.drain();
                             // It may say what comes next.
                             auto todo = std::exchange(todo_, {});
                             if (todo) todo();
                           })
                    .ok());
  }
  /// Once the console says so, the control thread does this.
  void when(std::string text, std::function<void()> what) {
    std::lock_guard lock(mutex_);
    todo_ = std::move(what);
    text_ = std::move(text);
    on_text_ = [this] { work_.signal(); };
  }
  /// The control thread does this in so many milliseconds.
  void after(milliseconds time, std::function<void()> what) {
    todo_ = std::move(what);
    if (timer_.joinable()) timer_.join();
    timer_ = std::thread([this, time] {
      std::this_thread::sleep_for(time);
      work_.signal();
    });
  }
  std::string console() {
    std::lock_guard lock(mutex_);
    return console_;
  }
  size_t lives() {
    std::string text = console();
    return static_cast<size_t>(std::count(text.begin(), text.end(), '!'));
  }
  void TearDown() override {
    if (timer_.joinable()) timer_.join();
    if (runner_) runner_->loop().unwatch(work_.fd());
  }

  testing::TempFolder folder_;
  Kvm kvm_ = Kvm::open().value();
  EventFd work_ = EventFd::create().value();
  RunnerConfig config_;
  std::unique_ptr<Spawner> spawner_;
  std::mutex mutex_;
  std::string console_;
  std::string text_;
  std::function<void()> on_text_;
  std::function<void()> todo_;
  std::thread timer_;
  // Its machine's threads use all of the above.
  std::unique_ptr<Runner> runner_;
};

TEST_F(RunnerTest, APauseThatMeetsAResetHolds) {
  make("spin");
  when("spinning\n", [this] {
    runner_->machine().end({EndReason::kReset, ""});
    ASSERT_TRUE(runner_->pause().ok());
    EXPECT_EQ(runner_->state(), "paused");
    after(milliseconds(100), [this] {
      EXPECT_EQ(runner_->state(), "paused");
      EXPECT_EQ(lives(), 1u) << "the next machine ran";
      when("spinning\n!spinning", [this] { ASSERT_TRUE(runner_->shut_down().ok()); });
      ASSERT_TRUE(runner_->resume().ok());
    });
  });
  EXPECT_EQ(runner_->run().value().reason, EndReason::kStopped);
  EXPECT_EQ(lives(), 2u);
}

TEST_F(RunnerTest, ADiskThatWasAskedToLeaveIsGoneAfterAReset) {
  for (const char* id : {"vol-stays", "vol-leaves"}) {
    launch::Disk disk;
    disk.id = id;
    disk.file = open_file(folder_.disk(id, 1_MiB), O_RDWR).value();
    config_.machine.disks.push_back(std::move(disk));
  }
  make("spin");
  when("spinning\n", [this] {
    ASSERT_TRUE(runner_->detach_disk("vol-leaves", false).ok());
    EXPECT_EQ(runner_->disk_ids().size(), 2u) << "the guest takes no notice";
    when("spinning\n!spinning", [this] {
      EXPECT_EQ(runner_->disk_ids(), std::vector<std::string>{"vol-stays"});
      ASSERT_TRUE(runner_->shut_down().ok());
    });
    ASSERT_TRUE(runner_->reset().ok());
  });
  EXPECT_EQ(runner_->run().value().reason, EndReason::kStopped);
}

TEST_F(RunnerTest, ThePowerButtonWhileNoGuestRunsSwitchesOff) {
  make("spin");
  when("spinning\n", [this] {
    runner_->machine().end({EndReason::kReset, ""});
    ASSERT_TRUE(runner_->press_power_button().ok());
  });
  End end = runner_->run().value();
  EXPECT_EQ(end.reason, EndReason::kPoweredOff);
  EXPECT_EQ(end.detail, "the power button was pressed while the guest was reset");
  EXPECT_EQ(lives(), 1u);
}

TEST_F(RunnerTest, AGuestThatResetsItselfInALoopIsHeldBack) {
  make("reset");
  auto begin = steady_clock::now();
  // Fifteen lives cost nothing; from then on there is one a second, and requests are served meanwhile.
  when("!!!!!!!!!!!!!!!", [this] {
    after(milliseconds(1500), [this] {
      EXPECT_EQ(runner_->state(), "running");
      ASSERT_TRUE(runner_->pause().ok());
      ASSERT_TRUE(runner_->resume().ok());
      ASSERT_TRUE(runner_->shut_down().ok());
    });
  });
  EXPECT_EQ(runner_->run().value().reason, EndReason::kStopped);
  auto seconds = std::chrono::duration_cast<std::chrono::seconds>(steady_clock::now() - begin).count();
  EXPECT_GE(lives(), 15u);
  EXPECT_LE(lives(), 17u + static_cast<size_t>(seconds));
}

// The next machine is built already then; ending it would cost it its life, and the one after that a second more.
TEST_F(RunnerTest, ResetsBetweenLivesDoNotKeepTheGuestFromRunning) {
  make("reset");
  auto deadline = steady_clock::now() + std::chrono::seconds(20);
  std::function<void()> ask = [&] {
    if (lives() >= 18 || steady_clock::now() > deadline) {
      EXPECT_TRUE(runner_->shut_down().ok());
      return;
    }
    EXPECT_TRUE(runner_->reset().ok());
    after(milliseconds(100), ask);
  };
  when("!!!!!!!!!!!!!!!", ask);
  EXPECT_EQ(runner_->run().value().reason, EndReason::kStopped);
  EXPECT_GE(lives(), 18u);
}

TEST_F(RunnerTest, ADiskLeavesAtOnceWhileNoGuestRuns) {
  launch::Disk disk;
  disk.id = "vol-1";
  disk.file = open_file(folder_.disk("disk", 1_MiB), O_RDWR).value();
  config_.machine.disks.push_back(std::move(disk));
  make("reset");
  std::function<void()> ask = [&] {
    if (!runner_->between_lives()) return after(milliseconds(20), ask);
    EXPECT_TRUE(runner_->detach_disk("vol-1", false).ok());
    EXPECT_TRUE(runner_->reset().ok());
    EXPECT_TRUE(runner_->disk_ids().empty());
    EXPECT_TRUE(runner_->shut_down().ok());
  };
  when("!!!!!!!!!!!!!!!", ask);
  EXPECT_EQ(runner_->run().value().reason, EndReason::kStopped);
}

TEST_F(RunnerTest, TheGuestRunsOnlyIfAllItsVcpusCan) {
  config_.machine.vcpus = 3;
  config_.machine.command_line = "spin";
  CountedThreads two(2);
  DirectThreads io;
  std::atomic<bool> ran = false;
  auto machine =
      Machine::create(config_.machine, {kvm_, two, io, [&](std::span<const std::byte>) { ran = true; }, {}})
          .value();
  Status started = machine->start();
  ASSERT_FALSE(started.ok());
  EXPECT_EQ(started.error().message(), "no thread is left for 'vcpu0'");
  machine.reset();
  EXPECT_FALSE(ran);
}

TEST_F(RunnerTest, ARegisterThatKvmRefusesIsAnError) {
  KvmVm vm = KvmVm::create(kvm_).value();
  vm.create_irqchip().value();
  UniqueFd vcpu = vm.create_vcpu(0).value();
  EXPECT_TRUE(x86::set_common_registers(vcpu).ok());
  std::array<kvm_msr_entry, 3> entries{};
  entries[0].index = entries[2].index = 0x1a0;
  entries[1].index = 0xdead;
  Status set = x86::set_msrs(vcpu, entries);
  if (set.ok()) GTEST_SKIP() << "this KVM takes any register (ignore_msrs)";
  EXPECT_EQ(set.error().message(), "this KVM refuses the model-specific register 0xdead");
}

/// A machine of its own, not the runner's, with a push that stays under way until it is let go.
class HeldPushTest : public RunnerTest {
 protected:
  /// An empty layer in a new file.
  std::pair<UniqueFd, storage::LayerId> layer(const char* name, const storage::LayerId& parent) {
    UniqueFd file = open_file(folder_ / name, O_RDWR | O_CREAT).value();
    storage::NewLayer made;
    made.id = storage::random_layer_id();
    made.parent = parent;
    made.size_bytes = 4_MiB;
    storage::create_layer(file.get(), made).value();
    return {std::move(file), made.id};
  }
  void start(std::string command) {
    config_.machine.command_line = std::move(command);
    machine_ = Machine::create(config_.machine, {kvm_,
                                                 vcpus_,
                                                 io_,
                                                 [this](std::span<const std::byte> data) {
                                                   std::lock_guard lock(mutex_);
                                                   console_.append(reinterpret_cast<const char*>(data.data()),
                                                                   data.size());
                                                 },
                                                 {}})
                   .value();
    machine_->set_on_detached([this](std::string id) { detached_.push_back(std::move(id)); });
    ASSERT_TRUE(machine_->start().ok());
  }
  /// A volume of one layer, and the layer that the push is to put on it.
  launch::Disk volume(std::string id) {
    auto [bottom, bottom_id] = layer("bottom", {});
    launch::Disk disk;
    disk.id = id;
    disk.format = launch::DiskFormat::kVolume;
    disk.layers.push_back({std::move(bottom), std::nullopt});
    pushes_.push_back({std::move(id), {layer("top", bottom_id).first, std::nullopt}});
    return disk;
  }
  bool console_says(std::string_view text) {
    return testing::eventually([&] { return console().find(text) != std::string::npos; });
  }
  void TearDown() override {
    // The machine joins its threads, also where the test ended early.
    io_.let_go();
    machine_.reset();
    RunnerTest::TearDown();
  }

  DirectThreads vcpus_;
  HeldThreads io_{"push"};
  std::vector<launch::VmmClient::PushLayer> pushes_;
  std::vector<std::string> detached_;
  std::unique_ptr<Machine> machine_;
};

// What a push does takes as long as the disk does; the control thread must not wait for it.
TEST_F(HeldPushTest, ADiskLeavesDuringASnapshotWithoutWaiting) {
  config_.machine.disks.push_back(volume("vol-1"));
  start("spin");
  ASSERT_TRUE(machine_->begin_push(pushes_).ok());

  ASSERT_TRUE(machine_->detach_disk("vol-1", true).ok());
  machine_->close_ejected();
  EXPECT_EQ(machine_->disk_ids(), std::vector<std::string>{"vol-1"}) << "the snapshot needs it open";
  EXPECT_TRUE(detached_.empty());
  io_.let_go();
  EXPECT_TRUE(machine_->finish_push().ok());
  EXPECT_TRUE(machine_->disk_ids().empty());
  EXPECT_EQ(detached_, std::vector<std::string>{"vol-1"});
}

// In the same slot, with its doorbells at the same addresses.
TEST_F(HeldPushTest, AnotherDiskTakesThePlaceOfOneThatASnapshotKeepsOpen) {
  start("hotplug");
  ASSERT_TRUE(machine_->attach_disk(volume("vol-1")).ok());
  ASSERT_TRUE(console_says("id=vol-1\n")) << console();
  ASSERT_TRUE(machine_->begin_push(pushes_).ok());
  ASSERT_TRUE(machine_->detach_disk("vol-1", true).ok());

  launch::Disk raw;
  raw.id = "vol-2";
  raw.file = open_file(folder_.disk("raw", 1_MiB), O_RDWR).value();
  ASSERT_TRUE(machine_->attach_disk(raw).ok());
  EXPECT_TRUE(console_says("id=vol-2\n")) << console();
  EXPECT_EQ(machine_->disk_ids(), (std::vector<std::string>{"vol-1", "vol-2"}));
  io_.let_go();
  EXPECT_TRUE(machine_->finish_push().ok());
  EXPECT_EQ(machine_->disk_ids(), std::vector<std::string>{"vol-2"});
}

}  // namespace
}  // namespace haneul::vmm
