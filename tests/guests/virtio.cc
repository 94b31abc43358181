// SPDX-License-Identifier: Apache-2.0
#include "tests/guests/virtio.h"

namespace guest {
namespace {

// vmm/arch/x86_64/layout.h; QEMU's microvm has it there too.
constexpr uint64_t kEcam = 0xe0000000;

constexpr uint64_t kEventIdx = 1ull << 29;
constexpr uint64_t kVersion1 = 1ull << 32;

void full_barrier() {
  asm volatile("mfence" ::: "memory");
}

// Where QEMU's microvm forwards memory accesses to its PCI bus; haneul-vmm places its BARs itself.
uint32_t next_bar = 0xc0000000;
constexpr uint32_t kBarSpace = 1 << 20;

uint64_t bar_address(uint64_t function, uint8_t bar) {
  uint64_t place = function + 0x10 + bar * 4u;
  uint32_t low = read_mmio<uint32_t>(place);
  if ((low & ~0xfu) == 0 && ((low & 6) == 0 || read_mmio<uint32_t>(place + 4) == 0)) {
    write_mmio<uint32_t>(place, next_bar);
    next_bar += kBarSpace;
    low = read_mmio<uint32_t>(place);
  }
  uint64_t address = low & ~0xfu;
  if ((low & 6) == 4) address |= uint64_t{read_mmio<uint32_t>(place + 4)} << 32;
  return address;
}

}  // namespace

void Queue::place(uint16_t size, uint64_t notify_address) {
  size_ = size;
  notify_ = notify_address;
  descriptors_ = static_cast<Descriptor*>(allocate(sizeof(Descriptor) * size));
  available_ = static_cast<uint16_t*>(allocate(6 + 2u * size));
  used_ = static_cast<uint16_t*>(allocate(6 + 8u * size));
}

void Queue::add(uint16_t head) {
  available_[2 + next_available_++ % size_] = head;
}

void Queue::kick() {
  uint16_t old = shown_;
  full_barrier();
  available_[1] = shown_ = next_available_;
  full_barrier();
  // EVENT_IDX, section 2.7.10: ring if avail_event lies among the entries just shown.
  uint16_t event = used_[2 + 4u * size_];
  auto ahead = static_cast<uint16_t>(shown_ - event - 1);
  auto shown_now = static_cast<uint16_t>(shown_ - old);
  if (ahead >= shown_now) return;
  write_mmio<uint16_t>(notify_, 0);
  ++kicks_;
}

int Queue::poll(uint32_t* written) {
  if (used_[1] == next_used_) return -1;
  full_barrier();
  const volatile uint16_t* entry = used_ + 2 + 4u * (next_used_ % size_);
  int head = entry[0];
  if (written != nullptr) *written = entry[2] | (uint32_t{entry[3]} << 16);
  ++next_used_;
  return head;
}

uint16_t VirtioDevice::type_in(unsigned slot) {
  uint32_t id = read_mmio<uint32_t>(kEcam + slot * 0x8000u);
  // 0x1040 and the virtio device ID, section 4.1.2.
  if ((id & 0xffff) != 0x1af4 || (id >> 16) < 0x1040) return 0;
  return static_cast<uint16_t>((id >> 16) - 0x1040);
}

unsigned VirtioDevice::slot_of(uint16_t device_type, unsigned nth) {
  for (unsigned slot = 1; slot < 32; ++slot) {
    if (type_in(slot) == device_type && nth-- == 0) return slot;
  }
  return 0;
}

void VirtioDevice::open(unsigned slot, uint64_t features) {
  uint64_t function = kEcam + slot * 0x8000u;
  find_capabilities(function);
  write_mmio<uint16_t>(function + 4, 6);  // memory decoding, bus master

  write_mmio<uint8_t>(common_ + 20, 0);
  while (read_mmio<uint8_t>(common_ + 20) != 0) pause();
  write_mmio<uint8_t>(common_ + 20, 1);
  write_mmio<uint8_t>(common_ + 20, 3);
  write_mmio<uint32_t>(common_ + 0, 0);
  uint64_t offered = read_mmio<uint32_t>(common_ + 4);
  write_mmio<uint32_t>(common_ + 0, 1);
  offered |= uint64_t{read_mmio<uint32_t>(common_ + 4)} << 32;
  features_ = offered & (features | kEventIdx | kVersion1);
  write_mmio<uint32_t>(common_ + 8, 0);
  write_mmio<uint32_t>(common_ + 12, static_cast<uint32_t>(features_));
  write_mmio<uint32_t>(common_ + 8, 1);
  write_mmio<uint32_t>(common_ + 12, static_cast<uint32_t>(features_ >> 32));
  write_mmio<uint8_t>(common_ + 20, 11);
  if ((status() & 8) == 0) fail("the device refused the features");
}

void VirtioDevice::find_capabilities(uint64_t function) {
  for (uint8_t at = read_mmio<uint8_t>(function + 0x34); at != 0;
       at = read_mmio<uint8_t>(function + at + 1)) {
    uint8_t id = read_mmio<uint8_t>(function + at);
    if (id == 0x11) {
      uint32_t table = read_mmio<uint32_t>(function + at + 4);
      msix_ = function + at;
      msix_table_ = bar_address(function, table & 7) + (table & ~7u);
    }
    if (id != 9) continue;
    uint8_t type = read_mmio<uint8_t>(function + at + 3);
    uint64_t place =
        bar_address(function, read_mmio<uint8_t>(function + at + 4)) + read_mmio<uint32_t>(function + at + 8);
    if (type == 1) common_ = place;
    if (type == 2) {
      notify_ = place;
      notify_multiplier_ = read_mmio<uint32_t>(function + at + 16);
    }
    if (type == 4) config_ = place;
  }
}

void VirtioDevice::set_up_queue(uint16_t index, Queue& queue, uint16_t size) {
  write_mmio<uint16_t>(common_ + 22, index);
  uint16_t most = read_mmio<uint16_t>(common_ + 24);
  if (most < size) size = most;
  write_mmio<uint16_t>(common_ + 24, size);
  uint64_t notify_at = notify_ + uint64_t{read_mmio<uint16_t>(common_ + 30)} * notify_multiplier_;
  queue.place(size, notify_at);
  const uint64_t places[] = {queue.descriptors_address(), queue.available_address(), queue.used_address()};
  for (unsigned i = 0; i < 3; ++i) {
    write_mmio<uint32_t>(common_ + 32 + 8 * i, static_cast<uint32_t>(places[i]));
    write_mmio<uint32_t>(common_ + 36 + 8 * i, static_cast<uint32_t>(places[i] >> 32));
  }
  write_mmio<uint16_t>(common_ + 28, 1);
}

void VirtioDevice::go() {
  write_mmio<uint8_t>(common_ + 20, 15);
  uint8_t now = status();
  // All ones: it was taken away meanwhile.
  if (now != 0xff && (now & 0x40) != 0) fail("the device needs a reset");
}

void VirtioDevice::use_msix(uint16_t queue) {
  write_mmio<uint16_t>(msix_ + 2, 1u << 15);
  write_mmio<uint16_t>(common_ + 22, queue);
  write_mmio<uint16_t>(common_ + 26, 0);
  if (read_mmio<uint16_t>(common_ + 26) != 0) fail("the queue took no vector");
}

void VirtioDevice::set_vector(uint8_t vector) {
  write_mmio<uint32_t>(msix_table_, 0xfee00000);
  write_mmio<uint32_t>(msix_table_ + 4, 0);
  write_mmio<uint32_t>(msix_table_ + 8, vector);
}

}  // namespace guest
