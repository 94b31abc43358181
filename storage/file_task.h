// SPDX-License-Identifier: Apache-2.0
// FileTask: one whole operation on an AsyncFile: short reads and writes are continued, interruptions
// repeated, and what comes back is done or an errno. Belongs to one ring's thread; reusable when it is over.
#pragma once

#include <vector>

#include "storage/async_file.h"

namespace haneul::storage {

class FileTask;

class FileTaskOwner {
 public:
  /// error is 0 or a positive errno; a file that ends early is EIO. The task may be reused from within.
  virtual void task_done(FileTask& task, int error) = 0;

 protected:
  ~FileTaskOwner() = default;
};

class FileTask final : private IoOperation {
 public:
  FileTask() = default;

  void read(AsyncFile& file, IoRing& ring, FileTaskOwner& owner, std::span<const iovec> data,
            uint64_t offset);
  void write(AsyncFile& file, IoRing& ring, FileTaskOwner& owner, std::span<const iovec> data,
             uint64_t offset);
  void sync(AsyncFile& file, IoRing& ring, FileTaskOwner& owner);
  void erase(AsyncFile& file, IoRing& ring, FileTaskOwner& owner, AsyncFile::Erase how, uint64_t offset,
             uint64_t length);

 private:
  enum class Kind { kRead, kWrite, kSync, kErase };
  void completed(int32_t result) override;
  void begin(Kind kind, AsyncFile& file, IoRing& ring, FileTaskOwner& owner);
  void start();
  void transfer(std::span<const iovec> data, uint64_t offset);

  Kind kind_ = Kind::kRead;
  AsyncFile* file_ = nullptr;
  IoRing* ring_ = nullptr;
  FileTaskOwner* owner_ = nullptr;
  std::span<const iovec> data_;
  uint64_t offset_ = 0;
  uint64_t length_ = 0;
  AsyncFile::Erase erase_ = AsyncFile::Erase::kPunch;
  unsigned retries_ = 0;
  std::vector<iovec> rest_;
};

/// The part of `data` from byte `skip` on, `length` bytes long, into `out` (whose old content goes).
void slice_iovecs(std::span<const iovec> data, uint64_t skip, uint64_t length, std::vector<iovec>& out);
uint64_t total_bytes(std::span<const iovec> data);
void fill_zeroes(std::span<const iovec> data);

}  // namespace haneul::storage
