// SPDX-License-Identifier: Apache-2.0
// Keeper: brings instances to the state that was asked for, and notices when they leave it by themselves.
//
// An operation records its intent (a state such as pending or stopping) and calls start(), stop() or
// reboot(); the work is a job on the Executor, one at a time for each instance, and ends by recording its
// result. A job reads the intent anew when it runs, so it can be repeated: that is how a restarted daemon
// goes on.
#pragma once

#include <chrono>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "agent/cloud/builder.h"
#include "agent/cloud/executor.h"
#include "agent/cloud/lifecycle.h"
#include "agent/cloud/model.h"
#include "agent/cloud/places.h"
#include "agent/cloud/seams.h"
#include "agent/cloud/supervisor.h"
#include "agent/cloud/volume_locks.h"

namespace haneul::agent {

struct KeeperOptions {
  Layout layout;
  std::filesystem::path vmm_program;
  /// The name server of a guest that starts now, empty: none. Asked at every start: a host's changes.
  std::function<std::string()> name_server = [] { return std::string(); };
  /// How long a guest may take after its power button before it is switched off.
  std::chrono::milliseconds stop_timeout = std::chrono::seconds(60);
  std::chrono::milliseconds terminate_timeout = std::chrono::seconds(10);
  /// How long a guest may take to shut down for a reboot before it is reset.
  std::chrono::milliseconds reboot_timeout = std::chrono::seconds(30);
  /// How long a terminated instance stays visible.
  std::chrono::milliseconds terminated_visible = std::chrono::hours(1);
};

/// What others do at the right moment.
struct KeeperHooks {
  /// The instance's VMM is gone, or about to be reset: what waited for its shutdown may begin.
  std::function<void(const std::string& instance_id)> shut_down;
  /// Something was deleted from the region's store.
  std::function<void(const std::string& region)> freed;
};

/// Thread-safe.
class Keeper {
 public:
  Keeper(KeeperOptions options, Model& model, const Places& places, Machines& machines, Network& network,
         Stores& stores, Supervisor& supervisor, Executor& executor);
  /// Before anything else is called.
  void set_hooks(KeeperHooks hooks) { hooks_ = std::move(hooks); }

  /// Makes the world match the model after a start of the daemon: finds the VMMs that run on, ends those that
  /// nobody recorded, drops what is left of dead ones, and goes on with what was begun.
  Status reconcile();

  /// For an instance in state pending.
  void start(const std::string& id);
  /// For one in state stopping or shutting-down.
  void stop(const std::string& id, bool force);
  /// For a running one with `rebooting` set.
  void reboot(const std::string& id);

  /// For a volume in state creating, deleting; attaching, detaching; with a modification under way.
  void create_volume(const std::string& id);
  void delete_volume(const std::string& id);
  void attach(const VolumeRecord& volume);
  void detach(const VolumeRecord& volume);
  void modify(const VolumeRecord& volume);

  /// Which of these volumes a VMM has open. The caller holds their locks.
  Result<std::set<std::string>> open_volumes(const std::vector<std::string>& ids);
  /// Puts layers on disks of an instance's VMM. The caller holds the volumes' locks.
  Status push_layers(const std::string& instance_id, std::vector<launch::VmmClient::PushLayer> pushes);
  VolumeLocks& volume_locks() { return locks_; }

  /// Removes what terminated long ago, keeps the logs bounded, and saves what a full disk kept from it.
  void tidy();

 private:
  using Process = std::shared_ptr<launch::Process>;

  void run_start(const std::string& id);
  void run_stop(const std::string& id, bool force);
  void run_reboot(const std::string& id);
  void run_ended(const std::string& id, const Process& process);
  void run_timeout(const std::string& id, const Process& process);
  void run_reset(const std::string& id, const Process& process);

  void start_machine(const InstanceRecord& instance);
  Result<launch::Process> boot(const InstanceRecord& instance);
  Result<launch::Process> launch_plugged(const InstanceRecord& instance, const ImageRecord& image);
  void record_start(const std::string& id, Result<launch::Process> started);
  void release(const std::string& id);
  void watch(const std::string& id, launch::Process process);
  Process process_of(const std::string& id);
  bool press_power_button(const std::string& id);
  void apply_ending(InstanceRecord& instance, const launch::Ending& ending);
  void later(std::chrono::milliseconds delay, const std::string& id, std::function<void()> job);

  /// The instance's VMM, if it runs on.
  std::optional<launch::Process> find_again(InstanceRecord instance);
  void clear(const InstanceRecord& instance);
  void resume(const InstanceRecord& instance);
  void resume_volumes();

  // keeper_volumes.cc
  Result<std::vector<launch::Disk>> disks_of(const InstanceRecord& instance);
  Result<storage::OpenStack> open_volume(storage::Store& store, const std::string& id);
  Status make_volume(storage::Store& store, const VolumeRecord& volume);
  void put_attached(Update& update, const std::string& instance_id);
  void release_volumes(const InstanceRecord& instance);
  void drop_ephemerals(const InstanceRecord& instance);
  void run_create(const std::string& id);
  void run_delete(const std::string& id);
  void run_attach(const std::string& id);
  void run_detach(const std::string& id);
  void run_detach_poll(const std::string& id, std::chrono::milliseconds pause);
  void run_modify(const std::string& id);
  bool snapshot_begins(const std::string& volume_id);
  Status plug_volume(const VolumeRecord& volume);
  Status resize(const VolumeRecord& volume);
  Result<bool> has_disk(const std::string& instance_id, const std::string& serial);
  std::vector<std::string> volume_ids_of(const std::string& instance_id);
  void forget_unused_images();
  void trim_log(const std::string& id);
  unsigned slot_of(const InstanceRecord& instance) const;
  void save(const InstanceRecord& instance);
  launch::Ending ending_of(const std::string& id);

  const KeeperOptions options_;
  Model& model_;
  const Places& places_;
  Machines& machines_;
  Network& network_;
  Stores& stores_;
  Supervisor& supervisor_;
  Executor& executor_;
  KeeperHooks hooks_;
  VolumeLocks locks_;
  std::map<std::string, Process> live_;  ///< under the model's lock
};

/// EC2's StateReason for a message, its code repeated in front of it as EC2 does.
StateReason state_reason(std::string_view code, std::string_view message);
/// "User initiated (2026-01-31 12:00:00 GMT)"
std::string user_initiated();
NicPlan nic_of(const InstanceRecord& instance);
/// An instance store volume's name in the block store.
std::string ephemeral_id(const std::string& instance_id, const std::string& virtual_name);
/// Nobody's any more.
void clear_attachment(VolumeRecord& volume);

}  // namespace haneul::agent
