// SPDX-License-Identifier: Apache-2.0
// A layer's file that lies anywhere, with right checksums where the input wants them: everything that reads layers
// (opening, recovery, freezing, checking, sums, punching, copying) takes it or refuses it, and none of it crashes or grows.
// What recovery accepts is sound to it a second time.
#include <algorithm>
#include <map>
#include <memory>

#include "base/endian.h"
#include "storage/crc32c.h"
#include "storage/store/layer_copy.h"
#include "storage/volume/format.h"
#include "storage/volume/volume.h"
#include "tests/fuzz/input.h"

namespace haneul::storage {
namespace {

using layer::Page;

struct Medium {
  std::map<uint64_t, Page> pages;
  uint64_t size = 0;
};

/// A sparse file in memory. Nothing here asks it for anything but the blocking calls.
class MemoryFile final : public AsyncFile {
 public:
  explicit MemoryFile(Medium medium) : medium_(std::move(medium)) {}
  const Medium& medium() const { return medium_; }

  void read(IoRing&, IoOperation&, std::span<const iovec>, uint64_t) override { CHECK(false); }
  void write(IoRing&, IoOperation&, std::span<const iovec>, uint64_t) override { CHECK(false); }
  void sync(IoRing&, IoOperation&) override { CHECK(false); }
  void erase(IoRing&, IoOperation&, Erase, uint64_t, uint64_t) override { CHECK(false); }

  Status read_now(uint64_t offset, std::span<std::byte> out) override {
    if (offset + out.size() > medium_.size) return Error(ErrorCode::kOutOfRange, "the file ends early");
    for (size_t done = 0; done < out.size();) {
      const uint64_t at = (offset + done) % kPage;
      const size_t piece = std::min<size_t>(out.size() - done, kPage - at);
      auto found = medium_.pages.find((offset + done) / kPage);
      if (found == medium_.pages.end()) {
        std::memset(out.data() + done, 0, piece);
      } else {
        std::memcpy(out.data() + done, found->second.data() + at, piece);
      }
      done += piece;
    }
    return {};
  }
  Status write_now(uint64_t offset, std::span<const std::byte> data) override {
    CHECK(offset + data.size() <= medium_.size);
    for (size_t done = 0; done < data.size();) {
      const uint64_t at = (offset + done) % kPage;
      const size_t piece = std::min<size_t>(data.size() - done, kPage - at);
      std::memcpy(medium_.pages[(offset + done) / kPage].data() + at, data.data() + done, piece);
      done += piece;
    }
    return {};
  }
  Status sync_now() override { return {}; }
  Status erase_now(Erase, uint64_t offset, uint64_t length) override {
    CHECK(offset % kPage == 0 && length % kPage == 0 && offset + length <= medium_.size);
    medium_.pages.erase(medium_.pages.lower_bound(offset / kPage),
                        medium_.pages.lower_bound((offset + length) / kPage));
    return {};
  }
  Result<uint64_t> size() override { return medium_.size; }
  Status grow(uint64_t size_bytes) override {
    medium_.size = std::max(medium_.size, size_bytes);
    return {};
  }
  Result<uint64_t> next_data(uint64_t offset, uint64_t limit) override {
    auto found = medium_.pages.lower_bound(offset / kPage);
    return found == medium_.pages.end() ? limit : std::clamp(found->first * kPage, offset, limit);
  }

 private:
  static constexpr uint64_t kPage = layer::kPageBytes;
  Medium medium_;
};

constexpr uint64_t kSize = 130 << 20;  // three map pages
constexpr uint64_t kBlock = 4096;

/// One that a crash left: two map pages, and three records of which the last may or may not count.
Medium sound_layer(bool frozen) {
  MemoryFile file({});
  NewLayer made;
  made.id.fill(frozen ? 7 : 8);
  if (!frozen) made.parent.fill(7);
  made.size_bytes = kSize;
  CHECK(create_layer(file, made).ok());
  Page page;
  for (uint64_t index : {0UL, 1UL}) {
    layer::MapPage map{};
    map[0] = {frozen ? 0U : 2U, {}};
    map[0].states.set(3, 40, layer::BlockState::kData);
    map[5].states.set(100, 200, layer::BlockState::kZero);
    layer::encode_map_page(index, map, page);
    CHECK(file.write_now(layer::map_page_offset(index), page).ok());
    std::vector<std::byte> data(40 * kBlock, std::byte{0x31});
    CHECK(file.write_now(layer::kDataOffset + (index * layer::kBlocksPerMapPage + 3) * kBlock, data).ok());
  }
  if (frozen) {
    CHECK(freeze_layer(file).ok() && write_sums(file, {}).ok());
  } else {
    std::vector<std::byte> data(2 * kBlock, std::byte{0x32});
    CHECK(file.write_now(layer::kDataOffset + 500 * kBlock, data).ok());
    for (uint64_t s : {3UL, 4UL, 5UL}) {
      std::array<layer::JournalEntry, 2> entries{
          layer::JournalEntry{500, 2, layer::BlockState::kData, crc32c(data)},
          layer::JournalEntry{static_cast<uint32_t>(600 * s), 9, layer::BlockState::kZero, 0}};
      layer::encode_journal_page(s, 3, entries, page);
      CHECK(file.write_now(layer::journal_page_offset(s), page).ok());
    }
  }
  return file.medium();
}

struct Place {
  uint64_t at;
  size_t bytes;   // that the checksum is of
  size_t crc_at;  // in it
};
constexpr std::array<Place, 8> kPlaces{{{layer::kHeaderOffset, 512, 12},
                                        {layer::kStateOffset, 512, 4},
                                        {layer::kMapOffset, 512, 4},
                                        {layer::kMapOffset + 5 * 512, 512, 4},
                                        {layer::kMapOffset + 2 * 4096, 512, 4},
                                        {layer::kJournalOffset + 3 * 4096, 4096, 4},
                                        {layer::kJournalOffset + 4 * 4096, 4096, 4},
                                        {layer::kJournalOffset + 5 * 4096, 4096, 4}}};

void lie(MemoryFile& file, fuzz::Input& input) {
  const Place place = kPlaces[input.below(kPlaces.size())];
  std::vector<std::byte> bytes(place.bytes);
  CHECK(file.read_now(place.at, bytes).ok());
  for (unsigned changes = 1 + input.below(3); changes > 0; --changes) {
    const size_t at =
        input.below(static_cast<uint32_t>(place.bytes == 4096 && input.below(2) == 0 ? 4096 : 112));
    const auto value = input.take<uint64_t>() >> input.below(64);
    std::memcpy(&bytes[std::min(at, place.bytes - 8)], &value, 8);
  }
  if (input.below(8) != 0) {
    store_le<uint32_t>(&bytes[place.crc_at], 0);
    store_le<uint32_t>(&bytes[place.crc_at], crc32c(bytes));
  }
  CHECK(file.write_now(place.at, bytes).ok());
}

/// Over a copy: what one step does to it is not the next one's affair.
class Copies {
 public:
  explicit Copies(const Medium& of) : of_(of) {}
  std::unique_ptr<MemoryFile> file() const { return std::make_unique<MemoryFile>(of_); }

 private:
  const Medium& of_;
};

void use(const Medium& lower, const Medium& upper) {
  Copies below(lower);
  Copies above(upper);
  (void)check_layer(*below.file(), {}, {}).ok();
  (void)check_layer(*above.file(), {}, {}).ok();
  (void)layer_use(*above.file()).ok();
  auto freezing = above.file();
  if (freeze_layer(*freezing).ok()) {
    CHECK(check_layer(*freezing, {}, {}).value().empty());
    CHECK(write_sums(*freezing, {}).ok() && check_layer(*freezing, {}, {}).value().empty());
  }
  auto punched = below.file();
  auto child = above.file();
  (void)punch_hidden(*punched, {child.get()}, {}, {}).ok();
  (void)punch_unused(*punched, {}).ok();
  MemoryFile target({});
  NewLayer made;
  made.id.fill(9);
  made.size_bytes = kSize;
  CHECK(create_layer(target, made).ok());
  (void)copy_layer(*below.file(), target, std::nullopt, {}).ok();
  Stack stack;
  stack.layers.push_back({below.file(), std::nullopt});
  stack.layers.push_back({above.file(), std::nullopt});
  auto volume = open_volume(std::move(stack), {});
  if (volume.ok()) CHECK((*volume)->map_bytes() < 1 << 20);
}

}  // namespace
}  // namespace haneul::storage

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace haneul;
  static const storage::Medium lower = storage::sound_layer(true);
  static const storage::Medium upper = storage::sound_layer(false);
  fuzz::Input input(data, size);
  storage::MemoryFile below(lower);
  storage::MemoryFile above(upper);
  for (int lies = 0; lies < 4 && !input.empty(); ++lies)
    storage::lie(input.below(2) == 0 ? below : above, input);
  storage::use(below.medium(), above.medium());
  return 0;
}
