// SPDX-License-Identifier: Apache-2.0
// AsyncFile: the few things that a block format asks of the file beneath it. The real one is a descriptor on
// an IoRing; tests put a file there that loses power, tears sectors and fails at will.
#pragma once

#include <memory>
#include <span>

#include "base/result.h"
#include "base/unique_fd.h"
#include "storage/io_ring.h"

namespace haneul::storage {

/// Thread-safe. Asynchronous calls complete on the ring's thread with a byte count or 0, or a negated errno;
/// counts may be short. The blocking calls are for opening and resizing.
class AsyncFile {
 public:
  enum class Erase { kPunch, kZeroRange };

  virtual ~AsyncFile() = default;
  virtual void read(IoRing& ring, IoOperation& op, std::span<const iovec> data, uint64_t offset) = 0;
  virtual void write(IoRing& ring, IoOperation& op, std::span<const iovec> data, uint64_t offset) = 0;
  /// Makes durable what was written by operations that were complete when this was called.
  virtual void sync(IoRing& ring, IoOperation& op) = 0;
  /// The range reads as zeroes; kPunch gives its space back. Never changes the file's size.
  virtual void erase(IoRing& ring, IoOperation& op, Erase how, uint64_t offset, uint64_t length) = 0;

  /// Exactly that many bytes, or kOutOfRange where the file ends early.
  virtual Status read_now(uint64_t offset, std::span<std::byte> out) = 0;
  virtual Status write_now(uint64_t offset, std::span<const std::byte> data) = 0;
  virtual Status sync_now() = 0;
  /// The whole range; see erase().
  virtual Status erase_now(Erase how, uint64_t offset, uint64_t length) = 0;
  /// Of a regular file or a block device.
  virtual Result<uint64_t> size() = 0;
  /// Makes a regular file at least this large.
  virtual Status grow(uint64_t size_bytes) = 0;
  enum class Lock { kNone, kShared, kExclusive };
  /// As lock_file(), for this file's open descriptor; kNone gives it up. Files without locks just say yes.
  virtual Status lock(Lock) { return {}; }
  /// Where data begins at or after offset; `limit` if everything before it is a hole.
  virtual Result<uint64_t> next_data(uint64_t offset, uint64_t limit) = 0;
};

std::unique_ptr<AsyncFile> make_async_file(UniqueFd fd);

/// Takes the file for this process, until its last descriptor is closed: exclusively, or among readers. kBusy
/// if it is taken. An open-file-description lock: it stays with the descriptor wherever that is sent.
Status lock_file(int fd, bool exclusive);
Status unlock_file(int fd);
/// Whether the descriptor was opened for writing.
Result<bool> is_writable(int fd);

}  // namespace haneul::storage
