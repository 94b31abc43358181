// SPDX-License-Identifier: Apache-2.0
// A new layer on top of a volume in use: ../FORMAT.md, "Snapshot". While changes are held back nothing is read, written
// or encoded, so that the guest's stall depends on the changes under way alone. What the old top's map pages were at
// that moment is told from the map afterwards: it knows the owner of each block, and a page is copied before a change
// to the new top takes a block of it away.
#include <algorithm>
#include <array>

#include "storage/volume/volume.h"
#include "storage/volume/volume_disk.h"

namespace haneul::storage {
namespace volume {

// ---- The disk's part ----

bool Disk::next_old_page(uint64_t& index, Page& out) {
  if (old_top->pages.empty()) return false;
  index = *old_top->pages.begin();
  old_top->pages.erase(old_top->pages.begin());
  if (auto copy = old_top->copies.extract(index)) {
    out = copy.mapped()->page;
  } else {
    encode_page(index, old_top->layer, old_top->last_sequence, out);
  }
  return true;
}

void Disk::keep_old_page(uint64_t index, const Page& page) {
  old_top->pages.insert(index);
  auto& copy = old_top->copies[index];
  copy = std::make_unique<AlignedPage>();
  copy->page = page;
}

bool Disk::no_room_for_copies(uint64_t first, uint64_t last) const {
  if (!old_top || old_top->copies.size() < OldTop::kMaxCopies) return false;
  auto page = old_top->pages.lower_bound(first / layer::kBlocksPerMapPage);
  for (; page != old_top->pages.end() && *page <= last / layer::kBlocksPerMapPage; ++page) {
    if (!old_top->copies.contains(*page)) return true;
  }
  return false;
}

void Disk::old_top_advanced(Channel* from) {
  std::vector<Job*> waiting;
  {
    std::lock_guard lock(mutex);
    if (old_top && old_top->copies.size() > OldTop::kMaxCopies / 2) return;
    std::swap(waiting, copy_waiting);
  }
  for (Job* job : waiting) job->resume_change(from);
}

void Disk::old_top_stuck(Channel* from, BlockStatus status) {
  std::vector<Job*> waiting;
  {
    std::lock_guard lock(mutex);
    old_top->stuck = status;
    std::swap(waiting, copy_waiting);
  }
  for (Job* job : waiting) job->resume_flushed(from, status);
}

// ---- The steps ----

Status LayerPush::sync(AsyncFile& file) {
  // The kernel tells only one of several syncs that it lost something.
  if (disk_.sync_failed.load()) return Error(ErrorCode::kIo, "an earlier sync had failed");
  Status synced = file.sync_now();
  if (!synced.ok()) disk_.sync_failed.store(true);
  return synced;
}

Status LayerPush::sync_top() {
  if (disk_.read_only)
    return Error(ErrorCode::kPermission, "a volume that is open for reading only keeps its layers");
  AsyncFile* file = nullptr;
  {
    std::lock_guard lock(disk_.mutex);
    file = &disk_.top_file();
  }
  // Once with everything going on, so that the next time is short.
  TRY(sync(*file));
  disk_.take_turn();
  FreshRuns fresh;
  {
    std::lock_guard lock(disk_.mutex);
    fresh = std::exchange(disk_.fresh, {});
  }
  Status committed = commit_map(*file);
  {
    std::lock_guard lock(disk_.mutex);
    if (committed.ok()) {
      disk_.unsealed.clear();
      disk_.first_sequence = disk_.last_sequence + 1;
      disk_.by_map_next = false;
    } else {
      disk_.fresh.prepend(fresh);
    }
  }
  disk_.end_turn(nullptr);
  return std::move(committed).context("committing what the volume's top holds");
}

// As Commit does, blocking.
Status LayerPush::commit_map(AsyncFile& file) {
  constexpr size_t kBatch = 256;
  std::vector<uint64_t> pages;
  {
    std::lock_guard lock(disk_.mutex);
    pages.assign(disk_.dirty.begin(), disk_.dirty.end());
  }
  std::vector<AlignedPage> buffers(std::min(kBatch, pages.size()));
  for (size_t done = 0; done < pages.size(); done += buffers.size()) {
    auto batch = std::span(pages).subspan(done, std::min(buffers.size(), pages.size() - done));
    for (size_t i = 0; i < batch.size(); ++i) {
      std::lock_guard lock(disk_.mutex);
      disk_.dirty.erase(batch[i]);
      disk_.encode_page(batch[i], disk_.top(), disk_.last_sequence, buffers[i].page);
    }
    Status written = sync(file);
    for (size_t i = 0; written.ok() && i < batch.size(); ++i)
      written = file.write_now(layer::map_page_offset(batch[i]), buffers[i].page);
    if (written.ok()) continue;
    std::lock_guard lock(disk_.mutex);
    disk_.dirty.insert(batch.begin(), batch.end());
    return written;
  }
  return sync(file);
}

Status LayerPush::begin(StackLayer layer) {
  CHECK(!has_turn_);
  disk_.take_turn();
  Status checked = check(std::move(layer));
  if (!checked.ok()) {
    disk_.end_turn(nullptr);
    return checked;
  }
  has_turn_ = true;
  return {};
}

// With the turn: the top does not change.
Status LayerPush::check(StackLayer layer) {
  const layer::Start& top = disk_.start;
  if (disk_.read_only)
    return Error(ErrorCode::kPermission, "a volume that is open for reading only keeps its layers");
  if (disk_.old_top) return Error(ErrorCode::kBusy, "the layer that was the top before is not frozen yet");
  if (disk_.layers.size() == kMaxLayers)
    return make_error(ErrorCode::kNoSpace, "a volume has {} layers", kMaxLayers);
  AsyncFile& file = *layer.file;
  layer::Start start = TRY(layer::read_start(file));
  std::string id = to_string(start.header.id);
  if (start.header.parent != top.header.id) {
    return make_error(ErrorCode::kInvalidArgument, "layer {} was made for {}, and the volume's top is {}", id,
                      to_string(start.header.parent), to_string(top.header.id));
  }
  if (start.state.size_bytes != top.state.size_bytes) {
    return make_error(ErrorCode::kInvalidArgument, "layer {} has {} bytes, and the volume {}", id,
                      start.state.size_bytes, top.state.size_bytes);
  }
  bool empty = !start.state.frozen && TRY(layer::read_journal(file, start.state)).last == 0;
  auto seen = [&empty](uint64_t, const layer::MapPage&, bool) -> Status {
    empty = false;
    return {};
  };
  TRY(layer::read_map(file, start.state, {}, seen));
  if (!empty) return make_error(ErrorCode::kInvalidArgument, "layer {} was used before", id);
  next_ = TRY(take_layer(std::move(layer), start.header, disk_.bounce));
  next_start_ = start;
  return {};
}

void LayerPush::cancel() {
  CHECK(std::exchange(has_turn_, false));
  next_.reset();
  disk_.end_turn(nullptr);
}

void LayerPush::hold() {
  std::lock_guard lock(disk_.mutex);
  disk_.held = true;
}

void LayerPush::wait_for_changes() {
  std::unique_lock lock(disk_.mutex);
  disk_.turned.wait(lock, [this] { return disk_.locks.idle(); });
}

void LayerPush::switch_top() {
  auto old = std::make_unique<OldTop>();
  std::lock_guard lock(disk_.mutex);
  CHECK(disk_.held && has_turn_ && disk_.locks.idle() && next_);
  old->layer = disk_.top();
  old->file = &disk_.top_file();
  old->state = disk_.start.state;
  old->last_sequence = disk_.last_sequence;
  std::swap(old->pages, disk_.dirty);
  disk_.old_top = std::move(old);
  disk_.layers.push_back(std::move(*next_));
  disk_.depth.store(disk_.layers.size());
  next_.reset();
  disk_.start = next_start_;
  disk_.last_sequence = next_start_.state.journal_start - 1;
  disk_.first_sequence = next_start_.state.journal_start;
  disk_.fresh.clear();
  disk_.unsealed.clear();
  disk_.by_map_next = false;
}

// With them those that wait for a record to be sealed, which was of the top before: the new one has none, and freezing,
// which keeps the turn, is not theirs to wait for.
void LayerPush::release() {
  std::vector<Job*> held;
  std::vector<Job*> sealing;
  {
    std::lock_guard lock(disk_.mutex);
    disk_.held = false;
    std::swap(held, disk_.held_waiting);
    std::swap(sealing, disk_.seal_waiting);
  }
  for (Job* job : sealing) job->resume_change(nullptr);
  for (Job* job : held) job->resume_change(nullptr);
}

Status LayerPush::write_old_pages(OldTop& old) {
  // Data before states.
  TRY(sync(*old.file));
  auto page = std::make_unique<AlignedPage>();
  for (;;) {
    uint64_t index = 0;
    {
      std::lock_guard lock(disk_.mutex);
      if (!disk_.next_old_page(index, page->page)) break;
    }
    Status written = old.file->write_now(layer::map_page_offset(index), page->page);
    if (!written.ok()) {
      std::lock_guard lock(disk_.mutex);
      disk_.keep_old_page(index, page->page);
      return written;
    }
    disk_.old_top_advanced(nullptr);
  }
  TRY(sync(*old.file));
  std::lock_guard lock(disk_.mutex);
  old.durable = true;
  old.stuck = BlockStatus::kOk;
  return {};
}

Status LayerPush::freeze(OldTop& old) {
  if (!old.durable) TRY(write_old_pages(old));
  layer::State state = old.state;
  state.frozen = true;
  state.journal_start = old.last_sequence + 1;
  TRY(layer::put_state(*old.file, state));
  return sync(*old.file);
}

Status LayerPush::finish() {
  if (!has_turn_) {
    {
      std::lock_guard lock(disk_.mutex);
      if (!disk_.old_top) return {};
    }
    disk_.take_turn();
  }
  has_turn_ = false;
  Status frozen = freeze(*disk_.old_top);
  if (frozen.ok()) {
    std::lock_guard lock(disk_.mutex);
    disk_.old_top.reset();
  } else {
    const bool full = frozen.error().code() == ErrorCode::kNoSpace;
    disk_.old_top_stuck(nullptr, full ? BlockStatus::kNoSpace : BlockStatus::kIoError);
  }
  disk_.old_top_advanced(nullptr);
  disk_.end_turn(nullptr);
  return std::move(frozen).context("freezing the layer that was the volume's top");
}

}  // namespace volume

namespace {

/// Each of these volumes, named once, gets a layer at the same moment.
Result<std::chrono::microseconds> push_at_once(std::span<Push* const> pushes) {
  for (Push* push : pushes) TRY(push->volume->sync_top());
  for (size_t begun = 0; begun < pushes.size(); ++begun) {
    Status status = pushes[begun]->volume->begin_push(std::move(pushes[begun]->layer));
    if (status.ok()) continue;
    for (size_t i = 0; i < begun; ++i) pushes[i]->volume->cancel_push();
    return std::move(status).error();
  }
  auto began = std::chrono::steady_clock::now();
  for (Push* push : pushes) push->volume->hold_changes();
  for (Push* push : pushes) push->volume->wait_for_changes();
  for (Push* push : pushes) push->volume->switch_top();
  for (Push* push : pushes) push->volume->release_changes();
  auto stalled =
      std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::steady_clock::now() - began);
  Status finished;
  for (Push* push : pushes) {
    Status its_own = push->volume->finish_push();
    if (finished.ok()) finished = std::move(its_own);
  }
  TRY(std::move(finished));
  return stalled;
}

}  // namespace

Result<std::chrono::microseconds> push_layers(std::span<Push> pushes) {
  for (Push& push : pushes) TRY(push.volume->finish_push());
  std::vector<std::pair<Volume*, std::vector<Push*>>> chains;
  size_t longest = 0;
  for (Push& push : pushes) {
    if (push.volume->holds(TRY(read_layer_info(*push.layer.file)).id)) continue;
    auto chain = std::find_if(chains.begin(), chains.end(), [&](auto& c) { return c.first == push.volume; });
    if (chain == chains.end()) chain = chains.insert(chain, {push.volume, {}});
    chain->second.push_back(&push);
    longest = std::max(longest, chain->second.size());
  }
  std::chrono::microseconds stalled{};
  for (size_t left = longest; left > 0; --left) {
    std::vector<Push*> now;
    for (auto& [volume, layers] : chains) {
      if (layers.size() >= left) now.push_back(layers[layers.size() - left]);
    }
    stalled = std::max(stalled, TRY(push_at_once(now)));
  }
  return stalled;
}

}  // namespace haneul::storage
