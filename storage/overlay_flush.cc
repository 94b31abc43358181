// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cerrno>

#include "storage/overlay_disk.h"

namespace haneul::storage::overlay {

// With disk_.round_active set by the caller. The flushes that wait now are answered by this round: whatever
// completed before them is in the map or in place in the file already.
void FlushRound::start(Job& leader) {
  leader_ = &leader;
  batch_count_ = 0;
  if (!buffers_) buffers_ = std::make_unique<std::array<Page, kBatch>>();
  {
    std::lock_guard lock(disk_.mutex);
    followers_.clear();
    std::swap(followers_, disk_.flush_waiting);
    disk_.map.take_dirty(pages_);
  }
  if (disk_.sync_failed.load()) return finish(EIO);
  next_batch();
}

void FlushRound::next_batch() {
  batch_count_ = std::min(pages_.size(), kBatch);
  std::array<MapPage, kBatch> states;
  {
    std::lock_guard lock(disk_.mutex);
    for (size_t i = 0; i < batch_count_; ++i) {
      batch_[i] = pages_.back();
      pages_.pop_back();
      states[i] = disk_.map.begin_write(batch_[i]);
    }
  }
  for (size_t i = 0; i < batch_count_; ++i) {
    sequence_[i] = states[i].sequence;
    encode_map_page(batch_[i], states[i], (*buffers_)[i]);
    iovecs_[i] = {(*buffers_)[i].data(), kPageBytes};
  }
  sync_.sync(*disk_.file, leader_->channel().ring_, *this);
}

void FlushRound::write_batch() {
  outstanding_ = batch_count_;
  for (size_t i = 0; i < batch_count_; ++i) {
    tasks_[i].write(*disk_.file, leader_->channel().ring_, *this, std::span(&iovecs_[i], 1),
                    map_page_offset(batch_[i], sequence_[i]));
  }
}

void FlushRound::task_done(FileTask& task, int error) {
  if (&task != &sync_) {
    error_[static_cast<size_t>(&task - tasks_.data())] = error;
    if (--outstanding_ == 0) finish_batch();
    return;
  }
  if (error != 0) {
    // The kernel may have dropped what it could not write, and says so once: nothing later can be trusted.
    disk_.sync_failed.store(true);
    return finish(error);
  }
  if (batch_count_ == 0) return finish(disk_.sync_failed.load() ? EIO : 0);
  write_batch();
}

void FlushRound::finish_batch() {
  int error = 0;
  {
    std::lock_guard lock(disk_.mutex);
    for (size_t i = 0; i < batch_count_; ++i) {
      if (error_[i] == 0) {
        disk_.map.written(batch_[i]);
      } else {
        disk_.map.mark_dirty(batch_[i]);
        error = error_[i];
      }
    }
  }
  batch_count_ = 0;
  if (error != 0) return finish(error);
  next_batch();
}

void FlushRound::finish(int error) {
  Job& leader = *leader_;
  Channel& channel = leader.channel();
  BlockStatus status = status_of(error);
  std::vector<Job*> followers;
  std::swap(followers, followers_);
  Job* next = nullptr;
  {
    std::lock_guard lock(disk_.mutex);
    for (size_t i = 0; i < batch_count_; ++i) disk_.map.mark_dirty(batch_[i]);
    for (uint64_t index : pages_) disk_.map.requeue(index);
    pages_.clear();
    if (disk_.flush_waiting.empty()) {
      disk_.round_active = false;
    } else {
      next = disk_.flush_waiting.front();
      disk_.flush_waiting.erase(disk_.flush_waiting.begin());
    }
  }
  for (Job* follower : followers) follower->resume_flushed(&channel, status);
  // The round is the next leader's from here on.
  if (next != nullptr) next->resume_leading(&channel);
  leader.flushed(status);
}

}  // namespace haneul::storage::overlay
