// SPDX-License-Identifier: Apache-2.0
#include "storage/file_task.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace haneul::storage {

namespace {
constexpr unsigned kMaxRetries = 64;
}

void FileTask::begin(Kind kind, AsyncFile& file, IoRing& ring, FileTaskOwner& owner) {
  kind_ = kind;
  file_ = &file;
  ring_ = &ring;
  owner_ = &owner;
  retries_ = 0;
}

void FileTask::transfer(std::span<const iovec> data, uint64_t offset) {
  data_ = data;
  offset_ = offset;
  length_ = total_bytes(data);
  start();
}

void FileTask::read(AsyncFile& file, IoRing& ring, FileTaskOwner& owner, std::span<const iovec> data,
                    uint64_t offset) {
  begin(Kind::kRead, file, ring, owner);
  transfer(data, offset);
}

void FileTask::write(AsyncFile& file, IoRing& ring, FileTaskOwner& owner, std::span<const iovec> data,
                     uint64_t offset) {
  begin(Kind::kWrite, file, ring, owner);
  transfer(data, offset);
}

void FileTask::sync(AsyncFile& file, IoRing& ring, FileTaskOwner& owner) {
  begin(Kind::kSync, file, ring, owner);
  start();
}

void FileTask::erase(AsyncFile& file, IoRing& ring, FileTaskOwner& owner, AsyncFile::Erase how,
                     uint64_t offset, uint64_t length) {
  begin(Kind::kErase, file, ring, owner);
  erase_ = how;
  offset_ = offset;
  length_ = length;
  start();
}

void FileTask::start() {
  switch (kind_) {
    case Kind::kRead:
      return file_->read(*ring_, *this, data_, offset_);
    case Kind::kWrite:
      return file_->write(*ring_, *this, data_, offset_);
    case Kind::kSync:
      return file_->sync(*ring_, *this);
    case Kind::kErase:
      return file_->erase(*ring_, *this, erase_, offset_, length_);
  }
}

void FileTask::completed(int32_t result) {
  if ((result == -EINTR || result == -EAGAIN) && ++retries_ <= kMaxRetries) return start();
  if (result < 0) return owner_->task_done(*this, -result);
  if (kind_ == Kind::kSync || kind_ == Kind::kErase) return owner_->task_done(*this, 0);
  auto moved = static_cast<uint64_t>(result);
  if (moved >= length_) return owner_->task_done(*this, 0);
  // Nothing moved: a read at the end of a file that was cut, or a device that takes no more.
  if (moved == 0) return owner_->task_done(*this, EIO);
  std::vector<iovec> rest;
  slice_iovecs(data_, moved, length_ - moved, rest);
  rest_ = std::move(rest);
  data_ = rest_;
  offset_ += moved;
  length_ -= moved;
  start();
}

void slice_iovecs(std::span<const iovec> data, uint64_t skip, uint64_t length, std::vector<iovec>& out) {
  out.clear();
  for (const iovec& piece : data) {
    if (length == 0) return;
    if (skip >= piece.iov_len) {
      skip -= piece.iov_len;
      continue;
    }
    uint64_t take = std::min<uint64_t>(piece.iov_len - skip, length);
    out.push_back({static_cast<std::byte*>(piece.iov_base) + skip, take});
    skip = 0;
    length -= take;
  }
}

uint64_t total_bytes(std::span<const iovec> data) {
  uint64_t total = 0;
  for (const iovec& piece : data) total += piece.iov_len;
  return total;
}

void fill_zeroes(std::span<const iovec> data) {
  for (const iovec& piece : data) std::memset(piece.iov_base, 0, piece.iov_len);
}

}  // namespace haneul::storage
