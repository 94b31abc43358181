// SPDX-License-Identifier: Apache-2.0
// The split virtqueue's bytes (VIRTIO 1.2, sections 2.7.5 to 2.7.8), shared by the device's side and by the
// driver's side that the tests play.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/endian.h"

namespace haneul::devices::virtio {

struct RingDescriptor {
  le64 address;
  le32 length;
  le16 flags;
  le16 next;
};
static_assert(sizeof(RingDescriptor) == 16);

inline constexpr uint16_t kDescNext = 1;
inline constexpr uint16_t kDescWrite = 2;
inline constexpr uint16_t kDescIndirect = 4;

inline constexpr uint16_t kAvailNoInterrupt = 1;
inline constexpr uint16_t kUsedNoNotify = 1;

inline constexpr uint64_t kDescriptorAlign = 16;
inline constexpr uint64_t kAvailableAlign = 2;
inline constexpr uint64_t kUsedAlign = 4;

constexpr uint64_t descriptor_bytes(uint16_t size) {
  return 16ull * size;
}
/// flags, idx, ring, used_event.
constexpr uint64_t available_bytes(uint16_t size) {
  return 6 + 2ull * size;
}
/// flags, idx, ring, avail_event.
constexpr uint64_t used_bytes(uint16_t size) {
  return 6 + 8ull * size;
}

inline constexpr size_t kRingFlags = 0;
inline constexpr size_t kRingIndex = 2;
inline constexpr size_t kRingEntries = 4;
constexpr size_t used_event_offset(uint16_t size) {
  return kRingEntries + 2ul * size;
}
constexpr size_t avail_event_offset(uint16_t size) {
  return kRingEntries + 8ul * size;
}

/// Section 2.7.10: whether moving an index from `before` to `now` passes the other side's event index.
constexpr bool passes_event(uint16_t event, uint16_t now, uint16_t before) {
  return static_cast<uint16_t>(now - event - 1) < static_cast<uint16_t>(now - before);
}

}  // namespace haneul::devices::virtio
