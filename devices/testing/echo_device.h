// SPDX-License-Identifier: Apache-2.0
// EchoDevice: a virtio device that copies what it reads into what it writes, to test what lies under devices.
#pragma once

#include <poll.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "devices/virtio/device.h"

namespace haneul::devices::testing {

/// What a test looks at, also when the device is gone.
struct EchoLog {
  std::atomic<int> activations{0};
  std::atomic<int> resets{0};
  std::atomic<int> served{0};
  std::atomic<bool> running{false};
  std::atomic<bool> destroyed{false};
  std::atomic<uint64_t> features{0};
  /// While set, requests are popped and kept.
  std::atomic<bool> hold{false};
};

/// One I/O thread for all queues.
class EchoDevice : public virtio::Device {
 public:
  static constexpr uint64_t kFeatureA = 1u << 0;
  static constexpr uint64_t kFeatureB = 1u << 1;  // not without kFeatureA
  static constexpr uint64_t kFeatureHigh = 1ull << 50;

  explicit EchoDevice(std::shared_ptr<EchoLog> log = std::make_shared<EchoLog>(),
                      std::vector<uint16_t> sizes = {64, 16})
      : log_(std::move(log)), sizes_(std::move(sizes)), stop_(EventFd::create().value()) {}
  ~EchoDevice() override {
    reset();
    log_->destroyed = true;
  }

  virtio::DeviceType type() const override { return virtio::DeviceType::kEntropy; }
  std::string_view name() const override { return "echo"; }
  uint64_t features() const override { return kFeatureA | kFeatureB | kFeatureHigh; }
  bool accepts(uint64_t features) const override {
    return (features & kFeatureB) == 0 || (features & kFeatureA) != 0;
  }
  std::span<const uint16_t> queue_sizes() const override { return sizes_; }
  uint32_t config_size() const override { return 10; }
  void read_config(uint32_t offset, std::span<std::byte> data) override {
    std::lock_guard lock(config_mutex_);
    CHECK(offset + data.size() <= config_.size());
    std::copy_n(config_.begin() + offset, data.size(), data.begin());
  }
  void write_config(uint32_t offset, std::span<const std::byte> data) override {
    std::lock_guard lock(config_mutex_);
    CHECK(offset + data.size() <= config_.size());
    std::copy(data.begin(), data.end(), config_.begin() + offset);
  }
  void attach(virtio::DeviceHost& host) override { host_ = &host; }

  Status activate(virtio::Activation activation) override {
    CHECK(!thread_.joinable());
    ++log_->activations;
    if (refuse) return make_error(ErrorCode::kIo, "the echo is out of order");
    log_->features = activation.features;
    queues_ = std::move(activation.queues);
    stop_.drain();
    thread_ = TRY(activation.threads.start("echo", [this] { run(); }));
    log_->running = true;
    return {};
  }
  void reset() override {
    ++log_->resets;
    if (thread_.joinable()) {
      stop_.signal();
      thread_.join();
      log_->running = false;
    }
    queues_.clear();
    held_.clear();
  }
  void let_go() override { stop_.signal(); }

  void change_config(uint32_t offset, std::byte value) {
    {
      std::lock_guard lock(config_mutex_);
      config_[offset] = value;
    }
    host_->config_changed();
  }

  bool refuse = false;

 private:
  void run() {
    std::vector<pollfd> events = {{.fd = stop_.fd(), .events = POLLIN, .revents = 0}};
    for (auto& queue : queues_) {
      if (queue) events.push_back({.fd = queue->doorbell().fd(), .events = POLLIN, .revents = 0});
    }
    for (;;) {
      bool more = false;
      for (auto& queue : queues_) {
        if (queue) more = serve(*queue) || more;
      }
      ::poll(events.data(), events.size(), more ? 0 : -1);
      if (events[0].revents != 0) return;
      for (auto& queue : queues_) {
        if (queue) queue->doorbell().drain();
      }
    }
  }
  bool serve(virtio::Queue& queue) {
    for (int i = 0; i < 64 && queue.pop(chain_); ++i) {
      if (log_->hold) {
        held_.push_back(chain_.head());
        continue;
      }
      uint32_t length = std::min({chain_.readable_bytes(), chain_.writable_bytes(), 4096u});
      buffer_.resize(length);
      CHECK(chain_.read_at(0, buffer_) && chain_.write_at(0, buffer_));
      queue.push(chain_.head(), length);
      ++log_->served;
    }
    queue.notify();
    return queue.arm_doorbell();
  }

  std::shared_ptr<EchoLog> log_;
  const std::vector<uint16_t> sizes_;
  const EventFd stop_;
  virtio::DeviceHost* host_ = nullptr;
  std::mutex config_mutex_;
  std::array<std::byte, 10> config_{};
  std::vector<std::unique_ptr<virtio::Queue>> queues_;
  virtio::Chain chain_;
  std::vector<uint16_t> held_;
  std::vector<std::byte> buffer_;
  std::thread thread_;
};

}  // namespace haneul::devices::testing
