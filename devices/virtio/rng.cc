// SPDX-License-Identifier: Apache-2.0
#include "devices/virtio/rng.h"

#include <poll.h>
#include <sys/random.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <thread>

namespace haneul::devices::virtio {
namespace {

constexpr std::array<uint16_t, 1> kQueueSizes = {64};

// One thread from activate() to reset(), which answers requests one after the other.
class Rng final : public Device {
 public:
  explicit Rng(EventFd stop) : stop_(std::move(stop)) {}
  ~Rng() override { reset(); }

  DeviceType type() const override { return DeviceType::kEntropy; }
  std::string_view name() const override { return "rng"; }
  uint64_t features() const override { return 0; }
  std::span<const uint16_t> queue_sizes() const override { return kQueueSizes; }
  uint32_t config_size() const override { return 0; }
  void read_config(uint32_t /*offset*/, std::span<std::byte> /*data*/) override {}
  void attach(DeviceHost& /*host*/) override {}

  Status activate(Activation activation) override {
    queue_ = std::move(activation.queues[0]);
    threads_ = &activation.threads;
    Status running = resume();
    if (!running) queue_.reset();
    return running;
  }
  void reset() override {
    halt();
    queue_.reset();
  }
  void let_go() override { stop_.signal(); }
  Status pause() override {
    halt();
    return {};
  }
  Status resume() override {
    if (queue_ == nullptr || thread_.joinable()) return {};
    stop_.drain();
    thread_ = TRY(threads_->start("rng", [this] { run(); }));
    return {};
  }

 private:
  void halt() {
    if (!thread_.joinable()) return;
    stop_.signal();
    thread_.join();
  }

  void run() {
    pollfd events[] = {{.fd = stop_.fd(), .events = POLLIN, .revents = 0},
                       {.fd = queue_->doorbell().fd(), .events = POLLIN, .revents = 0}};
    for (;;) {
      // One request at a time and a look at stop_ between them: a guest that never stops asking cannot keep
      // us.
      bool more = serve();
      if (::poll(events, 2, more ? 0 : -1) < 0 && errno != EINTR) return queue_->fail("poll failed");
      if ((events[0].revents & POLLIN) != 0) return;
      if ((events[1].revents & POLLIN) != 0) queue_->doorbell().drain();
    }
  }

  // Answers up to a batch of requests; false if the queue is empty.
  bool serve() {
    constexpr int kBatch = 16;
    for (int i = 0; i < kBatch; ++i) {
      if (!queue_->pop(chain_)) {
        queue_->notify();
        return queue_->arm_doorbell();
      }
      queue_->push(chain_.head(), fill());
    }
    queue_->notify();
    return true;
  }

  uint32_t fill() {
    uint32_t written = 0;
    for (const iovec& part : chain_.writable()) {
      if (written == kMaxRngBytes) break;
      auto* place = static_cast<std::byte*>(part.iov_base);
      size_t wanted = std::min<size_t>(part.iov_len, kMaxRngBytes - written);
      size_t done = 0;
      while (done < wanted) {
        ssize_t got = ::getrandom(place + done, wanted - done, 0);
        if (got < 0 && errno != EINTR) return written + static_cast<uint32_t>(done);
        if (got > 0) done += static_cast<size_t>(got);
      }
      written += static_cast<uint32_t>(done);
    }
    return written;
  }

  const EventFd stop_;
  ThreadStarter* threads_ = nullptr;
  std::unique_ptr<Queue> queue_;
  Chain chain_;
  std::thread thread_;
};

}  // namespace

Result<std::unique_ptr<Device>> make_rng() {
  return std::unique_ptr<Device>(std::make_unique<Rng>(TRY(EventFd::create())));
}

}  // namespace haneul::devices::virtio
