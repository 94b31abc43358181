// SPDX-License-Identifier: Apache-2.0
#include "devices/virtio/queue.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstring>

#include "base/checked.h"
#include "base/endian.h"
#include "devices/virtio/ring_format.h"

namespace haneul::devices::virtio {

struct Queue::Descriptor {
  uint64_t address;
  uint32_t length;
  uint16_t flags;
  uint16_t next;
};

namespace {

// Ring fields are shared with vCPUs that run at the same time: each is one atomic access.
// Little-endian on the ring; every host we run on is little-endian too.
static_assert(std::endian::native == std::endian::little);

template <typename T>
T load(const std::byte* at, std::memory_order order) {
  return std::atomic_ref<T>(*reinterpret_cast<T*>(const_cast<std::byte*>(at))).load(order);
}

template <typename T>
void store(std::byte* at, T value, std::memory_order order) {
  std::atomic_ref<T>(*reinterpret_cast<T*>(at)).store(value, order);
}

// Takes a descriptor out of guest memory, each byte read once. An atomic load cannot be repeated by the
// compiler, as a plain copy that is then examined could be.
template <typename Descriptor>
Descriptor copy_descriptor(const std::byte* at) {
  uint64_t words[2];
  if (reinterpret_cast<uintptr_t>(at) % alignof(uint64_t) == 0) {
    words[0] = load<uint64_t>(at, std::memory_order_relaxed);
    words[1] = load<uint64_t>(at + 8, std::memory_order_relaxed);
  } else {
    // Indirect tables may lie anywhere (section 2.7.5.3 asks for no alignment).
    std::memcpy(words, at, sizeof words);
    asm volatile("" : "+m"(words) : : "memory");
  }
  return Descriptor{.address = words[0],
                    .length = static_cast<uint32_t>(words[1]),
                    .flags = static_cast<uint16_t>(words[1] >> 32),
                    .next = static_cast<uint16_t>(words[1] >> 48)};
}

Result<std::byte*> place(const GuestMemory& memory, const char* part, GuestAddress at, uint64_t bytes,
                         uint64_t alignment) {
  if (!is_aligned(at.value, alignment)) {
    return make_error(ErrorCode::kInvalidArgument, "the {} at {:#x} is not aligned to {}", part, at.value,
                      alignment);
  }
  auto host = memory.slice(at, bytes);
  if (!host) {
    return make_error(ErrorCode::kInvalidArgument, "the {} at {:#x} with {} bytes is not in RAM", part,
                      at.value, bytes);
  }
  return host->data();
}

}  // namespace

Queue::Queue(const GuestMemory& memory, const QueueLayout& layout, const EventFd& doorbell,
             Interrupt& interrupt, DeviceHost& host)
    : memory_(memory),
      layout_(layout),
      doorbell_(doorbell),
      interrupt_(interrupt),
      host_(host),
      mask_(static_cast<uint16_t>(layout.size - 1)),
      head_in_flight_(layout.size) {}

Queue::~Queue() = default;

Result<std::unique_ptr<Queue>> Queue::create(const GuestMemory& memory, const QueueLayout& layout,
                                             const EventFd& doorbell, Interrupt& interrupt,
                                             DeviceHost& host) {
  if (!std::has_single_bit(layout.size) || layout.size > kMaxQueueSize) {
    return make_error(ErrorCode::kInvalidArgument, "a queue of {} entries", layout.size);
  }
  std::unique_ptr<Queue> queue(new Queue(memory, layout, doorbell, interrupt, host));
  queue->descriptors_ = TRY(
      place(memory, "descriptor table", layout.descriptors, descriptor_bytes(layout.size), kDescriptorAlign));
  queue->available_ =
      TRY(place(memory, "available ring", layout.available, available_bytes(layout.size), kAvailableAlign));
  queue->used_ = TRY(place(memory, "used ring", layout.used, used_bytes(layout.size), kUsedAlign));
  return queue;
}

void Queue::fail(std::string_view reason) {
  if (broken_.exchange(true, std::memory_order_acq_rel)) return;
  host_.needs_reset(fmt::format("queue {}: {}", layout_.index, reason));
}

// True if there is something to pop.
bool Queue::refresh_available() {
  // Acquire: what the driver wrote before it moved the index. Sequentially consistent, for arm_doorbell().
  available_seen_ = load<uint16_t>(available_ + kRingIndex, std::memory_order_seq_cst);
  auto waiting = static_cast<uint16_t>(available_seen_ - next_available_);
  if (waiting > layout_.size) {
    fail(fmt::format("the available index jumped from {} to {}", next_available_, available_seen_));
    return false;
  }
  return waiting != 0;
}

bool Queue::pop(Chain& chain) {
  if (broken()) return false;
  if (available_seen_ == next_available_ && !refresh_available()) return false;

  const std::byte* entry = available_ + kRingEntries + 2ul * (next_available_ & mask_);
  auto head = load<uint16_t>(entry, std::memory_order_relaxed);
  if (head >= layout_.size) {
    fail(fmt::format("descriptor {} is out of range", head));
    return false;
  }
  if (head_in_flight_[head]) {
    fail(fmt::format("descriptor {} is in flight already", head));
    return false;
  }
  chain.head_ = head;
  chain.readable_parts_ = 0;
  chain.readable_bytes_ = 0;
  chain.writable_bytes_ = 0;
  chain.parts_.clear();
  if (!walk(chain)) {
    chain.parts_.clear();
    chain.readable_parts_ = 0;
    return false;
  }
  head_in_flight_[head] = true;
  ++in_flight_;
  ++next_available_;
  return true;
}

void Queue::unpop(const Chain& chain) {
  if (broken()) return;
  CHECK(head_in_flight_[chain.head_]);
  head_in_flight_[chain.head_] = false;
  --in_flight_;
  --next_available_;
}

bool Queue::walk(Chain& chain) {
  uint32_t entries = 0;
  uint16_t index = chain.head_;
  for (;;) {
    auto descriptor = copy_descriptor<Descriptor>(descriptors_ + 16ul * index);
    if (descriptor.flags & kDescIndirect) return walk_indirect(chain, descriptor, entries);
    if (++entries > layout_.size) {
      fail("a chain is longer than the queue");
      return false;
    }
    if (!add(chain, descriptor)) return false;
    if (!(descriptor.flags & kDescNext)) return true;
    index = descriptor.next;
    if (index >= layout_.size) {
      fail(fmt::format("descriptor {} is out of range", index));
      return false;
    }
  }
}

// Section 2.7.5.3: the last descriptor of a chain may name a table that continues it.
bool Queue::walk_indirect(Chain& chain, const Descriptor& table, uint32_t& entries) {
  if (!layout_.indirect) {
    fail("an indirect descriptor that was not negotiated");
    return false;
  }
  if (table.flags & kDescNext) {
    fail("an indirect descriptor that has a next one");
    return false;
  }
  uint32_t count = table.length / 16;
  if (count == 0 || table.length % 16 != 0 || count > layout_.size) {
    fail(fmt::format("an indirect table of {} bytes", table.length));
    return false;
  }
  auto bytes = memory_.slice(GuestAddress{table.address}, table.length);
  if (!bytes) {
    fail(fmt::format("an indirect table at {:#x} that is not in RAM", table.address));
    return false;
  }
  uint32_t index = 0;
  for (;;) {
    auto descriptor = copy_descriptor<Descriptor>(bytes->data() + 16ul * index);
    if (descriptor.flags & kDescIndirect) {
      fail("an indirect table inside an indirect table");
      return false;
    }
    if (++entries > layout_.size) {
      fail("a chain is longer than the queue");
      return false;
    }
    if (!add(chain, descriptor)) return false;
    if (!(descriptor.flags & kDescNext)) return true;
    index = descriptor.next;
    if (index >= count) {
      fail(fmt::format("entry {} of an indirect table of {}", index, count));
      return false;
    }
  }
}

bool Queue::add(Chain& chain, const Descriptor& descriptor) {
  bool writable = (descriptor.flags & kDescWrite) != 0;
  if (descriptor.length == 0) {
    fail("a descriptor of zero bytes");
    return false;
  }
  // Section 2.7.4.2: all readable elements come before the writable ones.
  if (!writable && chain.writable_bytes_ != 0) {
    fail("a readable descriptor after a writable one");
    return false;
  }
  uint64_t total = uint64_t{chain.readable_bytes_} + chain.writable_bytes_ + descriptor.length;
  if (total > kMaxChainBytes) {
    fail(fmt::format("a chain of more than {} bytes", kMaxChainBytes));
    return false;
  }
  if (!add_part(chain, GuestAddress{descriptor.address}, descriptor.length)) {
    fail(fmt::format("a buffer at {:#x} with {} bytes that is not in RAM", descriptor.address,
                     descriptor.length));
    return false;
  }
  if (writable) {
    chain.writable_bytes_ += descriptor.length;
  } else {
    chain.readable_bytes_ += descriptor.length;
    chain.readable_parts_ = chain.parts_.size();
  }
  return true;
}

// A buffer may straddle regions of RAM that touch each other: then it becomes an iovec in each.
bool Queue::add_part(Chain& chain, GuestAddress address, uint64_t length) {
  if (!checked_add(address.value, length)) return false;
  uint64_t at = address.value;
  for (const auto& region : memory_.regions()) {
    if (at < region.start.value) return false;
    uint64_t offset = at - region.start.value;
    if (offset >= region.size) continue;
    uint64_t piece = std::min(length, region.size - offset);
    chain.parts_.push_back(iovec{region.host + offset, piece});
    at += piece;
    length -= piece;
    if (length == 0) return true;
  }
  return false;
}

void Queue::push(uint16_t head, uint32_t written) {
  if (broken()) return;
  CHECK(head < layout_.size && head_in_flight_[head]);
  head_in_flight_[head] = false;
  --in_flight_;
  std::byte* entry = used_ + kRingEntries + 8ul * (next_used_ & mask_);
  store<uint32_t>(entry, head, std::memory_order_relaxed);
  store<uint32_t>(entry + 4, written, std::memory_order_relaxed);
  ++next_used_;
}

void Queue::publish() {
  if (published_ == next_used_ || broken()) return;
  published_ = next_used_;
  // The driver sees the entries before the index (release), and we read its used_event or flags only after
  // it can see the index (the full barrier of section 2.7.7.2): with both accesses sequentially consistent,
  // either it sees our index or we see its wish for an interrupt.
  store<uint16_t>(used_ + kRingIndex, published_, std::memory_order_seq_cst);
}

void Queue::notify() {
  publish();
  if (published_ == signalled_ || broken()) return;
  bool wanted = false;
  if (layout_.event_idx) {
    auto event = load<uint16_t>(available_ + used_event_offset(layout_.size), std::memory_order_seq_cst);
    wanted = passes_event(event, published_, signalled_);
  } else {
    auto flags = load<uint16_t>(available_ + kRingFlags, std::memory_order_seq_cst);
    wanted = (flags & kAvailNoInterrupt) == 0;
  }
  signalled_ = published_;
  if (wanted) interrupt_.trigger();
}

void Queue::disarm_doorbell() {
  // With EVENT_IDX the index that we asked for stays behind, and the driver is silent by itself.
  if (layout_.event_idx || broken()) return;
  store<uint16_t>(used_ + kRingFlags, kUsedNoNotify, std::memory_order_relaxed);
}

bool Queue::arm_doorbell() {
  if (broken()) return false;
  if (layout_.event_idx) {
    store<uint16_t>(used_ + avail_event_offset(layout_.size), next_available_, std::memory_order_seq_cst);
  } else {
    store<uint16_t>(used_ + kRingFlags, 0, std::memory_order_seq_cst);
  }
  // Looked at only after the driver can see that it must ring: either it rings or we see its request.
  return refresh_available();
}

}  // namespace haneul::devices::virtio
