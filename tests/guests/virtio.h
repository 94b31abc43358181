// SPDX-License-Identifier: Apache-2.0
// A driver for modern virtio-pci devices (VIRTIO 1.2, section 4.1), polled: enough to exercise and to measure
// a device.
#pragma once

#include "tests/guests/runtime.h"

namespace guest {

struct Descriptor {
  uint64_t address;
  uint32_t length;
  uint16_t flags;
  uint16_t next;
};
constexpr uint16_t kNext = 1;
constexpr uint16_t kWrite = 2;

/// One split queue in the guest's memory.
class Queue {
 public:
  void place(uint16_t size, uint64_t notify_address);
  uint16_t size() const { return size_; }
  Descriptor& descriptor(uint16_t i) { return descriptors_[i]; }
  uint64_t descriptors_address() const { return reinterpret_cast<uint64_t>(descriptors_); }
  uint64_t available_address() const { return reinterpret_cast<uint64_t>(available_); }
  uint64_t used_address() const { return reinterpret_cast<uint64_t>(used_); }

  /// Puts the chain that begins at head into the ring; the device sees it at kick().
  void add(uint16_t head);
  /// Shows the device what was added, and rings the doorbell if the device asked for it.
  void kick();
  /// The next finished chain's head, or -1.
  int poll(uint32_t* written = nullptr);
  uint64_t kicks() const { return kicks_; }
  /// Asks for an interrupt when the next chain is finished.
  void want_interrupt() { available_[2 + size_] = next_used_; }

 private:
  uint16_t size_ = 0;
  Descriptor* descriptors_ = nullptr;
  volatile uint16_t* available_ = nullptr;  // flags, idx, ring[size], used_event
  volatile uint16_t* used_ = nullptr;       // flags, idx, {u32 id, u32 len}[size], avail_event
  uint16_t next_available_ = 0;
  uint16_t shown_ = 0;
  uint16_t next_used_ = 0;
  uint64_t notify_ = 0;
  uint64_t kicks_ = 0;
};

class VirtioDevice {
 public:
  /// The virtio device ID of what is in a slot of bus 0, or 0.
  static uint16_t type_in(unsigned slot);
  /// The slot of the nth device with this virtio device ID, or 0.
  static unsigned slot_of(uint16_t device_type, unsigned nth);

  /// Brings the device to FEATURES_OK with the features that both sides know (EVENT_IDX, VERSION_1 and
  /// `features`).
  void open(unsigned slot, uint64_t features);
  void set_up_queue(uint16_t index, Queue& queue, uint16_t size);
  void go();  // DRIVER_OK
  /// MSI-X on, and a queue's interrupts by the table's first entry, which is masked still.
  void use_msix(uint16_t queue);
  /// That entry's message: this vector of the first vCPU.
  void set_vector(uint8_t vector);
  void mask(bool on) { write_mmio<uint32_t>(msix_table_ + 12, on ? 1 : 0); }
  uint64_t features() const { return features_; }
  uint64_t config(uint32_t offset) const { return config_ + offset; }
  uint8_t status() const { return read_mmio<uint8_t>(common_ + 20); }

 private:
  void find_capabilities(uint64_t function);
  uint64_t common_ = 0;
  uint64_t msix_ = 0;
  uint64_t msix_table_ = 0;
  uint64_t notify_ = 0;
  uint32_t notify_multiplier_ = 0;
  uint64_t config_ = 0;
  uint64_t features_ = 0;
};

}  // namespace guest
