// SPDX-License-Identifier: Apache-2.0
#include "storage/volume/recovery.h"

#include <algorithm>
#include <memory>
#include <tuple>

#include "storage/crc32c.h"

namespace haneul::storage::layer {
namespace {

constexpr uint64_t kPagesAtOnce = 32;
template <size_t Pages>
struct alignas(4096) Buffer {
  std::array<std::byte, Pages * kPageBytes> bytes;
  PageView page(size_t index) const {
    return std::span(bytes).subspan(index * kPageBytes).template first<kPageBytes>();
  }
};

// Whether an entry of the last record, which nothing seals, speaks of data that became durable with it.
Result<bool> data_is_there(AsyncFile& file, const JournalEntry& entry) {
  if (entry.state != BlockState::kData) return true;
  std::vector<std::byte> data(entry.count * kBlockBytes);
  TRY(file.read_now(kDataOffset + entry.first * kBlockBytes, data)
          .context("reading what the journal speaks of"));
  return crc32c(data) == entry.crc;
}

void add_changes(const JournalEntry& entry, uint64_t sequence, std::vector<Journal::Change>& out) {
  uint64_t end = uint64_t{entry.first} + entry.count;
  for (uint64_t at = entry.first; at < end;) {
    uint64_t page_end = std::min(end, (at / kBlocksPerMapPage + 1) * kBlocksPerMapPage);
    out.push_back({sequence, static_cast<uint32_t>(at), static_cast<uint32_t>(page_end - at), entry.state});
    at = page_end;
  }
}

uint64_t page_of(const Journal::Change& change) {
  return change.first / kBlocksPerMapPage;
}

// Whether any of it was not in the page yet.
bool apply(const Journal::Change& change, uint64_t index, MapPage& page) {
  bool applied = false;
  uint64_t at = change.first - index * kBlocksPerMapPage;
  for (uint64_t left = change.count; left > 0;) {
    MapSector& sector = page[at / kBlocksPerSector];
    uint64_t piece = std::min(left, kBlocksPerSector - at % kBlocksPerSector);
    if (sector.sequence < change.sequence) {
      sector.states.set(at % kBlocksPerSector, piece, change.state);
      applied = true;
    }
    at += piece;
    left -= piece;
  }
  return applied;
}

// Walks the pages of a map that exist in the file or of which the journal speaks.
class MapReader {
 public:
  MapReader(AsyncFile& file, const State& state, const Journal& journal, const VisitMapPage& visit)
      : file_(file), journal_(journal), visit_(visit), blocks_(blocks_of(state.size_bytes)) {}

  Result<uint64_t> run() {
    const uint64_t pages = map_pages_of(blocks_);
    for (uint64_t at = 0; at < pages;) {
      uint64_t found = TRY(file_.next_data(map_page_offset(at), map_page_offset(pages)));
      uint64_t next = (found - kMapOffset) / kPageBytes;
      if (change_ < journal_.changes.size()) next = std::min(next, page_of(journal_.changes[change_]));
      if (next >= pages) break;
      uint64_t count = std::min(kPagesAtOnce, pages - next);
      TRY(file_.read_now(map_page_offset(next), std::span(buffer_->bytes).first(count * kPageBytes))
              .context("reading the layer's map"));
      for (uint64_t i = 0; i < count; ++i) TRY(page(next + i, buffer_->page(i)));
      at = next + count;
    }
    return greatest_;
  }

 private:
  Status page(uint64_t index, PageView bytes) {
    bool spoken_of = change_ < journal_.changes.size() && page_of(journal_.changes[change_]) == index;
    if (!spoken_of && all_zero(bytes)) return {};
    auto decoded = decode_map_page(index, bytes, blocks_);
    if (!decoded.ok()) decoded = read_map_page(file_, index, blocks_);
    MapPage page = TRY(std::move(decoded));
    for (const MapSector& sector : page) greatest_ = std::max(greatest_, sector.sequence);
    bool changed = false;
    for (; change_ < journal_.changes.size() && page_of(journal_.changes[change_]) == index; ++change_) {
      changed |= apply(journal_.changes[change_], index, page);
    }
    return visit_(index, page, changed);
  }

  AsyncFile& file_;
  const Journal& journal_;
  const VisitMapPage& visit_;
  const uint64_t blocks_;
  size_t change_ = 0;
  uint64_t greatest_ = 0;
  std::unique_ptr<Buffer<kPagesAtOnce>> buffer_ = std::make_unique<Buffer<kPagesAtOnce>>();
};

}  // namespace

Result<MapPage> read_map_page(AsyncFile& file, uint64_t index, uint64_t volume_blocks) {
  constexpr int kLooks = 5;
  auto buffer = std::make_unique<Buffer<1>>();
  for (int look = 1;; ++look) {
    TRY(file.read_now(map_page_offset(index), buffer->bytes).context("reading the layer's map"));
    auto page = decode_map_page(index, buffer->page(0), volume_blocks);
    if (page.ok() || look == kLooks) return page;
  }
}

Result<Start> read_start(AsyncFile& file) {
  uint64_t size = TRY(file.size());
  if (size < kDataOffset) {
    return make_error(ErrorCode::kCorrupt, "the file is not a layer: it has only {} bytes", size);
  }
  auto buffer = std::make_unique<Buffer<1>>();
  TRY(file.read_now(kHeaderOffset, buffer->bytes).context("reading the layer's header"));
  Header header = TRY(decode_header(buffer->page(0)));
  TRY(file.read_now(kStateOffset, buffer->bytes).context("reading the layer's state"));
  State state = TRY(decode_state(buffer->page(0)));
  if (header.raw_base_bytes > state.size_bytes) {
    return make_error(ErrorCode::kCorrupt, "the layer has {} bytes, and its raw base more: {}",
                      state.size_bytes, header.raw_base_bytes);
  }
  if (size < file_bytes(state.size_bytes)) {
    return make_error(ErrorCode::kCorrupt, "the layer was cut short: its file has {} bytes, not {}", size,
                      file_bytes(state.size_bytes));
  }
  return Start{header, state};
}

Result<Journal> read_journal(AsyncFile& file, const State& state) {
  Journal journal;
  if (state.frozen) return journal;
  uint64_t end = kJournalOffset + kJournalPages * kPageBytes;
  if (TRY(file.next_data(kJournalOffset, end)) >= end) return journal;
  auto pages = std::make_unique<Buffer<kJournalPages>>();
  TRY(file.read_now(kJournalOffset, pages->bytes).context("reading the layer's journal"));
  std::array<std::optional<JournalRecord>, kJournalPages> records;
  const uint64_t blocks = blocks_of(state.size_bytes);
  for (size_t place = 0; place < kJournalPages; ++place) {
    auto record = decode_journal_page(place, pages->page(place), blocks);
    if (!record.ok()) return std::move(record).error();
    if (*record && (*record)->sequence >= state.journal_start) {
      journal.last = std::max(journal.last, (*record)->sequence);
      records[place] = std::move(**record);
    }
  }
  if (journal.last == 0) return journal;
  const JournalRecord& last = *records[journal.last % kJournalPages];
  if (last.begin < state.journal_start) {
    return make_error(ErrorCode::kCorrupt, "journal record {} begins with record {}, and the journal with {}",
                      last.sequence, last.begin, state.journal_start);
  }
  for (uint64_t sequence = last.begin; sequence <= journal.last; ++sequence) {
    const auto& record = records[sequence % kJournalPages];
    if (!record || record->sequence != sequence) {
      return make_error(ErrorCode::kCorrupt,
                        "journal record {} is damaged or missing, and record {} needs it", sequence,
                        journal.last);
    }
    for (const JournalEntry& entry : record->entries) {
      if (sequence == journal.last && !TRY(data_is_there(file, entry))) continue;
      add_changes(entry, sequence, journal.changes);
    }
  }
  // Stable: entries of one record come in their order.
  std::stable_sort(journal.changes.begin(), journal.changes.end(), [](const auto& a, const auto& b) {
    return std::tuple(page_of(a), a.sequence) < std::tuple(page_of(b), b.sequence);
  });
  return journal;
}

Result<uint64_t> read_map(AsyncFile& file, const State& state, const Journal& journal,
                          const VisitMapPage& visit) {
  return MapReader(file, state, journal, visit).run();
}

Status for_runs(uint64_t index, const MapPage& page,
                const std::function<Status(uint64_t first, uint64_t count, BlockState state)>& each) {
  uint64_t begin = index * kBlocksPerMapPage;
  for (const MapSector& sector : page) {
    for (uint64_t block = 0; block < kBlocksPerSector;) {
      uint64_t count = sector.states.run(block, kBlocksPerSector - block);
      BlockState state = sector.states.get(block);
      if (state != BlockState::kBeneath) TRY(each(begin + block, count, state));
      block += count;
    }
    begin += kBlocksPerSector;
  }
  return {};
}

Status put_state(AsyncFile& file, State& state) {
  State next = state;
  ++next.generation;
  auto buffer = std::make_unique<Buffer<1>>();
  Page page;
  encode_state(next, page);
  buffer->bytes = page;
  TRY(file.write_now(kStateOffset, buffer->bytes).context("writing the layer's state"));
  state = next;
  return {};
}

Status write_state(AsyncFile& file, State& state) {
  TRY(put_state(file, state));
  return file.sync_now();
}

Status recover(AsyncFile& file, Start& start, Freeze freeze, const VisitMapPage& visit) {
  Journal journal = TRY(read_journal(file, start.state));
  const bool freezing = freeze == Freeze::kYes && !start.state.frozen;
  // After the end of a program, but not of the machine, what was read may not be on the disk yet.
  if (journal.last != 0 || freezing) TRY(file.sync_now());
  auto buffer = std::make_unique<Buffer<1>>();
  bool wrote = false;
  auto write_and_visit = [&](uint64_t index, const MapPage& page, bool changed) -> Status {
    if (changed) {
      MapPage next = page;
      for (MapSector& sector : next) {
        if (!sector.states.empty()) sector.sequence = std::max(sector.sequence, journal.last);
      }
      Page bytes;
      encode_map_page(index, next, bytes);
      buffer->bytes = bytes;
      TRY(file.write_now(map_page_offset(index), buffer->bytes).context("carrying the journal into the map"));
      wrote = true;
    }
    return visit ? visit(index, page, changed) : Status();
  };
  uint64_t in_map = TRY(read_map(file, start.state, journal, write_and_visit));
  if (start.state.frozen) return {};
  uint64_t beyond = std::max({start.state.journal_start, journal.last + 1, in_map + 1});
  if (beyond == start.state.journal_start && !freezing) return {};
  if (wrote) TRY(file.sync_now());
  State next = start.state;
  next.journal_start = beyond;
  next.frozen = freezing;
  TRY(write_state(file, next));
  start.state = next;
  return {};
}

}  // namespace haneul::storage::layer
