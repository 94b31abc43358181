// SPDX-License-Identifier: Apache-2.0
// BouncePool: a bounded number of buffers for transfers that cannot go straight between a file and a guest's memory:
// encrypted ones, and with O_DIRECT those whose memory is not aligned. A transfer that finds none waits its turn.
//
// Threads   any; a transfer goes on on its own ring's thread.
// Lifetime  pool > transfers.
// Bounds    kSmallBuffers of kSmallBytes and kLargeBuffers of kLargeBytes: 4 MiB, made when they are first wanted and
//           kept. Nobody holds one while waiting for another.
#pragma once

#include <deque>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "storage/io_ring.h"

namespace haneul::storage {

/// One transfer through a buffer. Subclasses say what happens once they have one, and when the file is done.
class BounceTransfer : public IoOperation {
 public:
  /// Of the transfer, at most: longer ones are short.
  static constexpr size_t kMaxBytes = size_t{256} << 10;

 protected:
  /// Aligned to 4096.
  std::byte* buffer() const { return buffer_; }
  /// begun() comes now, or later from the ring, when there is a buffer for that many bytes.
  void begin(class BouncePool& pool, IoRing& ring, uint64_t bytes);
  virtual void begun() = 0;
  virtual void moved(int32_t result) = 0;
  /// From moved(): the buffer is for others now.
  void end();

 private:
  friend class BouncePool;
  void completed(int32_t result) final;

  BouncePool* pool_ = nullptr;
  IoRing* ring_ = nullptr;
  std::byte* buffer_ = nullptr;
  bool large_ = false;
  bool waiting_ = false;
};

class BouncePool {
 public:
  static constexpr size_t kSmallBytes = 16 << 10;
  static constexpr size_t kSmallBuffers = 64;
  static constexpr size_t kLargeBytes = BounceTransfer::kMaxBytes;
  static constexpr size_t kLargeBuffers = 12;

  BouncePool() = default;
  BouncePool(const BouncePool&) = delete;
  BouncePool& operator=(const BouncePool&) = delete;

  /// Bytes of memory taken so far.
  size_t bytes() const;

 private:
  friend class BounceTransfer;
  struct Free {
    void operator()(std::byte* bytes) const { operator delete[](bytes, std::align_val_t{4096}); }
  };
  struct Class {
    size_t bytes;
    size_t most;
    std::vector<std::unique_ptr<std::byte[], Free>> all;
    std::vector<std::byte*> free;
    std::deque<BounceTransfer*> waiting;
  };
  /// False: it waits.
  bool take(BounceTransfer& transfer);
  void give_back(BounceTransfer& transfer);
  Class& class_of(const BounceTransfer& transfer) { return transfer.large_ ? large_ : small_; }

  mutable std::mutex mutex_;
  Class small_{kSmallBytes, kSmallBuffers, {}, {}, {}};
  Class large_{kLargeBytes, kLargeBuffers, {}, {}, {}};
};

/// Moves bytes between pieces and one buffer, `length` of them: each byte of the pieces once.
void gather(std::span<const iovec> pieces, std::byte* buffer, size_t length);
void scatter(const std::byte* buffer, std::span<const iovec> pieces, size_t length);

}  // namespace haneul::storage
