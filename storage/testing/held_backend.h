// SPDX-License-Identifier: Apache-2.0
// HeldBackend: a disk of zeroes whose requests wait until a test lets them go.
#pragma once

#include <chrono>
#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "storage/block_backend.h"
#include "storage/file_task.h"

namespace haneul::storage::testing {

/// Thread-safe.
class HeldControl {
 public:
  void hold(bool on) {
    std::lock_guard lock(mutex_);
    hold_ = on;
  }
  size_t held() const {
    std::lock_guard lock(mutex_);
    return held_.size();
  }
  size_t count(BlockOp op) const {
    std::lock_guard lock(mutex_);
    auto found = counts_.find(op);
    return found == counts_.end() ? 0 : found->second;
  }
  bool wait_for_held(size_t count, std::chrono::milliseconds timeout = std::chrono::seconds(10)) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, timeout, [&] { return held_.size() >= count; });
  }
  void release_all() {
    std::lock_guard lock(mutex_);
    for (auto& [ring, op] : held_) ring->post(*op);
    held_.clear();
  }

 private:
  friend class HeldChannel;
  void submit(IoRing& ring, IoOperation& op, BlockOp kind) {
    std::lock_guard lock(mutex_);
    ++counts_[kind];
    if (!hold_) return ring.post(op);
    held_.emplace_back(&ring, &op);
    changed_.notify_all();
  }

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  bool hold_ = true;
  std::vector<std::pair<IoRing*, IoOperation*>> held_;
  std::map<BlockOp, size_t> counts_;
};

class HeldChannel final : public BlockChannel {
 public:
  HeldChannel(std::shared_ptr<HeldControl> control, IoRing& ring, uint64_t size)
      : control_(std::move(control)), ring_(ring), size_(size) {}
  void submit(BlockRequest& request) override {
    auto* job = new Job;
    job->request = &request;
    job->status = refusal(request, size_, false).value_or(BlockStatus::kOk);
    control_->submit(ring_, *job, request.op);
  }

 private:
  struct Job final : IoOperation {
    BlockRequest* request = nullptr;
    BlockStatus status = BlockStatus::kOk;
    void completed(int32_t) override {
      if (request->op == BlockOp::kRead && status == BlockStatus::kOk) fill_zeroes(request->data);
      BlockRequest& its_request = *request;
      BlockStatus its_status = status;
      delete this;
      its_request.completed(its_status);
    }
  };
  std::shared_ptr<HeldControl> control_;
  IoRing& ring_;
  uint64_t size_;
};

class HeldBackend final : public BlockBackend {
 public:
  HeldBackend(std::shared_ptr<HeldControl> control, uint64_t size)
      : control_(std::move(control)), size_(size) {}
  std::unique_ptr<BlockChannel> open_channel(IoRing& ring) override {
    return std::make_unique<HeldChannel>(control_, ring, size_);
  }
  uint64_t size_bytes() const override { return size_; }
  bool read_only() const override { return false; }
  Status resize(uint64_t size) override {
    size_ = size;
    return {};
  }

 private:
  std::shared_ptr<HeldControl> control_;
  uint64_t size_;
};

inline std::pair<std::unique_ptr<BlockBackend>, std::shared_ptr<HeldControl>> make_held_backend(
    uint64_t size) {
  auto control = std::make_shared<HeldControl>();
  return {std::make_unique<HeldBackend>(control, size), control};
}

}  // namespace haneul::storage::testing
