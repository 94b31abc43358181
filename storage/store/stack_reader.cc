// SPDX-License-Identifier: Apache-2.0
#include "storage/store/stack_reader.h"

#include <algorithm>

#include "base/endian.h"
#include "storage/crc32c.h"
#include "storage/volume/crypt_file.h"
#include "storage/volume/recovery.h"

namespace haneul::storage {
namespace {

using layer::BlockState;
using layer::kBlockBytes;
using layer::kBlocksPerMapPage;

constexpr uint64_t kBlocksAtOnce = 64;
constexpr uint32_t kNobody = 0;  // else the layer's index and one more

class StackReader {
 public:
  StackReader(std::span<const ReadLayer> layers, const EachStretch& each, const Progress& progress)
      : each_(each), progress_(progress), data_(kBlocksAtOnce * kBlockBytes), sums_(kBlocksAtOnce * 4) {
    for (const ReadLayer& layer : layers) open_.push_back({layer, {}, 0, 0});
  }

  Status run() {
    for (Open& open : open_) {
      layer::Start start = TRY(layer::read_start(*open.layer.file).context(named(open)));
      if (!start.state.sums_complete) {
        return make_error(ErrorCode::kInvalidArgument, "layer {} has no sums yet", open.layer.name);
      }
      open.blocks = layer::blocks_of(start.state.size_bytes);
      if (open.layer.key) open.cipher.emplace(*open.layer.key);
    }
    blocks_ = open_.back().blocks;
    for (uint64_t page = 0; page < layer::map_pages_of(blocks_);) {
      page = TRY(next_page(page));
      if (page < layer::map_pages_of(blocks_)) TRY(read_page(page++));
    }
    return {};
  }

 private:
  struct Open {
    const ReadLayer& layer;
    std::optional<SectorCipher> cipher;
    uint64_t blocks;
    uint64_t next;  // map page that may say something; those before are holes
  };
  static std::string named(const Open& open) { return "layer " + open.layer.name; }

  Result<uint64_t> next_page(uint64_t page) {
    uint64_t next = layer::map_pages_of(blocks_);
    for (Open& open : open_) {
      if (open.next < page || page == 0) {
        const uint64_t end = layer::map_page_offset(layer::map_pages_of(open.blocks));
        const uint64_t from = std::min(layer::map_page_offset(page), end);
        uint64_t at = from == end ? end : TRY(open.layer.file->next_data(from, end).context(named(open)));
        open.next = at == end ? layer::map_pages_of(blocks_) : (at - layer::kMapOffset) / layer::kPageBytes;
      }
      next = std::min(next, open.next);
    }
    return next;
  }

  Status read_page(uint64_t index) {
    owners_.fill(kNobody);
    settled_.fill(false);
    for (size_t i = open_.size(); i-- > 0;) {
      if (open_[i].next == index) TRY(take_page(index, i).context(named(open_[i])));
    }
    const uint64_t begin = index * kBlocksPerMapPage;
    const uint64_t count = std::min(kBlocksPerMapPage, blocks_ - begin);
    for (uint64_t at = 0; at < count;) {
      uint64_t end = at + 1;
      while (end < count && end - at < kBlocksAtOnce && owners_[end] == owners_[at]) ++end;
      if (owners_[at] != kNobody) TRY(read_blocks(open_[owners_[at] - 1], begin + at, end - at));
      at = end;
    }
    return keep_on(begin + count);
  }

  // What layers above it have not settled yet, this one may.
  Status take_page(uint64_t index, size_t of) {
    layer::MapPage page = TRY(layer::read_map_page(*open_[of].layer.file, index, open_[of].blocks));
    for (uint64_t at = 0; at < kBlocksPerMapPage; ++at) {
      BlockState state = page[at / layer::kBlocksPerSector].states.get(at % layer::kBlocksPerSector);
      if (settled_[at] || state == BlockState::kBeneath) continue;
      settled_[at] = true;
      if (state == BlockState::kData) owners_[at] = static_cast<uint32_t>(of) + 1;
    }
    return {};
  }

  Status read_blocks(Open& open, uint64_t first, uint64_t count) {
    auto data = std::span(data_).first(count * kBlockBytes);
    auto sums = std::span(sums_).first(count * 4);
    TRY(open.layer.file->read_now(layer::kDataOffset + first * kBlockBytes, data).context(named(open)));
    TRY(open.layer.file->read_now(layer::kSumsOffset + first * 4, sums).context(named(open)));
    for (uint64_t i = 0; i < count; ++i) {
      if (crc32c(data.subspan(i * kBlockBytes, kBlockBytes)) != load_le<uint32_t>(&sums[i * 4])) {
        return make_error(ErrorCode::kCorrupt,
                          "layer {}: data of block {}: the data and its sum do not agree", open.layer.name,
                          first + i);
      }
    }
    if (open.cipher) open.cipher->decrypt(first * (kBlockBytes / 512), data, data.data());
    TRY(each_(first * kBlockBytes, data));
    return keep_on(first + count);
  }

  Status keep_on(uint64_t done) {
    if (!progress_ || progress_(done, blocks_)) return {};
    return Error(ErrorCode::kCancelled, "the work was ended");
  }

  const EachStretch& each_;
  const Progress& progress_;
  std::vector<Open> open_;
  uint64_t blocks_ = 0;
  std::array<uint32_t, kBlocksPerMapPage> owners_{};
  std::array<bool, kBlocksPerMapPage> settled_{};
  std::vector<std::byte> data_;
  std::vector<std::byte> sums_;
};

}  // namespace

Status read_stack(std::span<const ReadLayer> layers, const EachStretch& each, const Progress& progress) {
  return std::make_unique<StackReader>(layers, each, progress)->run();
}

}  // namespace haneul::storage
