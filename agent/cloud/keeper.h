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
#include <map>
#include <memory>
#include <string>

#include "agent/cloud/builder.h"
#include "agent/cloud/executor.h"
#include "agent/cloud/lifecycle.h"
#include "agent/cloud/model.h"
#include "agent/cloud/places.h"
#include "agent/cloud/seams.h"
#include "agent/cloud/supervisor.h"

namespace haneul::agent {

struct KeeperOptions {
  Layout layout;
  std::filesystem::path vmm_program;
  std::string dns;
  /// How long a guest may take after its power button before it is switched off.
  std::chrono::milliseconds stop_timeout = std::chrono::seconds(60);
  std::chrono::milliseconds terminate_timeout = std::chrono::seconds(10);
  /// How long a guest may take to shut down for a reboot before it is reset.
  std::chrono::milliseconds reboot_timeout = std::chrono::seconds(30);
  /// How long a terminated instance stays visible.
  std::chrono::milliseconds terminated_visible = std::chrono::hours(1);
};

/// Thread-safe.
class Keeper {
 public:
  Keeper(KeeperOptions options, Model& model, const Places& places, Machines& machines, Network& network,
         VolumeStore& volumes, Supervisor& supervisor, Executor& executor);

  /// Makes the world match the model after a start of the daemon: finds the VMMs that run on, ends those that
  /// nobody recorded, drops what is left of dead ones, and goes on with what was begun.
  Status reconcile();

  /// For an instance in state pending.
  void start(const std::string& id);
  /// For one in state stopping or shutting-down.
  void stop(const std::string& id, bool force);
  /// For a running one with `rebooting` set.
  void reboot(const std::string& id);

  /// Removes what terminated long ago, and keeps the logs bounded.
  void tidy();

 private:
  using Process = std::shared_ptr<launch::Process>;

  void run_start(const std::string& id);
  void run_stop(const std::string& id, bool force);
  void run_reboot(const std::string& id);
  void run_ended(const std::string& id, const Process& process);
  void run_timeout(const std::string& id, const Process& process);
  void run_reset(const std::string& id, const Process& process);

  Result<launch::Process> boot(const InstanceRecord& instance);
  Result<launch::Process> launch_plugged(const InstanceRecord& instance, const ImageRecord& image);
  void record_start(const std::string& id, Result<launch::Process> started);
  void release(const std::string& id);
  void watch(const std::string& id, launch::Process process);
  Process process_of(const std::string& id);
  bool press_power_button(const std::string& id);
  void apply_ending(InstanceRecord& instance, const launch::Ending& ending);
  void later(std::chrono::milliseconds delay, const std::string& id, std::function<void()> job);

  void find_again(InstanceRecord instance, std::vector<NicPlan>& live);
  void resume(const InstanceRecord& instance);
  void forget_terminated(const InstanceRecord& instance);
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
  VolumeStore& volumes_;
  Supervisor& supervisor_;
  Executor& executor_;
  std::map<std::string, Process> live_;  ///< under the model's lock
};

/// EC2's StateReason for a message, its code repeated in front of it as EC2 does.
StateReason state_reason(std::string_view code, std::string_view message);
/// "User initiated (2026-01-31 12:00:00 GMT)"
std::string user_initiated();
NicPlan nic_of(const InstanceRecord& instance);

}  // namespace haneul::agent
