// SPDX-License-Identifier: Apache-2.0
#include "storage/volume/bounce.h"

#include <algorithm>
#include <cstring>
#include <new>

namespace haneul::storage {

void BounceTransfer::begin(BouncePool& pool, IoRing& ring, uint64_t bytes) {
  pool_ = &pool;
  ring_ = &ring;
  large_ = bytes > BouncePool::kSmallBytes;
  waiting_ = true;
  if (!pool.take(*this)) return;
  waiting_ = false;
  begun();
}

void BounceTransfer::completed(int32_t result) {
  if (std::exchange(waiting_, false)) return begun();
  moved(result);
}

void BounceTransfer::end() {
  pool_->give_back(*this);
}

bool BouncePool::take(BounceTransfer& transfer) {
  std::lock_guard lock(mutex_);
  Class& from = class_of(transfer);
  if (from.free.empty() && from.all.size() < from.most) {
    from.all.emplace_back(new (std::align_val_t{4096}) std::byte[from.bytes]);
    from.free.push_back(from.all.back().get());
  }
  if (from.free.empty()) {
    from.waiting.push_back(&transfer);
    return false;
  }
  transfer.buffer_ = from.free.back();
  from.free.pop_back();
  return true;
}

void BouncePool::give_back(BounceTransfer& transfer) {
  std::lock_guard lock(mutex_);
  Class& to = class_of(transfer);
  std::byte* buffer = std::exchange(transfer.buffer_, nullptr);
  if (to.waiting.empty()) {
    to.free.push_back(buffer);
    return;
  }
  BounceTransfer* next = to.waiting.front();
  to.waiting.pop_front();
  next->buffer_ = buffer;
  next->ring_->post(*next);
}

size_t BouncePool::bytes() const {
  std::lock_guard lock(mutex_);
  return small_.all.size() * small_.bytes + large_.all.size() * large_.bytes;
}

void gather(std::span<const iovec> pieces, std::byte* buffer, size_t length) {
  for (const iovec& piece : pieces) {
    size_t part = std::min(length, piece.iov_len);
    if (part > 0) std::memcpy(buffer, piece.iov_base, part);
    buffer += part;
    length -= part;
  }
}

void scatter(const std::byte* buffer, std::span<const iovec> pieces, size_t length) {
  for (const iovec& piece : pieces) {
    size_t part = std::min(length, piece.iov_len);
    if (part > 0) std::memcpy(piece.iov_base, buffer, part);
    buffer += part;
    length -= part;
  }
}

}  // namespace haneul::storage
