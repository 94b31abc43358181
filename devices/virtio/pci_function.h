// SPDX-License-Identifier: Apache-2.0
// Transport: the inside of PciTransport. pci_transport.cc makes it a PCI function; pci_registers.cc is the
// common configuration, through which a driver brings the device up and down.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "base/event_fd.h"
#include "base/log.h"
#include "base/thread.h"
#include "devices/pci/device.h"
#include "devices/virtio/device.h"
#include "devices/virtio/pci_format.h"

namespace haneul::devices::virtio {

class Transport final : public pci::Device, public DeviceHost {
 public:
  Transport(std::unique_ptr<virtio::Device> device, std::unique_ptr<pci::Msix> msix,
            const GuestMemory& memory, DoorbellRegistrar& doorbells, ThreadStarter& threads);
  ~Transport() override;

  Status prepare();

  // pci::Device
  void bar_read(unsigned bar, uint64_t offset, std::span<std::byte> data) override;
  void bar_write(unsigned bar, uint64_t offset, std::span<const std::byte> data) override;
  void on_bars_placed(const std::array<std::optional<uint64_t>, pci::kBars>& addresses) override;
  void on_removed() override;

  // DeviceHost
  void config_changed() override;
  void needs_reset(std::string_view reason) override;

 private:
  // A queue's MSI-X vector, as the driver chose it.
  class QueueInterrupt final : public Interrupt {
   public:
    explicit QueueInterrupt(Transport& transport) : transport_(transport) {}
    void trigger() override { transport_.interrupt(vector.load(std::memory_order_relaxed), kIsrQueue); }
    std::atomic<uint16_t> vector{kNoVector};

   private:
    Transport& transport_;
  };

  struct QueueSlot {
    QueueSlot(Transport& transport, uint16_t max, EventFd event)
        : max_size(max), size(max), doorbell(std::move(event)), interrupt(transport) {}
    const uint16_t max_size;
    uint16_t size;
    uint64_t descriptors = 0;
    uint64_t available = 0;
    uint64_t used = 0;
    bool enabled = false;
    std::unique_ptr<Queue> ready;  // from queue_enable to DRIVER_OK
    std::optional<GuestAddress> bound;
    const EventFd doorbell;
    QueueInterrupt interrupt;
  };

  void before_config_read(uint32_t offset, uint32_t length) override;
  void after_config_write(uint32_t offset, uint32_t length) override;
  void add_virtio_capability(uint8_t type, uint32_t offset, uint32_t length,
                             std::optional<uint32_t> multiplier = std::nullopt);
  struct PciAccess {
    uint32_t offset;
    uint32_t length;
  };
  std::optional<PciAccess> pci_access(uint32_t offset, uint32_t length) const;

  uint64_t offered() const {
    return device_->features() | kFeatureVersion1 | kFeatureEventIdx | kFeatureIndirectDesc;
  }
  void interrupt(uint16_t vector, uint8_t isr_bit);
  void warn(std::string_view what);

  // These with mutex_.
  QueueSlot* selected() { return queue_select_ < queues_.size() ? queues_[queue_select_].get() : nullptr; }
  void common_read(uint64_t offset, std::span<std::byte> data);
  void common_write(uint64_t offset, uint64_t value, size_t width);
  void queue_write(uint64_t offset, uint64_t value, size_t width);
  void enable_queue(QueueSlot& slot);
  void write_status(uint8_t value);
  void accept_features();
  void start();
  void reset();
  void bind_doorbells();
  void unbind_doorbells();
  void device_read(uint64_t offset, std::span<std::byte> data);
  void device_write(uint64_t offset, std::span<const std::byte> data);

  void notify_write(uint64_t offset);

  const GuestMemory& memory_;
  DoorbellRegistrar& doorbells_;
  ThreadStarter& threads_;
  const std::unique_ptr<pci::Msix> msix_;
  uint8_t access_capability_ = 0;
  LogLimiter log_limit_;

  // Changed by I/O threads as well, which take no lock of ours.
  std::atomic<uint8_t> status_{0};
  std::atomic<uint8_t> isr_{0};
  std::atomic<uint8_t> generation_{0};
  std::atomic<uint16_t> config_vector_{kNoVector};

  std::mutex mutex_;
  uint32_t device_feature_select_ = 0;
  uint32_t driver_feature_select_ = 0;
  uint64_t driver_features_ = 0;
  uint16_t queue_select_ = 0;
  std::optional<uint64_t> notify_base_;
  std::vector<std::unique_ptr<QueueSlot>> queues_;

  // Last, so that it goes first: it uses the queues' doorbells and interrupts.
  const std::unique_ptr<virtio::Device> device_;
};

}  // namespace haneul::devices::virtio
