// SPDX-License-Identifier: Apache-2.0
#include "storage/volume/direct_file.h"

#include <fcntl.h>

#include <algorithm>
#include <cstring>
#include <mutex>
#include <new>
#include <vector>

#include "storage/file_task.h"

namespace haneul::storage {
namespace {

constexpr size_t kAlignment = 512;
constexpr size_t kBufferBytes = 256 << 10;

bool aligned(std::span<const iovec> data) {
  return std::all_of(data.begin(), data.end(), [](const iovec& piece) {
    return reinterpret_cast<uintptr_t>(piece.iov_base) % kAlignment == 0 && piece.iov_len % kAlignment == 0;
  });
}

bool aligned(const std::byte* memory) {
  return reinterpret_cast<uintptr_t>(memory) % kAlignment == 0;
}

struct Buffer {
  alignas(4096) std::array<std::byte, kBufferBytes> bytes;
};

// Moves bytes between pieces and one buffer, `length` of them.
void gather(std::span<const iovec> pieces, std::byte* buffer, size_t length) {
  for (const iovec& piece : pieces) {
    size_t part = std::min(length, piece.iov_len);
    std::memcpy(buffer, piece.iov_base, part);
    buffer += part;
    length -= part;
  }
}
void scatter(const std::byte* buffer, std::span<const iovec> pieces, size_t length) {
  for (const iovec& piece : pieces) {
    size_t part = std::min(length, piece.iov_len);
    std::memcpy(piece.iov_base, buffer, part);
    buffer += part;
    length -= part;
  }
}

class DirectFile final : public AsyncFile {
 public:
  explicit DirectFile(std::unique_ptr<AsyncFile> file) : file_(std::move(file)) {}

  void read(IoRing& ring, IoOperation& op, std::span<const iovec> data, uint64_t offset) override {
    if (aligned(data)) return file_->read(ring, op, data, offset);
    take().release()->start(ring, op, data, offset, false);
  }
  void write(IoRing& ring, IoOperation& op, std::span<const iovec> data, uint64_t offset) override {
    if (aligned(data)) return file_->write(ring, op, data, offset);
    take().release()->start(ring, op, data, offset, true);
  }
  void sync(IoRing& ring, IoOperation& op) override { file_->sync(ring, op); }
  void erase(IoRing& ring, IoOperation& op, Erase how, uint64_t offset, uint64_t length) override {
    file_->erase(ring, op, how, offset, length);
  }
  Status read_now(uint64_t offset, std::span<std::byte> out) override {
    if (aligned(out.data())) return file_->read_now(offset, out);
    auto buffer = std::make_unique<Buffer>();
    for (size_t at = 0; at < out.size(); at += kBufferBytes) {
      auto piece = out.subspan(at, std::min(kBufferBytes, out.size() - at));
      TRY(file_->read_now(offset + at, std::span(buffer->bytes).first(piece.size())));
      std::memcpy(piece.data(), buffer->bytes.data(), piece.size());
    }
    return {};
  }
  Status write_now(uint64_t offset, std::span<const std::byte> data) override {
    if (aligned(data.data())) return file_->write_now(offset, data);
    auto buffer = std::make_unique<Buffer>();
    for (size_t at = 0; at < data.size(); at += kBufferBytes) {
      auto piece = data.subspan(at, std::min(kBufferBytes, data.size() - at));
      std::memcpy(buffer->bytes.data(), piece.data(), piece.size());
      TRY(file_->write_now(offset + at, std::span(buffer->bytes).first(piece.size())));
    }
    return {};
  }
  Status sync_now() override { return file_->sync_now(); }
  Status erase_now(Erase how, uint64_t offset, uint64_t length) override {
    return file_->erase_now(how, offset, length);
  }
  Result<uint64_t> size() override { return file_->size(); }
  Status grow(uint64_t size_bytes) override { return file_->grow(size_bytes); }
  Status lock(Lock how) override { return file_->lock(how); }
  Result<uint64_t> next_data(uint64_t offset, uint64_t limit) override {
    return file_->next_data(offset, limit);
  }

 private:
  class Bounced final : public IoOperation {
   public:
    explicit Bounced(DirectFile& owner) : owner_(owner), buffer_(std::make_unique<Buffer>()) {}
    void start(IoRing& ring, IoOperation& caller, std::span<const iovec> data, uint64_t offset,
               bool writing) {
      caller_ = &caller;
      data_ = data;
      writing_ = writing;
      size_t length = std::min<uint64_t>(total_bytes(data), kBufferBytes);
      piece_ = {buffer_->bytes.data(), length};
      if (writing) {
        gather(data, buffer_->bytes.data(), length);
        return owner_.file_->write(ring, *this, std::span(&piece_, 1), offset);
      }
      owner_.file_->read(ring, *this, std::span(&piece_, 1), offset);
    }
    void completed(int32_t result) override {
      if (result > 0 && !writing_) scatter(buffer_->bytes.data(), data_, static_cast<size_t>(result));
      IoOperation& caller = *caller_;
      owner_.give_back(*this);
      caller.completed(result);
    }

   private:
    DirectFile& owner_;
    std::unique_ptr<Buffer> buffer_;
    IoOperation* caller_ = nullptr;
    std::span<const iovec> data_;
    bool writing_ = false;
    iovec piece_{};
  };

  std::unique_ptr<Bounced> take() {
    std::lock_guard lock(mutex_);
    if (free_.empty()) return std::make_unique<Bounced>(*this);
    auto bounced = std::move(free_.back());
    free_.pop_back();
    return bounced;
  }
  void give_back(Bounced& bounced) {
    std::lock_guard lock(mutex_);
    free_.emplace_back(&bounced);
  }

  std::unique_ptr<AsyncFile> file_;
  std::mutex mutex_;
  std::vector<std::unique_ptr<Bounced>> free_;
};

}  // namespace

std::unique_ptr<AsyncFile> make_direct_file(std::unique_ptr<AsyncFile> file) {
  return std::make_unique<DirectFile>(std::move(file));
}

Result<std::unique_ptr<AsyncFile>> make_file(UniqueFd fd) {
  int flags = ::fcntl(fd.get(), F_GETFL);
  if (flags < 0) return errno_error("fcntl(F_GETFL)");
  auto file = make_async_file(std::move(fd));
  if ((flags & O_DIRECT) != 0) file = make_direct_file(std::move(file));
  return file;
}

}  // namespace haneul::storage
