// SPDX-License-Identifier: Apache-2.0
#include "devices/testing/driver_queue.h"

#include <algorithm>

namespace haneul::devices::testing {

using virtio::RingDescriptor;

ChainBuilder& ChainBuilder::readable(std::span<const std::byte> data) {
  GuestAddress address = queue_.ram().allocate(data.size());
  queue_.ram().write(address, data);
  return readable_at(address, static_cast<uint32_t>(data.size()));
}

ChainBuilder& ChainBuilder::writable(uint32_t length) {
  GuestAddress address = queue_.ram().allocate(length);
  queue_.ram().write(address, std::vector<std::byte>(length, std::byte{0xa5}));
  return writable_at(address, length);
}

ChainBuilder& ChainBuilder::readable_at(GuestAddress address, uint32_t length) {
  buffers_.push_back({address, length, false});
  return *this;
}

ChainBuilder& ChainBuilder::writable_at(GuestAddress address, uint32_t length) {
  buffers_.push_back({address, length, true});
  return *this;
}

ChainBuilder& ChainBuilder::indirect() {
  indirect_ = true;
  return *this;
}

Request ChainBuilder::prepare() {
  CHECK(!buffers_.empty());
  std::vector<RingDescriptor> list;
  for (const Buffer& buffer : buffers_) {
    uint16_t flags = buffer.writable ? virtio::kDescWrite : uint16_t{0};
    list.push_back({buffer.address.value, buffer.length, flags, uint16_t{0}});
  }
  for (size_t i = 0; i + 1 < list.size(); ++i)
    list[i].flags = static_cast<uint16_t>(list[i].flags | virtio::kDescNext);
  if (indirect_) {
    for (size_t i = 0; i < list.size(); ++i) list[i].next = static_cast<uint16_t>(i + 1);
    auto bytes = std::as_bytes(std::span(list));
    GuestAddress table = queue_.ram().allocate(bytes.size());
    queue_.ram().write(table, bytes);
    list = {
        RingDescriptor{table.value, static_cast<uint32_t>(bytes.size()), virtio::kDescIndirect, uint16_t{0}}};
  }
  std::vector<uint16_t> taken;
  for (size_t i = 0; i < list.size(); ++i) taken.push_back(queue_.take_descriptor());
  for (size_t i = 0; i < list.size(); ++i) {
    if (i + 1 < list.size()) list[i].next = taken[i + 1];
    queue_.set_descriptor(taken[i], list[i]);
  }
  uint16_t head = taken.front();
  queue_.owned_[head] = std::move(taken);
  return Request{head, buffers_};
}

Request ChainBuilder::submit() {
  Request request = prepare();
  queue_.offer(request.head);
  return request;
}

DriverQueue::DriverQueue(GuestRam& ram, const Options& options) : ram_(ram), owned_(options.size) {
  layout_ = {.index = options.index,
             .size = options.size,
             .descriptors = ram.allocate(virtio::descriptor_bytes(options.size), virtio::kDescriptorAlign),
             .available = ram.allocate(virtio::available_bytes(options.size), virtio::kAvailableAlign),
             .used = ram.allocate(virtio::used_bytes(options.size), virtio::kUsedAlign),
             .event_idx = options.event_idx,
             .indirect = options.indirect};
  ram.write(layout_.descriptors, std::vector<std::byte>(virtio::descriptor_bytes(options.size)));
  ram.write(layout_.available, std::vector<std::byte>(virtio::available_bytes(options.size)));
  ram.write(layout_.used, std::vector<std::byte>(virtio::used_bytes(options.size)));
  for (uint16_t i = options.size; i-- > 0;) free_.push_back(i);
}

uint16_t DriverQueue::take_descriptor() {
  CHECK(!free_.empty());
  uint16_t index = free_.back();
  free_.pop_back();
  return index;
}

std::optional<DriverQueue::Used> DriverQueue::take_used() {
  if (used_index() == used_seen_) return std::nullopt;
  uint64_t entry = layout_.used.value + virtio::kRingEntries + 8u * (used_seen_ % layout_.size);
  auto head = ram_.memory().load<uint32_t>(GuestAddress{entry}, std::memory_order_relaxed);
  auto written = ram_.memory().load<uint32_t>(GuestAddress{entry + 4}, std::memory_order_relaxed);
  CHECK(head && written && *head < layout_.size);
  ++used_seen_;
  auto& chain = owned_[*head];
  free_.insert(free_.end(), chain.rbegin(), chain.rend());
  chain.clear();
  return Used{static_cast<uint16_t>(*head), *written};
}

bool DriverQueue::wants_doorbell() {
  uint16_t before = std::exchange(rung_, available_);
  if (layout_.event_idx) {
    return before != available_ && virtio::passes_event(available_event(), available_, before);
  }
  return before != available_ && (used_flags() & virtio::kUsedNoNotify) == 0;
}

void DriverQueue::arm_interrupt() {
  const GuestMemory& memory = ram_.memory();
  if (layout_.event_idx) {
    GuestAddress event{layout_.available.value + virtio::used_event_offset(layout_.size)};
    CHECK(memory.store<uint16_t>(event, used_seen_, std::memory_order_seq_cst));
  } else {
    CHECK(memory.store<uint16_t>(layout_.available, 0, std::memory_order_seq_cst));
  }
}

void DriverQueue::disarm_interrupt() {
  const GuestMemory& memory = ram_.memory();
  if (layout_.event_idx) {
    GuestAddress event{layout_.available.value + virtio::used_event_offset(layout_.size)};
    auto behind = static_cast<uint16_t>(used_seen_ - 1);
    CHECK(memory.store<uint16_t>(event, behind, std::memory_order_seq_cst));
  } else {
    CHECK(memory.store<uint16_t>(layout_.available, virtio::kAvailNoInterrupt, std::memory_order_seq_cst));
  }
}

void DriverQueue::set_descriptor(uint16_t index, const RingDescriptor& descriptor) {
  CHECK(ram_.memory().write_object(GuestAddress{layout_.descriptors.value + 16u * index}, descriptor));
}

void DriverQueue::stage(uint16_t head) {
  uint64_t entry = layout_.available.value + virtio::kRingEntries + 2u * (available_ % layout_.size);
  CHECK(ram_.memory().store<uint16_t>(GuestAddress{entry}, head, std::memory_order_relaxed));
}

void DriverQueue::offer(uint16_t head) {
  stage(head);
  set_available_index(static_cast<uint16_t>(available_ + 1));
}

void DriverQueue::set_available_index(uint16_t index) {
  available_ = index;
  GuestAddress place{layout_.available.value + virtio::kRingIndex};
  // Sequentially consistent against the device's arm_doorbell().
  CHECK(ram_.memory().store<uint16_t>(place, index, std::memory_order_seq_cst));
}

uint16_t DriverQueue::used_index() const {
  return *ram_.memory().load<uint16_t>(GuestAddress{layout_.used.value + virtio::kRingIndex},
                                       std::memory_order_seq_cst);
}

uint16_t DriverQueue::available_event() const {
  return *ram_.memory().load<uint16_t>(
      GuestAddress{layout_.used.value + virtio::avail_event_offset(layout_.size)}, std::memory_order_seq_cst);
}

uint16_t DriverQueue::used_flags() const {
  return *ram_.memory().load<uint16_t>(layout_.used, std::memory_order_seq_cst);
}

}  // namespace haneul::devices::testing
