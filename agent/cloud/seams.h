// SPDX-License-Identifier: Apache-2.0
// What the cloud needs of this machine, as three narrow interfaces: VMM processes, the network, and the block
// stores. The daemon gives the real ones (host.h); tests give their own.
//
// All are called from the executor's threads: implementations are thread-safe. Calls may block for seconds.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "storage/store/store.h"
#include "vmm/launch/launch.h"

namespace haneul::agent {

/// What can be asked of one running VMM.
class MachineControl {
 public:
  virtual ~MachineControl() = default;
  virtual Status press_power_button() = 0;
  virtual Status reset() = 0;
  virtual Status shut_down() = 0;
  // As launch::VmmClient's.
  virtual Status attach_disk(launch::Disk disk) = 0;
  virtual Status detach_disk(const std::string& id, bool force) = 0;
  virtual Status resize_disk(const std::string& id, uint64_t size_bytes) = 0;
  virtual Result<std::vector<std::string>> disk_ids() = 0;
  virtual Status push_layers(std::vector<launch::VmmClient::PushLayer> pushes) = 0;
};

class Machines {
 public:
  virtual ~Machines() = default;
  virtual Result<launch::Process> launch(launch::Spec spec) = 0;
  virtual Result<launch::Process> find(pid_t pid, uint64_t start_ticks) = 0;
  virtual Result<std::unique_ptr<MachineControl>> connect(const std::filesystem::path& control_socket) = 0;
  virtual void kill(const launch::Process& process) = 0;
  /// Ends the VMM of an instance that was started and never recorded, if there is one. The uuid is what tells
  /// it from all others.
  virtual Status clear(const std::string& uuid) = 0;
  virtual launch::Ending ending(int status_fd) = 0;
  /// The instance has no VMM any more: what this machine kept for it may go.
  virtual void gone(const std::string& instance_id) = 0;
  /// /dev/kvm, opened anew for every instance.
  virtual Result<UniqueFd> open_kvm() = 0;
  /// The user that this instance's VMM becomes; slot is a small number of its own among all instances.
  virtual launch::Jail jail(unsigned slot) = 0;
};

/// One instance's network interface.
struct NicPlan {
  std::string instance_id;
  std::string zone;
  std::string mac;
  std::string address;
};

class Network {
 public:
  virtual ~Network() = default;
  /// A tap for the instance, plugged in; an empty descriptor when this cloud has no network.
  virtual Result<UniqueFd> plug(const NicPlan& nic) = 0;
  virtual Status unplug(const std::string& instance_id) = 0;
  /// Makes the network match the interfaces whose VMMs live.
  virtual Status reconcile(const std::vector<NicPlan>& live) = 0;
  virtual std::vector<std::string> warnings() = 0;
};

/// One block store for each region.
class Stores {
 public:
  virtual ~Stores() = default;
  /// Opened on first use; lives as long as this.
  virtual Result<storage::Store*> of(const std::string& region) = 0;
};

}  // namespace haneul::agent
