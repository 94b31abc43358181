// SPDX-License-Identifier: Apache-2.0
#include "devices/testing/driver.h"

#include <algorithm>

namespace haneul::devices::testing {

Driver::Driver(GuestRam& ram, std::unique_ptr<virtio::Device> device, const Options& options)
    : ram_(ram), options_(options), device_(std::move(device)) {
  set_features(options_.features);
  device_->attach(host_);
  make_queues();
  if (options_.activate) {
    CHECK(device_->accepts(features_));
    activate().value();
  }
}

void Driver::set_features(uint64_t features) {
  constexpr uint64_t kTransport =
      virtio::kFeatureVersion1 | virtio::kFeatureEventIdx | virtio::kFeatureIndirectDesc;
  features_ = ((device_->features() | kTransport) & features) | virtio::kFeatureVersion1;
}

Driver::~Driver() {
  device_->reset();
}

void Driver::make_queues() {
  sides_.clear();
  auto sizes = device_->queue_sizes();
  for (size_t i = 0; i < std::min(sizes.size(), options_.queues); ++i) {
    auto side = std::make_unique<Side>(EventFd::create().value());
    side->driver = std::make_unique<DriverQueue>(
        ram_, DriverQueue::Options{.size = std::min(sizes[i], options_.queue_size),
                                   .index = static_cast<uint16_t>(i),
                                   .event_idx = (features_ & virtio::kFeatureEventIdx) != 0,
                                   .indirect = (features_ & virtio::kFeatureIndirectDesc) != 0});
    sides_.push_back(std::move(side));
  }
}

Status Driver::activate() {
  virtio::Activation activation{
      .memory = ram_.memory(), .threads = threads_, .features = features_, .queues = {}};
  for (auto& side : sides_) {
    activation.queues.push_back(TRY(virtio::Queue::create(ram_.memory(), side->driver->layout(),
                                                          side->doorbell, side->interrupt, host_)));
  }
  activation.queues.resize(device_->queue_sizes().size());
  return device_->activate(std::move(activation));
}

void Driver::reset() {
  device_->reset();
  make_queues();
}

std::optional<DriverQueue::Used> Driver::wait_used(size_t index, std::chrono::milliseconds timeout) {
  Side& side = *sides_[index];
  auto deadline = std::chrono::steady_clock::now() + timeout;
  for (;;) {
    // As a driver does: look, ask for an interrupt, look again, sleep.
    int seen = side.interrupt.count();
    if (auto used = side.driver->take_used()) return used;
    side.driver->arm_interrupt();
    if (auto used = side.driver->take_used()) return used;
    auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
    if (left.count() <= 0 || !side.interrupt.wait_for(seen + 1, left)) return side.driver->take_used();
  }
}

std::vector<std::byte> Driver::config(uint32_t offset, uint32_t length) {
  CHECK(range_within(offset, length, device_->config_size()));
  std::vector<std::byte> bytes(length);
  device_->read_config(offset, bytes);
  return bytes;
}

}  // namespace haneul::devices::testing
