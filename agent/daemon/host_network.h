// SPDX-License-Identifier: Apache-2.0
// The cloud's network on this machine: net's Fabric, made to match the cloud, and kept matching a host whose routes
// and firewall rules change.
#pragma once

#include <atomic>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "agent/cloud/places.h"
#include "agent/cloud/seams.h"
#include "base/event_fd.h"
#include "net/fabric.h"
#include "net/watch.h"

namespace haneul::agent {

/// kNone: instances have no interface.
enum class NetworkChoice { kHost, kPrivate, kNone };

/// Thread-safe. A thread of its own watches the host, from the first reconcile() on.
class HostNetwork : public Network {
 public:
  /// `owner` is net::owner_of(the state folder).
  HostNetwork(NetworkChoice choice, std::string tag, std::string owner, const Places& places);
  ~HostNetwork() override;

  Result<UniqueFd> plug(const NicPlan& nic) override;
  Status unplug(const std::string& instance_id) override;
  Status reconcile(const std::vector<NicPlan>& live) override;
  std::vector<std::string> warnings() override;
  /// Takes everything down again, when no instance is left. Nothing is watched any more.
  Status remove_all();
  /// Whether reconcile() failed: the daemon's exit status tells.
  bool failed() const { return failed_; }

 private:
  Result<net::NicSpec> spec_of(const NicPlan& nic) const;
  net::FabricOptions fabric_options() const;
  Status start_watching();
  void stop_watching();
  void watch();

  const NetworkChoice choice_;
  const std::string tag_;
  const std::string owner_;
  const Places& places_;
  std::mutex mutex_;
  std::optional<net::Fabric> fabric_;  ///< under the lock
  std::atomic<bool> failed_{false};
  std::optional<net::Watch> changes_;  ///< the watching thread's
  std::optional<EventFd> stop_;
  std::thread watching_;
};

}  // namespace haneul::agent
