// SPDX-License-Identifier: Apache-2.0
// The format's decoders against damage of every kind, and OVERLAY.md's worked example.
#include "storage/overlay_format.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <random>
#include <sstream>

#include "base/endian.h"
#include "base/file.h"
#include "storage/crc32c.h"

namespace haneul::storage::overlay {
namespace {

Page header_page(uint64_t sequence = 0, uint64_t size = 1 << 30, uint64_t base = 1 << 20) {
  Page page;
  encode_header(Header{sequence, size, base}, page);
  return page;
}

// The same page with a field changed and the checksum made right again.
template <typename T>
Page forged(Page page, size_t at, T value, size_t crc_at = 12) {
  store_le<T>(page.data() + at, value);
  store_le<uint32_t>(page.data() + crc_at, 0);
  store_le<uint32_t>(page.data() + crc_at, crc32c(page));
  return page;
}

TEST(OverlayHeader, ThereAndBack) {
  auto header = decode_header(header_page(5, 12345 * 512, 512)).value();
  EXPECT_EQ(header.sequence, 5u);
  EXPECT_EQ(header.size_bytes, 12345u * 512);
  EXPECT_EQ(header.base_size_bytes, 512u);
}

TEST(OverlayHeader, EveryFlippedBitIsNoticed) {
  Page page = header_page();
  for (size_t bit = 0; bit < page.size() * 8; ++bit) {
    page[bit / 8] ^= static_cast<std::byte>(1 << (bit % 8));
    EXPECT_FALSE(decode_header(page).ok()) << "bit " << bit;
    page[bit / 8] ^= static_cast<std::byte>(1 << (bit % 8));
  }
}

TEST(OverlayHeader, HostileFieldsAreRefusedWithOneSentence) {
  auto message = [](const Page& page) { return decode_header(page).error().message(); };
  EXPECT_EQ(message(Page{}), "the file is not an overlay: its first bytes are not HNLOVLAY");
  EXPECT_EQ(message(forged<uint32_t>(header_page(), 8, 2)),
            "the overlay has format version 2, and this program knows 1");
  Page damaged = header_page();
  damaged[30] ^= std::byte{1};
  EXPECT_EQ(message(damaged), "the overlay's header does not match its checksum");
  EXPECT_EQ(message(forged<uint32_t>(header_page(), 44, 1)),
            "the overlay uses features that this program does not know");
  EXPECT_EQ(message(forged<uint64_t>(header_page(), 4088, 1)),
            "the overlay uses features that this program does not know");
  for (size_t at : {40u, 48u, 56u, 64u}) {
    EXPECT_EQ(message(forged<uint32_t>(header_page(), at, 123)),
              "the overlay's header describes a layout that does not exist");
  }
  EXPECT_EQ(message(forged<uint64_t>(header_page(), 24, 513)),
            "the overlay's header has impossible sizes: 513 over a base of 1048576");
  for (uint64_t size : {uint64_t{0}, UINT64_MAX, kMaxSizeBytes + 512}) {
    EXPECT_EQ(decode_header(forged<uint64_t>(header_page(), 24, size)).error().code(), ErrorCode::kCorrupt);
  }
  EXPECT_EQ(decode_header(forged<uint64_t>(header_page(), 32, UINT64_MAX - 511)).error().code(),
            ErrorCode::kCorrupt);
}

TEST(OverlayHeader, TheNewestGoodCopyCounts) {
  EXPECT_EQ(choose_header(header_page(2, 1 << 20), header_page(3, 2 << 20))->size_bytes, 2u << 20);
  EXPECT_EQ(choose_header(header_page(4, 1 << 21), header_page(3, 1 << 20))->size_bytes, 1u << 21);
  Page torn = header_page(3);
  std::fill(torn.begin() + 512, torn.end(), std::byte{7});
  EXPECT_EQ(choose_header(header_page(2), torn)->sequence, 2u);
  EXPECT_EQ(choose_header(torn, header_page(2))->sequence, 2u);
  EXPECT_FALSE(choose_header(torn, Page{}).ok());
  EXPECT_EQ(choose_header(header_page(2), forged<uint32_t>(header_page(3), 8, 9)).error().code(),
            ErrorCode::kUnsupported);
}

Page map_page(uint64_t index, uint64_t sequence, uint64_t first_word = 0x1) {
  MapPage page;
  page.sequence = sequence;
  page.states[0] = first_word;
  page.states[255] = index == 0 ? 0 : first_word;
  Page out;
  encode_map_page(index, page, out);
  return out;
}

TEST(OverlayMapPage, DamageFallsBackToTheOlderCopy) {
  auto chosen = choose_map_page(7, kBlocksPerPage, map_page(7, 2, 0x1), map_page(7, 3, 0x2)).value();
  EXPECT_EQ(chosen.sequence, 3u);
  EXPECT_EQ(chosen.states[0], 0x2u);
  Page newer = map_page(7, 3, 0x2);
  for (size_t tear = 512; tear < kPageBytes; tear += 512) {
    // Part of the new copy over part of what was there two versions before.
    Page torn = map_page(7, 1, 0x9);
    std::copy_n(newer.begin(), tear, torn.begin());
    auto kept = choose_map_page(7, kBlocksPerPage, map_page(7, 2, 0x1), torn).value();
    EXPECT_EQ(kept.states[0], 0x1u) << tear;
    EXPECT_EQ(kept.sequence, 2u);
  }
  EXPECT_EQ(choose_map_page(7, kBlocksPerPage, Page{}, Page{}).value().sequence, 0u);
}

TEST(OverlayMapPage, AnotherPagesCopyOrBothDamagedIsRefused) {
  EXPECT_FALSE(decode_map_page(8, map_page(7, 1)).has_value()) << "misplaced";
  EXPECT_FALSE(decode_map_page(7, map_page(7, 0)).has_value()) << "sequence 0 is never written";
  EXPECT_EQ(choose_map_page(7, kBlocksPerPage, map_page(8, 2), map_page(8, 1)).error().message(),
            "both copies of the overlay's map page 7 are damaged");
}

TEST(OverlayMapPage, ImpossibleStatesAreRefused) {
  EXPECT_EQ(choose_map_page(0, kBlocksPerPage, map_page(0, 2, 0x3 << 4), map_page(0, 1)).error().message(),
            "the overlay's map page 0 gives block 2 an impossible state");
  EXPECT_EQ(choose_map_page(0, 2, map_page(0, 2, 0x1 << 4), map_page(0, 1)).error().message(),
            "the overlay's map page 0 gives block 2 an impossible state")
      << "beyond the disk's end";
}

TEST(OverlayMapPage, RandomBytesNeverCrash) {
  std::mt19937_64 random(1);
  for (int i = 0; i < 2000; ++i) {
    Page a = i % 2 == 0 ? map_page(0, 1) : Page{};
    Page b = header_page();
    for (int n = 0; n < 8; ++n) {
      a[random() % a.size()] = static_cast<std::byte>(random());
      b[random() % b.size()] = static_cast<std::byte>(random());
    }
    (void)choose_map_page(0, 100, a, b).ok();
    (void)choose_header(b, a).ok();
  }
}

// OVERLAY.md ends with the bytes of a header and of a map page: they must be what this code reads and writes.
TEST(OverlayDocument, TheWorkedExampleIsTrue) {
  const char* source = std::getenv("HANEUL_SOURCE");  // NOLINT(concurrency-mt-unsafe)
  if (source == nullptr) GTEST_SKIP() << "HANEUL_SOURCE is not set";
  std::istringstream text(read_file(std::string(source) + "/storage/OVERLAY.md").value());
  Page header{};
  Page map{};
  Page* page = nullptr;
  for (std::string line; std::getline(text, line);) {
    if (line.starts_with("    header")) page = &header;
    if (line.starts_with("    map page")) page = &map;
    unsigned at = 0;
    int used = 0;
    if (page == nullptr || std::sscanf(line.c_str(), "    %4x:%n", &at, &used) != 1 || used == 0) continue;
    std::istringstream bytes(line.substr(static_cast<size_t>(used)));
    for (unsigned value = 0; bytes >> std::hex >> value;) page->at(at++) = static_cast<std::byte>(value);
  }
  auto decoded = decode_header(header);
  ASSERT_TRUE(decoded.ok()) << decoded.error().message();
  EXPECT_EQ(decoded->size_bytes, 64u << 20);
  EXPECT_EQ(decoded->base_size_bytes, 32u << 20);
  auto states = decode_map_page(1, map);
  ASSERT_TRUE(states.has_value());
  EXPECT_EQ(states->sequence, 1u);
  EXPECT_EQ(states->states[0], 0x29u) << "block 0 data, block 1 zero, block 2 zero";
}

}  // namespace
}  // namespace haneul::storage::overlay
