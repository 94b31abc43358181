// SPDX-License-Identifier: Apache-2.0
// The bytes of a layer's file: encoding and decoding of header, state, map sectors and journal pages, field
// by field. ../FORMAT.md is the specification.
//
// Threads   pure functions.
// Units     bytes; blocks of 4096 bytes; sectors of 512.
// Errors    kCorrupt and kUnsupported with one sentence that names the place.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "base/result.h"
#include "storage/volume/layer.h"

namespace haneul::storage::layer {

constexpr uint64_t kBlockBytes = 4096;
constexpr uint64_t kPageBytes = 4096;
constexpr uint64_t kMapSectorBytes = 512;
constexpr uint64_t kHeaderOffset = 0;
constexpr uint64_t kStateOffset = 4096;
constexpr uint64_t kJournalOffset = uint64_t{1} << 16;
constexpr uint64_t kJournalPages = 256;
constexpr uint64_t kMapOffset = uint64_t{1} << 30;
constexpr uint64_t kSumsOffset = uint64_t{1} << 33;
constexpr uint64_t kDataOffset = uint64_t{1} << 35;

constexpr uint64_t kMaxSizeBytes = uint64_t{1} << 44;
constexpr uint64_t kMaxBlocks = kMaxSizeBytes / kBlockBytes;
constexpr uint64_t kBlocksPerSector = 1792;
constexpr uint64_t kSectorsPerPage = 8;
constexpr uint64_t kBlocksPerMapPage = kBlocksPerSector * kSectorsPerPage;
constexpr uint64_t kMaxMapPages = (kMaxBlocks + kBlocksPerMapPage - 1) / kBlocksPerMapPage;
/// So few that a record is in one sector, which a disk writes whole or not at all: recovery relies on it.
constexpr size_t kMaxJournalEntries = 32;
/// Of one record: what it may speak of, so that reading a journal is bounded.
constexpr uint64_t kMaxRecordBlocks = 65536;
constexpr uint64_t kMaxRecordDataBlocks = 64;

static_assert(kJournalOffset + kJournalPages * kPageBytes <= kMapOffset);
static_assert(kMapOffset + kMaxMapPages * kPageBytes <= kSumsOffset);
static_assert(kSumsOffset + kMaxBlocks * 4 <= kDataOffset);
static_assert(64 + kMaxJournalEntries * 12 <= kMapSectorBytes);

/// What a layer says of a block.
enum class BlockState : uint8_t {
  kBeneath = 0,  ///< nothing: the next lower layer's
  kData = 1,     ///< in this layer's data
  kZero = 2,     ///< zeroes, whatever is beneath
};

using Page = std::array<std::byte, kPageBytes>;
using PageView = std::span<const std::byte, kPageBytes>;
using SectorView = std::span<const std::byte, kMapSectorBytes>;
using KeyCheck = std::array<uint8_t, 16>;

constexpr uint64_t blocks_of(uint64_t size_bytes) {
  return (size_bytes + kBlockBytes - 1) / kBlockBytes;
}
/// How long the file of a layer is.
constexpr uint64_t file_bytes(uint64_t size_bytes) {
  return kDataOffset + blocks_of(size_bytes) * kBlockBytes;
}
constexpr uint64_t map_pages_of(uint64_t blocks) {
  return (blocks + kBlocksPerMapPage - 1) / kBlocksPerMapPage;
}
constexpr uint64_t map_page_offset(uint64_t page) {
  return kMapOffset + page * kPageBytes;
}
constexpr uint64_t journal_page_offset(uint64_t sequence) {
  return kJournalOffset + sequence % kJournalPages * kPageBytes;
}

/// kInvalidArgument unless the format can hold a volume of that size over a raw base of that size (0: none).
Status validate_sizes(uint64_t size_bytes, uint64_t raw_base_bytes);

// Header

struct Header {
  LayerId id{};
  LayerId parent{};
  uint64_t raw_base_bytes = 0;
  bool encrypted = false;
  LayerSalt salt{};
  KeyCheck check{};
};
void encode_header(const Header& header, Page& out);
Result<Header> decode_header(PageView page);

// State

struct State {
  uint64_t generation = 0;
  uint64_t size_bytes = 0;
  uint64_t journal_start = 1;
  bool frozen = false;
  bool sums_complete = false;
};
void encode_state(const State& state, Page& out);
Result<State> decode_state(PageView page);

// Map

/// Two bits for each of the blocks of a sector.
class SectorStates {
 public:
  BlockState get(uint64_t block) const {
    return static_cast<BlockState>((words_[block / 32] >> (block % 32 * 2)) & 3);
  }
  void set(uint64_t first, uint64_t count, BlockState state);
  /// How many blocks from `first` on are in one state, at most `limit`.
  uint64_t run(uint64_t first, uint64_t limit) const;
  bool empty() const;
  bool operator==(const SectorStates&) const = default;

 private:
  friend void encode_map_sector(uint64_t, const struct MapSector&, std::span<std::byte, kMapSectorBytes>);
  friend Result<struct MapSector> decode_map_sector(uint64_t, SectorView, uint64_t);
  std::array<uint64_t, kBlocksPerSector / 32> words_{};
};

struct MapSector {
  uint64_t sequence = 0;
  SectorStates states;
};
/// `index` counts sectors over the whole map.
void encode_map_sector(uint64_t index, const MapSector& sector, std::span<std::byte, kMapSectorBytes> out);
/// `volume_blocks` is the volume's: a state behind its end is corrupt.
Result<MapSector> decode_map_sector(uint64_t index, SectorView bytes, uint64_t volume_blocks);

using MapPage = std::array<MapSector, kSectorsPerPage>;
void encode_map_page(uint64_t index, const MapPage& page, Page& out);
Result<MapPage> decode_map_page(uint64_t index, PageView bytes, uint64_t volume_blocks);

// Journal

struct JournalEntry {
  uint32_t first = 0;
  uint32_t count = 0;
  BlockState state = BlockState::kData;
  uint32_t crc = 0;
  bool operator==(const JournalEntry&) const = default;
};
struct JournalRecord {
  uint64_t sequence = 0;
  /// The first record that counts with this one; those from there to the one before this are durable.
  uint64_t begin = 0;
  std::vector<JournalEntry> entries;
};
void encode_journal_page(uint64_t sequence, uint64_t begin, std::span<const JournalEntry> entries, Page& out);
/// nullopt if there is no whole record at this place (0 to 255); kCorrupt for a whole one that cannot be.
Result<std::optional<JournalRecord>> decode_journal_page(uint64_t place, PageView page,
                                                         uint64_t volume_blocks);

bool all_zero(std::span<const std::byte> bytes);

}  // namespace haneul::storage::layer
