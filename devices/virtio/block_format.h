// SPDX-License-Identifier: Apache-2.0
// The wire format of virtio-blk (VIRTIO 1.2, section 5.2).
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/endian.h"

namespace haneul::devices::virtio::block {

// Section 5.2.3.
inline constexpr uint64_t kFeatureSizeMax = 1ull << 1;
inline constexpr uint64_t kFeatureSegMax = 1ull << 2;
inline constexpr uint64_t kFeatureReadOnly = 1ull << 5;
inline constexpr uint64_t kFeatureBlockSize = 1ull << 6;
inline constexpr uint64_t kFeatureFlush = 1ull << 9;
inline constexpr uint64_t kFeatureTopology = 1ull << 10;
inline constexpr uint64_t kFeatureMultiQueue = 1ull << 12;
inline constexpr uint64_t kFeatureDiscard = 1ull << 13;
inline constexpr uint64_t kFeatureWriteZeroes = 1ull << 14;

// Section 5.2.4.
struct Config {
  le64 capacity;  // in sectors of 512 bytes
  le32 size_max;
  le32 seg_max;
  le16 cylinders;
  uint8_t heads = 0;
  uint8_t sectors = 0;
  le32 blk_size;
  uint8_t physical_block_exp = 0;
  uint8_t alignment_offset = 0;
  le16 min_io_size;
  le32 opt_io_size;
  uint8_t writeback = 0;
  uint8_t unused0 = 0;
  le16 num_queues;
  le32 max_discard_sectors;
  le32 max_discard_seg;
  le32 discard_sector_alignment;
  le32 max_write_zeroes_sectors;
  le32 max_write_zeroes_seg;
  uint8_t write_zeroes_may_unmap = 0;
  uint8_t unused1[3] = {};
};
static_assert(sizeof(Config) == 64);  // padded: the guest sees kConfigBytes of it
inline constexpr uint32_t kConfigBytes = 60;
static_assert(offsetof(Config, blk_size) == 20 && offsetof(Config, num_queues) == 34 &&
              offsetof(Config, max_discard_sectors) == 36 && offsetof(Config, write_zeroes_may_unmap) == 56);

// Section 5.2.6.
enum RequestType : uint32_t {
  kIn = 0,
  kOut = 1,
  kFlush = 4,
  kGetId = 8,
  kDiscard = 11,
  kWriteZeroes = 13,
};
enum RequestStatus : uint8_t { kOk = 0, kIoError = 1, kUnsupported = 2 };

struct RequestHeader {
  le32 type;
  le32 reserved;
  le64 sector;
};
static_assert(sizeof(RequestHeader) == 16);

inline constexpr size_t kIdBytes = 20;

struct Segment {
  le64 sector;
  le32 num_sectors;
  le32 flags;
};
static_assert(sizeof(Segment) == 16);
inline constexpr uint32_t kSegmentUnmap = 1;

}  // namespace haneul::devices::virtio::block
