// SPDX-License-Identifier: Apache-2.0
#include "storage/store/layer_copy.h"

#include <algorithm>

#include "base/endian.h"
#include "storage/crc32c.h"
#include "storage/volume/crypt_file.h"
#include "storage/volume/recovery.h"

namespace haneul::storage {
namespace {

using layer::BlockState;
using layer::kBlockBytes;
using layer::MapPage;

constexpr uint64_t kBlocksAtOnce = 64;
/// Made durable together; a copy that is cut off does at most that much again.
constexpr uint64_t kBlocksPerCommit = (uint64_t{32} << 20) / kBlockBytes;
constexpr size_t kPagesPerCommit = 256;

BlockState state_of(const MapPage& page, uint64_t inside) {
  return page[inside / layer::kBlocksPerSector].states.get(inside % layer::kBlocksPerSector);
}
void set_state(MapPage& page, uint64_t inside, BlockState state) {
  page[inside / layer::kBlocksPerSector].states.set(inside % layer::kBlocksPerSector, 1, state);
}

class LayerCopy {
 public:
  LayerCopy(AsyncFile& from, AsyncFile& to, const std::optional<LayerKeys>& keys, const Progress& progress)
      : from_(from),
        to_(to),
        progress_(progress),
        data_(kBlocksAtOnce * kBlockBytes),
        sums_(kBlocksAtOnce * 4) {
    if (!keys) return;
    decrypting_.emplace(keys->from);
    encrypting_.emplace(keys->to);
  }

  Status run() {
    layer::Start source = TRY(layer::read_start(from_));
    layer::Start target = TRY(layer::read_start(to_));
    if (!source.state.sums_complete || source.state.size_bytes != target.state.size_bytes) {
      return Error(ErrorCode::kInvalidArgument,
                   "a layer is copied when it is frozen and has its sums, to one of its size");
    }
    if (target.state.frozen) return {};
    blocks_ = layer::blocks_of(source.state.size_bytes);
    total_ = TRY(layer_use(from_)).data_blocks;
    TRY(layer::read_map(from_, source.state, {},
                        [&](uint64_t index, const MapPage& page, bool) { return copy_page(index, page); }));
    TRY(commit());
    target.state.frozen = true;
    target.state.sums_complete = true;
    return layer::write_state(to_, target.state);
  }

 private:
  Status copy_page(uint64_t index, const MapPage& source) {
    MapPage target = TRY(there_already(index, source));
    const uint64_t begin = index * layer::kBlocksPerMapPage;
    const uint64_t count = std::min(layer::kBlocksPerMapPage, blocks_ - begin);
    for (uint64_t at = 0; at < count;) {
      BlockState state = state_of(source, at);
      if (state != BlockState::kData || state_of(target, at) == state) {
        if (state == BlockState::kZero) set_state(target, at, state);
        done_ += state == BlockState::kData ? 1 : 0;
        ++at;
        continue;
      }
      uint64_t end = at;
      while (end < count && end - at < kBlocksAtOnce && state_of(source, end) == BlockState::kData &&
             state_of(target, end) != BlockState::kData) {
        ++end;
      }
      TRY(copy_blocks(begin + at, end - at));
      for (; at < end; ++at) set_state(target, at, BlockState::kData);
      if (uncommitted_ >= kBlocksPerCommit) {
        pages_.emplace_back(index, target);
        TRY(commit());
      }
    }
    pages_.emplace_back(index, target);
    return pages_.size() < kPagesPerCommit ? Status() : commit();
  }

  // What an earlier call copied of this page, as far as it is what was copied.
  Result<MapPage> there_already(uint64_t index, const MapPage& source) {
    layer::Page bytes;
    TRY(to_.read_now(layer::map_page_offset(index), bytes).context("reading the copy's map"));
    // A sector that a crash tore: nothing of the page counts.
    auto page = layer::decode_map_page(index, layer::PageView(bytes), blocks_);
    if (!page.ok()) return MapPage{};
    const uint64_t begin = index * layer::kBlocksPerMapPage;
    for (uint64_t at = 0; at < layer::kBlocksPerMapPage && begin + at < blocks_; ++at) {
      if (state_of(*page, at) != BlockState::kData) continue;
      bool same = state_of(source, at) == BlockState::kData && TRY(is_sound(begin + at));
      if (!same) set_state(*page, at, BlockState::kBeneath);
    }
    return std::move(*page);
  }

  Result<bool> is_sound(uint64_t block) {
    auto data = std::span(data_).first(kBlockBytes);
    std::array<std::byte, 4> copied{};
    std::array<std::byte, 4> original{};
    TRY(to_.read_now(layer::kDataOffset + block * kBlockBytes, data).context("reading the copy"));
    TRY(to_.read_now(layer::kSumsOffset + block * 4, copied).context("reading the copy's sums"));
    TRY(from_.read_now(layer::kSumsOffset + block * 4, original).context("reading the layer's sums"));
    TRY(keep_on());
    return crc32c(data) == load_le<uint32_t>(copied.data()) && (encrypting_ || copied == original);
  }

  Status copy_blocks(uint64_t first, uint64_t count) {
    auto data = std::span(data_).first(count * kBlockBytes);
    auto sums = std::span(sums_).first(count * 4);
    TRY(from_.read_now(layer::kDataOffset + first * kBlockBytes, data).context("reading the layer's data"));
    TRY(from_.read_now(layer::kSumsOffset + first * 4, sums).context("reading the layer's sums"));
    for (uint64_t i = 0; i < count; ++i) {
      auto block = data.subspan(i * kBlockBytes, kBlockBytes);
      if (crc32c(block) != load_le<uint32_t>(&sums[i * 4])) {
        return make_error(ErrorCode::kCorrupt, "data of block {}: the data and its sum do not agree",
                          first + i);
      }
      if (!encrypting_) continue;
      const uint64_t unit = (first + i) * (kBlockBytes / 512);
      decrypting_->decrypt(unit, block, block.data());
      encrypting_->encrypt(unit, block, block.data());
      store_le<uint32_t>(&sums[i * 4], crc32c(block));
    }
    TRY(to_.write_now(layer::kDataOffset + first * kBlockBytes, data).context("writing the copy"));
    TRY(to_.write_now(layer::kSumsOffset + first * 4, sums).context("writing the copy's sums"));
    uncommitted_ += count;
    done_ += count;
    return keep_on();
  }

  Status keep_on() {
    if (!progress_ || progress_(std::min(done_, total_), total_)) return {};
    return Error(ErrorCode::kCancelled, "the copy was ended");
  }

  Status commit() {
    if (pages_.empty()) return {};
    TRY(to_.sync_now());
    for (const auto& [index, page] : pages_) {
      layer::Page bytes;
      layer::encode_map_page(index, page, bytes);
      TRY(to_.write_now(layer::map_page_offset(index), bytes).context("writing the copy's map"));
    }
    pages_.clear();
    uncommitted_ = 0;
    return to_.sync_now();
  }

  AsyncFile& from_;
  AsyncFile& to_;
  const Progress& progress_;
  std::optional<SectorCipher> decrypting_;
  std::optional<SectorCipher> encrypting_;
  uint64_t blocks_ = 0;
  uint64_t total_ = 0;
  uint64_t done_ = 0;
  uint64_t uncommitted_ = 0;
  std::vector<std::pair<uint64_t, MapPage>> pages_;
  std::vector<std::byte> data_;
  std::vector<std::byte> sums_;
};

}  // namespace

Status copy_layer(AsyncFile& from, AsyncFile& to, const std::optional<LayerKeys>& keys,
                  const Progress& progress) {
  return LayerCopy(from, to, keys, progress).run();
}

}  // namespace haneul::storage
