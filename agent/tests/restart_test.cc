// SPDX-License-Identifier: Apache-2.0
// What the next daemon makes of an unlucky moment: a full disk, an end in the middle of its start, a death between a
// forced stop and its act.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <thread>

#include "agent/tests/world.h"

namespace haneul::agent::testing {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

Json ids(const std::string& id) {
  return {{"InstanceIds", {id}}};
}

class RestartTest : public ::testing::Test {
 protected:
  std::string run() {
    world_.register_tiny();
    std::string id = world_.run_one();
    EXPECT_TRUE(world_.becomes(id, "running"));
    world_.cloud->wait_idle();
    return id;
  }
  /// One whose guest was asked to reboot and does not; and its VMM.
  std::pair<std::string, int64_t> run_and_reboot() {
    world_.machines->deaf = true;
    world_.keeper.reboot_timeout = std::chrono::hours(1);
    world_.restart();
    std::string id = run();
    int64_t before = world_.record(id).pid;
    world_.call("RebootInstances", ids(id));
    return {id, before};
  }
  World world_;
};

// A name server that a host gets later, by DHCP for one, is for the guests that start later.
TEST_F(RestartTest, TheNameServerIsAskedForAtEveryStart) {
  std::atomic<int> asked{0};
  world_.keeper.name_server = [&] {
    ++asked;
    return std::string("192.0.2.53");
  };
  world_.restart();
  std::string id = run();
  EXPECT_EQ(asked, 1);
  world_.call("StopInstances", ids(id));
  ASSERT_TRUE(world_.becomes(id, "stopped"));
  world_.call("StartInstances", ids(id));
  ASSERT_TRUE(world_.becomes(id, "running"));
  EXPECT_EQ(asked, 2);
}

// It has no machine then, and is running all the same: whoever wants to reach it may wait.
TEST_F(RestartTest, BetweenItsMachinesARebootedInstanceIsNotRefused) {
  std::string id;
  std::string said;
  world_.keeper.name_server = [&] {
    if (id.empty()) return std::string();
    auto address = world_.cloud->instance_address({world_.region}, id);
    said = address.ok() ? *address
                        : fmt::format("{} {}", name(address.error().code()), address.error().message());
    return std::string();
  };
  world_.restart();
  id = run();
  world_.call("RebootInstances", ids(id));
  ASSERT_TRUE(World::eventually([&] { return world_.machines->launches == 2; }));
  EXPECT_EQ(said, fmt::format("Unavailable The instance '{}' is being rebooted", id));
}

TEST_F(RestartTest, ARebootThatEndsWhileTheDaemonStartsGoesOn) {
  auto [id, before] = run_and_reboot();
  world_.stop();
  world_.network->meanwhile = [&] {
    world_.network->meanwhile = nullptr;
    std::ofstream(world_.keeper.layout.status(id)) << R"({"reason":"powered-off","detail":""})";
    world_.machines->kill_all();
    std::this_thread::sleep_for(std::chrono::milliseconds(300));
  };
  world_.start();
  EXPECT_TRUE(World::eventually([&] {
    int64_t pid = world_.record(id).pid;
    return pid != before && pid != 0;
  }));
  EXPECT_EQ(world_.state(id), "running");
  world_.cloud->wait_idle();
  EXPECT_THAT(world_.machines->processes(), SizeIs(1));
}

// The daemon dies between the record of a forced stop and its act; the guest would take an hour.
TEST_F(RestartTest, AForcedStopIsForcedStillByTheNextDaemon) {
  std::string id = run();
  world_.stop();
  pid_t pid = ::fork();
  if (pid == 0) {
    ::setenv("HANEULD_CRASH_AT", "stop-instances.intended", 1);
    World dies(world_.folder);
    dies.call("StopInstances", {{"InstanceIds", {id}}, {"Force", true}});
    ::_exit(3);
  }
  int status = 0;
  ::waitpid(pid, &status, 0);
  ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
  world_.machines->deaf = true;
  world_.keeper.stop_timeout = std::chrono::hours(1);
  world_.start();
  EXPECT_TRUE(world_.becomes(id, "stopped"));
}

TEST_F(RestartTest, AFullDiskRefusesWhatIsAskedAndLosesNothing) {
  std::string id = run();
  world_.disk->full = true;
  std::string refusal = "InsufficientVolumeCapacity: writing the state: the disk is full";
  EXPECT_EQ(world_.refusal("StopInstances", ids(id)), refusal);
  EXPECT_EQ(world_.refusal("CreateKeyPair", {{"KeyName", "mine"}}), refusal);
  EXPECT_EQ(world_.refusal("RunInstances", {{"ImageId", "tiny"}, {"MinCount", 1}, {"MaxCount", 1}}), refusal);
  EXPECT_EQ(world_.state(id), "running");
  EXPECT_THAT(world_.call("DescribeKeyPairs", Json::object())["KeyPairs"], IsEmpty());
  EXPECT_EQ(world_.machines->launches, 1);
  world_.disk->full = false;
  EXPECT_EQ(world_.refusal("CreateKeyPair", {{"KeyName", "mine"}}), "");
  world_.restart();
  EXPECT_EQ(world_.state(id), "running");
  EXPECT_THAT(world_.machines->processes(), SizeIs(1));
}

TEST_F(RestartTest, WhatAFullDiskKeptFromBeingSavedGoesWithTheNextChange) {
  std::string id = run();
  world_.disk->full = true;
  world_.guest_ends(id, "powered-off");
  ASSERT_TRUE(world_.becomes(id, "stopped"));
  EXPECT_EQ(world_.record(id).state, "running") << "that is all the disk knows";
  world_.disk->full = false;
  world_.call("CreateKeyPair", {{"KeyName", "mine"}});
  EXPECT_EQ(world_.record(id).state, "stopped");
  EXPECT_EQ(world_.record(id).pid, 0);
}

TEST_F(RestartTest, WhatAFullDiskKeptFromBeingSavedIsSavedAtTheEnd) {
  std::string id = run();
  world_.disk->full = true;
  world_.guest_ends(id, "powered-off");
  ASSERT_TRUE(world_.becomes(id, "stopped"));
  world_.disk->full = false;
  world_.cloud.reset();
  EXPECT_EQ(world_.record(id).state, "stopped");
}

// The record has the process of before the reboot; that of after it must not run on unseen, with the disks open.
TEST_F(RestartTest, AVmmThatAFullDiskKeptFromBeingRecordedIsFound) {
  auto [id, before] = run_and_reboot();
  world_.disk->full = true;
  world_.guest_ends(id, "powered-off");
  ASSERT_TRUE(World::eventually([&] { return world_.machines->launches == 2; }));
  world_.cloud->wait_idle();
  ASSERT_EQ(world_.record(id).pid, before) << "the disk knows nothing of it";
  const int gone = world_.machines->told_gone;
  world_.restart();
  EXPECT_EQ(world_.machines->told_gone, gone + 1) << "its cgroup goes";
  EXPECT_TRUE(world_.becomes(id, "stopped"));
  world_.cloud->wait_idle();
  EXPECT_THAT(world_.machines->processes(), IsEmpty());
  EXPECT_THAT(world_.network->taps(), IsEmpty());
  EXPECT_THAT(world_.instance(id)["StateReason"]["Message"].get<std::string>(),
              HasSubstr("killed or crashed"));
  world_.call("StartInstances", ids(id));
  EXPECT_TRUE(world_.becomes(id, "running"));
}

}  // namespace
}  // namespace haneul::agent::testing
