// SPDX-License-Identifier: Apache-2.0
// A whole cloud for tests, without KVM and without a network: its VMMs are sleeping processes, its taps are
// files. Both outlive the Cloud object and even the process, so that tests can restart and crash the daemon's
// part.
#pragma once

#include <atomic>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "agent/cloud/cloud.h"
#include "agent/cloud/operations.h"
#include "agent/tests/fake_store.h"

namespace haneul::agent::testing {

class FakeMachines : public Machines {
 public:
  explicit FakeMachines(std::filesystem::path state) : state_(std::move(state)) {}

  Result<launch::Process> launch(launch::Spec spec) override;
  Result<launch::Process> find(pid_t pid, uint64_t start_ticks) override;
  Result<std::unique_ptr<MachineControl>> connect(const std::filesystem::path& control_socket) override;
  void kill(const launch::Process& process) override;
  Status clear(const std::string& uuid) override;
  launch::Ending ending(int status_fd) override;
  void gone(const std::string&) override { ++told_gone; }
  Result<UniqueFd> open_kvm() override;
  launch::Jail jail(unsigned) override { return {}; }

  /// The processes that run for this state folder; their names carry the instance's uuid.
  std::vector<pid_t> processes(const std::string& uuid = "") const;
  void kill_all();

  /// The next launches fail with this sentence.
  std::string fail_launch;
  /// Guests do not react to their power button.
  bool deaf = false;
  /// Guests do not let go of disks.
  std::atomic<bool> clings{false};
  /// Plugging a disk fails with this sentence.
  std::string fail_attach;
  /// The next pushes of layers fail, without a word from the VMM.
  std::atomic<int> fail_pushes{0};
  /// VMMs stand still from the next push on, which waits in them until they go on.
  std::atomic<bool> stops_at_push{false};
  std::atomic<bool> stopped{false};
  /// How often one that stands still was asked for its disks.
  std::atomic<int> unanswered{0};
  /// VMMs refuse layers with this sentence.
  std::string refuse_pushes;
  /// How long a push takes, and how many were ever under way together.
  std::chrono::milliseconds push_time{0};
  std::atomic<int> pushing{0};
  std::atomic<int> most_pushing{0};
  std::atomic<int> pushes{0};
  std::atomic<int> launches{0};
  std::atomic<int> resets{0};
  std::atomic<int> told_gone{0};

 private:
  std::string marker(const std::string& uuid) const;
  std::filesystem::path state_;
};

class FakeNetwork : public Network {
 public:
  explicit FakeNetwork(std::filesystem::path folder);
  Result<UniqueFd> plug(const NicPlan& nic) override;
  Status unplug(const std::string& instance_id) override;
  Status reconcile(const std::vector<NicPlan>& live) override;
  std::vector<std::string> warnings() override { return {}; }
  std::vector<std::string> taps() const;

  /// What happens while the network is being made.
  std::function<void()> meanwhile;

 private:
  std::filesystem::path folder_;
  std::atomic<bool> there_{false};
};

/// A store that can refuse to write, as on a full disk.
class FullableStore : public StateStore {
 public:
  explicit FullableStore(StateStore& store) : store_(store) {}
  Result<std::vector<Object>> list(std::string_view kind) override { return store_.list(kind); }
  Status commit(const Batch& batch) override {
    if (full) return Error(ErrorCode::kNoSpace, "writing the state: the disk is full");
    return store_.commit(batch);
  }
  std::atomic<bool> full{false};

 private:
  StateStore& store_;
};

/// Everything on one state folder; restart() is a daemon's end and start.
class World {
 public:
  World();
  /// On a folder that outlives it.
  explicit World(std::filesystem::path folder);
  ~World();

  void start();
  void stop();
  void restart();

  /// A reply, which must be one.
  Json call(std::string_view operation, const Json& request);
  /// "Code: message" of a refusal, or "" if there was none.
  std::string refusal(std::string_view operation, const Json& request);
  Answer<Json> try_call(std::string_view operation, const Json& request);

  std::string register_tiny();
  std::string run_one(Json extra = Json::object());
  Json instance(const std::string& id);
  std::string state(const std::string& id);
  /// Waits until the instance is in the state, for at most ten seconds.
  bool becomes(const std::string& id, std::string_view state);
  InstanceRecord record(const std::string& id);
  VolumeRecord volume_record(const std::string& id);
  /// The root volume of an instance.
  std::string root(const std::string& instance_id);
  Json volume(const std::string& id);
  Json snapshot(const std::string& id);
  Json image(const std::string& id);
  std::string make_volume(Json extra = Json::object());
  std::string make_snapshot(const std::string& volume_id);
  /// The serials of the disks that an instance's VMM has.
  std::vector<std::string> disks(const std::string& instance_id);
  FakeStore& blocks() { return stores->store(region); }
  /// Waits until it is true, for at most ten seconds.
  static bool eventually(const std::function<bool()>& condition);
  void guest_ends(const std::string& id, const std::string& reason);

  std::filesystem::path folder;
  std::filesystem::path image_folder;
  KeeperOptions keeper;
  std::unique_ptr<FakeMachines> machines;
  std::unique_ptr<FakeNetwork> network;
  std::unique_ptr<FakeStores> stores;
  std::unique_ptr<SqliteStore> store;
  std::unique_ptr<FullableStore> disk;
  std::unique_ptr<Cloud> cloud;
  size_t max_instances = 1000;
  std::string region = "us-east-1";

 private:
  void make_keeper_options();
  void make_image();
  bool owns_folder_;
};

}  // namespace haneul::agent::testing
