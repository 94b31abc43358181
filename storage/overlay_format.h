// SPDX-License-Identifier: Apache-2.0
// The overlay's bytes: encoding and decoding of its header and map pages. OVERLAY.md is the specification.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "base/result.h"

namespace haneul::storage::overlay {

constexpr uint64_t kBlockBytes = 4096;
constexpr uint64_t kPageBytes = 4096;
constexpr uint64_t kHeaderCopies = 2;
constexpr uint64_t kMapOffset = kHeaderCopies * kPageBytes;
constexpr uint64_t kBlocksPerPage = 8192;
constexpr uint64_t kMaxMapPages = 524288;
constexpr uint64_t kMaxSizeBytes = kMaxMapPages * kBlocksPerPage * kBlockBytes;  // 16 TiB
constexpr uint64_t kDataOffset = (uint64_t{1} << 32) + (uint64_t{1} << 20);
static_assert(kMapOffset + kMaxMapPages * 2 * kPageBytes <= kDataOffset);

/// Where a 4 KiB block's content is.
enum class BlockState : uint8_t {
  kBase = 0,  ///< in the base; zeroes beyond the base's end
  kData = 1,  ///< in this file
  kZero = 2,  ///< nowhere: zeroes
};

using Page = std::array<std::byte, kPageBytes>;
using States = std::array<uint64_t, kBlocksPerPage / 32>;

struct Header {
  uint64_t sequence = 0;
  uint64_t size_bytes = 0;
  uint64_t base_size_bytes = 0;
};

/// kInvalidArgument if the sizes are not ones that the format can hold.
Status validate_sizes(uint64_t size_bytes, uint64_t base_size_bytes);

void encode_header(const Header& header, Page& out);
/// kCorrupt or kUnsupported, with one sentence.
Result<Header> decode_header(const Page& page);
/// The newest good one of the two copies.
Result<Header> choose_header(const Page& first, const Page& second);
constexpr uint64_t header_offset(uint64_t sequence) {
  return (sequence & 1) * kPageBytes;
}

struct MapPage {
  uint64_t sequence = 0;  // 0: never written, all states kBase
  States states{};
};

void encode_map_page(uint64_t index, const MapPage& map_page, Page& out);
/// nullopt if this is not an intact copy of that page.
std::optional<MapPage> decode_map_page(uint64_t index, const Page& page);
/// The newest good one of the two copies; a page of which no copy was ever written whole is all kBase.
/// `blocks` of the page belong to the disk.
Result<MapPage> choose_map_page(uint64_t index, uint64_t blocks, const Page& first, const Page& second);
constexpr uint64_t map_page_offset(uint64_t index, uint64_t sequence) {
  return kMapOffset + (index * 2 + (sequence & 1)) * kPageBytes;
}

}  // namespace haneul::storage::overlay
