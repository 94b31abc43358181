// SPDX-License-Identifier: Apache-2.0
// The cloud's seams on this machine: VMM processes by vmm/launch, volumes by storage/store. The network is in
// host_network.h. All thread-safe.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <optional>

#include "agent/cloud/seams.h"
#include "agent/daemon/cgroups.h"

namespace haneul::agent {

struct HostMachinesOptions {
  /// The first of this cloud's user ids for VMMs, one per slot; none: they keep the daemon's.
  std::optional<uid_t> first_uid;
  /// None: instances go without limits.
  std::optional<Cgroups> cgroups;
};

class HostMachines : public Machines {
 public:
  explicit HostMachines(HostMachinesOptions options) : options_(std::move(options)) {}

  ~HostMachines() override;
  Result<launch::Process> launch(launch::Spec spec) override;
  Result<launch::Process> find(pid_t pid, uint64_t start_ticks) override;
  Result<std::unique_ptr<MachineControl>> connect(const std::filesystem::path& control_socket) override;
  void kill(const launch::Process& process) override;
  Status clear(const std::string& uuid) override;
  launch::Ending ending(int status_fd) override;
  void gone(const std::string& instance_id) override;
  Result<UniqueFd> open_kvm() override;
  launch::Jail jail(unsigned slot) override;

 private:
  const HostMachinesOptions options_;
};

/// A store for each region, in STATE/regions/REGION/store; the key of its encrypted volumes beside it, in store.key
/// (or for all regions in STATE/store.key, where an older daemon made one).
class HostStores : public Stores {
 public:
  explicit HostStores(std::filesystem::path state) : state_(std::move(state)) {}
  Result<storage::Store*> of(const std::string& region) override;

 private:
  const std::filesystem::path state_;
  std::mutex mutex_;
  std::map<std::string, std::unique_ptr<storage::Store>> stores_;
};

/// /dev/kvm, opened and asked for its version; one sentence on what is wrong otherwise.
Result<UniqueFd> open_host_kvm();
uint64_t host_memory_mib();
/// The first name server of this host that a guest could reach; empty if there is none.
std::string host_name_server();

}  // namespace haneul::agent
