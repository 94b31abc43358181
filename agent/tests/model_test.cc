// SPDX-License-Identifier: Apache-2.0
// Random requests, guest events and daemon restarts against a small model of what EC2 allows. The seed is
// printed; HANEUL_SEED repeats a run, HANEUL_STEPS makes it longer.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <map>
#include <random>

#include "agent/tests/world.h"

namespace haneul::agent::testing {
namespace {

// What an instance is once nothing moves any more.
enum class Settled { kRunning, kStopped, kTerminated };

struct Expected {
  Settled settled = Settled::kRunning;
  bool terminates_on_shutdown = false;
  std::string address;
};

class Simulation {
 public:
  explicit Simulation(uint64_t seed) : random_(seed) { world_.register_tiny(); }

  void step() {
    switch (random_() % 10) {
      case 0:
      case 1:
        launch();
        break;
      case 2:
        change("StartInstances");
        break;
      case 3:
        change("StopInstances");
        break;
      case 4:
        change("TerminateInstances");
        break;
      case 5:
        change("RebootInstances");
        break;
      case 6:
        guest_ends("powered-off");
        break;
      case 7:
        guest_ends("");
        break;
      case 8:
        world_.restart();
        break;
      default:
        launch_that_fails();
        break;
    }
    settle();
    check();
  }

 private:
  std::string pick() {
    if (instances_.empty()) return "";
    auto it = instances_.begin();
    std::advance(it, static_cast<long>(random_() % instances_.size()));
    return it->first;
  }

  void launch() {
    bool terminates = random_() % 2 == 0;
    std::string id =
        world_.run_one({{"InstanceInitiatedShutdownBehavior", terminates ? "terminate" : "stop"}});
    instances_[id] = {.settled = Settled::kRunning,
                      .terminates_on_shutdown = terminates,
                      .address = world_.instance(id)["PrivateIpAddress"]};
  }

  void launch_that_fails() {
    world_.machines->fail_launch = "no luck";
    std::string id = world_.run_one();
    instances_[id] = {.settled = Settled::kTerminated, .terminates_on_shutdown = false, .address = ""};
    world_.becomes(id, "terminated");
    world_.machines->fail_launch = "";
  }

  void change(const std::string& operation) {
    std::string id = pick();
    if (id.empty()) return;
    Expected& expected = instances_[id];
    Settled before = expected.settled;
    std::string refusal = world_.refusal(operation, {{"InstanceIds", {id}}});
    bool allowed =
        operation == "TerminateInstances" ||
        (operation == "RebootInstances" ? before != Settled::kStopped : before != Settled::kTerminated);
    EXPECT_EQ(refusal.empty(), allowed) << operation << " of " << id << ": " << refusal;
    if (!allowed) {
      EXPECT_THAT(refusal, ::testing::StartsWith("IncorrectInstanceState"));
      return;
    }
    if (operation == "StartInstances") expected.settled = Settled::kRunning;
    if (operation == "StopInstances") expected.settled = Settled::kStopped;
    if (operation == "TerminateInstances") expected.settled = Settled::kTerminated;
  }

  void guest_ends(const std::string& reason) {
    std::string id = pick();
    if (id.empty() || instances_[id].settled != Settled::kRunning) return;
    world_.guest_ends(id, reason);
    bool terminates = instances_[id].terminates_on_shutdown && !reason.empty();
    instances_[id].settled = terminates ? Settled::kTerminated : Settled::kStopped;
  }

  static const char* text(Settled settled) {
    return settled == Settled::kRunning ? "running" : settled == Settled::kStopped ? "stopped" : "terminated";
  }

  void settle() {
    for (const auto& [id, expected] : instances_)
      EXPECT_TRUE(world_.becomes(id, text(expected.settled))) << id;
    for (int i = 0; i < 2000; ++i) {
      bool rebooting = false;
      for (const auto& [id, expected] : instances_) {
        InstanceRecord record = world_.record(id);
        rebooting = rebooting || record.rebooting || (record.state == "running" && record.pid == 0);
      }
      if (!rebooting) break;
      ::usleep(2000);
    }
    world_.cloud->wait_idle();
  }

  // Exactly the processes, taps and disks that the states call for; addresses never shared and never changed.
  void check() {
    size_t running = 0;
    std::set<std::string> addresses;
    for (const auto& [id, expected] : instances_) {
      bool runs = expected.settled == Settled::kRunning;
      running += runs ? 1 : 0;
      bool gone = expected.settled == Settled::kTerminated;
      EXPECT_EQ(std::filesystem::exists(world_.keeper.layout.root(id)), !gone) << id;
      EXPECT_EQ(world_.record(id).pid != 0, runs) << id;
      if (gone) continue;
      EXPECT_EQ(world_.instance(id)["PrivateIpAddress"], expected.address);
      EXPECT_TRUE(addresses.insert(expected.address).second);
    }
    EXPECT_EQ(world_.machines->processes().size(), running);
    EXPECT_EQ(world_.network->taps().size(), running);
  }

  std::mt19937_64 random_;
  World world_;
  std::map<std::string, Expected> instances_;
};

uint64_t number_from(const char* variable, uint64_t otherwise) {
  const char* text = std::getenv(variable);
  return text == nullptr ? otherwise : std::strtoull(text, nullptr, 10);
}

TEST(CloudModel, RandomHistoriesEndWhereEc2sRulesSay) {
  uint64_t first = number_from("HANEUL_SEED", 1);
  uint64_t steps = number_from("HANEUL_STEPS", 40);
  for (uint64_t seed = first; seed < first + 3 && !::testing::Test::HasFailure(); ++seed) {
    SCOPED_TRACE(fmt::format("HANEUL_SEED={}", seed));
    Simulation simulation(seed);
    for (uint64_t i = 0; i < steps && !::testing::Test::HasFailure(); ++i) simulation.step();
  }
}

}  // namespace
}  // namespace haneul::agent::testing
