// SPDX-License-Identifier: Apache-2.0
#include "devices/virtio/block_request.h"

#include <algorithm>
#include <cstring>

#include "base/checked.h"

namespace haneul::devices::virtio::block {

using storage::BlockOp;
using storage::BlockStatus;
using storage::kSectorBytes;

namespace {
constexpr uint32_t kStatusBytes = 1;

void count(std::atomic<uint64_t>& counter, uint64_t by = 1) {
  counter.fetch_add(by, std::memory_order_relaxed);
}
}  // namespace

bool Request::start(const RequestContext& context, Owner& owner) {
  context_ = &context;
  owner_ = &owner;
  flush_follows_ = false;
  segment_count_ = segment_next_ = 0;
  RequestHeader header;
  if (chain.writable_bytes() < kStatusBytes) return false;
  if (!chain.read_at(0, std::as_writable_bytes(std::span(&header, 1)))) return false;
  switch (header.type) {
    case kIn:
      start_transfer(false, header.sector);
      return true;
    case kOut:
      start_transfer(true, header.sector);
      return true;
    case kFlush:
      start_flush();
      return true;
    case kGetId:
      answer_id();
      return true;
    case kDiscard:
    case kWriteZeroes:
      start_segments(header.type == kDiscard);
      return true;
    default:
      answer(kUnsupported);
      return true;
  }
}

void Request::start_transfer(bool write, uint64_t sector) {
  if (write && context_->read_only) return answer(kIoError);
  uint64_t bytes =
      write ? chain.readable_bytes() - sizeof(RequestHeader) : chain.writable_bytes() - kStatusBytes;
  auto begin = checked_mul(sector, kSectorBytes);
  // The backend checks the range against the disk's end; here it must only not wrap.
  if (!begin || bytes == 0 || !is_aligned(bytes, kSectorBytes)) return answer(kIoError);
  iovecs_.clear();
  CHECK(append_slice(write ? chain.readable() : chain.writable(), write ? sizeof(RequestHeader) : 0, bytes,
                     iovecs_));
  if (iovecs_.size() > storage::kMaxIovecs) return answer(kIoError);
  op = write ? BlockOp::kWrite : BlockOp::kRead;
  offset = *begin;
  length = bytes;
  data = iovecs_;
  flush_follows_ = write && (context_->features & kFeatureFlush) == 0;
  count(write ? context_->statistics.writes : context_->statistics.reads);
  count(write ? context_->statistics.written_bytes : context_->statistics.read_bytes, bytes);
  context_->channel.submit(*this);
}

void Request::start_flush() {
  op = BlockOp::kFlush;
  offset = length = 0;
  data = {};
  count(context_->statistics.flushes);
  context_->channel.submit(*this);
}

void Request::answer_id() {
  std::array<std::byte, kIdBytes> id{};
  std::memcpy(id.data(), context_->id.data(), std::min(context_->id.size(), id.size()));
  auto room = std::min<size_t>(id.size(), chain.writable_bytes() - kStatusBytes);
  CHECK(chain.write_at(0, std::span(id).first(room)));
  answer(kOk, room);
}

void Request::start_segments(bool discard) {
  if (auto refused = read_segments(discard)) return answer(*refused);
  op = discard ? BlockOp::kDiscard : BlockOp::kWriteZeroes;
  data = {};
  flush_follows_ = !discard && (context_->features & kFeatureFlush) == 0;
  count(context_->statistics.discards, segment_count_);
  if (!next_segment()) answer(kOk);
}

// All segments are copied and checked before the first takes effect (section 5.2.6.2).
std::optional<RequestStatus> Request::read_segments(bool discard) {
  if ((context_->features & (discard ? kFeatureDiscard : kFeatureWriteZeroes)) == 0) return kUnsupported;
  if (context_->read_only) return kIoError;
  uint64_t bytes = chain.readable_bytes() - sizeof(RequestHeader);
  if (bytes == 0 || bytes % sizeof(Segment) != 0 || bytes > sizeof segments_) return kIoError;
  segment_count_ = bytes / sizeof(Segment);
  CHECK(chain.read_at(sizeof(RequestHeader),
                      std::as_writable_bytes(std::span(segments_).first(segment_count_))));
  uint64_t disk_sectors = context_->backend.size_bytes() / kSectorBytes;
  for (const Segment& segment : std::span(segments_).first(segment_count_)) {
    uint32_t allowed_flags = discard ? 0 : kSegmentUnmap;
    if ((segment.flags & ~allowed_flags) != 0) return kUnsupported;
    if (segment.num_sectors > (discard ? kMaxDiscardSectors : kMaxWriteZeroesSectors)) return kIoError;
    if (!range_within(segment.sector, segment.num_sectors, disk_sectors)) return kIoError;
  }
  return std::nullopt;
}

bool Request::next_segment() {
  while (segment_next_ < segment_count_) {
    const Segment& segment = segments_[segment_next_++];
    if (segment.num_sectors == 0) continue;
    offset = segment.sector * kSectorBytes;
    length = uint64_t{segment.num_sectors} * kSectorBytes;
    may_unmap = (segment.flags & kSegmentUnmap) != 0;
    context_->channel.submit(*this);
    return true;
  }
  return false;
}

void Request::completed(BlockStatus status) {
  if (status != BlockStatus::kOk) {
    return answer(status == BlockStatus::kUnsupported ? kUnsupported : kIoError);
  }
  if ((op == BlockOp::kDiscard || op == BlockOp::kWriteZeroes) && next_segment()) return;
  if (flush_follows_) {
    flush_follows_ = false;
    return start_flush();
  }
  answer(kOk, op == BlockOp::kRead ? length : 0);
}

// The status is the last writable byte (section 5.2.6). The used length counts what was written from the
// start without a gap.
void Request::answer(RequestStatus status, uint64_t data_written) {
  if (status != kOk) count(context_->statistics.errors);
  uint32_t data_bytes = chain.writable_bytes() - kStatusBytes;
  auto byte = static_cast<std::byte>(status);
  CHECK(chain.write_at(data_bytes, std::span(&byte, 1)));
  bool whole = data_written == data_bytes;
  owner_->answered(*this, whole ? chain.writable_bytes() : static_cast<uint32_t>(data_written));
}

}  // namespace haneul::devices::virtio::block
