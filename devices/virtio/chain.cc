// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstring>

#include "base/checked.h"
#include "devices/virtio/queue.h"

namespace haneul::devices::virtio {
namespace {

// Calls move(host bytes, how many are done, length) for each piece of [offset, offset + length), which the
// caller knows to lie inside.
template <typename Move>
void for_slice(std::span<const iovec> parts, uint64_t offset, uint64_t length, Move move) {
  uint64_t done = 0;
  for (const iovec& part : parts) {
    if (done == length) return;
    if (offset >= part.iov_len) {
      offset -= part.iov_len;
      continue;
    }
    uint64_t piece = std::min(length - done, part.iov_len - offset);
    move(static_cast<std::byte*>(part.iov_base) + offset, done, piece);
    done += piece;
    offset = 0;
  }
}

}  // namespace

bool Chain::read_at(uint64_t offset, std::span<std::byte> out) const {
  if (!range_within(offset, out.size(), readable_bytes_)) return false;
  for_slice(readable(), offset, out.size(), [&](const std::byte* from, uint64_t done, uint64_t length) {
    std::memcpy(out.data() + done, from, length);
  });
  return true;
}

bool Chain::write_at(uint64_t offset, std::span<const std::byte> data) const {
  if (!range_within(offset, data.size(), writable_bytes_)) return false;
  for_slice(writable(), offset, data.size(), [&](std::byte* to, uint64_t done, uint64_t length) {
    std::memcpy(to, data.data() + done, length);
  });
  return true;
}

bool append_slice(std::span<const iovec> parts, uint64_t offset, uint64_t length, std::vector<iovec>& out) {
  uint64_t total = 0;
  for (const iovec& part : parts) total += part.iov_len;
  if (!range_within(offset, length, total)) return false;
  for_slice(parts, offset, length, [&](std::byte* host, uint64_t, uint64_t piece) {
    out.push_back(iovec{host, piece});
  });
  return true;
}

}  // namespace haneul::devices::virtio
