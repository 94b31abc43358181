// SPDX-License-Identifier: Apache-2.0
#include "devices/virtio/net_transmit.h"

#include <poll.h>

#include <cerrno>
#include <climits>
#include <utility>

namespace haneul::devices::virtio::net {

namespace {
// Frames taken from the queue before others get their turn.
constexpr int kBatch = 64;
}  // namespace

void Transmitter::begin(Queue* queue, uint64_t features) {
  queue_ = queue;
  features_ = features;
  rang_ = true;
  stopping_ = false;
}

bool Transmitter::work() {
  if (queue_ == nullptr) return false;
  if (rang_ && !stopping_) {
    rang_ = false;
    queue_->disarm_doorbell();
    for (int i = 0; i < kBatch && !rang_; ++i) {
      Frame& frame = frames_.take(*this);
      if (queue_->pop(frame.chain)) {
        if (!send(frame)) finish(frame, false);
        rang_ = i + 1 == kBatch;
        continue;
      }
      frames_.give_back(frame);
      if (!queue_->arm_doorbell()) break;
    }
  }
  if (std::exchange(answered_, false)) queue_->notify();
  return rang_ && !stopping_;
}

// False: a frame to drop.
bool Transmitter::send(Frame& frame) {
  Header header;
  frame.place = SIZE_MAX;
  if (!frame.chain.read_at(0, std::as_writable_bytes(std::span(&header, 1)))) {
    queue_->fail("a transmitted frame without a header");
    return false;
  }
  frame.bytes = frame.chain.readable_bytes() - static_cast<uint32_t>(sizeof header);
  if (frame.bytes < kEthernetBytes || frame.bytes > kMaxFrameBytes) return false;
  auto checked = checked_for_transmit(header, frame.bytes, features_);
  if (!checked) return false;
  frame.header = *checked;
  frame.iovecs.clear();
  frame.iovecs.push_back({&frame.header, sizeof frame.header});
  CHECK(append_slice(frame.chain.readable(), sizeof header, frame.bytes, frame.iovecs));
  if (frame.iovecs.size() > IOV_MAX) return false;
  frame.place = active_.size();
  active_.push_back(&frame);
  ring_.writev(frame, tap_, frame.iovecs, 0);
  return true;
}

void Transmitter::done(Frame& frame, int32_t result) {
  if (stopping_) return finish(frame, !frame.polling && result > 0);
  if (frame.polling || result == -EINTR) {
    frame.polling = false;
    return ring_.writev(frame, tap_, frame.iovecs, 0);
  }
  if (result == -EAGAIN) {
    frame.polling = true;
    return ring_.poll(frame, tap_, POLLOUT);
  }
  if (result < 0 && log_limiter_.allow()) {
    LOG_WARNING("the tap refused a frame of {} bytes with errno {}", frame.bytes, -result);
  }
  finish(frame, result > 0);
}

void Transmitter::finish(Frame& frame, bool sent) {
  if (frame.place != SIZE_MAX) {
    active_[frame.place] = active_.back();
    active_[frame.place]->place = frame.place;
    active_.pop_back();
  }
  frame.polling = false;
  if (sent) {
    statistics_.transmitted.fetch_add(1, std::memory_order_relaxed);
    statistics_.transmitted_bytes.fetch_add(frame.bytes, std::memory_order_relaxed);
  } else {
    statistics_.transmit_drops.fetch_add(1, std::memory_order_relaxed);
  }
  queue_->push(frame.chain.head(), 0);
  answered_ = true;
  frames_.give_back(frame);
}

// Frames that wait for room in the tap are dropped, as a network may.
void Transmitter::stop() {
  stopping_ = true;
  for (Frame* frame : active_) ring_.cancel(*frame);
}

}  // namespace haneul::devices::virtio::net
