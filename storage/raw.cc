// SPDX-License-Identifier: Apache-2.0
#include "storage/raw.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>

#include "base/checked.h"
#include "storage/file_task.h"
#include "storage/pool.h"

namespace haneul::storage {
namespace {

// Written where a range cannot be zeroed otherwise. The kernel only reads it.
constexpr size_t kZeroBytes = 64 << 10;
alignas(4096) std::array<std::byte, kZeroBytes> zeroes{};
constexpr size_t kZeroPieces = 16;

struct RawDisk {
  std::unique_ptr<AsyncFile> file;
  bool read_only = false;
  std::atomic<uint64_t> size_bytes{0};
  std::atomic<bool> sync_failed{false};
  // What the file system turned out not to know; tried once per disk.
  std::atomic<bool> no_punch{false};
  std::atomic<bool> no_zero_range{false};
};

class RawChannel;

class RawJob final : public FileTaskOwner, private IoOperation {
 public:
  explicit RawJob(RawChannel& channel) : channel_(channel) {}
  void start(BlockRequest& request);

 private:
  void completed(int32_t) override { finish(); }
  void task_done(FileTask& task, int error) override;
  void erase();
  void write_zeroes();
  void finish();

  RawChannel& channel_;
  BlockRequest* request_ = nullptr;
  BlockStatus status_ = BlockStatus::kOk;
  FileTask task_;
  enum class Step { kTransfer, kPunch, kZeroRange, kZeroes } step_ = Step::kTransfer;
  uint64_t zeroed_ = 0;
  std::array<iovec, kZeroPieces> zero_iovecs_{};
};

class RawChannel final : public BlockChannel {
 public:
  RawChannel(RawDisk& disk, IoRing& ring) : disk_(disk), ring_(ring) {}
  ~RawChannel() override { CHECK(jobs_.used() == 0); }
  void submit(BlockRequest& request) override { jobs_.take(*this).start(request); }

  RawDisk& disk_;
  IoRing& ring_;
  Pool<RawJob> jobs_;
};

void RawJob::start(BlockRequest& request) {
  RawDisk& disk = channel_.disk_;
  request_ = &request;
  status_ = BlockStatus::kOk;
  step_ = Step::kTransfer;
  auto refused = refusal(request, disk.size_bytes.load(), disk.read_only);
  if (!refused && request.op == BlockOp::kFlush && disk.sync_failed.load()) refused = BlockStatus::kIoError;
  bool nothing = request.op == BlockOp::kFlush ? disk.read_only : request.length == 0;
  if (refused || nothing) {
    status_ = refused.value_or(BlockStatus::kOk);
    return channel_.ring_.defer(*this, 0);
  }
  switch (request.op) {
    case BlockOp::kRead:
      return task_.read(*disk.file, channel_.ring_, *this, request.data, request.offset);
    case BlockOp::kWrite:
      return task_.write(*disk.file, channel_.ring_, *this, request.data, request.offset);
    case BlockOp::kFlush:
      return task_.sync(*disk.file, channel_.ring_, *this);
    case BlockOp::kDiscard:
    case BlockOp::kWriteZeroes:
      return erase();
  }
}

void RawJob::erase() {
  RawDisk& disk = channel_.disk_;
  bool may_punch = request_->op == BlockOp::kDiscard || request_->may_unmap;
  if (may_punch && !disk.no_punch.load()) {
    step_ = Step::kPunch;
    return task_.erase(*disk.file, channel_.ring_, *this, AsyncFile::Erase::kPunch, request_->offset,
                       request_->length);
  }
  if (request_->op == BlockOp::kDiscard) return channel_.ring_.defer(*this, 0);
  if (!disk.no_zero_range.load()) {
    step_ = Step::kZeroRange;
    return task_.erase(*disk.file, channel_.ring_, *this, AsyncFile::Erase::kZeroRange, request_->offset,
                       request_->length);
  }
  step_ = Step::kZeroes;
  zeroed_ = 0;
  write_zeroes();
}

void RawJob::write_zeroes() {
  uint64_t at = request_->offset + zeroed_;
  size_t pieces = 0;
  while (pieces < kZeroPieces && zeroed_ < request_->length) {
    uint64_t piece = std::min<uint64_t>(kZeroBytes, request_->length - zeroed_);
    zero_iovecs_[pieces++] = {zeroes.data(), piece};
    zeroed_ += piece;
  }
  task_.write(*channel_.disk_.file, channel_.ring_, *this, std::span(zero_iovecs_).first(pieces), at);
}

void RawJob::task_done(FileTask&, int error) {
  RawDisk& disk = channel_.disk_;
  if (error == EOPNOTSUPP && (step_ == Step::kPunch || step_ == Step::kZeroRange)) {
    (step_ == Step::kPunch ? disk.no_punch : disk.no_zero_range).store(true);
    return erase();
  }
  if (error == 0 && step_ == Step::kZeroes && zeroed_ < request_->length) return write_zeroes();
  status_ = status_of(error);
  if (request_->op == BlockOp::kFlush) {
    if (error != 0) disk.sync_failed.store(true);
    // The kernel tells only one of several syncs that it lost something.
    status_ = disk.sync_failed.load() ? BlockStatus::kIoError : BlockStatus::kOk;
  }
  finish();
}

void RawJob::finish() {
  BlockRequest& request = *request_;
  BlockStatus status = status_;
  channel_.jobs_.give_back(*this);
  request.completed(status);
}

class RawBackend final : public BlockBackend {
 public:
  RawBackend(std::unique_ptr<AsyncFile> file, bool read_only, uint64_t size_bytes) {
    disk_.file = std::move(file);
    disk_.read_only = read_only;
    disk_.size_bytes.store(size_bytes);
  }
  std::unique_ptr<BlockChannel> open_channel(IoRing& ring) override {
    return std::make_unique<RawChannel>(disk_, ring);
  }
  uint64_t size_bytes() const override { return disk_.size_bytes.load(); }
  bool read_only() const override { return disk_.read_only; }

  Status resize(uint64_t size_bytes) override {
    if (size_bytes < disk_.size_bytes.load() || !is_aligned(size_bytes, kSectorBytes)) {
      return make_error(ErrorCode::kInvalidArgument, "a disk of {} bytes cannot become one of {}",
                        disk_.size_bytes.load(), size_bytes);
    }
    if (!disk_.read_only) TRY(disk_.file->grow(size_bytes));
    uint64_t now = TRY(disk_.file->size());
    if (now < size_bytes) {
      return make_error(ErrorCode::kInvalidArgument, "the disk's file has only {} bytes, not {}", now,
                        size_bytes);
    }
    if (!disk_.read_only) TRY(disk_.file->sync_now());
    disk_.size_bytes.store(size_bytes);
    return {};
  }

 private:
  RawDisk disk_;
};

}  // namespace

Result<std::unique_ptr<BlockBackend>> open_raw_file(std::unique_ptr<AsyncFile> file, bool read_only) {
  uint64_t size = align_down(TRY(file->size()), kSectorBytes);
  std::unique_ptr<BlockBackend> backend = std::make_unique<RawBackend>(std::move(file), read_only, size);
  return backend;
}

Result<std::unique_ptr<BlockBackend>> open_raw(UniqueFd file, RawOptions options) {
  if (options.direct) {
    return make_error(ErrorCode::kUnsupported,
                      "raw disks are read and written through the host's page cache");
  }
  bool writable = TRY(is_writable(file.get()));
  if (!writable && !options.read_only) {
    return make_error(ErrorCode::kPermission, "the disk's file is open for reading only");
  }
  TRY(lock_file(file.get(), !options.read_only));
  return open_raw_file(make_async_file(std::move(file)), options.read_only);
}

}  // namespace haneul::storage
