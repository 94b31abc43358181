// SPDX-License-Identifier: Apache-2.0
// virtio::Queue: the device's side of a split virtqueue (VIRTIO 1.2, section 2.7), for a guest that lies.
//
// The ring's place is checked once, when the queue is made. After that, every index, descriptor and indirect
// table entry is copied out of guest memory exactly once, the copy is checked, and only the copy is used.
// A chain comes out as host iovecs that lie in guest RAM, readable parts before writable ones, no longer than
// the queue is large (counting the entries of an indirect table) and no more than kMaxChainBytes in all.
// Anything else is a protocol violation: the queue is latched broken, it hands out nothing any more, pushes
// are swallowed, and DeviceHost::needs_reset() is called once.
//
// Thread: one I/O thread at a time; doorbell() and broken() are for any thread.
// Steady state allocates nothing: a Chain keeps its capacity.
//
// The loop of a device:
//
//   do {
//     queue.disarm_doorbell();
//     while (queue.pop(chain)) { ... queue.push(chain.head(), written); }   // push may as well come later
//     queue.notify();
//   } while (queue.arm_doorbell());
//   wait for queue.doorbell()
#pragma once

#include <sys/uio.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "base/event_fd.h"
#include "base/result.h"
#include "devices/guest_memory.h"
#include "devices/interrupt.h"

namespace haneul::devices::virtio {

inline constexpr uint16_t kMaxQueueSize = 1024;
/// Less than the 2^32 of section 2.7.5 and than what one readv(2) moves.
inline constexpr uint64_t kMaxChainBytes = 1ull << 30;

/// What a device and its queues tell the transport. Thread-safe; takes no lock that is held while the
/// transport calls the device, so it may be called from anywhere.
class DeviceHost {
 public:
  virtual ~DeviceHost() = default;
  /// The device-specific configuration changed (section 2.5): a new config generation, a config interrupt.
  virtual void config_changed() = 0;
  /// DEVICE_NEEDS_RESET (section 2.1.1), with one line for the log.
  virtual void needs_reset(std::string_view reason) = 0;
};

/// Where a driver put a queue. `size` counts descriptors.
struct QueueLayout {
  uint16_t index = 0;
  uint16_t size = 0;
  GuestAddress descriptors;
  GuestAddress available;
  GuestAddress used;
  bool event_idx = false;
  bool indirect = false;
};

/// One request of the driver: buffers in guest RAM. The bytes behind the iovecs can change at any time: copy
/// what is to be interpreted (read_at), once.
class Chain {
 public:
  uint16_t head() const { return head_; }
  /// What the device may read, then what it may write. Never an iovec of zero bytes.
  std::span<const iovec> readable() const { return std::span(parts_).first(readable_parts_); }
  std::span<const iovec> writable() const { return std::span(parts_).subspan(readable_parts_); }
  uint32_t readable_bytes() const { return readable_bytes_; }
  uint32_t writable_bytes() const { return writable_bytes_; }

  /// Copies from the readable part at `offset`, or into the writable part at `offset`; false, and nothing
  /// moved, unless all of it fits.
  bool read_at(uint64_t offset, std::span<std::byte> out) const;
  bool write_at(uint64_t offset, std::span<const std::byte> data) const;

 private:
  friend class Queue;
  uint16_t head_ = 0;
  size_t readable_parts_ = 0;
  uint32_t readable_bytes_ = 0;
  uint32_t writable_bytes_ = 0;
  std::vector<iovec> parts_;
};

/// Appends the iovecs of `length` bytes at `offset` of `parts` to `out`; false, and nothing appended, unless
/// `parts` has them.
bool append_slice(std::span<const iovec> parts, uint64_t offset, uint64_t length, std::vector<iovec>& out);

class Queue {
 public:
  /// kInvalidArgument if the size is not a power of two from 1 to kMaxQueueSize, or a part of the ring is
  /// misaligned or not in one region of RAM whole. The references outlive the queue.
  static Result<std::unique_ptr<Queue>> create(const GuestMemory& memory, const QueueLayout& layout,
                                               const EventFd& doorbell, Interrupt& interrupt,
                                               DeviceHost& host);
  ~Queue();
  Queue(const Queue&) = delete;
  Queue& operator=(const Queue&) = delete;

  uint16_t index() const { return layout_.index; }
  uint16_t size() const { return layout_.size; }
  /// Signalled by the driver's notification.
  const EventFd& doorbell() const { return doorbell_; }
  bool broken() const { return broken_.load(std::memory_order_acquire); }

  /// The next request, in the driver's order; false if there is none or the queue is broken.
  bool pop(Chain& chain);
  /// Gives the newest popped chain back, to be popped again. Newest first, and none of them pushed.
  void unpop(const Chain& chain);
  /// Requests popped and not pushed.
  uint16_t in_flight() const { return in_flight_; }

  /// Done with a request; `written` bytes of its writable part were written, from its start. The driver sees
  /// it at the next publish() or notify(), so that several pushes can appear at once.
  void push(uint16_t head, uint32_t written);
  /// Shows the driver what was pushed.
  void publish();
  /// publish(), and an interrupt if the driver asked for one (section 2.7.7).
  void notify();

  /// Tells the driver that doorbells are not needed while we are looking at the queue anyway.
  void disarm_doorbell();
  /// Asks for a doorbell at the next request. True if requests are there already: pop them instead of
  /// waiting.
  bool arm_doorbell();

  /// The device found the content of a request impossible to answer: latches the queue broken.
  void fail(std::string_view reason);

 private:
  struct Descriptor;
  Queue(const GuestMemory& memory, const QueueLayout& layout, const EventFd& doorbell, Interrupt& interrupt,
        DeviceHost& host);

  bool refresh_available();
  bool walk(Chain& chain);
  bool walk_indirect(Chain& chain, const Descriptor& table, uint32_t& entries);
  bool add(Chain& chain, const Descriptor& descriptor);
  bool add_part(Chain& chain, GuestAddress address, uint64_t length);

  const GuestMemory& memory_;
  const QueueLayout layout_;
  const EventFd& doorbell_;
  Interrupt& interrupt_;
  DeviceHost& host_;
  const uint16_t mask_;

  // The parts of the ring, in host memory. Read and written through copies and atomics only.
  std::byte* descriptors_ = nullptr;
  std::byte* available_ = nullptr;
  std::byte* used_ = nullptr;

  uint16_t available_seen_ = 0;  // the driver's index as last read
  uint16_t next_available_ = 0;  // the next entry that we pop
  uint16_t next_used_ = 0;       // the next entry that we push
  uint16_t published_ = 0;       // the used index as the driver sees it
  uint16_t signalled_ = 0;       // published_ at the last notify()
  uint16_t in_flight_ = 0;
  std::vector<bool> head_in_flight_;
  std::atomic<bool> broken_{false};
};

}  // namespace haneul::devices::virtio
