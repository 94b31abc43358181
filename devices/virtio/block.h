// SPDX-License-Identifier: Apache-2.0
// virtio-blk over a BlockBackend (VIRTIO 1.2, section 5.2).
//
// One I/O thread serves all queues with one IoRing. Data moves between the backend and guest RAM directly;
// the only bytes of a request that are looked at are its 16-byte header and, for DISCARD and WRITE_ZEROES,
// its segments: copied once, and the copy is checked. Header, data and status may be cut into descriptors
// anywhere (section 2.6.4).
//
// A driver that did not negotiate FLUSH gets write-through: each write is flushed before it is answered.
//
// System calls: make_block() sets up io_uring. The I/O thread: io_uring_enter, write (eventfd), and what the
// interrupts need. resize(): see BlockBackend::resize().
#pragma once

#include <atomic>
#include <memory>
#include <string>

#include "base/result.h"
#include "devices/virtio/device.h"
#include "storage/block_backend.h"

namespace haneul::devices::virtio {

struct BlockOptions {
  /// What the guest sees as the disk's serial: the first 20 bytes.
  std::string id;
  /// 1 to kMaxBlockQueues.
  uint16_t queues = 1;
  /// The guest may only read, whatever the backend allows.
  bool read_only = false;
};

inline constexpr uint16_t kMaxBlockQueues = 16;
inline constexpr uint16_t kBlockQueueSize = 256;
/// Of each of several. A request has room for as many pieces as its queue is large, so memory goes with the square:
/// four of these take as much as one alone.
inline constexpr uint16_t kBlockQueueSizeOfMany = 128;
/// Limits that the configuration space tells the driver, and that requests are held to.
inline constexpr uint32_t kMaxDiscardSectors = 1u << 21;
inline constexpr uint32_t kMaxWriteZeroesSectors = 1u << 17;
inline constexpr uint32_t kMaxSegments = 16;

/// Thread-safe to read; each counts since the device was made.
struct BlockStatistics {
  std::atomic<uint64_t> reads{0};
  std::atomic<uint64_t> read_bytes{0};
  std::atomic<uint64_t> writes{0};
  std::atomic<uint64_t> written_bytes{0};
  std::atomic<uint64_t> flushes{0};
  std::atomic<uint64_t> discards{0};  ///< and zeroed ranges
  std::atomic<uint64_t> errors{0};    ///< requests answered with anything but OK
};

class Block : public Device {
 public:
  /// Grows the disk and tells the guest. From the control thread. Errors: BlockBackend::resize()'s.
  virtual Status resize(uint64_t size_bytes) = 0;
  virtual const BlockStatistics& statistics() const = 0;
};

/// kInvalidArgument for an empty id or a bad number of queues; IoRing::create()'s errors.
Result<std::unique_ptr<Block>> make_block(BlockOptions options,
                                          std::unique_ptr<storage::BlockBackend> backend);

}  // namespace haneul::devices::virtio
