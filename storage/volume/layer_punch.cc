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
    for (AsyncFile* file : files) {
      TRY(layer::read_start(*file));
      children.each_.push_back(file);
    }
    return children;
  }
  Result<std::vector<layer::MapPage>> pages(uint64_t index) {
    std::vector<layer::MapPage> found;
    // One that is in use may be growing: its size is not held against it.
    for (AsyncFile* file : each_) found.push_back(TRY(layer::read_map_page(*file, index, layer::kMaxBlocks)));
    return found;
  }
  /// What was read of their maps is durable then, and the data that it speaks of was before.
  Status sync() {
    for (AsyncFile* file : each_) TRY(file->sync_now());
    return {};
  }

 private:
  std::vector<AsyncFile*> each_;
};

struct HiddenPage {
  uint64_t index = 0;
  layer::MapPage left;  // what stays
  std::vector<std::pair<uint64_t, uint64_t>> hidden;
};

Result<std::optional<HiddenPage>> hidden_in(uint64_t index, const layer::MapPage& page, Children& children) {
  std::vector<layer::MapPage> above = TRY(children.pages(index));
  HiddenPage found{index, page, {}};
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
      if (!found.hidden.empty() && found.hidden.back().first + found.hidden.back().second == block) {
        ++found.hidden.back().second;
      } else {
        found.hidden.emplace_back(block, 1);
      }
    }
    return {};
  }));
  if (found.hidden.empty()) return std::optional<HiddenPage>();
  return std::optional<HiddenPage>(std::move(found));
}

// The map says first, durably, that the blocks are not there any more; then their data goes. The other way round a
// crash in between, or whoever looks in between, would find data that does not agree with its sum.
class Punching {
 public:
  Punching(AsyncFile& file, Children& above, const std::function<Status()>& before)
      : file_(file), above_(above), before_(before) {}

  Status add(HiddenPage page) {
    pages_.push_back(std::move(page));
    return pages_.size() < kPagesAtOnce ? Status() : finish();
  }
  Status finish() {
    if (pages_.empty()) return {};
    if (before_ && !begun_) TRY(before_());
    begun_ = true;
    TRY(above_.sync());
    for (const HiddenPage& page : pages_) {
      layer::Page bytes;
      layer::encode_map_page(page.index, page.left, bytes);
      TRY(file_.write_now(layer::map_page_offset(page.index), bytes));
    }
    TRY(file_.sync_now());
    for (const HiddenPage& page : pages_) {
      for (auto [first, count] : page.hidden) {
        TRY(file_.erase_now(AsyncFile::Erase::kPunch, layer::kDataOffset + first * layer::kBlockBytes,
                            count * layer::kBlockBytes));
        given_back_ += count;
      }
    }
    pages_.clear();
    return {};
  }
  uint64_t given_back() const { return given_back_; }

 private:
  static constexpr size_t kPagesAtOnce = 64;
  AsyncFile& file_;
  Children& above_;
  const std::function<Status()>& before_;
  bool begun_ = false;
  uint64_t given_back_ = 0;
  std::vector<HiddenPage> pages_;
};

}  // namespace

Result<uint64_t> punch_hidden(AsyncFile& file, const std::vector<AsyncFile*>& children,
                              const std::function<Status()>& before, const Progress& progress) {
  layer::Start start = TRY(layer::read_start(file));
  if (!start.state.frozen || children.empty()) {
    return make_error(ErrorCode::kInvalidArgument, "layer {} is not a frozen one with children",
                      to_string(start.header.id));
  }
  Children above = TRY(Children::open(children));
  Punching punching(file, above, before);
  const uint64_t pages = layer::map_pages_of(layer::blocks_of(start.state.size_bytes));
  auto visit = [&](uint64_t index, const layer::MapPage& page, bool) -> Status {
    if (progress && !progress(index, pages)) return Error(ErrorCode::kCancelled, "the work was ended");
    auto found = TRY(hidden_in(index, page, above));
    return found ? punching.add(std::move(*found)) : Status();
  };
  TRY(layer::read_map(file, start.state, {}, visit));
  TRY(punching.finish());
  return punching.given_back();
}

Status punch_unused(AsyncFile& file, const Progress& progress) {
  layer::Start start = TRY(layer::read_start(file));
  if (!start.state.frozen) {
    return make_error(ErrorCode::kInvalidArgument, "layer {} is not frozen", to_string(start.header.id));
  }
  const uint64_t blocks = layer::blocks_of(start.state.size_bytes);
  auto punch = [&](uint64_t first, uint64_t end) -> Status {
    const uint64_t limit = layer::kDataOffset + end * layer::kBlockBytes;
    uint64_t at =
        first == end ? limit : TRY(file.next_data(layer::kDataOffset + first * layer::kBlockBytes, limit));
    if (progress && !progress(first, blocks)) return Error(ErrorCode::kCancelled, "the work was ended");
    return at == limit ? Status() : file.erase_now(AsyncFile::Erase::kPunch, at, limit - at);
  };
  uint64_t unused = 0;  // from here on, as far as is known
  TRY(layer::read_map(file, start.state, {}, [&](uint64_t index, const layer::MapPage& page, bool) {
    return layer::for_runs(index, page,
                           [&](uint64_t first, uint64_t count, layer::BlockState state) -> Status {
                             if (state != layer::BlockState::kData) return {};
                             TRY(punch(unused, first));
                             unused = first + count;
                             return {};
                           });
  }));
  return punch(unused, blocks);
}

}  // namespace haneul::storage
