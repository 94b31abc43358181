// SPDX-License-Identifier: Apache-2.0
// The transmitting half of virtio-net: frames from guest RAM to the tap. Not for use outside net*.cc.
#pragma once

#include <vector>

#include "base/log.h"
#include "devices/virtio/net.h"
#include "devices/virtio/net_header.h"
#include "devices/virtio/queue.h"
#include "storage/io_ring.h"
#include "storage/pool.h"

namespace haneul::devices::virtio::net {

/// Belongs to the I/O thread while that runs. At most as many frames as the queue is large are under way.
class Transmitter {
 public:
  Transmitter(storage::IoRing& ring, int tap, NetStatistics& statistics)
      : ring_(ring), tap_(tap), statistics_(statistics) {}

  void begin(Queue* queue, uint64_t features);
  /// True if there may be more to send already.
  bool work();
  void rang() { rang_ = true; }
  void stop();
  bool idle() const { return frames_.used() == 0; }

 private:
  struct Frame final : storage::IoOperation {
    explicit Frame(Transmitter& its_transmitter) : transmitter(its_transmitter) {}
    void completed(int32_t result) override { transmitter.done(*this, result); }
    Transmitter& transmitter;
    Chain chain;
    Header header;
    std::vector<iovec> iovecs;
    uint32_t bytes = 0;
    bool polling = false;  // the tap's queue was full
    size_t place = 0;      // in active_
  };

  bool send(Frame& frame);
  void done(Frame& frame, int32_t result);
  void finish(Frame& frame, bool sent);

  storage::IoRing& ring_;
  const int tap_;
  NetStatistics& statistics_;
  Queue* queue_ = nullptr;
  uint64_t features_ = 0;
  storage::Pool<Frame> frames_;
  std::vector<Frame*> active_;  // with the kernel
  LogLimiter log_limiter_;
  bool rang_ = false;
  bool answered_ = false;
  bool stopping_ = false;
};

}  // namespace haneul::devices::virtio::net
