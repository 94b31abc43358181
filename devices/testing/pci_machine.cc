// SPDX-License-Identifier: Apache-2.0
#include "devices/testing/pci_machine.h"

#include <algorithm>

#include "devices/virtio/pci_transport.h"

namespace haneul::devices::testing {

namespace common = virtio::common;

PciMachine::PciMachine(size_t vectors, uint64_t ram_size)
    : ram(ram_size), msi(vectors), events(event_interrupt), root(kLayout), hotplug(root) {
  root.attach_to(bus).value();
  bus.insert(kHotplugBase, pci::HotplugRegisters::kSize, hotplug).value();
  bus.insert(kEventBase, acpi::EventDevice::kSize, events).value();
  root.set_hotplug_event([this] { events.raise(acpi::kPciHotplug); });
}

PciMachine::~PciMachine() {
  bus.remove(kHotplugBase);
  bus.remove(kEventBase);
}

std::unique_ptr<pci::Device> PciMachine::function(std::unique_ptr<virtio::Device> device) {
  return virtio::PciTransport::create(std::move(device), ram.memory(), msi, doorbells, threads).value();
}

unsigned PciMachine::add(std::unique_ptr<virtio::Device> device) {
  return root.add(function(std::move(device))).value();
}

unsigned PciMachine::plug(std::unique_ptr<virtio::Device> device) {
  return root.plug(function(std::move(device))).value();
}

VirtioPci::VirtioPci(PciMachine& machine, unsigned slot) : machine_(machine), slot_(slot) {
  CHECK(machine.config<uint16_t>(slot, 0) == virtio::kPciVendor);
  CHECK(machine.config<uint16_t>(slot, 2) > virtio::kPciDeviceBase);
  CHECK((machine.config<uint16_t>(slot, 6) & 0x10) != 0);
  int found = 0;
  for (uint32_t at = machine.config<uint8_t>(slot, 0x34); at != 0;
       at = machine.config<uint8_t>(slot, at + 1)) {
    CHECK(++found < 32);
    uint8_t id = machine.config<uint8_t>(slot, at);
    if (id == 0x11) {
      msix_capability_ = at;
      msix_table_ = machine.config<uint32_t>(slot, at + 4) & ~7u;
      msix_pending_ = machine.config<uint32_t>(slot, at + 8) & ~7u;
    }
    if (id != 0x09) continue;
    uint32_t offset = machine.config<uint32_t>(slot, at + 8);
    switch (machine.config<uint8_t>(slot, at + 3)) {
      case virtio::kCapCommon:
        common_ = offset;
        break;
      case virtio::kCapIsr:
        isr_ = offset;
        break;
      case virtio::kCapDevice:
        device_ = offset;
        break;
      case virtio::kCapNotify:
        notify_ = offset;
        multiplier_ = machine.config<uint32_t>(slot, at + 16);
        break;
      case virtio::kCapPciAccess:
        access_capability_ = at;
        break;
      default:
        CHECK(false);
    }
  }
  CHECK(multiplier_ != 0 && msix_capability_ != 0);
  // Memory decoding and bus master.
  machine.set_config<uint16_t>(slot, 4, 0x6);
}

uint64_t VirtioPci::bar() const {
  uint64_t low = machine_.config<uint32_t>(slot_, 0x10);
  uint64_t high = machine_.config<uint32_t>(slot_, 0x14);
  return (high << 32 | low) & ~uint64_t{0xf};
}

uint64_t VirtioPci::device_features() const {
  uint64_t features = 0;
  for (uint32_t word : {0u, 1u}) {
    set_common<uint32_t>(common::kDeviceFeatureSelect, word);
    features |= uint64_t{common<uint32_t>(common::kDeviceFeature)} << (32 * word);
  }
  return features;
}

bool VirtioPci::negotiate(uint64_t features) {
  add_status(virtio::kAcknowledge);
  add_status(virtio::kDriver);
  features_ = device_features() & features;
  for (uint32_t word : {0u, 1u}) {
    set_common<uint32_t>(common::kDriverFeatureSelect, word);
    set_common<uint32_t>(common::kDriverFeature, static_cast<uint32_t>(features_ >> (32 * word)));
  }
  add_status(virtio::kFeaturesOk);
  return (status() & virtio::kFeaturesOk) != 0;
}

void VirtioPci::place_queue(const virtio::QueueLayout& layout) const {
  set_common<uint16_t>(common::kQueueSelect, layout.index);
  set_common<uint16_t>(common::kQueueSize, layout.size);
  auto set_address = [&](uint32_t field, GuestAddress address) {
    set_common<uint32_t>(field, static_cast<uint32_t>(address.value));
    set_common<uint32_t>(field + 4, static_cast<uint32_t>(address.value >> 32));
  };
  set_address(common::kQueueDescriptors, layout.descriptors);
  set_address(common::kQueueAvailable, layout.available);
  set_address(common::kQueueUsed, layout.used);
  set_common<uint16_t>(common::kQueueVector, static_cast<uint16_t>(layout.index + 1));
}

void VirtioPci::make_queue(uint16_t index, uint16_t size) {
  set_common<uint16_t>(common::kQueueSelect, index);
  uint16_t max = common<uint16_t>(common::kQueueSize);
  if (queues_.size() <= index) queues_.resize(index + 1u);
  queues_[index] = std::make_unique<DriverQueue>(
      machine_.ram, DriverQueue::Options{.size = std::min(max, size),
                                         .index = index,
                                         .event_idx = (features_ & virtio::kFeatureEventIdx) != 0,
                                         .indirect = (features_ & virtio::kFeatureIndirectDesc) != 0});
  place_queue(queues_[index]->layout());
  set_common<uint16_t>(common::kQueueEnable, 1);
}

void VirtioPci::enable_msix() {
  uint16_t count = (machine_.config<uint16_t>(slot_, msix_capability_ + 2) & 0x7ff) + 1;
  machine_.set_config<uint16_t>(slot_, msix_capability_ + 2, 0xc000);
  for (uint32_t i = 0; i < count; ++i) {
    uint64_t entry = msix_table() + 16 * i;
    machine_.set_mmio<uint32_t>(entry, 0xfee00000);
    machine_.set_mmio<uint32_t>(entry + 4, 0);
    machine_.set_mmio<uint32_t>(entry + 8, data_base() + i);
    machine_.set_mmio<uint32_t>(entry + 12, 0);
  }
  machine_.set_config<uint16_t>(slot_, msix_capability_ + 2, 0x8000);
  set_common<uint16_t>(common::kConfigVector, 0);
}

void VirtioPci::start(uint64_t features) {
  CHECK(negotiate(features));
  enable_msix();
  for (uint16_t i = 0; i < queue_count(); ++i) make_queue(i);
  driver_ok();
}

void VirtioPci::reset() {
  set_common<uint8_t>(common::kStatus, 0);
  CHECK(status() == 0);
}

uint64_t VirtioPci::doorbell_address(uint16_t index) const {
  set_common<uint16_t>(common::kQueueSelect, index);
  return bar() + notify_ + uint64_t{multiplier_} * common<uint16_t>(common::kQueueNotifyOff);
}

void VirtioPci::kick(uint16_t index) {
  uint64_t address = doorbell_address(index);
  if (!machine_.doorbells.ring(GuestAddress{address})) machine_.set_mmio<uint16_t>(address, index);
}

std::optional<DriverQueue::Used> VirtioPci::wait_used(uint16_t index, std::chrono::milliseconds timeout) {
  auto deadline = std::chrono::steady_clock::now() + timeout;
  uint32_t data = data_base() + index + 1;
  for (;;) {
    int seen = machine_.msi.fired(data);
    if (auto used = queue(index).take_used()) return used;
    queue(index).arm_interrupt();
    if (auto used = queue(index).take_used()) return used;
    auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
    if (left.count() <= 0 || !machine_.msi.wait_for(data, seen + 1, left)) return queue(index).take_used();
  }
}

}  // namespace haneul::devices::testing
