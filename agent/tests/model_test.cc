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

struct ExpectedVolume {
  std::string instance;  ///< attached to; empty: none
  std::string content;
  std::string snapshot;
};

struct Expected {
  Settled settled = Settled::kRunning;
  bool terminates_on_shutdown = false;
  std::string address;
};

class Simulation {
 public:
  explicit Simulation(uint64_t seed) : random_(seed) { image_ = world_.register_tiny(); }

  void step() {
    switch (random_() % 19) {
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
      case 9:
      case 10:
        create_volume();
        break;
      case 11:
      case 12:
        attach_volume();
        break;
      case 13:
        detach_volume();
        break;
      case 14:
        delete_volume();
        break;
      case 15:
        write_volume();
        break;
      case 16:
        create_snapshot();
        break;
      case 17:
        delete_snapshot();
        break;
      case 18:
        launch_that_fails();
        break;
    }
    settle();
    settle_volumes();
    check();
    check_volumes();
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

  template <typename Map>
  std::string pick_of(const Map& map) {
    if (map.empty()) return "";
    auto it = map.begin();
    std::advance(it, static_cast<long>(random_() % map.size()));
    return it->first;
  }

  void create_volume() {
    std::string snapshot = random_() % 2 == 0 ? pick_of(snapshots_) : "";
    Json request = snapshot.empty() ? Json::object() : Json{{"SnapshotId", snapshot}};
    std::string id = world_.make_volume(request);
    volumes_[id] = {
        .instance = "", .content = snapshot.empty() ? "" : snapshots_[snapshot], .snapshot = snapshot};
  }

  void attach_volume() {
    std::string id = pick_of(volumes_);
    std::string instance = pick();
    if (id.empty() || instance.empty()) return;
    std::string device = fmt::format("/dev/sd{}", static_cast<char>('f' + random_() % 4));
    bool taken = false;
    for (const auto& [other, volume] : volumes_)
      taken = taken || (volume.instance == instance && devices_[other] == device);
    std::string refusal =
        world_.refusal("AttachVolume", {{"VolumeId", id}, {"InstanceId", instance}, {"Device", device}});
    bool gone = instances_[instance].settled == Settled::kTerminated;
    bool allowed = volumes_[id].instance.empty() && !gone && !taken;
    EXPECT_EQ(refusal.empty(), allowed) << id << " to " << instance << ": " << refusal;
    if (!refusal.empty()) return;
    volumes_[id].instance = instance;
    devices_[id] = device;
  }

  void detach_volume() {
    std::string id = pick_of(volumes_);
    if (id.empty()) return;
    std::string refusal = world_.refusal("DetachVolume", {{"VolumeId", id}});
    EXPECT_EQ(refusal.empty(), !volumes_[id].instance.empty()) << refusal;
    volumes_[id].instance.clear();
  }

  void delete_volume() {
    std::string id = pick_of(volumes_);
    if (id.empty()) return;
    std::string refusal = world_.refusal("DeleteVolume", {{"VolumeId", id}});
    EXPECT_EQ(refusal.empty(), volumes_[id].instance.empty()) << refusal;
    if (refusal.empty()) volumes_.erase(id);
  }

  void write_volume() {
    std::string id = pick_of(volumes_);
    if (id.empty()) return;
    volumes_[id].content = std::to_string(random_());
    world_.blocks().write(id, volumes_[id].content);
  }

  void create_snapshot() {
    std::string id = pick_of(volumes_);
    if (id.empty()) return;
    snapshots_[world_.make_snapshot(id)] = volumes_[id].content;
  }

  void delete_snapshot() {
    std::string id = pick_of(snapshots_);
    if (id.empty()) return;
    EXPECT_EQ(world_.refusal("DeleteSnapshot", {{"SnapshotId", id}}), "");
    snapshots_.erase(id);
  }

  // Every volume is where it was put, holds what was written, and nothing else is in the store.
  void check_volumes() {
    std::set<std::string> wanted = {
        world_.image(image_)["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"].get<std::string>()};
    for (auto& [id, expected] : volumes_) {
      bool terminated =
          !expected.instance.empty() && instances_[expected.instance].settled == Settled::kTerminated;
      if (terminated) expected.instance.clear();
      VolumeRecord record = world_.volume_record(id);
      EXPECT_EQ(record.instance_id, expected.instance) << id;
      EXPECT_EQ(record.state, expected.instance.empty() ? "available" : "in-use") << id;
      EXPECT_EQ(world_.blocks().read(id), expected.content) << id;
      wanted.insert(id);
    }
    for (const auto& [id, content] : snapshots_) {
      EXPECT_EQ(world_.blocks().read(id), content) << id;
      wanted.insert(id);
    }
    for (const auto& [id, expected] : instances_) {
      if (expected.settled == Settled::kTerminated) continue;
      wanted.insert(world_.root(id));
      if (expected.settled != Settled::kRunning) continue;
      std::set<std::string> disks;
      for (const std::string& disk : world_.disks(id)) EXPECT_TRUE(disks.insert(disk).second) << disk;
      std::set<std::string> attached = {disk_serial(world_.root(id))};
      for (const auto& [volume, there] : volumes_) {
        if (there.instance == id) attached.insert(disk_serial(volume));
      }
      EXPECT_EQ(disks, attached) << id;
    }
    EXPECT_EQ(world_.blocks().ids(), wanted);
  }

  void settle_volumes() {
    EXPECT_TRUE(World::eventually([&] {
      for (const auto& object : world_.store->list("volume").value()) {
        auto volume = decode<VolumeRecord>(parse_json(object.value).value());
        if (volume.state != "available" && volume.state != "in-use") return false;
        if (!volume.instance_id.empty() && volume.attachment != "attached") return false;
      }
      return true;
    }));
    world_.cloud->wait_idle();
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
  std::string image_;
  std::map<std::string, Expected> instances_;
  std::map<std::string, ExpectedVolume> volumes_;
  std::map<std::string, std::string> devices_;
  std::map<std::string, std::string> snapshots_;  ///< their content
};

uint64_t number_from(const char* variable, uint64_t otherwise) {
  const char* text = std::getenv(variable);
  return text == nullptr ? otherwise : std::strtoull(text, nullptr, 10);
}

TEST(CloudModel, RandomHistoriesEndWhereEc2sRulesSay) {
  uint64_t first = number_from("HANEUL_SEED", 1);
  uint64_t steps = number_from("HANEUL_STEPS", 80);
  for (uint64_t seed = first; seed < first + 3 && !::testing::Test::HasFailure(); ++seed) {
    SCOPED_TRACE(fmt::format("HANEUL_SEED={}", seed));
    Simulation simulation(seed);
    for (uint64_t i = 0; i < steps && !::testing::Test::HasFailure(); ++i) simulation.step();
  }
}

}  // namespace
}  // namespace haneul::agent::testing
