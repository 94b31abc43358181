// SPDX-License-Identifier: Apache-2.0
// The receiving half of virtio-net: frames from the tap into the guest's buffers. Not for use outside
// net*.cc.
#pragma once

#include <array>
#include <deque>
#include <memory>
#include <vector>

#include "devices/virtio/net.h"
#include "devices/virtio/net_header.h"
#include "devices/virtio/queue.h"
#include "storage/io_ring.h"

namespace haneul::devices::virtio::net {

/// Belongs to the I/O thread while that runs.
class Receiver {
 public:
  Receiver(storage::IoRing& ring, int tap, NetStatistics& statistics);

  /// Before the first work() and after the last.
  void begin(Queue* queue, uint64_t features);
  /// The queue is gone.
  void forget_frames();

  /// Gives frames to the guest and asks the tap for more.
  void work();
  /// The guest may have offered buffers.
  void rang() { starved_ = false; }
  void stop();
  bool idle() const { return outstanding_ == 0; }

 private:
  struct Frame final : storage::IoOperation {
    void completed(int32_t result) override { receiver->read_done(*this, result); }
    Receiver* receiver = nullptr;
    std::unique_ptr<std::byte[]> bytes;
    iovec iovec_{};
    uint32_t length = 0;  // header and frame
    bool reading = false;
    bool no_wait = false;  // read with RWF_NOWAIT
  };
  struct Poll final : storage::IoOperation {
    void completed(int32_t result) override { receiver->poll_done(result); }
    Receiver* receiver = nullptr;
  };
  enum class Outcome { kDelivered, kDropped, kNoBuffers };

  void read_done(Frame& frame, int32_t result);
  void poll_done(int32_t result);
  void ask_tap();
  void deliver();
  Outcome deliver(const Frame& frame);
  bool gather(uint32_t bytes);
  void fail_tap(int error);

  storage::IoRing& ring_;
  const int tap_;
  NetStatistics& statistics_;
  Queue* queue_ = nullptr;
  uint64_t features_ = 0;
  bool mergeable_ = false;

  std::array<Frame, kReceiveBurst> frames_;
  std::vector<Frame*> free_;
  std::deque<Frame*> ready_;  // in the order in which they came
  Poll poll_;
  // Popped for the next frame: held while they are too few for it.
  std::vector<Chain> chains_;
  size_t gathered_ = 0;
  uint64_t room_ = 0;

  size_t outstanding_ = 0;
  bool polling_ = false;
  bool tap_empty_ = true;  // poll before reading
  bool tap_failed_ = false;
  bool only_error_ = false;       // the last poll promised an error and no data
  bool waits_in_kernel_ = false;  // the tap knows no RWF_NOWAIT: one read at a time, which waits
  bool starved_ = false;          // the guest's doorbell will tell of buffers
  bool stopping_ = false;
};

}  // namespace haneul::devices::virtio::net
