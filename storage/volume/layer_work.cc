// SPDX-License-Identifier: Apache-2.0
// The work on layers that no volume writes to: what they hold, whether they are sound, their sums, and giving
// back what nobody sees any more.
#include <algorithm>

#include "base/endian.h"
#include "storage/crc32c.h"
#include "storage/volume/layer.h"
#include "storage/volume/recovery.h"

namespace haneul::storage {
namespace {

using layer::BlockState;
using layer::kBlockBytes;

constexpr uint64_t kBlocksAtOnce = 64;
constexpr size_t kMaxFaults = 100;

/// Each run of blocks of one state in a map page; blocks counted over the volume.
Status for_runs(uint64_t index, const layer::MapPage& page,
                const std::function<Status(uint64_t first, uint64_t count, BlockState state)>& each) {
  uint64_t begin = index * layer::kBlocksPerMapPage;
  for (const layer::MapSector& sector : page) {
    for (uint64_t block = 0; block < layer::kBlocksPerSector;) {
      uint64_t count = sector.states.run(block, layer::kBlocksPerSector - block);
      BlockState state = sector.states.get(block);
      if (state != BlockState::kBeneath) TRY(each(begin + block, count, state));
      block += count;
    }
    begin += layer::kBlocksPerSector;
  }
  return {};
}

/// Reads the data of all blocks in state 1, some at a time.
class DataWalk {
 public:
  using Each = std::function<Status(uint64_t first, std::span<const std::byte> data)>;
  DataWalk(AsyncFile& file, uint64_t total, const Progress& progress)
      : file_(file), total_(total), progress_(progress), buffer_(kBlocksAtOnce * kBlockBytes) {}

  Status run(const layer::Start& start, const layer::Journal& journal, const Each& each) {
    auto visit = [&](uint64_t index, const layer::MapPage& page, bool) {
      return for_runs(index, page, [&](uint64_t first, uint64_t count, BlockState state) -> Status {
        return state == BlockState::kData ? blocks(first, count, each) : Status();
      });
    };
    TRY(layer::read_map(file_, start.state, journal, visit));
    return {};
  }

 private:
  Status blocks(uint64_t first, uint64_t count, const Each& each) {
    for (uint64_t done = 0; done < count;) {
      uint64_t piece = std::min(kBlocksAtOnce, count - done);
      auto data = std::span(buffer_).first(piece * kBlockBytes);
      TRY(file_.read_now(layer::kDataOffset + (first + done) * kBlockBytes, data)
              .context("reading a layer's data"));
      TRY(each(first + done, data));
      done += piece;
      done_ += piece;
      if (progress_ && !progress_(done_, total_)) return Error(ErrorCode::kCancelled, "the work was ended");
    }
    return {};
  }

  AsyncFile& file_;
  uint64_t total_;
  uint64_t done_ = 0;
  const Progress& progress_;
  std::vector<std::byte> buffer_;
};

Result<LayerUse> use_of(AsyncFile& file, const layer::Start& start, const layer::Journal& journal) {
  LayerUse use;
  auto visit = [&](uint64_t index, const layer::MapPage& page, bool) {
    return for_runs(index, page, [&](uint64_t, uint64_t count, BlockState state) -> Status {
      (state == BlockState::kData ? use.data_blocks : use.zero_blocks) += count;
      return {};
    });
  };
  TRY(layer::read_map(file, start.state, journal, visit));
  return use;
}

Status check_sums(AsyncFile& file, const layer::Start& start, const layer::Journal& journal, uint64_t total,
                  std::vector<Fault>& faults, const Progress& progress) {
  std::vector<std::byte> sums(kBlocksAtOnce * 4);
  return DataWalk(file, total, progress)
      .run(start, journal, [&](uint64_t first, std::span<const std::byte> data) -> Status {
        size_t count = data.size() / kBlockBytes;
        TRY(file.read_now(layer::kSumsOffset + first * 4, std::span(sums).first(count * 4))
                .context("reading sums"));
        for (size_t i = 0; i < count && faults.size() < kMaxFaults; ++i) {
          if (crc32c(data.subspan(i * kBlockBytes, kBlockBytes)) == load_le<uint32_t>(&sums[i * 4])) continue;
          faults.push_back({fmt::format("data of block {}", first + i), "the data and its sum do not agree"});
        }
        return {};
      });
}

// What a file says of itself once; what it could not be read for is an error.
Status look(AsyncFile& file, CheckOptions options, std::vector<Fault>& faults, bool& frozen,
            const Progress& progress) {
  auto note = [&faults](const char* where, const Error& error) -> Status {
    if (error.code() != ErrorCode::kCorrupt && error.code() != ErrorCode::kUnsupported &&
        error.code() != ErrorCode::kOutOfRange) {
      return error;
    }
    faults.push_back({where, error.message()});
    return {};
  };
  auto start = layer::read_start(file);
  if (!start.ok()) return note("header and state", start.error());
  frozen = start->state.frozen;
  auto journal = layer::read_journal(file, start->state);
  if (!journal.ok()) return note("journal", journal.error());
  auto use = use_of(file, *start, *journal);
  if (!use.ok()) return note("map", use.error());
  if (!options.data || !start->state.sums_complete) return {};
  return check_sums(file, *start, *journal, use->data_blocks, faults, progress);
}

}  // namespace

Result<LayerUse> layer_use(AsyncFile& file) {
  layer::Start start = TRY(layer::read_start(file));
  return use_of(file, start, TRY(layer::read_journal(file, start.state)));
}

Result<std::vector<Fault>> check_layer(AsyncFile& file, CheckOptions options, const Progress& progress) {
  // A page that its volume writes at this moment may be read in halves: looked at again.
  constexpr int kLooks = 5;
  for (int i = 1;; ++i) {
    std::vector<Fault> faults;
    bool frozen = true;
    TRY(look(file, options, faults, frozen, progress));
    if (faults.empty() || frozen || i == kLooks) return faults;
  }
}

Status write_sums(AsyncFile& file, const Progress& progress) {
  layer::Start start = TRY(layer::read_start(file));
  if (!start.state.frozen) {
    return make_error(ErrorCode::kInvalidArgument, "layer {} is not frozen, and has no sums yet",
                      to_string(start.header.id));
  }
  if (start.state.sums_complete) return {};
  uint64_t total = TRY(use_of(file, start, {})).data_blocks;
  std::vector<std::byte> sums(kBlocksAtOnce * 4);
  TRY(DataWalk(file, total, progress)
          .run(start, {}, [&](uint64_t first, std::span<const std::byte> data) -> Status {
            size_t count = data.size() / kBlockBytes;
            for (size_t i = 0; i < count; ++i) {
              store_le<uint32_t>(&sums[i * 4], crc32c(data.subspan(i * kBlockBytes, kBlockBytes)));
            }
            return file.write_now(layer::kSumsOffset + first * 4, std::span(sums).first(count * 4));
          }));
  TRY(file.sync_now());
  start.state.sums_complete = true;
  return layer::write_state(file, start.state);
}

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
  TRY(for_runs(index, page, [&](uint64_t first, uint64_t count, BlockState) -> Status {
    for (uint64_t block = first; block < first + count; ++block) {
      uint64_t inside = block - index * layer::kBlocksPerMapPage;
      size_t sector = inside / layer::kBlocksPerSector;
      uint64_t at = inside % layer::kBlocksPerSector;
      bool seen = std::any_of(above.begin(), above.end(), [&](const layer::MapPage& child) {
        return child[sector].states.get(at) == BlockState::kBeneath;
      });
      if (seen) continue;
      found.left[sector].states.set(at, 1, BlockState::kBeneath);
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

}  // namespace

namespace {

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
        TRY(file_.erase_now(AsyncFile::Erase::kPunch, layer::kDataOffset + first * kBlockBytes,
                            count * kBlockBytes));
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
    const uint64_t limit = layer::kDataOffset + end * kBlockBytes;
    uint64_t at = first == end ? limit : TRY(file.next_data(layer::kDataOffset + first * kBlockBytes, limit));
    if (progress && !progress(first, blocks)) return Error(ErrorCode::kCancelled, "the work was ended");
    return at == limit ? Status() : file.erase_now(AsyncFile::Erase::kPunch, at, limit - at);
  };
  uint64_t unused = 0;  // from here on, as far as is known
  TRY(layer::read_map(file, start.state, {}, [&](uint64_t index, const layer::MapPage& page, bool) {
    return for_runs(index, page, [&](uint64_t first, uint64_t count, BlockState state) -> Status {
      if (state != BlockState::kData) return {};
      TRY(punch(unused, first));
      unused = first + count;
      return {};
    });
  }));
  return punch(unused, blocks);
}

}  // namespace haneul::storage
