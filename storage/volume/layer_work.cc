// SPDX-License-Identifier: Apache-2.0
// The work on layers that no volume writes to: what they hold, whether they are sound, and their sums.
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

/// Reads the data of all blocks in state 1, some at a time.
class DataWalk {
 public:
  using Each = std::function<Status(uint64_t first, std::span<const std::byte> data)>;
  DataWalk(AsyncFile& file, uint64_t total, const Progress& progress)
      : file_(file), total_(total), progress_(progress), buffer_(kBlocksAtOnce * kBlockBytes) {}

  Status run(const layer::Start& start, const layer::Journal& journal, const Each& each) {
    auto visit = [&](uint64_t index, const layer::MapPage& page, bool) {
      return layer::for_runs(index, page, [&](uint64_t first, uint64_t count, BlockState state) -> Status {
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
    return layer::for_runs(index, page, [&](uint64_t, uint64_t count, BlockState state) -> Status {
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

}  // namespace haneul::storage
