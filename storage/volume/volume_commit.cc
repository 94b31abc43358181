// SPDX-License-Identifier: Apache-2.0
// Commits: how changes of state become durable. ../FORMAT.md, "Flush", and why either way is safe after a
// crash.
#include <algorithm>
#include <cerrno>

#include "storage/crc32c.h"
#include "storage/volume/volume_disk.h"

namespace haneul::storage::volume {

// ---- Fresh runs ----

void FreshRuns::add(const Run& run) {
  if (used_ > 0) {
    Run& last = runs_[used_ - 1];
    if (last.state == run.state && last.first + last.count == run.first) {
      last.count += run.count;
      last.crc.reset();
      return;
    }
  }
  if (used_ == kMaxRuns) {
    too_many_ = true;
    return;
  }
  runs_[used_++] = run;
}

void FreshRuns::forget_crcs(uint64_t first, uint64_t last) {
  for (Run& run : std::span(runs_).first(used_)) {
    if (run.first <= last && first < run.first + run.count) run.crc.reset();
  }
}

void FreshRuns::prepend(const FreshRuns& before) {
  FreshRuns both;
  both.too_many_ = too_many_ || before.too_many_;
  // Their blocks may have been written again unnoticed.
  for (Run run : before.runs()) both.add({run.first, run.count, run.state, {}});
  for (const Run& run : runs()) both.add(run);
  *this = both;
}

bool FreshRuns::fit_a_record() const {
  uint64_t all = 0;
  uint64_t data = 0;
  for (const Run& run : runs()) {
    all += run.count;
    if (run.state == BlockState::kData) data += run.count;
  }
  return !too_many_ && all <= layer::kMaxRecordBlocks && data <= layer::kMaxRecordDataBlocks;
}

bool FreshRuns::data_overlaps(uint64_t first, uint64_t last) const {
  auto overlaps = [&](const Run& run) {
    return run.state == BlockState::kData && run.first <= last && first < run.first + run.count;
  };
  return std::any_of(runs().begin(), runs().end(), overlaps);
}

// ---- The disk's part ----

void Disk::changed(uint64_t first, uint64_t count, BlockState state, std::optional<uint32_t> crc) {
  const Owner owner = state == BlockState::kData ? Owner::data(top()) : Owner::zero(top());
  for (uint64_t at = first; at < first + count;) {
    VolumeMap::Run run = map.run(at, first + count - at);
    if (run.owner != owner) fresh.add({at, run.count, state, run.count == count ? crc : std::nullopt});
    at += run.count;
  }
  const uint64_t first_page = first / layer::kBlocksPerMapPage;
  const uint64_t last_page = (first + count - 1) / layer::kBlocksPerMapPage;
  for (uint64_t page = first_page; page <= last_page; ++page) {
    dirty.insert(page);
    if (!old_top || !old_top->pages.contains(page)) continue;
    auto& copy = old_top->copies[page];
    if (copy) continue;
    copy = std::make_unique<AlignedPage>();
    encode_page(page, old_top->layer, old_top->last_sequence, copy->page);
  }
  map.set(first, count, owner);
}

void Disk::encode_page(uint64_t index, size_t layer, uint64_t sequence, Page& out) {
  ++pages_encoded;
  layer::MapPage page{};
  uint64_t at = index * layer::kBlocksPerMapPage;
  for (layer::MapSector& sector : page) {
    const uint64_t begin = at;
    const uint64_t end = std::min(begin + layer::kBlocksPerSector, map.blocks());
    while (at < end) {
      VolumeMap::Run run = map.run(at, end - at);
      if (run.owner == Owner::data(layer)) sector.states.set(at - begin, run.count, BlockState::kData);
      if (run.owner == Owner::zero(layer)) sector.states.set(at - begin, run.count, BlockState::kZero);
      at += run.count;
    }
    at = begin + layer::kBlocksPerSector;
    if (!sector.states.empty()) sector.sequence = sequence;
  }
  layer::encode_map_page(index, page, out);
}

void Disk::take_turn() {
  std::unique_lock lock(mutex);
  ++turn_wanted;
  turned.wait(lock, [this] { return !turn_taken; });
  --turn_wanted;
  turn_taken = true;
}

void Disk::end_turn(Channel* from) {
  Job* leader = nullptr;
  {
    std::lock_guard lock(mutex);
    bool wanted = turn_wanted > 0;
    if (!wanted && !flush_waiting.empty()) leader = flush_waiting.front();
    if (!wanted && leader == nullptr && !seal_waiting.empty()) leader = seal_waiting.front();
    turn_taken = leader != nullptr;
    if (wanted) turned.notify_all();
  }
  // It stays where it waits: the commit that it leads answers it with the others.
  if (leader != nullptr) leader->resume_leading(from);
}

// ---- A commit ----

void Commit::start(Channel& channel) {
  channel_ = &channel;
  error_ = 0;
  {
    std::lock_guard lock(disk_.mutex);
    std::swap(flushes_, disk_.flush_waiting);
    old_ = disk_.old_top_is_behind() && !flushes_.empty();
  }
  if (disk_.sync_failed.load()) return finish(EIO);
  if (!old_) return choose();
  if (buffers_.empty()) buffers_.resize(kBatch);
  next_batch();
}

void Commit::choose() {
  enum class Way { kSyncOnly, kJournal, kMap } way = Way::kMap;
  {
    std::lock_guard lock(disk_.mutex);
    const bool room = disk_.last_sequence + 1 - disk_.first_sequence < layer::kJournalPages;
    auto being_written = [&](const FreshRuns::Run& run) {
      return run.state == BlockState::kData && disk_.locks.touches(run.first, run.first + run.count - 1);
    };
    auto runs = disk_.fresh.runs();
    if (!disk_.fresh.any() && !disk_.by_map_next && disk_.seal_waiting.empty()) {
      way = Way::kSyncOnly;
    } else if (!disk_.by_map_next && room && disk_.fresh.fit_a_record() &&
               std::none_of(runs.begin(), runs.end(), being_written)) {
      way = Way::kJournal;
      disk_.committing = std::exchange(disk_.fresh, {});
    } else if (!disk_.by_map_next && room && flushes_.empty()) {
      way = Way::kJournal;  // an empty record: it seals the one before
    } else {
      disk_.fresh.clear();
      pages_.assign(disk_.dirty.rbegin(), disk_.dirty.rend());
    }
    record_ = disk_.committing;
  }
  if (buffers_.empty() && way != Way::kSyncOnly) buffers_.resize(kBatch);
  switch (way) {
    case Way::kSyncOnly:
      return sync(Step::kSyncOnly);
    case Way::kJournal:
      return by_journal();
    case Way::kMap:
      return next_batch();
  }
}

// Nobody writes to these blocks now, nor until the record is sealed.
void Commit::by_journal() {
  static_assert(layer::kMaxRecordDataBlocks <= kBatch && FreshRuns::kMaxRuns <= kBatch);
  static_assert(FreshRuns::kMaxRuns <= layer::kMaxJournalEntries);
  step_ = Step::kReadBack;
  size_t block = 0;
  outstanding_ = 1;
  size_t task = 0;
  for (const FreshRuns::Run& run : record_.runs()) {
    if (run.state != BlockState::kData || run.crc) continue;
    iovecs_[task] = {buffers_[block].page.data(), run.count * kBlockBytes};
    block += run.count;
    ++outstanding_;
    tasks_[task].read(disk_.top_file(), channel_->ring(), *this, std::span(&iovecs_[task], 1),
                      layer::kDataOffset + run.first * kBlockBytes);
    ++task;
  }
  if (--outstanding_ == 0) write_record();
}

void Commit::write_record() {
  std::vector<layer::JournalEntry> entries;
  size_t block = 0;
  for (const FreshRuns::Run& run : record_.runs()) {
    uint32_t crc = run.crc.value_or(0);
    if (run.state == BlockState::kData && !run.crc) {
      crc = crc32c(std::span(buffers_[block].page.data(), run.count * kBlockBytes));
      block += run.count;
    }
    entries.push_back({static_cast<uint32_t>(run.first), static_cast<uint32_t>(run.count), run.state, crc});
  }
  uint64_t sequence = 0;
  uint64_t begin = 0;
  {
    std::lock_guard lock(disk_.mutex);
    sequence = ++disk_.last_sequence;
    begin = disk_.first_sequence;
  }
  layer::encode_journal_page(sequence, begin, entries, record_page_.page);
  step_ = Step::kWriteRecord;
  outstanding_ = 1;
  iovecs_[0] = {record_page_.page.data(), record_page_.page.size()};
  tasks_[0].write(disk_.top_file(), channel_->ring(), *this, std::span(&iovecs_[0], 1),
                  layer::journal_page_offset(sequence));
}

// Data before states: what the copied pages speak of is durable before they are written.
void Commit::next_batch() {
  batch_.clear();
  while (batch_.size() < kBatch && (old_ || !pages_.empty())) {
    std::lock_guard lock(disk_.mutex);
    uint64_t index = 0;
    Page& page = buffers_[batch_.size()].page;
    if (old_) {
      if (!disk_.next_old_page(index, page)) break;
    } else {
      index = pages_.back();
      pages_.pop_back();
      disk_.dirty.erase(index);
      disk_.encode_page(index, disk_.top(), disk_.last_sequence, page);
    }
    batch_.push_back(index);
  }
  sync(Step::kSyncData);
}

void Commit::write_batch() {
  step_ = Step::kWritePages;
  outstanding_ = batch_.size();
  for (size_t i = 0; i < batch_.size(); ++i) {
    iovecs_[i] = {buffers_[i].page.data(), layer::kPageBytes};
    tasks_[i].write(file(), channel_->ring(), *this, std::span(&iovecs_[i], 1),
                    layer::map_page_offset(batch_[i]));
  }
}

AsyncFile& Commit::file() {
  return old_ ? *disk_.old_top->file : disk_.top_file();
}

void Commit::sync(Step step) {
  step_ = step;
  outstanding_ = 1;
  tasks_[0].sync(file(), channel_->ring(), *this);
}

void Commit::task_done(FileTask&, int error) {
  if (error != 0) error_ = error;
  if (--outstanding_ == 0) stepped(std::exchange(error_, 0));
}

void Commit::stepped(int error) {
  bool syncing = step_ != Step::kReadBack && step_ != Step::kWriteRecord && step_ != Step::kWritePages;
  // The kernel may have dropped what it could not write, and says so once: nothing later can be trusted.
  if (error != 0 && syncing) disk_.sync_failed.store(true);
  if (error == 0 && disk_.sync_failed.load()) error = EIO;
  if (error != 0) return finish(error);
  switch (step_) {
    case Step::kReadBack:
      return write_record();
    case Step::kWriteRecord:
      return sync(Step::kSyncRecord);
    case Step::kSyncData:
      if (!batch_.empty()) return write_batch();
      return old_ ? sync(Step::kSyncPages) : finish(0);
    case Step::kWritePages:
      return old_ || !pages_.empty() ? next_batch() : sync(Step::kSyncPages);
    case Step::kSyncPages:
      if (old_) return old_top_done();
      return finish(0);
    case Step::kSyncRecord:
    case Step::kSyncOnly:
      return finish(0);
  }
}

void Commit::old_top_done() {
  {
    std::lock_guard lock(disk_.mutex);
    disk_.old_top->durable = true;
    disk_.old_top->stuck = BlockStatus::kOk;
  }
  old_ = false;
  batch_.clear();
  disk_.old_top_advanced(channel_);
  choose();
}

// The push that could not be finished has still to be; this flush fails, and the next tries again.
void Commit::old_top_failed(BlockStatus status) {
  {
    std::lock_guard lock(disk_.mutex);
    for (size_t i = 0; i < batch_.size(); ++i) disk_.keep_old_page(batch_[i], buffers_[i].page);
  }
  old_ = false;
  batch_.clear();
  disk_.old_top_stuck(channel_, status);
}

void Commit::finish(int error) {
  Channel* channel = channel_;
  const bool of_old_top = old_;
  if (of_old_top) old_top_failed(status_of(error));
  const bool journal = step_ == Step::kReadBack || step_ == Step::kWriteRecord || step_ == Step::kSyncRecord;
  std::vector<Job*> changes;
  {
    std::lock_guard lock(disk_.mutex);
    std::swap(changes, disk_.seal_waiting);
    FreshRuns record = std::exchange(disk_.committing, {});
    if (error == 0 && journal) {
      disk_.unsealed = record;
    } else if (error == 0 && step_ != Step::kSyncOnly) {
      disk_.unsealed.clear();
      disk_.first_sequence = disk_.last_sequence + 1;
      disk_.by_map_next = false;
    } else if (error != 0 && !of_old_top) {
      // What was to be committed is in the map in memory: all of it goes with the next commit.
      disk_.dirty.insert(batch_.begin(), batch_.end());
      disk_.by_map_next = true;
    }
  }
  batch_.clear();
  pages_.clear();
  std::vector<Job*> flushes = std::exchange(flushes_, {});
  const BlockStatus status = status_of(error);
  // With the turn: from end_turn() on this commit is the next leader's.
  disk_.end_turn(channel);
  for (Job* flush : flushes) flush->resume_flushed(channel, status);
  for (Job* change : changes) {
    if (error == 0 || of_old_top) {
      change->resume_change(channel);
    } else {
      change->resume_flushed(channel, status);
    }
  }
}

}  // namespace haneul::storage::volume
