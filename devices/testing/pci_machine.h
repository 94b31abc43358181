// SPDX-License-Identifier: Apache-2.0
// PciMachine: a machine with a PCI bus but no CPU, for tests; and VirtioPci: a guest's virtio-pci driver on
// it, which finds everything through configuration space as a guest does.
//
//   PciMachine machine;
//   unsigned slot = machine.add(make_rng().value());
//   VirtioPci driver(machine, slot);
//   driver.start();
//   driver.queue(0).chain().writable(32).submit();
//   driver.kick(0);
//   driver.wait_used(0);
#pragma once

#include <concepts>
#include <memory>
#include <optional>
#include <vector>

#include "devices/acpi_events.h"
#include "devices/bus.h"
#include "devices/pci/root.h"
#include "devices/testing/driver_queue.h"
#include "devices/testing/fakes.h"
#include "devices/virtio/device.h"
#include "devices/virtio/pci_format.h"

namespace haneul::devices::testing {

class PciMachine {
 public:
  static constexpr pci::Layout kLayout = {.ecam_base = 0xe0000000,
                                          .ecam_size = 2_MiB,
                                          .mmio32_base = 0xc0000000,
                                          .mmio32_size = 256_MiB,
                                          .mmio64_base = 0x4000000000,
                                          .mmio64_size = 1_GiB};
  static constexpr uint64_t kHotplugBase = 0xfed00000;
  static constexpr uint64_t kEventBase = 0xfed01000;

  explicit PciMachine(size_t vectors = 1024, uint64_t ram_size = 16_MiB);
  ~PciMachine();

  template <std::unsigned_integral T>
  T mmio(uint64_t address) const {
    std::byte bytes[sizeof(T)];
    bus.read(address, bytes);
    return load_le<T>(bytes);
  }
  template <std::unsigned_integral T>
  void set_mmio(uint64_t address, T value) const {
    std::byte bytes[sizeof(T)];
    store_le<T>(bytes, value);
    bus.write(address, bytes);
  }
  static uint64_t config_address(unsigned slot, uint32_t offset) {
    return kLayout.ecam_base + (uint64_t{slot} << 15) + offset;
  }
  template <std::unsigned_integral T>
  T config(unsigned slot, uint32_t offset) const {
    return mmio<T>(config_address(slot, offset));
  }
  template <std::unsigned_integral T>
  void set_config(unsigned slot, uint32_t offset, T value) const {
    set_mmio<T>(config_address(slot, offset), value);
  }

  std::unique_ptr<pci::Device> function(std::unique_ptr<virtio::Device> device);
  /// Cold-plugs a virtio device; its slot.
  unsigned add(std::unique_ptr<virtio::Device> device);
  unsigned plug(std::unique_ptr<virtio::Device> device);

  GuestRam ram;
  Bus bus;
  FakeMsiController msi;
  FakeDoorbells doorbells;
  ScarceThreads threads;
  CountingInterrupt event_interrupt;
  acpi::EventDevice events;
  pci::Root root;
  pci::HotplugRegisters hotplug;
};

class VirtioPci {
 public:
  /// Fails the CHECK if the slot holds no modern virtio device.
  VirtioPci(PciMachine& machine, unsigned slot);

  template <std::unsigned_integral T>
  T common(uint32_t field) const {
    return machine_.mmio<T>(bar() + common_ + field);
  }
  template <std::unsigned_integral T>
  void set_common(uint32_t field, T value) const {
    machine_.set_mmio<T>(bar() + common_ + field, value);
  }
  uint8_t status() const { return common<uint8_t>(virtio::common::kStatus); }
  void add_status(uint8_t bits) const { set_common<uint8_t>(virtio::common::kStatus, status() | bits); }
  uint64_t device_features() const;
  /// Steps 1 to 6 of section 3.1.1; whether FEATURES_OK stayed set.
  bool negotiate(uint64_t features = ~0ull);
  /// Rings of at most this many entries, on vector index + 1, enabled.
  void make_queue(uint16_t index, uint16_t size = 16);
  /// Tells the device of a ring's place, to be enabled.
  void place_queue(const virtio::QueueLayout& layout) const;
  /// Vector i's message has data i + data_base(), and is not masked.
  void enable_msix();
  void driver_ok() const { add_status(virtio::kDriverOk); }
  /// All of these, for all queues.
  void start(uint64_t features = ~0ull);
  /// Writes 0 to the status and reads it back.
  void reset();

  /// As the guest rings: through a bound doorbell, or else with an exit.
  void kick(uint16_t index);
  uint64_t doorbell_address(uint16_t index) const;
  std::optional<DriverQueue::Used> wait_used(uint16_t index, std::chrono::milliseconds timeout = 10s);

  DriverQueue& queue(uint16_t index) { return *queues_[index]; }
  uint16_t queue_count() const { return common<uint16_t>(virtio::common::kNumQueues); }
  uint64_t features() const { return features_; }
  unsigned slot() const { return slot_; }
  uint32_t data_base() const { return slot_ * 0x100; }
  int config_interrupts() const { return machine_.msi.fired(data_base()); }
  uint64_t bar() const;
  uint64_t isr_address() const { return bar() + isr_; }
  uint64_t device_address() const { return bar() + device_; }
  uint64_t msix_table() const { return bar() + msix_table_; }
  uint64_t msix_pending() const { return bar() + msix_pending_; }
  uint32_t msix_capability() const { return msix_capability_; }
  uint32_t access_capability() const { return access_capability_; }

 private:
  PciMachine& machine_;
  unsigned slot_;
  uint32_t common_ = 0;
  uint32_t isr_ = 0;
  uint32_t device_ = 0;
  uint32_t notify_ = 0;
  uint32_t multiplier_ = 0;
  uint32_t msix_capability_ = 0;
  uint32_t msix_table_ = 0;
  uint32_t msix_pending_ = 0;
  uint32_t access_capability_ = 0;
  uint64_t features_ = 0;
  std::vector<std::unique_ptr<DriverQueue>> queues_;
};

}  // namespace haneul::devices::testing
