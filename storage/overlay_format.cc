// SPDX-License-Identifier: Apache-2.0
#include "storage/overlay_format.h"

#include <algorithm>
#include <cstring>

#include "base/checked.h"
#include "base/endian.h"
#include "storage/crc32c.h"

namespace haneul::storage::overlay {
namespace {

constexpr std::array<char, 8> kHeaderMagic{'H', 'N', 'L', 'O', 'V', 'L', 'A', 'Y'};
constexpr std::array<char, 4> kMapMagic{'H', 'M', 'A', 'P'};
constexpr uint32_t kVersion = 1;

constexpr size_t kHeaderCrcAt = 12;
constexpr size_t kHeaderEnd = 72;
constexpr size_t kMapCrcAt = 4;
constexpr size_t kMapHeaderEnd = 24;
constexpr size_t kStatesAt = 2048;

uint32_t checksum(const Page& page, size_t crc_at) {
  Page copy = page;
  store_le<uint32_t>(copy.data() + crc_at, 0);
  return crc32c(copy);
}

bool all_zero(std::span<const std::byte> bytes) {
  return std::all_of(bytes.begin(), bytes.end(), [](std::byte b) { return b == std::byte{0}; });
}

}  // namespace

Status validate_sizes(uint64_t size_bytes, uint64_t base_size_bytes) {
  if (size_bytes == 0 || size_bytes > kMaxSizeBytes || size_bytes % 512 != 0) {
    return make_error(ErrorCode::kInvalidArgument,
                      "an overlay's size must be a multiple of 512 up to 16 TiB, not {} bytes", size_bytes);
  }
  if (base_size_bytes > size_bytes || base_size_bytes % 512 != 0) {
    return make_error(ErrorCode::kInvalidArgument, "a base of {} bytes does not fit under an overlay of {}",
                      base_size_bytes, size_bytes);
  }
  return {};
}

void encode_header(const Header& header, Page& out) {
  out.fill(std::byte{0});
  std::memcpy(out.data(), kHeaderMagic.data(), kHeaderMagic.size());
  store_le<uint32_t>(out.data() + 8, kVersion);
  store_le<uint64_t>(out.data() + 16, header.sequence);
  store_le<uint64_t>(out.data() + 24, header.size_bytes);
  store_le<uint64_t>(out.data() + 32, header.base_size_bytes);
  store_le<uint32_t>(out.data() + 40, kBlockBytes);
  store_le<uint64_t>(out.data() + 48, kMapOffset);
  store_le<uint64_t>(out.data() + 56, kMaxMapPages);
  store_le<uint64_t>(out.data() + 64, kDataOffset);
  store_le<uint32_t>(out.data() + kHeaderCrcAt, checksum(out, kHeaderCrcAt));
}

Result<Header> decode_header(const Page& page) {
  const std::byte* at = page.data();
  if (std::memcmp(at, kHeaderMagic.data(), kHeaderMagic.size()) != 0) {
    return make_error(ErrorCode::kCorrupt, "the file is not an overlay: its first bytes are not HNLOVLAY");
  }
  auto version = load_le<uint32_t>(at + 8);
  if (version != kVersion) {
    return make_error(ErrorCode::kUnsupported, "the overlay has format version {}, and this program knows {}",
                      version, kVersion);
  }
  if (load_le<uint32_t>(at + kHeaderCrcAt) != checksum(page, kHeaderCrcAt)) {
    return make_error(ErrorCode::kCorrupt, "the overlay's header does not match its checksum");
  }
  Header header{load_le<uint64_t>(at + 16), load_le<uint64_t>(at + 24), load_le<uint64_t>(at + 32)};
  if (load_le<uint32_t>(at + 44) != 0 || !all_zero(std::span(page).subspan(kHeaderEnd))) {
    return make_error(ErrorCode::kUnsupported, "the overlay uses features that this program does not know");
  }
  if (load_le<uint32_t>(at + 40) != kBlockBytes || load_le<uint64_t>(at + 48) != kMapOffset ||
      load_le<uint64_t>(at + 56) != kMaxMapPages || load_le<uint64_t>(at + 64) != kDataOffset) {
    return make_error(ErrorCode::kCorrupt, "the overlay's header describes a layout that does not exist");
  }
  if (!validate_sizes(header.size_bytes, header.base_size_bytes).ok()) {
    return make_error(ErrorCode::kCorrupt, "the overlay's header has impossible sizes: {} over a base of {}",
                      header.size_bytes, header.base_size_bytes);
  }
  return header;
}

Result<Header> choose_header(const Page& first, const Page& second) {
  auto a = decode_header(first);
  auto b = decode_header(second);
  if (a.ok() && b.ok()) return a->sequence > b->sequence ? a : b;
  if (b.ok()) return b;
  // A file of a later version, or with unknown features, is not to be opened by its older copy.
  if (a.ok() && b.error().code() == ErrorCode::kUnsupported) return b;
  return a;
}

void encode_map_page(uint64_t index, const MapPage& map_page, Page& out) {
  out.fill(std::byte{0});
  std::memcpy(out.data(), kMapMagic.data(), kMapMagic.size());
  store_le<uint64_t>(out.data() + 8, map_page.sequence);
  store_le<uint64_t>(out.data() + 16, index);
  for (size_t word = 0; word < map_page.states.size(); ++word) {
    store_le<uint64_t>(out.data() + kStatesAt + word * 8, map_page.states[word]);
  }
  store_le<uint32_t>(out.data() + kMapCrcAt, checksum(out, kMapCrcAt));
}

std::optional<MapPage> decode_map_page(uint64_t index, const Page& page) {
  const std::byte* at = page.data();
  if (std::memcmp(at, kMapMagic.data(), kMapMagic.size()) != 0) return std::nullopt;
  if (load_le<uint32_t>(at + kMapCrcAt) != checksum(page, kMapCrcAt)) return std::nullopt;
  if (load_le<uint64_t>(at + 16) != index) return std::nullopt;
  if (!all_zero(std::span(page).subspan(kMapHeaderEnd, kStatesAt - kMapHeaderEnd))) return std::nullopt;
  MapPage map_page;
  map_page.sequence = load_le<uint64_t>(at + 8);
  if (map_page.sequence == 0) return std::nullopt;
  for (size_t word = 0; word < map_page.states.size(); ++word) {
    map_page.states[word] = load_le<uint64_t>(at + kStatesAt + word * 8);
  }
  return map_page;
}

Result<MapPage> choose_map_page(uint64_t index, uint64_t blocks, const Page& first, const Page& second) {
  auto a = decode_map_page(index, first);
  auto b = decode_map_page(index, second);
  if (!a && !b) {
    // The very first write of a page goes to the second copy. Torn by a crash, it is no copy yet: nothing in
    // it was ever acknowledged. The first copy is written only after that, over an intact second one.
    if (all_zero(first)) return MapPage{};
    return make_error(ErrorCode::kCorrupt, "both copies of the overlay's map page {} are damaged", index);
  }
  MapPage& newest = !b || (a && a->sequence > b->sequence) ? *a : *b;
  for (uint64_t block = 0; block < kBlocksPerPage; ++block) {
    uint64_t state = (newest.states[block / 32] >> (block % 32 * 2)) & 3;
    if (state == 3 || (state != 0 && block >= blocks)) {
      return make_error(ErrorCode::kCorrupt, "the overlay's map page {} gives block {} an impossible state",
                        index, block);
    }
  }
  return newest;
}

}  // namespace haneul::storage::overlay
