// SPDX-License-Identifier: Apache-2.0
#include "agent/daemon/host_network.h"

#include <poll.h>

#include <cerrno>

#include "base/log.h"

namespace haneul::agent {

HostNetwork::HostNetwork(NetworkChoice choice, std::string tag, std::string owner, const Places& places)
    : choice_(choice), tag_(std::move(tag)), owner_(std::move(owner)), places_(places) {}

HostNetwork::~HostNetwork() {
  stop_watching();
}

Result<net::NicSpec> HostNetwork::spec_of(const NicPlan& nic) const {
  net::NicSpec spec;
  spec.tap = net::tap_name(tag_, nic.instance_id);
  spec.zone = nic.zone;
  spec.mac = TRY(net::Mac::parse(nic.mac));
  spec.address = TRY(net::Ipv4::parse(nic.address));
  return spec;
}

Result<UniqueFd> HostNetwork::plug(const NicPlan& nic) {
  std::scoped_lock lock(mutex_);
  if (choice_ == NetworkChoice::kNone) return UniqueFd();
  if (!fabric_) return Error(ErrorCode::kInternal, "the network is not there");
  net::NicSpec spec = TRY(spec_of(nic));
  return fabric_->plug(spec);
}

Status HostNetwork::unplug(const std::string& instance_id) {
  std::scoped_lock lock(mutex_);
  if (!fabric_) return {};
  return fabric_->unplug(net::tap_name(tag_, instance_id));
}

net::FabricOptions HostNetwork::fabric_options() const {
  net::FabricOptions options;
  options.tag = tag_;
  options.owner = owner_;
  options.mode = choice_ == NetworkChoice::kHost ? net::NetworkMode::kHost : net::NetworkMode::kPrivate;
  for (const RegionPlace& region : places_.regions()) {
    for (const Zone& zone : region.zones) {
      options.zones.push_back({.name = zone.name,
                               .label = zone.label,
                               .subnet = {.address = {zone.network}, .length = kSubnetBits},
                               .gateway = {gateway_of(zone)}});
    }
  }
  return options;
}

Status HostNetwork::reconcile(const std::vector<NicPlan>& live) {
  std::scoped_lock lock(mutex_);
  if (choice_ == NetworkChoice::kNone) return {};
  failed_ = true;
  std::vector<net::NicSpec> specs;
  for (const NicPlan& nic : live) specs.push_back(TRY(spec_of(nic)));
  if (fabric_) {
    TRY(fabric_->reconcile(std::move(specs)));
  } else {
    // Before anything is looked at: what changes from here on is told.
    changes_ = TRY(net::Watch::open());
    fabric_ = TRY(net::Fabric::open(fabric_options(), std::move(specs)));
    TRY(start_watching());
  }
  failed_ = false;
  return {};
}

// ---- a host that changes ----

Status HostNetwork::start_watching() {
  stop_ = TRY(EventFd::create());
  watching_ = std::thread([this] { watch(); });
  return {};
}

void HostNetwork::stop_watching() {
  if (!watching_.joinable()) return;
  stop_->signal();
  watching_.join();
}

// Changes come in bursts, our own among them: they are looked at once, when a moment has passed.
void HostNetwork::watch() {
  constexpr int kMomentMs = 200;
  constexpr int kRetryMs = 5000;
  bool failed = false;
  for (;;) {
    pollfd waits[] = {{stop_->fd(), POLLIN, 0}, {changes_->fd(), POLLIN, 0}};
    if (::poll(waits, 2, failed ? kRetryMs : -1) < 0 && errno != EINTR) return;
    if (waits[0].revents != 0) return;
    if (waits[1].revents == 0 && !failed) continue;
    if (::poll(waits, 1, kMomentMs) > 0) return;
    changes_->drain();
    std::scoped_lock lock(mutex_);
    Status refreshed = fabric_->refresh();
    failed = !refreshed.ok();
    if (failed)
      LOG_ERROR("the network, tried again in {} s: {}", kRetryMs / 1000, refreshed.error().message());
  }
}

std::vector<std::string> HostNetwork::warnings() {
  std::scoped_lock lock(mutex_);
  return fabric_ ? fabric_->warnings() : std::vector<std::string>{};
}

Status HostNetwork::remove_all() {
  stop_watching();
  std::scoped_lock lock(mutex_);
  return fabric_ ? fabric_->remove_all() : Status();
}

}  // namespace haneul::agent
