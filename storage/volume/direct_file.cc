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

class DirectFile final : public AsyncFile {
 public:
  DirectFile(std::unique_ptr<AsyncFile> file, std::shared_ptr<BouncePool> pool)
      : file_(std::move(file)), pool_(std::move(pool)) {}

  void read(IoRing& ring, IoOperation& op, std::span<const iovec> data, uint64_t offset) override {
    if (aligned(data)) return file_->read(ring, op, data, offset);
    take().start(ring, op, data, offset, false);
  }
  void write(IoRing& ring, IoOperation& op, std::span<const iovec> data, uint64_t offset) override {
    if (aligned(data)) return file_->write(ring, op, data, offset);
    take().start(ring, op, data, offset, true);
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
  class Bounced final : public BounceTransfer {
   public:
    explicit Bounced(DirectFile& owner) : owner_(owner) {}
    void start(IoRing& ring, IoOperation& caller, std::span<const iovec> data, uint64_t offset,
               bool writing) {
      ring_ = &ring;
      caller_ = &caller;
      data_ = data;
      offset_ = offset;
      writing_ = writing;
      length_ = std::min<uint64_t>(total_bytes(data), kMaxBytes);
      begin(*owner_.pool_, ring, length_);
    }

   private:
    void begun() override {
      piece_ = {buffer(), length_};
      if (!writing_) return owner_.file_->read(*ring_, *this, std::span(&piece_, 1), offset_);
      gather(data_, buffer(), length_);
      owner_.file_->write(*ring_, *this, std::span(&piece_, 1), offset_);
    }
    void moved(int32_t result) override {
      if (result > 0 && !writing_) scatter(buffer(), data_, static_cast<size_t>(result));
      end();
      IoOperation& caller = *caller_;
      owner_.give_back(*this);
      caller.completed(result);
    }

    DirectFile& owner_;
    IoRing* ring_ = nullptr;
    IoOperation* caller_ = nullptr;
    std::span<const iovec> data_;
    uint64_t offset_ = 0;
    size_t length_ = 0;
    bool writing_ = false;
    iovec piece_{};
  };

  Bounced& take() {
    std::lock_guard lock(mutex_);
    if (free_.empty()) {
      all_.push_back(std::make_unique<Bounced>(*this));
      return *all_.back();
    }
    Bounced& bounced = *free_.back();
    free_.pop_back();
    return bounced;
  }
  void give_back(Bounced& bounced) {
    std::lock_guard lock(mutex_);
    free_.push_back(&bounced);
  }

  std::unique_ptr<AsyncFile> file_;
  std::shared_ptr<BouncePool> pool_;
  std::mutex mutex_;
  std::vector<std::unique_ptr<Bounced>> all_;
  std::vector<Bounced*> free_;
};

}  // namespace

std::unique_ptr<AsyncFile> make_direct_file(std::unique_ptr<AsyncFile> file,
                                            std::shared_ptr<BouncePool> pool) {
  return std::make_unique<DirectFile>(std::move(file), std::move(pool));
}

Result<std::unique_ptr<AsyncFile>> make_file(UniqueFd fd, std::shared_ptr<BouncePool> pool) {
  int flags = ::fcntl(fd.get(), F_GETFL);
  if (flags < 0) return errno_error("fcntl(F_GETFL)");
  auto file = make_async_file(std::move(fd));
  if ((flags & O_DIRECT) != 0) file = make_direct_file(std::move(file), std::move(pool));
  return file;
}

}  // namespace haneul::storage
