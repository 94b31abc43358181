// SPDX-License-Identifier: Apache-2.0
// virtio::Device: what a kind of device (block, net, entropy) implements, and virtio::DeviceHost: what the
// transport gives it in return. A device knows nothing of PCI; a transport knows nothing of disks.
// Virtual I/O Device (VIRTIO) 1.2, sections 2 and 5.
//
// Life: constructed -> attach() -> [ activate() -> running -> reset() ]* -> destroyed.
// Threads: attach, activate, reset, let_go, pause, resume and the config space are called by the transport, one call
// at a time, on a vCPU's or the control thread. Everything that moves data runs on I/O threads that the
// device starts in activate() and joins in reset().
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "base/thread.h"
#include "devices/guest_memory.h"
#include "devices/virtio/queue.h"

namespace haneul::devices::virtio {

/// Section 5: device IDs.
enum class DeviceType : uint16_t {
  kNet = 1,
  kBlock = 2,
  kConsole = 3,
  kEntropy = 4,
  kBalloon = 5,
  kVsock = 19,
};

/// Section 6: feature bits that belong to every device. The transport offers the first three by itself.
inline constexpr uint64_t kFeatureIndirectDesc = 1ull << 28;
inline constexpr uint64_t kFeatureEventIdx = 1ull << 29;
inline constexpr uint64_t kFeatureVersion1 = 1ull << 32;

/// What activate() hands over. The queues are the device's until reset() has returned.
struct Activation {
  const GuestMemory& memory;
  /// Starts the device's I/O threads; outlives the device.
  ThreadStarter& threads;
  /// What driver and device agreed on, the transport's bits included.
  uint64_t features = 0;
  /// By queue index; null where the driver did not enable the queue.
  std::vector<std::unique_ptr<Queue>> queues;
};

class Device {
 public:
  /// Implies reset(): an implementation's destructor stops its threads.
  virtual ~Device() = default;

  virtual DeviceType type() const = 0;
  /// For the log: "block vol-0123".
  virtual std::string_view name() const = 0;
  /// The device's own bits (0 to 23, 50 to 63).
  virtual uint64_t features() const = 0;
  /// Whether the device can work with this subset of what was offered; asked at FEATURES_OK (section 3.1.1).
  virtual bool accepts(uint64_t features) const {
    (void)features;
    return true;
  }
  /// The largest size of each queue, a power of two up to kMaxQueueSize. Their number is fixed.
  virtual std::span<const uint16_t> queue_sizes() const = 0;

  /// Bytes of device-specific configuration. The transport keeps [offset, offset + data.size()) inside it.
  virtual uint32_t config_size() const = 0;
  virtual void read_config(uint32_t offset, std::span<std::byte> data) = 0;
  virtual void write_config(uint32_t offset, std::span<const std::byte> data) {
    (void)offset;
    (void)data;
  }

  /// Once, before anything else; `host` outlives the device.
  virtual void attach(DeviceHost& host) = 0;

  /// DRIVER_OK. On failure nothing runs, and the driver is told that the device needs a reset.
  /// Doorbells may have rung before: look at every queue once before waiting for its doorbell.
  virtual Status activate(Activation activation) = 0;

  /// Back to the state before activate(), whatever was under way; called as well when never activated.
  /// When it returns, no thread and no kernel request of this device touches guest memory or the queues.
  virtual void reset() = 0;

  /// The guest has no part in it any more: takes nothing new from the queues, and does not wait for what is under way,
  /// as reset() does, which comes next.
  virtual void let_go() = 0;

  /// Holds the device still: when it returns, nothing is in flight and guest memory is not touched until
  /// resume(). Doorbells rung meanwhile are not lost.
  virtual Status pause() { return make_error(ErrorCode::kUnsupported, "{} cannot be paused", name()); }
  /// Fails, and the device stays still, where its threads cannot be started.
  virtual Status resume() { return {}; }
};

}  // namespace haneul::devices::virtio
