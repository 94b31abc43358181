// SPDX-License-Identifier: Apache-2.0
// BlockBackend: what a virtual disk's bytes are kept in, seen by the device that offers it to a guest.
//
// Threads   a backend is shared by any number of I/O threads. Each opens its own BlockChannel over its own
//           IoRing and uses it, and gets its completions, on that ring's thread alone. size_bytes(),
//           read_only() and open_channel() may be called from any thread; resize() from one thread at a time.
// Lifetime  ring > channel, backend > channel > requests: a channel goes when none of its requests is under
//           way; a request, its iovecs and the memory under them stay in place until completed().
// Units     bytes; offset and length are multiples of 512. Iovecs have any alignment and any length that adds
//           up to `length`, at most kMaxIovecs of them.
// Order     requests under way at the same time are unordered, and two that overlap may take effect in either
//           order or interleaved by sector. A flush makes durable everything whose completed() came before
//           the flush was submitted, and after a crash each other sector holds one of the contents it was
//           given since, or the one it had.
// Bounds    the caller bounds the requests under way; memory grows with the largest number of them ever seen.
// Errors    see BlockStatus. After a failed write the range holds old or new content, by sector.
//           After a failed fdatasync nothing is known to be durable: every later flush fails until reopened.
#pragma once

#include <sys/uio.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <span>

#include "base/result.h"
#include "storage/io_ring.h"

namespace haneul::storage {

constexpr uint64_t kSectorBytes = 512;
constexpr size_t kMaxIovecs = 1020;

enum class BlockOp : uint8_t {
  kRead,
  kWrite,
  kFlush,
  /// Advice: the content becomes zeroes or stays. Only whole 4 KiB blocks give their space back.
  kDiscard,
  /// The content becomes zeroes; with may_unmap the space may be given back.
  kWriteZeroes,
};

enum class BlockStatus : uint8_t {
  kOk,
  kIoError,     ///< the medium failed, or the file ended early
  kNoSpace,     ///< the file system, or the quota, is full: may succeed later
  kReadOnly,    ///< a change to a read-only disk
  kOutOfRange,  ///< beyond size_bytes(), or not whole sectors
  kUnsupported,
};

class BlockRequest {
 public:
  BlockOp op = BlockOp::kRead;
  bool may_unmap = false;
  uint64_t offset = 0;
  uint64_t length = 0;
  std::span<const iovec> data;  ///< reads fill it, writes take it, the others ignore it

  /// On the ring's thread, never from within submit(). The request may be reused or destroyed from within.
  virtual void completed(BlockStatus status) = 0;

 protected:
  ~BlockRequest() = default;
};

class BlockChannel {
 public:
  virtual ~BlockChannel() = default;
  virtual void submit(BlockRequest& request) = 0;
};

class BlockBackend {
 public:
  virtual ~BlockBackend() = default;
  virtual std::unique_ptr<BlockChannel> open_channel(IoRing& ring) = 0;
  /// A multiple of 512; changes only through resize().
  virtual uint64_t size_bytes() const = 0;
  virtual bool read_only() const = 0;
  /// Grows the disk, durably, while requests go on. Blocks. kInvalidArgument for a size that is smaller, not
  /// a multiple of 512, or larger than the format allows. System calls: fstat, ioctl(BLKGETSIZE64),
  /// ftruncate, pwrite64, fdatasync.
  virtual Status resize(uint64_t size_bytes) = 0;
};

/// The checks that every backend makes first: why the request cannot be carried out, if so.
std::optional<BlockStatus> refusal(const BlockRequest& request, uint64_t size_bytes, bool read_only);
/// From a positive errno; 0 is kOk.
BlockStatus status_of(int error);

}  // namespace haneul::storage
