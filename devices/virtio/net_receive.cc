// SPDX-License-Identifier: Apache-2.0
#include "devices/virtio/net_receive.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/uio.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/log.h"

namespace haneul::devices::virtio::net {

namespace {
constexpr uint32_t kBufferBytes = sizeof(Header) + kMaxFrameBytes;
}

Receiver::Receiver(storage::IoRing& ring, int tap, NetStatistics& statistics)
    : ring_(ring), tap_(tap), statistics_(statistics) {
  for (Frame& frame : frames_) {
    frame.receiver = this;
    // Not initialised: memory is spent only on what frames fill, and only that is ever copied.
    frame.bytes.reset(new std::byte[kBufferBytes]);
    frame.iovec_ = {frame.bytes.get(), kBufferBytes};
    free_.push_back(&frame);
  }
  poll_.receiver = this;
}

void Receiver::begin(Queue* queue, uint64_t features) {
  queue_ = queue;
  features_ = features;
  mergeable_ = (features & kFeatureMergeableBuffers) != 0;
  starved_ = false;
  stopping_ = false;
  tap_empty_ = true;
}

void Receiver::forget_frames() {
  for (Frame* frame : ready_) free_.push_back(frame);
  ready_.clear();
  gathered_ = 0;
  room_ = 0;
}

void Receiver::work() {
  if (queue_ == nullptr || stopping_) return;
  deliver();
  ask_tap();
}

void Receiver::stop() {
  stopping_ = true;
  if (polling_) ring_.cancel(poll_);
  for (Frame& frame : frames_) {
    if (frame.reading) ring_.cancel(frame);
  }
}

// At most one poll or one burst of reads is under way, and neither while frames wait for the guest.
void Receiver::ask_tap() {
  if (outstanding_ > 0 || !ready_.empty() || tap_failed_ || queue_->broken()) return;
  if (tap_empty_ && !waits_in_kernel_) {
    polling_ = true;
    ++outstanding_;
    return ring_.poll(poll_, tap_, POLLIN);
  }
  size_t burst = waits_in_kernel_ ? 1 : free_.size();
  for (size_t i = 0; i < burst; ++i) {
    Frame& frame = *free_.back();
    free_.pop_back();
    frame.reading = true;
    frame.no_wait = !waits_in_kernel_;
    ++outstanding_;
    ring_.readv(frame, tap_, std::span(&frame.iovec_, 1), 0, frame.no_wait ? RWF_NOWAIT : 0);
  }
}

void Receiver::poll_done(int32_t result) {
  polling_ = false;
  --outstanding_;
  if (result < 0 && result != -ECANCELED) return fail_tap(-result);
  // Reading tells what it is: data, or the error behind POLLERR.
  tap_empty_ = false;
  only_error_ = result > 0 && (result & POLLIN) == 0;
}

void Receiver::read_done(Frame& frame, int32_t result) {
  frame.reading = false;
  --outstanding_;
  if (result <= 0) {
    free_.push_back(&frame);
    if (result == -EAGAIN && !only_error_) {
      tap_empty_ = true;
    } else if (result == -EOPNOTSUPP && frame.no_wait) {
      // A tap before Linux 6.4; every read of the burst says so.
      waits_in_kernel_ = true;
    } else if (result <= 0 && result != -EINTR && result != -ECANCELED) {
      fail_tap(-result);
    }
    return;
  }
  frame.length = static_cast<uint32_t>(result);
  ready_.push_back(&frame);
}

void Receiver::fail_tap(int error) {
  if (std::exchange(tap_failed_, true)) return;
  LOG_ERROR("a network device gets no more frames: its tap {}",
            error == 0 ? std::string("was closed") : fmt::format("failed with errno {}", error));
}

void Receiver::deliver() {
  bool pushed = false;
  while (!ready_.empty() && !starved_) {
    Frame& frame = *ready_.front();
    Outcome outcome = deliver(frame);
    if (outcome == Outcome::kNoBuffers) {
      if (queue_->broken()) break;
      // Wait for the guest, unless it has offered some meanwhile.
      starved_ = !queue_->arm_doorbell();
      continue;
    }
    if (outcome == Outcome::kDelivered) {
      pushed = true;
      statistics_.received.fetch_add(1, std::memory_order_relaxed);
      statistics_.received_bytes.fetch_add(frame.length - sizeof(Header), std::memory_order_relaxed);
    } else {
      statistics_.receive_drops.fetch_add(1, std::memory_order_relaxed);
    }
    free_.push_back(&frame);
    ready_.pop_front();
  }
  if (!starved_) queue_->disarm_doorbell();
  if (pushed) queue_->notify();
}

// Pops chains until those that are held have room for so many bytes, or are as many as there can be.
bool Receiver::gather(uint32_t bytes) {
  size_t most = mergeable_ ? queue_->size() : 1;
  while (room_ < bytes && gathered_ < most) {
    if (gathered_ == chains_.size()) chains_.emplace_back();
    Chain& chain = chains_[gathered_];
    if (!queue_->pop(chain)) return false;
    // Section 5.1.6.3.2: a buffer holds the header at least.
    if (chain.writable_bytes() < sizeof(Header)) {
      queue_->fail("a receive buffer smaller than a header");
      return false;
    }
    ++gathered_;
    room_ += chain.writable_bytes();
  }
  return true;
}

Receiver::Outcome Receiver::deliver(const Frame& frame) {
  if (frame.length < sizeof(Header) + kEthernetBytes) return Outcome::kDropped;
  Header from_tap;
  std::memcpy(&from_tap, frame.bytes.get(), sizeof from_tap);
  auto header = checked_for_receive(from_tap, features_);
  if (!header) return Outcome::kDropped;
  if (!gather(frame.length)) return Outcome::kNoBuffers;
  // All that the queue can ever hold, or a single buffer that the driver made too small: for a smaller frame.
  if (room_ < frame.length) return Outcome::kDropped;

  size_t used = 0;
  for (uint64_t room = 0; room < frame.length; ++used) room += chains_[used].writable_bytes();
  header->num_buffers = static_cast<uint16_t>(used);
  std::span<const std::byte> rest(frame.bytes.get(), frame.length);
  for (size_t i = 0; i < used; ++i) {
    Chain& chain = chains_[i];
    auto piece = rest.first(std::min<size_t>(rest.size(), chain.writable_bytes()));
    CHECK(chain.write_at(0, piece));
    if (i == 0) CHECK(chain.write_at(0, std::as_bytes(std::span(&*header, 1))));
    queue_->push(chain.head(), static_cast<uint32_t>(piece.size()));
    rest = rest.subspan(piece.size());
    room_ -= chain.writable_bytes();
  }
  gathered_ -= used;
  for (size_t i = 0; i < gathered_; ++i) std::swap(chains_[i], chains_[used + i]);
  return Outcome::kDelivered;
}

}  // namespace haneul::devices::virtio::net
