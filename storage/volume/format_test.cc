// SPDX-License-Identifier: Apache-2.0
// The decoders of a layer's bytes against damage of every kind, and FORMAT.md's worked example.
#include "storage/volume/format.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <map>
#include <random>
#include <sstream>

#include "base/endian.h"
#include "base/file.h"
#include "storage/crc32c.h"

namespace haneul::storage::layer {
namespace {

constexpr uint64_t kManyBlocks = 1 << 20;

template <size_t N>
std::array<uint8_t, N> bytes_from(uint8_t first) {
  std::array<uint8_t, N> out;
  for (size_t i = 0; i < N; ++i) out[i] = static_cast<uint8_t>(first + i);
  return out;
}

Page header_page() {
  Page page;
  encode_header({bytes_from<16>(1), bytes_from<16>(0x21), 0, true, bytes_from<32>(0x40), bytes_from<16>(9)},
                page);
  return page;
}
Page state_page() {
  Page page;
  encode_state({7, 1 << 30, 12, true, true}, page);
  return page;
}
Page sector_page(uint64_t index = 3, uint64_t sequence = 9) {
  MapSector sector{sequence, {}};
  sector.states.set(5, 40, BlockState::kData);
  sector.states.set(1791, 1, BlockState::kZero);
  Page page{};
  encode_map_sector(index, sector, std::span(page).first<kMapSectorBytes>());
  return page;
}
SectorView sector_of(const Page& page) {
  return std::span(page).first<kMapSectorBytes>();
}
const std::vector<JournalEntry> kEntries{{17, 3, BlockState::kData, 0x1234},
                                         {90, 1000, BlockState::kZero, 0}};
Page journal_page(uint64_t sequence = 300, uint64_t begin = 290) {
  Page page;
  encode_journal_page(sequence, begin, kEntries, page);
  return page;
}

// The same page with a field changed and the checksum made right again.
template <typename T>
Page forged(Page page, size_t at, T value, size_t crc_at, size_t bytes = 512) {
  store_le<T>(page.data() + at, value);
  store_le<uint32_t>(page.data() + crc_at, 0);
  store_le<uint32_t>(page.data() + crc_at, crc32c(std::span(page).first(bytes)));
  return page;
}

template <typename T>
std::string message(const Result<T>& result) {
  return result.ok() ? "ok" : result.error().message();
}

TEST(LayerHeader, ThereAndBack) {
  auto header = decode_header(header_page()).value();
  EXPECT_EQ(header.id, bytes_from<16>(1));
  EXPECT_EQ(header.parent, bytes_from<16>(0x21));
  EXPECT_EQ(header.salt, bytes_from<32>(0x40));
  EXPECT_EQ(header.check, bytes_from<16>(9));
  EXPECT_TRUE(header.encrypted);
  Page page;
  encode_header({bytes_from<16>(1), {}, 1 << 20, false, {}, {}}, page);
  header = decode_header(page).value();
  EXPECT_EQ(header.raw_base_bytes, 1u << 20);
  EXPECT_FALSE(header.encrypted);
}

TEST(LayerHeader, HostileFieldsAreRefusedWithOneSentence) {
  EXPECT_EQ(message(decode_header(Page{})), "the file is not a layer: its first bytes are not HNLLAYER");
  EXPECT_EQ(message(decode_header(forged<uint32_t>(header_page(), 8, 2, 12))),
            "the layer has format version 2, and this program knows 1");
  EXPECT_EQ(message(decode_header(forged<uint32_t>(header_page(), 60, 2, 12))),
            "the layer uses features that this program does not know (0x2)");
  EXPECT_EQ(decode_header(forged<uint32_t>(header_page(), 60, 2, 12)).error().code(),
            ErrorCode::kUnsupported);
  const char* impossible = "the layer's header describes what cannot be";
  EXPECT_EQ(message(decode_header(forged<uint32_t>(header_page(), 56, 512, 12))), impossible);
  EXPECT_EQ(message(decode_header(forged<uint64_t>(header_page(), 48, 512, 12))), impossible)
      << "and a parent";
  EXPECT_EQ(message(decode_header(forged<uint32_t>(header_page(), 60, 0, 12))), impossible)
      << "a salt for nothing";
  EXPECT_EQ(message(decode_header(forged<uint8_t>(header_page(), 511, 1, 12))), impossible);
  Page own_parent;
  encode_header({bytes_from<16>(1), bytes_from<16>(1), 0, false, {}, {}}, own_parent);
  EXPECT_EQ(message(decode_header(own_parent)), impossible);
  encode_header({{}, bytes_from<16>(1), 0, false, {}, {}}, own_parent);
  EXPECT_EQ(message(decode_header(own_parent)), impossible);
}

TEST(LayerState, ThereAndBack) {
  auto state = decode_state(state_page()).value();
  EXPECT_EQ(state.generation, 7u);
  EXPECT_EQ(state.size_bytes, 1u << 30);
  EXPECT_EQ(state.journal_start, 12u);
  EXPECT_TRUE(state.frozen);
  EXPECT_TRUE(state.sums_complete);
}

TEST(LayerState, HostileFieldsAreRefusedWithOneSentence) {
  EXPECT_EQ(message(decode_state(Page{})), "the layer's state does not match its checksum");
  EXPECT_EQ(message(decode_state(forged<uint64_t>(state_page(), 16, 513, 4))),
            "the layer's state describes what cannot be (a size of 513 bytes)");
  for (uint64_t size : {uint64_t{0}, kMaxSizeBytes + 512, UINT64_MAX}) {
    EXPECT_FALSE(decode_state(forged<uint64_t>(state_page(), 16, size, 4)).ok()) << size;
  }
  for (uint64_t start : {uint64_t{0}, UINT64_MAX}) {
    EXPECT_FALSE(decode_state(forged<uint64_t>(state_page(), 24, start, 4)).ok()) << start;
  }
  EXPECT_FALSE(decode_state(forged<uint32_t>(state_page(), 32, 2, 4)).ok()) << "sums of a layer that changes";
  EXPECT_FALSE(decode_state(forged<uint32_t>(state_page(), 32, 4, 4)).ok());
  EXPECT_FALSE(decode_state(forged<uint8_t>(state_page(), 36, 1, 4)).ok());
}

TEST(LayerMapSector, ThereAndBack) {
  Page page = sector_page();
  auto sector = decode_map_sector(3, sector_of(page), kManyBlocks).value();
  EXPECT_EQ(sector.sequence, 9u);
  EXPECT_EQ(sector.states.get(4), BlockState::kBeneath);
  EXPECT_EQ(sector.states.get(5), BlockState::kData);
  EXPECT_EQ(sector.states.run(5, 1000), 40u);
  EXPECT_EQ(sector.states.run(5, 7), 7u);
  EXPECT_EQ(sector.states.run(45, kBlocksPerSector), 1791u - 45);
  EXPECT_EQ(sector.states.get(1791), BlockState::kZero);
  EXPECT_EQ(decode_map_sector(3, sector_of(Page{}), kManyBlocks)->sequence, 0u) << "never written";
}

TEST(LayerMapSector, HostileFieldsAreRefusedWithOneSentence) {
  auto decode = [](const Page& page, uint64_t index = 3, uint64_t blocks = kManyBlocks) {
    return message(decode_map_sector(index, sector_of(page), blocks));
  };
  EXPECT_EQ(decode(sector_page(), 4), "map sector 3 is at the place of 4");
  Page damaged = sector_page();
  damaged[100] ^= std::byte{1};
  EXPECT_EQ(decode(damaged), "map sector 3 does not match its checksum");
  EXPECT_EQ(decode(forged<uint8_t>(sector_page(), 24, 1, 4)), "map sector 3 describes what cannot be");
  EXPECT_EQ(decode(forged<uint8_t>(sector_page(), 65, 0x0c, 4)),
            "map sector 3 gives block 5381 an impossible state");
  uint64_t first = 3 * kBlocksPerSector;
  EXPECT_EQ(decode(sector_page(), 3, first + 1792), "ok");
  EXPECT_EQ(decode(sector_page(), 3, first + 1791), "map sector 3 gives block 7167 an impossible state");
  EXPECT_EQ(decode(sector_page(), 3, first + 33), "map sector 3 gives block 5409 an impossible state");
  EXPECT_EQ(decode(sector_page(), 3, 0), "map sector 3 gives block 5381 an impossible state");
}

TEST(LayerJournal, ThereAndBack) {
  auto record = decode_journal_page(300 % 256, journal_page(), kManyBlocks).value();
  ASSERT_TRUE(record.has_value());
  EXPECT_EQ(record->sequence, 300u);
  EXPECT_EQ(record->begin, 290u);
  EXPECT_EQ(record->entries, kEntries);
  EXPECT_FALSE(decode_journal_page(0, Page{}, kManyBlocks).value().has_value());
  Page torn = journal_page();
  torn[600] = std::byte{1};
  EXPECT_FALSE(decode_journal_page(300 % 256, torn, kManyBlocks).value().has_value());
}

TEST(LayerJournal, HostileFieldsAreRefusedWithOneSentence) {
  auto decode = [](const Page& page, uint64_t place = 300 % 256, uint64_t blocks = kManyBlocks) {
    return message(decode_journal_page(place, page, blocks));
  };
  auto changed = [](auto value, size_t at) { return forged(journal_page(), at, value, 4, kPageBytes); };
  const char* impossible = "journal record 300 describes what cannot be";
  EXPECT_EQ(decode(journal_page(), 300 % 256, 1090), "ok");
  EXPECT_EQ(decode(journal_page(), 300 % 256, 1089), impossible) << "behind the end";
  EXPECT_EQ(decode(journal_page(), 45), impossible) << "misplaced";
  EXPECT_EQ(decode(journal_page(300, 301)), impossible);
  EXPECT_EQ(decode(journal_page(300, 44)), impossible) << "more than the ring holds";
  EXPECT_EQ(decode(changed(uint16_t{337}, 24)), impossible);
  EXPECT_EQ(decode(changed(uint32_t{0x40000000}, 68)), impossible) << "no blocks";
  EXPECT_EQ(decode(changed(uint32_t{0x00000001}, 68)), impossible) << "state 0";
  EXPECT_EQ(decode(changed(uint32_t{0xc0000001}, 68)), impossible) << "state 3";
  EXPECT_EQ(decode(changed(uint32_t{0x40000041}, 68)), impossible) << "more data than is ever read";
  EXPECT_EQ(decode(changed(uint32_t{0x80010000}, 80)), impossible) << "more blocks than a record speaks of";
}

TEST(LayerFormat, EveryFlippedBitIsNoticed) {
  auto flip = [](Page page, size_t bytes, auto refused) {
    for (size_t bit = 0; bit < bytes * 8; ++bit) {
      page[bit / 8] ^= static_cast<std::byte>(1 << (bit % 8));
      EXPECT_TRUE(refused(page)) << "bit " << bit;
      page[bit / 8] ^= static_cast<std::byte>(1 << (bit % 8));
    }
  };
  flip(header_page(), 512, [](const Page& page) { return !decode_header(page).ok(); });
  flip(state_page(), 512, [](const Page& page) { return !decode_state(page).ok(); });
  flip(sector_page(), 512,
       [](const Page& page) { return !decode_map_sector(3, sector_of(page), kManyBlocks).ok(); });
  flip(journal_page(), 4096,
       [](const Page& page) { return !decode_journal_page(44, page, kManyBlocks).value().has_value(); });
}

TEST(LayerFormat, RandomBytesNeverCrash) {
  std::mt19937_64 random(1);
  for (int i = 0; i < 2000; ++i) {
    for (Page page : {header_page(), state_page(), sector_page(), journal_page()}) {
      for (int n = 0; n < 6; ++n) page[random() % 512] = static_cast<std::byte>(random());
      for (auto [crc_at, bytes] : {std::pair<size_t, size_t>{12, 512}, {4, 512}, {4, 4096}}) {
        Page again = forged<uint8_t>(page, 500, 0, crc_at, bytes);
        (void)decode_header(again).ok();
        (void)decode_state(again).ok();
        (void)decode_map_page(random() % 4, again, random() % kManyBlocks).ok();
        (void)decode_journal_page(44, again, random() % kManyBlocks).ok();
      }
    }
  }
}

TEST(LayerFormat, SizesThatTheFormatCannotHold) {
  EXPECT_EQ(message(validate_sizes(1000, 0)),
            "a volume's size must be a multiple of 512 up to 16 TiB, not 1000 bytes");
  EXPECT_EQ(message(validate_sizes(1024, 2048)),
            "a raw base of 2048 bytes does not fit under a volume of 1024");
  EXPECT_TRUE(validate_sizes(kMaxSizeBytes, kMaxSizeBytes).ok());
  EXPECT_FALSE(validate_sizes(kMaxSizeBytes + 512, 0).ok());
}

// FORMAT.md ends with the bytes of a layer: they must be what this code reads and writes.
TEST(LayerDocument, TheWorkedExampleIsTrue) {
  const char* source = std::getenv("HANEUL_SOURCE");  // NOLINT(concurrency-mt-unsafe)
  if (source == nullptr) GTEST_SKIP() << "HANEUL_SOURCE is not set";
  std::istringstream text(read_file(std::string(source) + "/storage/FORMAT.md").value());
  std::map<std::string, Page> pages;
  Page* page = nullptr;
  for (std::string line; std::getline(text, line);) {
    for (const char* name : {"header", "state", "map page", "journal page"}) {
      if (line.starts_with(std::string("    ") + name)) page = &pages[name];
    }
    unsigned at = 0;
    int used = 0;
    if (page == nullptr || std::sscanf(line.c_str(), "    %4x:%n", &at, &used) != 1 || used == 0) continue;
    std::istringstream bytes(line.substr(static_cast<size_t>(used)));
    for (unsigned value = 0; bytes >> std::hex >> value;) page->at(at++) = static_cast<std::byte>(value);
  }
  auto header = decode_header(pages["header"]);
  ASSERT_TRUE(header.ok()) << header.error().message();
  EXPECT_EQ(to_string(header->id), "000102030405060708090a0b0c0d0e0f");
  EXPECT_EQ(to_string(header->parent), "101112131415161718191a1b1c1d1e1f");
  auto state = decode_state(pages["state"]);
  ASSERT_TRUE(state.ok()) << state.error().message();
  EXPECT_EQ(state->size_bytes, 64u << 20);
  EXPECT_EQ(state->journal_start, 1u);
  auto map = decode_map_page(1, pages["map page"], blocks_of(state->size_bytes));
  ASSERT_TRUE(map.ok()) << map.error().message();
  EXPECT_EQ((*map)[0].sequence, 2u);
  EXPECT_EQ((*map)[0].states.get(0), BlockState::kData);
  EXPECT_EQ((*map)[0].states.get(1), BlockState::kZero);
  EXPECT_EQ((*map)[0].states.get(2), BlockState::kZero);
  EXPECT_EQ((*map)[0].states.run(3, 2000), kBlocksPerSector - 3);
  auto record = decode_journal_page(3, pages["journal page"], blocks_of(state->size_bytes));
  ASSERT_TRUE(record.ok() && record->has_value());
  EXPECT_EQ((*record)->sequence, 3u);
  EXPECT_EQ((*record)->begin, 3u);
  EXPECT_EQ((*record)->entries, (std::vector<JournalEntry>{{14336 + 5, 1, BlockState::kData, 0xd134dea2}}));
  Page again;
  encode_map_page(1, *map, again);
  EXPECT_EQ(again, pages["map page"]);
  encode_journal_page(3, 3, (*record)->entries, again);
  EXPECT_EQ(again, pages["journal page"]);
}

}  // namespace
}  // namespace haneul::storage::layer
