// SPDX-License-Identifier: Apache-2.0
// Driver: a guest's driver over a virtio::Device, with no PCI between them: for tests of one kind of device.
//
//   GuestRam ram;
//   Driver driver(ram, std::move(device), {});
//   auto request = driver.queue(0).chain().readable_object(header).writable(512).writable(1).submit();
//   driver.kick(0);
//   auto used = driver.wait_used(0);
//
// Thread: the test's. The device runs its own.
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <vector>

#include "devices/testing/driver_queue.h"
#include "devices/testing/fakes.h"
#include "devices/virtio/device.h"

namespace haneul::devices::testing {

class Driver {
 public:
  struct Options {
    /// What the driver would like of the features offered.
    uint64_t features = ~0ull;
    /// At most the device's own maximum.
    uint16_t queue_size = virtio::kMaxQueueSize;
    /// How many queues the driver enables, from the first on.
    size_t queues = SIZE_MAX;
    /// False: the test calls activate().
    bool activate = true;
  };

  Driver(GuestRam& ram, std::unique_ptr<virtio::Device> device, const Options& options);
  ~Driver();

  virtio::Device& device() { return *device_; }
  template <typename T>
  T& device_as() {
    return static_cast<T&>(*device_);
  }
  RecordingHost& host() { return host_; }
  GuestRam& ram() { return ram_; }
  uint64_t features() const { return features_; }

  Status activate();
  /// What the next activate() agrees to, of what the device offers.
  void set_features(uint64_t features);
  /// The device's reset(), and new, empty queues for the next activate().
  void reset();

  DriverQueue& queue(size_t index) { return *sides_[index]->driver; }
  CountingInterrupt& interrupt(size_t index) { return sides_[index]->interrupt; }
  /// Rings the doorbell, as the device asked for one or not.
  void kick(size_t index) { sides_[index]->doorbell.signal(); }
  /// Rings it only if the device asked for it.
  void kick_if_wanted(size_t index) {
    if (queue(index).wants_doorbell()) kick(index);
  }
  /// The next used element, after an interrupt if need be; nullopt after the timeout.
  std::optional<DriverQueue::Used> wait_used(size_t index, std::chrono::milliseconds timeout = 10s);

  std::vector<std::byte> config(uint32_t offset, uint32_t length);

  ScarceThreads& threads() { return threads_; }

 private:
  struct Side {
    explicit Side(EventFd event) : doorbell(std::move(event)) {}
    EventFd doorbell;
    CountingInterrupt interrupt;
    std::unique_ptr<DriverQueue> driver;
  };
  void make_queues();

  GuestRam& ram_;
  const Options options_;
  ScarceThreads threads_;
  RecordingHost host_;
  std::vector<std::unique_ptr<Side>> sides_;
  std::unique_ptr<virtio::Device> device_;
  uint64_t features_ = 0;
};

}  // namespace haneul::devices::testing
