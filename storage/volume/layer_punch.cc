// SPDX-License-Identifier: Apache-2.0
// Giving back what nobody sees any more of a layer that only children stand on: ../FORMAT.md, "Deleting".
#include <algorithm>

#include "storage/volume/layer.h"
#include "storage/volume/recovery.h"

namespace haneul::storage {
namespace {

/// Whether each child's map says something else than "beneath" of a block, page by page.
class Children {
 public:
  static Result<Children> open(const std::vector<AsyncFile*>& files) {
    Children children;
    for (AsyncFile* file : files)
      children.each_.push_back({file, TRY(layer::read_start(*file)).state.size_bytes});
    return children;
  }
  Result<std::vector<layer::MapPage>> pages(uint64_t index) {
    std::vector<layer::MapPage> found;
    for (auto& [file, size_bytes] : each_) {
      TRY(file->read_now(layer::map_page_offset(index), buffer_).context("reading a layer's map"));
      found.push_back(
          TRY(layer::decode_map_page(index, layer::PageView(buffer_), layer::blocks_of(size_bytes))));
    }
    return found;
  }
  /// What was read of their maps is durable then, and the data that it speaks of was before.
  Status sync() {
    for (auto& [file, size_bytes] : each_) TRY(file->sync_now());
    return {};
  }

 private:
  std::vector<std::pair<AsyncFile*, uint64_t>> each_;
  layer::Page buffer_{};
};

struct HiddenPage {
  uint64_t index = 0;
  layer::MapPage left;  // what stays
  uint64_t blocks = 0;  // that go
};

Result<std::optional<HiddenPage>> hidden_in(uint64_t index, const layer::MapPage& page, Children& children) {
  std::vector<layer::MapPage> above = TRY(children.pages(index));
  HiddenPage found{index, page, 0};
  TRY(layer::for_runs(index, page, [&](uint64_t first, uint64_t count, layer::BlockState) -> Status {
    for (uint64_t block = first; block < first + count; ++block) {
      uint64_t inside = block - index * layer::kBlocksPerMapPage;
      size_t sector = inside / layer::kBlocksPerSector;
      uint64_t at = inside % layer::kBlocksPerSector;
      bool seen = std::any_of(above.begin(), above.end(), [&](const layer::MapPage& child) {
        return child[sector].states.get(at) == layer::BlockState::kBeneath;
      });
      if (seen) continue;
      found.left[sector].states.set(at, 1, layer::BlockState::kBeneath);
      ++found.blocks;
    }
    return {};
  }));
  if (found.blocks == 0) return std::optional<HiddenPage>();
  return std::optional<HiddenPage>(std::move(found));
}

/// Punches what the file has for blocks that the map does not speak of, whole map pages at a time.
Status punch_unheld(AsyncFile& file, const layer::State& state, const Progress& progress) {
  const uint64_t blocks = layer::blocks_of(state.size_bytes);
  const uint64_t end = layer::kDataOffset + blocks * layer::kBlockBytes;
  layer::Page bytes;
  for (uint64_t at = 0; at < blocks;) {
    uint64_t found = TRY(file.next_data(layer::kDataOffset + at * layer::kBlockBytes, end));
    if (found >= end) return {};
    at = (found - layer::kDataOffset) / layer::kBlockBytes;
    const uint64_t index = at / layer::kBlocksPerMapPage;
    if (progress && !progress(at, blocks)) return Error(ErrorCode::kCancelled, "the work was ended");
    TRY(file.read_now(layer::map_page_offset(index), bytes).context("reading the layer's map"));
    layer::MapPage page = TRY(layer::decode_map_page(index, layer::PageView(bytes), blocks));
    const uint64_t page_end = std::min(blocks, (index + 1) * layer::kBlocksPerMapPage);
    while (at < page_end) {
      const uint64_t inside = at % layer::kBlocksPerMapPage;
      const auto& states = page[inside / layer::kBlocksPerSector].states;
      const uint64_t first = inside % layer::kBlocksPerSector;
      uint64_t count = std::min(states.run(first, layer::kBlocksPerSector - first), page_end - at);
      const uint64_t begin = layer::kDataOffset + at * layer::kBlockBytes;
      const uint64_t length = count * layer::kBlockBytes;
      const bool held = states.get(first) != layer::BlockState::kBeneath;
      if (!held && TRY(file.next_data(begin, begin + length)) < begin + length)
        TRY(file.erase_now(AsyncFile::Erase::kPunch, begin, length));
      at += count;
    }
  }
  return {};
}

}  // namespace

// The map first, the data when that is durable: a block that the map speaks of has its data at any moment, for whoever
// reads meanwhile and after a crash. What a crash leaves to be punched is found again in the file.
Result<uint64_t> punch_hidden(AsyncFile& file, const std::vector<AsyncFile*>& children,
                              const Progress& progress) {
  layer::Start start = TRY(layer::read_start(file));
  if (!start.state.frozen || children.empty()) {
    return make_error(ErrorCode::kInvalidArgument, "layer {} is not a frozen one with children",
                      to_string(start.header.id));
  }
  Children above = TRY(Children::open(children));
  uint64_t given_back = 0;
  const uint64_t blocks = layer::blocks_of(start.state.size_bytes);
  std::vector<HiddenPage> waiting;
  // What was read of the children's maps is durable, then these pages: some at a time.
  auto write_some = [&]() -> Status {
    if (waiting.empty()) return {};
    TRY(above.sync());
    for (const HiddenPage& found : waiting) {
      layer::Page bytes;
      layer::encode_map_page(found.index, found.left, bytes);
      TRY(file.write_now(layer::map_page_offset(found.index), bytes));
      given_back += found.blocks;
    }
    waiting.clear();
    return {};
  };
  auto visit = [&](uint64_t index, const layer::MapPage& page, bool) -> Status {
    if (progress && !progress(index * layer::kBlocksPerMapPage, blocks))
      return Error(ErrorCode::kCancelled, "the work was ended");
    auto found = TRY(hidden_in(index, page, above));
    if (found) waiting.push_back(std::move(*found));
    return waiting.size() == 64 ? write_some() : Status();
  };
  TRY(layer::read_map(file, start.state, {}, visit));
  TRY(write_some());
  TRY(file.sync_now());
  TRY(punch_unheld(file, start.state, progress));
  TRY(file.sync_now());
  return given_back;
}

}  // namespace haneul::storage
