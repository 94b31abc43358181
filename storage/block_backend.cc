// SPDX-License-Identifier: Apache-2.0
#include "storage/block_backend.h"

#include <cerrno>

#include "base/checked.h"

namespace haneul::storage {

std::optional<BlockStatus> refusal(const BlockRequest& request, uint64_t size_bytes, bool read_only) {
  if (request.op != BlockOp::kRead && request.op != BlockOp::kFlush && read_only) {
    return BlockStatus::kReadOnly;
  }
  if (request.op == BlockOp::kFlush) return std::nullopt;
  if (!is_aligned(request.offset | request.length, kSectorBytes) ||
      !range_within(request.offset, request.length, size_bytes)) {
    return BlockStatus::kOutOfRange;
  }
  if (request.op == BlockOp::kRead || request.op == BlockOp::kWrite) {
    uint64_t total = 0;
    for (const iovec& piece : request.data) total += piece.iov_len;
    CHECK(total == request.length && request.data.size() <= kMaxIovecs);
  }
  return std::nullopt;
}

BlockStatus status_of(int error) {
  switch (error) {
    case 0:
      return BlockStatus::kOk;
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
      return BlockStatus::kNoSpace;
    case EROFS:
      return BlockStatus::kReadOnly;
    case EOPNOTSUPP:
      return BlockStatus::kUnsupported;
    default:
      return BlockStatus::kIoError;
  }
}

}  // namespace haneul::storage
