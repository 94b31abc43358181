// SPDX-License-Identifier: Apache-2.0
#include "storage/volume/format.h"

#include <algorithm>
#include <cstring>

#include "base/endian.h"
#include "storage/crc32c.h"

namespace haneul::storage::layer {
namespace {

constexpr std::array<char, 8> kHeaderMagic{'H', 'N', 'L', 'L', 'A', 'Y', 'E', 'R'};
constexpr std::array<char, 4> kStateMagic{'H', 'S', 'T', 'A'};
constexpr std::array<char, 4> kMapMagic{'H', 'M', 'A', 'P'};
constexpr std::array<char, 4> kJournalMagic{'H', 'J', 'R', 'N'};
constexpr uint32_t kVersion = 1;
constexpr uint32_t kEncrypted = 1;
constexpr uint32_t kFrozen = 1;
constexpr uint32_t kSumsComplete = 2;
constexpr size_t kCheckedBytes = 512;  // of header and state
constexpr size_t kHeaderEnd = 112;
constexpr size_t kStateEnd = 36;
constexpr size_t kMapCrcAt = 4;
constexpr size_t kStatesAt = 64;
constexpr size_t kEntriesAt = 64;
constexpr size_t kEntryBytes = 12;

template <size_t N>
bool begins_with(std::span<const std::byte> bytes, const std::array<char, N>& magic) {
  return std::memcmp(bytes.data(), magic.data(), N) == 0;
}

template <size_t Bytes>
uint32_t checksum(std::span<const std::byte> from, size_t crc_at) {
  std::array<std::byte, Bytes> copy;
  std::copy_n(from.begin(), Bytes, copy.begin());
  store_le<uint32_t>(copy.data() + crc_at, 0);
  return crc32c(copy);
}

template <size_t Bytes>
bool sound(std::span<const std::byte> bytes, size_t crc_at) {
  return load_le<uint32_t>(bytes.data() + crc_at) == checksum<Bytes>(bytes, crc_at);
}

template <size_t Bytes>
void seal(std::span<std::byte> bytes, size_t crc_at) {
  store_le<uint32_t>(bytes.data() + crc_at, checksum<Bytes>(bytes, crc_at));
}

template <size_t N>
std::array<uint8_t, N> load_bytes_at(PageView page, size_t at) {
  std::array<uint8_t, N> out;
  std::memcpy(out.data(), page.data() + at, N);
  return out;
}

template <size_t N>
bool none(const std::array<uint8_t, N>& bytes) {
  return bytes == std::array<uint8_t, N>{};
}

// The places [first, first + count) of a word of 32.
constexpr uint64_t mask(uint64_t first, uint64_t count) {
  uint64_t bits = count == 32 ? ~uint64_t{0} : (uint64_t{1} << (2 * count)) - 1;
  return bits << (2 * first);
}

}  // namespace

bool all_zero(std::span<const std::byte> bytes) {
  return bytes.empty() ||
         (bytes[0] == std::byte{0} && std::memcmp(bytes.data(), bytes.data() + 1, bytes.size() - 1) == 0);
}

Status validate_sizes(uint64_t size_bytes, uint64_t raw_base_bytes) {
  if (size_bytes == 0 || size_bytes > kMaxSizeBytes || size_bytes % 512 != 0) {
    return make_error(ErrorCode::kInvalidArgument,
                      "a volume's size must be a multiple of 512 up to 16 TiB, not {} bytes", size_bytes);
  }
  if (raw_base_bytes > size_bytes || raw_base_bytes % 512 != 0) {
    return make_error(ErrorCode::kInvalidArgument, "a raw base of {} bytes does not fit under a volume of {}",
                      raw_base_bytes, size_bytes);
  }
  return {};
}

void encode_header(const Header& header, Page& out) {
  out.fill(std::byte{0});
  std::memcpy(out.data(), kHeaderMagic.data(), kHeaderMagic.size());
  store_le<uint32_t>(out.data() + 8, kVersion);
  std::memcpy(out.data() + 16, header.id.data(), header.id.size());
  std::memcpy(out.data() + 32, header.parent.data(), header.parent.size());
  store_le<uint64_t>(out.data() + 48, header.raw_base_bytes);
  store_le<uint32_t>(out.data() + 56, kBlockBytes);
  store_le<uint32_t>(out.data() + 60, header.encrypted ? kEncrypted : 0);
  std::memcpy(out.data() + 64, header.salt.data(), header.salt.size());
  std::memcpy(out.data() + 96, header.check.data(), header.check.size());
  seal<kCheckedBytes>(out, 12);
}

Result<Header> decode_header(PageView page) {
  if (!begins_with(page, kHeaderMagic)) {
    return make_error(ErrorCode::kCorrupt, "the file is not a layer: its first bytes are not HNLLAYER");
  }
  auto version = load_le<uint32_t>(page.data() + 8);
  if (version != kVersion) {
    return make_error(ErrorCode::kUnsupported, "the layer has format version {}, and this program knows {}",
                      version, kVersion);
  }
  if (!sound<kCheckedBytes>(page, 12)) {
    return make_error(ErrorCode::kCorrupt, "the layer's header does not match its checksum");
  }
  auto features = load_le<uint32_t>(page.data() + 60);
  if ((features & ~kEncrypted) != 0) {
    return make_error(ErrorCode::kUnsupported,
                      "the layer uses features that this program does not know ({:#x})", features);
  }
  Header header;
  header.id = load_bytes_at<16>(page, 16);
  header.parent = load_bytes_at<16>(page, 32);
  header.raw_base_bytes = load_le<uint64_t>(page.data() + 48);
  header.encrypted = features != 0;
  header.salt = load_bytes_at<32>(page, 64);
  header.check = load_bytes_at<16>(page, 96);
  bool possible = load_le<uint32_t>(page.data() + 56) == kBlockBytes && !none(header.id) &&
                  header.id != header.parent && (none(header.parent) || header.raw_base_bytes == 0) &&
                  header.raw_base_bytes % 512 == 0 && header.raw_base_bytes <= kMaxSizeBytes &&
                  (header.encrypted || (none(header.salt) && none(header.check))) &&
                  all_zero(page.subspan(kHeaderEnd, kCheckedBytes - kHeaderEnd));
  if (!possible) return make_error(ErrorCode::kCorrupt, "the layer's header describes what cannot be");
  return header;
}

void encode_state(const State& state, Page& out) {
  out.fill(std::byte{0});
  std::memcpy(out.data(), kStateMagic.data(), kStateMagic.size());
  store_le<uint64_t>(out.data() + 8, state.generation);
  store_le<uint64_t>(out.data() + 16, state.size_bytes);
  store_le<uint64_t>(out.data() + 24, state.journal_start);
  store_le<uint32_t>(out.data() + 32,
                     (state.frozen ? kFrozen : 0) | (state.sums_complete ? kSumsComplete : 0));
  seal<kCheckedBytes>(out, 4);
}

Result<State> decode_state(PageView page) {
  if (!begins_with(page, kStateMagic) || !sound<kCheckedBytes>(page, 4)) {
    return make_error(ErrorCode::kCorrupt, "the layer's state does not match its checksum");
  }
  auto flags = load_le<uint32_t>(page.data() + 32);
  State state{load_le<uint64_t>(page.data() + 8), load_le<uint64_t>(page.data() + 16),
              load_le<uint64_t>(page.data() + 24), (flags & kFrozen) != 0, (flags & kSumsComplete) != 0};
  // Sequence numbers have room for a commit each nanosecond of a century; more is damage, and would overflow.
  bool possible = validate_sizes(state.size_bytes, 0).ok() && flags <= (kFrozen | kSumsComplete) &&
                  (state.frozen || !state.sums_complete) && state.journal_start > 0 &&
                  state.journal_start < uint64_t{1} << 62 &&
                  all_zero(page.subspan(kStateEnd, kCheckedBytes - kStateEnd));
  if (!possible) {
    return make_error(ErrorCode::kCorrupt, "the layer's state describes what cannot be (a size of {} bytes)",
                      state.size_bytes);
  }
  return state;
}

void SectorStates::set(uint64_t first, uint64_t count, BlockState state) {
  const uint64_t pattern = 0x5555555555555555 * static_cast<uint64_t>(state);
  while (count > 0) {
    uint64_t in_word = first % 32;
    uint64_t piece = std::min(count, 32 - in_word);
    uint64_t bits = mask(in_word, piece);
    uint64_t& word = words_[first / 32];
    word = (word & ~bits) | (pattern & bits);
    first += piece;
    count -= piece;
  }
}

uint64_t SectorStates::run(uint64_t first, uint64_t limit) const {
  const BlockState state = get(first);
  const uint64_t pattern = 0x5555555555555555 * static_cast<uint64_t>(state);
  const uint64_t end = std::min(first + limit, kBlocksPerSector);
  uint64_t at = first;
  while (at < end) {
    uint64_t differ = (words_[at / 32] ^ pattern) >> (at % 32 * 2);
    if (differ != 0) {
      at += static_cast<uint64_t>(std::countr_zero(differ)) / 2;
      break;
    }
    at += 32 - at % 32;
  }
  return std::min(at, end) - first;
}

bool SectorStates::empty() const {
  return std::all_of(words_.begin(), words_.end(), [](uint64_t word) { return word == 0; });
}

void encode_map_sector(uint64_t index, const MapSector& sector, std::span<std::byte, kMapSectorBytes> out) {
  std::fill(out.begin(), out.end(), std::byte{0});
  std::memcpy(out.data(), kMapMagic.data(), kMapMagic.size());
  store_le<uint64_t>(out.data() + 8, index);
  store_le<uint64_t>(out.data() + 16, sector.sequence);
  for (size_t word = 0; word < sector.states.words_.size(); ++word) {
    store_le<uint64_t>(out.data() + kStatesAt + word * 8, sector.states.words_[word]);
  }
  seal<kMapSectorBytes>(out, kMapCrcAt);
}

Result<MapSector> decode_map_sector(uint64_t index, SectorView bytes, uint64_t volume_blocks) {
  MapSector sector;
  if (all_zero(bytes)) return sector;
  if (!begins_with(bytes, kMapMagic) || !sound<kMapSectorBytes>(bytes, kMapCrcAt)) {
    return make_error(ErrorCode::kCorrupt, "map sector {} does not match its checksum", index);
  }
  auto its_index = load_le<uint64_t>(bytes.data() + 8);
  if (its_index != index) {
    return make_error(ErrorCode::kCorrupt, "map sector {} is at the place of {}", its_index, index);
  }
  sector.sequence = load_le<uint64_t>(bytes.data() + 16);
  if (sector.sequence >= uint64_t{1} << 62 || !all_zero(bytes.subspan(24, kStatesAt - 24))) {
    return make_error(ErrorCode::kCorrupt, "map sector {} describes what cannot be", index);
  }
  for (size_t word = 0; word < sector.states.words_.size(); ++word) {
    sector.states.words_[word] = load_le<uint64_t>(bytes.data() + kStatesAt + word * 8);
  }
  uint64_t before = index * kBlocksPerSector;
  uint64_t inside = volume_blocks <= before ? 0 : std::min(volume_blocks - before, kBlocksPerSector);
  for (size_t word = 0; word < sector.states.words_.size(); ++word) {
    uint64_t states = sector.states.words_[word];
    uint64_t impossible = states & (states >> 1) & 0x5555555555555555;
    uint64_t kept = std::min<uint64_t>(inside - std::min<uint64_t>(inside, word * 32), 32);
    if (kept < 32) impossible |= states & ~mask(0, kept);
    if (impossible == 0) continue;
    return make_error(ErrorCode::kCorrupt, "map sector {} gives block {} an impossible state", index,
                      before + word * 32 + static_cast<uint64_t>(std::countr_zero(impossible)) / 2);
  }
  return sector;
}

void encode_map_page(uint64_t index, const MapPage& page, Page& out) {
  for (size_t i = 0; i < page.size(); ++i) {
    auto bytes = std::span(out).subspan(i * kMapSectorBytes).first<kMapSectorBytes>();
    // A sector that says nothing and never did stays unwritten.
    if (page[i].sequence == 0 && page[i].states.empty()) {
      std::fill(bytes.begin(), bytes.end(), std::byte{0});
    } else {
      encode_map_sector(index * kSectorsPerPage + i, page[i], bytes);
    }
  }
}

Result<MapPage> decode_map_page(uint64_t index, PageView bytes, uint64_t volume_blocks) {
  MapPage page;
  for (size_t i = 0; i < page.size(); ++i) {
    page[i] =
        TRY(decode_map_sector(index * kSectorsPerPage + i,
                              bytes.subspan(i * kMapSectorBytes).first<kMapSectorBytes>(), volume_blocks));
  }
  return page;
}

void encode_journal_page(uint64_t sequence, uint64_t begin, std::span<const JournalEntry> entries,
                         Page& out) {
  CHECK(entries.size() <= kMaxJournalEntries);
  out.fill(std::byte{0});
  std::memcpy(out.data(), kJournalMagic.data(), kJournalMagic.size());
  store_le<uint64_t>(out.data() + 8, sequence);
  store_le<uint64_t>(out.data() + 16, begin);
  store_le<uint16_t>(out.data() + 24, static_cast<uint16_t>(entries.size()));
  std::byte* at = out.data() + kEntriesAt;
  for (const JournalEntry& entry : entries) {
    store_le<uint32_t>(at, entry.first);
    store_le<uint32_t>(at + 4, entry.count | static_cast<uint32_t>(entry.state) << 30);
    store_le<uint32_t>(at + 8, entry.crc);
    at += kEntryBytes;
  }
  seal<kPageBytes>(out, 4);
}

Result<std::optional<JournalRecord>> decode_journal_page(uint64_t place, PageView page,
                                                         uint64_t volume_blocks) {
  if (!begins_with(page, kJournalMagic) || !sound<kPageBytes>(page, 4)) return std::optional<JournalRecord>{};
  JournalRecord record;
  record.sequence = load_le<uint64_t>(page.data() + 8);
  record.begin = load_le<uint64_t>(page.data() + 16);
  auto count = load_le<uint16_t>(page.data() + 24);
  auto impossible = [&] {
    return make_error(ErrorCode::kCorrupt, "journal record {} describes what cannot be", record.sequence);
  };
  if (record.sequence % kJournalPages != place || record.sequence >= uint64_t{1} << 62 || record.begin == 0 ||
      record.begin > record.sequence || record.sequence - record.begin >= kJournalPages ||
      count > kMaxJournalEntries) {
    return impossible();
  }
  uint64_t blocks = 0;
  uint64_t data_blocks = 0;
  record.entries.reserve(count);
  for (size_t i = 0; i < count; ++i) {
    const std::byte* at = page.data() + kEntriesAt + i * kEntryBytes;
    auto packed = load_le<uint32_t>(at + 4);
    JournalEntry entry{load_le<uint32_t>(at), packed & 0x3fffffff, static_cast<BlockState>(packed >> 30),
                       load_le<uint32_t>(at + 8)};
    bool data = entry.state == BlockState::kData;
    blocks += entry.count;
    data_blocks += data ? entry.count : 0;
    if ((!data && entry.state != BlockState::kZero) || (!data && entry.crc != 0) || entry.count == 0 ||
        uint64_t{entry.first} + entry.count > volume_blocks || blocks > kMaxRecordBlocks ||
        data_blocks > kMaxRecordDataBlocks) {
      return impossible();
    }
    record.entries.push_back(entry);
  }
  return std::optional(std::move(record));
}

}  // namespace haneul::storage::layer
