// SPDX-License-Identifier: Apache-2.0
// DriverQueue: the driver's side of a virtqueue for tests, and ChainBuilder: requests spelt out.
//
//   auto request = queue.chain().readable(header).writable(512).writable(1).submit();
//   ...
//   auto used = queue.take_used();          // used->head == request.head
//   ram.read(request.buffers[1].address, 512)
//
// Well-behaved unless told otherwise: set_descriptor(), offer() and set_available_index() write what they are
// told to.
// Thread: one, beside the device's I/O thread, as a guest's vCPU would be.
#pragma once

#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "devices/testing/guest_ram.h"
#include "devices/virtio/queue.h"
#include "devices/virtio/ring_format.h"

namespace haneul::devices::testing {

class DriverQueue;

struct Buffer {
  GuestAddress address;
  uint32_t length = 0;
  bool writable = false;
};

/// What submit() did, to find the answer again.
struct Request {
  uint16_t head = 0;
  std::vector<Buffer> buffers;
};

class ChainBuilder {
 public:
  explicit ChainBuilder(DriverQueue& queue) : queue_(queue) {}

  /// A buffer with this content.
  ChainBuilder& readable(std::span<const std::byte> data);
  template <typename T>
  ChainBuilder& readable_object(const T& object) {
    return readable(std::as_bytes(std::span(&object, 1)));
  }
  /// A fresh buffer for the device's answer, filled with 0xa5.
  ChainBuilder& writable(uint32_t length);
  /// A buffer at a place of the test's choice, RAM or not.
  ChainBuilder& readable_at(GuestAddress address, uint32_t length);
  ChainBuilder& writable_at(GuestAddress address, uint32_t length);
  /// All buffers go into an indirect table.
  ChainBuilder& indirect();

  /// Writes the descriptors and makes the chain available. CHECKs that there are descriptors left.
  Request submit();
  /// Writes the descriptors only; offer() is the test's.
  Request prepare();

 private:
  DriverQueue& queue_;
  std::vector<Buffer> buffers_;
  bool indirect_ = false;
};

class DriverQueue {
 public:
  struct Options {
    uint16_t size = 16;
    uint16_t index = 0;
    bool event_idx = true;
    bool indirect = true;
  };
  struct Used {
    uint16_t head = 0;
    uint32_t written = 0;
  };

  DriverQueue(GuestRam& ram, const Options& options);

  GuestRam& ram() { return ram_; }
  const virtio::QueueLayout& layout() const { return layout_; }
  uint16_t size() const { return layout_.size; }

  ChainBuilder chain() { return ChainBuilder(*this); }

  /// The next used element; its descriptors are free again.
  std::optional<Used> take_used();
  uint16_t free_descriptors() const { return static_cast<uint16_t>(free_.size()); }

  /// Whether the device asked for a doorbell for what was offered since the last call.
  bool wants_doorbell();
  /// Asks for an interrupt at the next used element, as a driver does before it sleeps; or for none.
  void arm_interrupt();
  void disarm_interrupt();

  // Raw access, for drivers that misbehave.
  void set_descriptor(uint16_t index, const virtio::RingDescriptor& descriptor);
  /// Puts a head into the next available entry and moves the index.
  void offer(uint16_t head);
  /// The same without moving the index.
  void stage(uint16_t head);
  uint16_t available_index() const { return available_; }
  void set_available_index(uint16_t index);
  uint16_t used_index() const;
  uint16_t available_event() const;
  uint16_t used_flags() const;

 private:
  friend class ChainBuilder;
  uint16_t take_descriptor();

  GuestRam& ram_;
  virtio::QueueLayout layout_;
  std::vector<uint16_t> free_;
  std::vector<std::vector<uint16_t>> owned_;  // by head: the descriptors of its chain
  uint16_t available_ = 0;
  uint16_t rung_ = 0;
  uint16_t used_seen_ = 0;
};

}  // namespace haneul::devices::testing
