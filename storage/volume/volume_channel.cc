// SPDX-License-Identifier: Apache-2.0
// The way of a request through a volume: reads by stretches of blocks that one layer holds, changes under a
// lock on their range of blocks.
#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/checked.h"
#include "storage/crc32c.h"
#include "storage/volume/volume_disk.h"

namespace haneul::storage::volume {
namespace {

// Written over parts of blocks; the kernel only reads it.
AlignedPage zero_page{};

uint64_t first_block(uint64_t offset) {
  return offset / kBlockBytes;
}
uint64_t end_block(uint64_t end) {
  return (end + kBlockBytes - 1) / kBlockBytes;
}

}  // namespace

// ---- Common ----

void Job::start(BlockRequest& request) {
  Disk& disk = channel_.disk_;
  request_ = &request;
  status_ = BlockStatus::kOk;
  error_ = 0;
  outstanding_ = 0;
  auto refused = refusal(request, disk.size_bytes.load(), disk.read_only);
  if (refused) return defer_finish(*refused);
  if (request.op == BlockOp::kFlush) return start_flush();
  if (request.length == 0) return defer_finish(BlockStatus::kOk);
  if (request.op == BlockOp::kRead) {
    next_ = request.offset;
    stale_ = false;
    return pump_reads();
  }
  start_change();
}

void Job::completed(int32_t) {
  switch (step_) {
    case Step::kFinish:
      return finish(status_);
    case Step::kLocked:
      return locked();
    case Step::kChange:
      return start_change();
    case Step::kLead:
      return channel_.disk_.commit.start(channel_);
    default:
      CHECK(false);
  }
}

void Job::resume(Step step, Channel* from) {
  step_ = step;
  if (from == &channel_) {
    channel_.ring_.defer(*this, 0);
  } else {
    channel_.ring_.post(*this);
  }
}

void Job::resume_locked(Channel* from) {
  resume(Step::kLocked, from);
}

void Job::resume_change(Channel* from) {
  resume(Step::kChange, from);
}

void Job::resume_leading(Channel* from) {
  resume(Step::kLead, from);
}

void Job::resume_flushed(Channel* from, BlockStatus status) {
  status_ = status;
  resume(Step::kFinish, from);
}

void Job::defer_finish(BlockStatus status) {
  status_ = status;
  resume(Step::kFinish, &channel_);
}

void Job::finish(BlockStatus status) {
  BlockRequest& request = *request_;
  channel_.jobs_.give_back(*this);
  request.completed(status);
}

void Job::task_done(FileTask&, int error) {
  if (error != 0) error_ = error;
  if (--outstanding_ > 0) return;
  if (request_->op == BlockOp::kRead) {
    if (!stands(stretch_)) stale_ = true;
    return reads_done();
  }
  if (request_->op == BlockOp::kFlush) {
    if (error_ != 0) channel_.disk_.sync_failed.store(true);
    // The kernel tells only one of several syncs that it lost something.
    return finish(channel_.disk_.sync_failed.load() ? BlockStatus::kIoError : BlockStatus::kOk);
  }
  if (step_ == Step::kPunch && error_ == EOPNOTSUPP) error_ = 0;  // the map alone hides the blocks
  if (error_ != 0) return finish_change(error_);
  bool was_reading = std::exchange(reading_, false);
  switch (step_) {
    case Step::kWrite:
      return was_reading ? write_filled() : finish_change(0);
    case Step::kZeroHead:
    case Step::kZeroTail:
      return was_reading ? zero_piece_read() : next_zero_step();
    case Step::kPunch:
      return punched();
    default:
      CHECK(false);
  }
}

void Job::start_flush() {
  Disk& disk = channel_.disk_;
  if (disk.read_only) return defer_finish(BlockStatus::kOk);
  if (disk.sync_failed.load()) return defer_finish(BlockStatus::kIoError);
  AsyncFile* file = nullptr;
  {
    std::lock_guard lock(disk.mutex);
    if (disk.turn_taken || disk.turn_wanted > 0 || disk.fresh.any() || disk.by_map_next ||
        disk.old_top_is_behind()) {
      disk.flush_waiting.push_back(this);
      if (disk.turn_taken || disk.turn_wanted > 0) return;
      disk.turn_taken = true;
    } else {
      file = &disk.top_file();
    }
  }
  if (file == nullptr) return disk.commit.start(channel_);
  outstanding_ = 1;
  tasks_[0].sync(*file, channel_.ring_, *this);
}

// ---- Reads ----

void ReadPart::start(Job& job, AsyncFile& file, const Stretch& stretch, uint64_t file_offset, uint64_t skip,
                     uint64_t length) {
  stretch_ = stretch;
  job_ = &job;
  slice_iovecs(job.request().data, skip, length, iovecs_);
  task_.read(file, job.channel().ring_, *this, iovecs_, file_offset);
}

void ReadPart::task_done(FileTask&, int error) {
  job_->part_done(*this, error);
}

// Starts as much of the read as there are parts for. A block that changes meanwhile is read as it was or as
// it becomes: the punch of a discarded block leaves zeroes, and of what is beneath stands() knows.
void Job::pump_reads() {
  Disk& disk = channel_.disk_;
  const uint64_t begin = request_->offset;
  const uint64_t end = begin + request_->length;
  while (next_ < end && error_ == 0) {
    const uint64_t block = first_block(next_);
    VolumeMap::Run run{};
    AsyncFile* file = disk.raw_base.get();
    {
      std::lock_guard lock(disk.mutex);
      run = disk.map.run(block, end_block(end) - block);
      if (run.owner.is_data()) file = &disk.layers[run.owner.layer()].data();
    }
    uint64_t run_end = std::min(end, (block + run.count) * kBlockBytes);
    if (run.owner.is_zero() || (run.owner.nobody() && next_ >= disk.base_bytes)) {
      slice_iovecs(request_->data, next_ - begin, run_end - next_, zero_iovecs_);
      fill_zeroes(zero_iovecs_);
      next_ = run_end;
      continue;
    }
    if (run.owner.nobody()) run_end = std::min(run_end, disk.base_bytes);
    uint64_t at = run.owner.nobody() ? next_ : layer::kDataOffset + next_;
    const Stretch stretch{run.owner, block, end_block(run_end) - block};
    if (next_ == begin && run_end == end) {
      stretch_ = stretch;
      outstanding_ = 1;
      next_ = end;
      return tasks_[0].read(*file, channel_.ring_, *this, request_->data, at);
    }
    if (channel_.parts_.used() == Channel::kMaxParts) {
      if (outstanding_ == 0) channel_.part_waiting_.push_back(this);
      return;
    }
    ++outstanding_;
    channel_.parts_.take().start(*this, *file, stretch, at, next_ - begin, run_end - next_);
    next_ = run_end;
  }
  if (outstanding_ == 0) defer_finish(status_of(error_));
}

// While a layer's blocks are being read, others may hide them, the layer may become part of a snapshot, that may be deleted,
// and what nobody sees any more be given back: then zeroes were read that never were there. A block is hidden in this map
// first, so whoever holds it still at the end of the read had it all the time.
bool Job::stands(const Stretch& stretch) const {
  Disk& disk = channel_.disk_;
  // Nothing of the top is given back but what this volume discards.
  if (stretch.owner.is_data() && stretch.owner.layer() + 1 == disk.depth.load()) return true;
  std::lock_guard lock(disk.mutex);
  return stretch.owner.nobody() || disk.map.all(stretch.first, stretch.count, stretch.owner);
}

void Job::reads_done() {
  if (!stale_ || error_ != 0) return finish(status_of(error_));
  stale_ = false;
  next_ = request_->offset;
  pump_reads();
}

void Job::part_done(ReadPart& part, int error) {
  if (error != 0) error_ = error;
  if (!stands(part.stretch())) stale_ = true;
  channel_.parts_.give_back(part);
  --outstanding_;
  bool more = next_ < request_->offset + request_->length && error_ == 0;
  while (!channel_.part_waiting_.empty() && channel_.parts_.used() < Channel::kMaxParts) {
    Job* waiter = channel_.part_waiting_.front();
    channel_.part_waiting_.pop_front();
    waiter->pump_reads();
  }
  if (more) return pump_reads();
  if (outstanding_ == 0) reads_done();
}

// ---- Changes ----

void Job::start_change() {
  Disk& disk = channel_.disk_;
  first = first_block(request_->offset);
  last = end_block(request_->offset + request_->length) - 1;
  std::unique_lock lock(disk.mutex);
  if (disk.held) {
    disk.held_waiting.push_back(this);
    return;
  }
  if (disk.no_room_for_copies(first, last)) {
    if (disk.old_top->stuck != BlockStatus::kOk) return defer_finish(disk.old_top->stuck);
    disk.copy_waiting.push_back(this);
    return;
  }
  if (disk.committing.data_overlaps(first, last) || disk.unsealed.data_overlaps(first, last)) {
    disk.seal_waiting.push_back(this);
    if (disk.turn_taken || disk.turn_wanted > 0) return;
    disk.turn_taken = true;
    lock.unlock();
    return disk.commit.start(channel_);
  }
  // Writes to blocks that the top has already may overlap: they go straight there and change no state.
  shared = request_->op == BlockOp::kWrite && disk.map.all(first, last - first + 1, Owner::data(disk.top()));
  if (!disk.locks.acquire(*this)) return;
  lock.unlock();
  locked();
}

void Job::locked() {
  if (request_->op == BlockOp::kWrite) return plan_write();
  plan_zeroes();
}

void Job::finish_change(int error) {
  Disk& disk = channel_.disk_;
  {
    std::lock_guard lock(disk.mutex);
    disk.fresh.forget_crcs(first, last);
    if (error == 0 && request_->op == BlockOp::kWrite && !shared) {
      disk.changed(first, last - first + 1, BlockState::kData, crc_);
    }
    disk.locks.release(*this,
                       [&](RangeLocks::Holder& next) { static_cast<Job&>(next).resume_locked(&channel_); });
    if (disk.held && disk.locks.idle()) disk.turned.notify_all();
  }
  if (scratch_ != nullptr) {
    channel_.scratch_.give_back(*std::exchange(scratch_, nullptr));
    if (!channel_.scratch_waiting_.empty()) {
      Job* waiter = channel_.scratch_waiting_.front();
      channel_.scratch_waiting_.pop_front();
      waiter->want_scratch();
    }
  }
  // Deferred: with nothing to write, this is still within submit().
  defer_finish(status_of(error));
}

void Job::want_scratch() {
  if (scratch_ == nullptr) {
    if (channel_.scratch_.used() == Channel::kMaxScratch) {
      channel_.scratch_waiting_.push_back(this);
      return;
    }
    scratch_ = &channel_.scratch_.take();
  }
  with_scratch();
}

// A write that begins or ends inside a block which is not in the file yet writes that block whole.
void Job::plan_write() {
  Disk& disk = channel_.disk_;
  step_ = Step::kWrite;
  reading_ = false;
  crc_.reset();
  uint64_t end = request_->offset + request_->length;
  {
    std::lock_guard lock(disk.mutex);
    const Owner own = Owner::data(disk.top());
    fill_head_ = !is_aligned(request_->offset, kBlockBytes) && disk.map.get(first) != own;
    fill_tail_ = !is_aligned(end, kBlockBytes) && disk.map.get(last) != own;
    // Whole blocks, all of them new, and few since the last flush: another may come soon, and then wants
    // their CRC.
    copying_ = !shared && last - first < Scratch::kCopyBlocks && !disk.fresh.full() &&
               (fill_head_ || is_aligned(request_->offset, kBlockBytes)) &&
               (fill_tail_ || is_aligned(end, kBlockBytes));
  }
  if (fill_head_ || fill_tail_ || copying_) return want_scratch();
  outstanding_ = 1;
  tasks_[0].write(disk.top_data(), channel_.ring_, *this, request_->data,
                  layer::kDataOffset + request_->offset);
}

void Job::with_scratch() {
  if (step_ != Step::kWrite) {
    outstanding_ = 0;
    fill(first_block(piece_.offset), scratch_->head.page, tasks_[0]);
    if (outstanding_ == 0) zero_piece_read();
    return;
  }
  outstanding_ = 0;
  if (fill_head_) fill(first, scratch_->head.page, tasks_[0]);
  if (fill_tail_ && !(fill_head_ && first == last)) fill(last, scratch_->tail.page, tasks_[1]);
  if (outstanding_ == 0) write_filled();
}

// The content of a block that the top has not yet, from beneath.
void Job::fill(uint64_t block, Page& page, FileTask& task) {
  Disk& disk = channel_.disk_;
  page.fill(std::byte{0});
  const uint64_t start = block * kBlockBytes;
  uint64_t length = kBlockBytes;
  uint64_t at = layer::kDataOffset + start;
  AsyncFile* file = disk.raw_base.get();
  {
    std::lock_guard lock(disk.mutex);
    Owner owner = disk.map.get(block);
    if (disk.reads_zero(owner, block)) return;
    if (owner.is_data()) file = &disk.layers[owner.layer()].data();
    if (owner.nobody()) {
      at = start;
      length = std::min(kBlockBytes, disk.base_bytes - start);
    }
  }
  reading_ = true;
  ++outstanding_;
  iovec& piece = &page == &scratch_->head.page ? head_iovec_ : tail_iovec_;
  piece = {page.data(), length};
  task.read(*file, channel_.ring_, *this, std::span(&piece, 1), at);
}

void Job::write_filled() {
  uint64_t end = request_->offset + request_->length;
  uint64_t at = request_->offset;
  std::vector<iovec>& out = scratch_->iovecs;
  out.clear();
  if (fill_head_) {
    at = align_down(at, kBlockBytes);
    out.push_back({scratch_->head.page.data(), request_->offset - at});
  }
  out.insert(out.end(), request_->data.begin(), request_->data.end());
  if (fill_tail_) {
    Page& page = fill_head_ && first == last ? scratch_->head.page : scratch_->tail.page;
    out.push_back({page.data() + end % kBlockBytes, kBlockBytes - end % kBlockBytes});
  }
  if (copying_) copy_out(out);
  outstanding_ = 1;
  tasks_[0].write(channel_.disk_.top_data(), channel_.ring_, *this, out, layer::kDataOffset + at);
}

// Into memory of our own, whose CRC is that of what reaches the file: of a layer that is not encrypted.
void Job::copy_out(std::vector<iovec>& pieces) {
  std::byte* to = scratch_->copy[0].page.data();
  size_t length = 0;
  for (const iovec& piece : pieces) {
    std::memcpy(to + length, piece.iov_base, piece.iov_len);
    length += piece.iov_len;
  }
  pieces.assign(1, {to, length});
  if (&channel_.disk_.top_data() == &channel_.disk_.top_file()) crc_ = crc32c(std::span(to, length));
}

// Whole blocks change their state and give back their space. The parts of blocks at both ends are written for
// WRITE_ZEROES and left alone by DISCARD.
void Job::plan_zeroes() {
  uint64_t begin = request_->offset;
  uint64_t end = begin + request_->length;
  // The last block of a disk may have fewer bytes.
  bool to_disk_end = end == channel_.disk_.size_bytes.load();
  punch_first_ = end_block(begin);
  punch_end_ = to_disk_end ? end_block(end) : first_block(end);
  pieces_ = {};
  piece_ = {};
  piece_allocated_ = false;
  if (request_->op == BlockOp::kWriteZeroes) {
    uint64_t head_end = begin;
    if (!is_aligned(begin, kBlockBytes)) {
      head_end = std::min(end, align_up(begin, kBlockBytes));
      pieces_[0] = {begin, head_end - begin};
    }
    uint64_t tail_begin = std::max(head_end, align_down(end, kBlockBytes));
    if (!is_aligned(end, kBlockBytes) && !to_disk_end && tail_begin < end) {
      pieces_[1] = {tail_begin, end - tail_begin};
    }
  }
  step_ = Step::kLocked;
  next_zero_step();
}

void Job::next_zero_step() {
  if (step_ == Step::kLocked) {
    step_ = Step::kZeroHead;
    if (pieces_[0].length > 0) return zero_piece(pieces_[0]);
  } else if (piece_allocated_) {
    std::lock_guard lock(channel_.disk_.mutex);
    channel_.disk_.changed(first_block(piece_.offset), 1, BlockState::kData);
  }
  if (step_ == Step::kZeroHead) {
    step_ = Step::kZeroTail;
    if (pieces_[1].length > 0) return zero_piece(pieces_[1]);
  }
  punch();
}

void Job::zero_piece(const Piece& piece) {
  Disk& disk = channel_.disk_;
  piece_ = piece;
  piece_allocated_ = false;
  reading_ = false;
  uint64_t block = first_block(piece.offset);
  Owner owner;
  bool own = false;
  {
    std::lock_guard lock(disk.mutex);
    owner = disk.map.get(block);
    own = owner == Owner::data(disk.top());
  }
  if (own) {
    outstanding_ = 1;
    head_iovec_ = {zero_page.page.data(), piece.length};
    return tasks_[0].write(disk.top_data(), channel_.ring_, *this, std::span(&head_iovec_, 1),
                           layer::kDataOffset + piece.offset);
  }
  if (disk.reads_zero(owner, block)) return next_zero_step();
  want_scratch();
}

void Job::zero_piece_read() {
  uint64_t block = first_block(piece_.offset);
  std::memset(scratch_->head.page.data() + piece_.offset % kBlockBytes, 0, piece_.length);
  piece_allocated_ = true;
  outstanding_ = 1;
  head_iovec_ = {scratch_->head.page.data(), kBlockBytes};
  tasks_[0].write(channel_.disk_.top_data(), channel_.ring_, *this, std::span(&head_iovec_, 1),
                  layer::kDataOffset + block * kBlockBytes);
}

// Punched before the map hides the blocks: a crash in between leaves holes, which read as the zeroes that
// were asked for.
void Job::punch() {
  Disk& disk = channel_.disk_;
  step_ = Step::kPunch;
  if (punch_first_ >= punch_end_) return finish_change(0);
  bool any_data = false;
  {
    std::lock_guard lock(disk.mutex);
    for (uint64_t at = punch_first_; at < punch_end_ && !any_data;) {
      VolumeMap::Run run = disk.map.run(at, punch_end_ - at);
      any_data = run.owner == Owner::data(disk.top());
      at += run.count;
    }
  }
  if (!any_data) return punched();
  outstanding_ = 1;
  tasks_[0].erase(disk.top_data(), channel_.ring_, *this, AsyncFile::Erase::kPunch,
                  layer::kDataOffset + punch_first_ * kBlockBytes, (punch_end_ - punch_first_) * kBlockBytes);
}

void Job::punched() {
  Disk& disk = channel_.disk_;
  {
    std::lock_guard lock(disk.mutex);
    for (uint64_t at = punch_first_; at < punch_end_;) {
      VolumeMap::Run run = disk.map.run(at, punch_end_ - at);
      // Where nobody holds anything, what lies beyond the base is zeroes already.
      uint64_t hidden = run.count;
      if (run.owner.is_zero()) hidden = 0;
      if (run.owner.nobody()) hidden = std::clamp(end_block(disk.base_bytes), at, at + run.count) - at;
      if (hidden > 0) disk.changed(at, hidden, BlockState::kZero);
      at += run.count;
    }
  }
  finish_change(0);
}

}  // namespace haneul::storage::volume
