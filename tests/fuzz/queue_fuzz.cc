// SPDX-License-Identifier: Apache-2.0
// A queue whose ring and tables hold anything. The oracle: what pop() hands out lies in RAM (and a sanitizer
// sees every byte that does not), readable parts before writable ones, within the limits; a head is never
// handed out twice; a broken queue stays broken and silent; interrupts come from notify() alone.
#include <algorithm>
#include <vector>

#include "base/log.h"
#include "devices/testing/fakes.h"
#include "devices/testing/guest_ram.h"
#include "devices/virtio/queue.h"
#include "devices/virtio/ring_format.h"
#include "tests/fuzz/input.h"

namespace haneul::fuzz {
namespace {

using namespace devices;          // NOLINT(google-build-using-namespace)
using namespace devices::virtio;  // NOLINT(google-build-using-namespace)

// Two regions that touch and one behind a hole.
const std::vector<testing::GuestRam::Range> kRanges = {
    {0x10000, 0x4000}, {0x14000, 0x2000}, {0x18000, 0x1000}};

class World {
 public:
  explicit World(Input& input) : input_(input), ram_(kRanges), doorbell_(EventFd::create().value()) {
    layout_ = {.index = 0,
               .size = static_cast<uint16_t>(1u << input.below(7)),
               .descriptors = GuestAddress{0x10000},
               .available = GuestAddress{0x11000},
               .used = GuestAddress{0x12000},
               .event_idx = input.below(2) != 0,
               .indirect = input.below(8) != 0};
    if (input.below(8) == 0) {
      layout_.size = input.take<uint16_t>();
      layout_.descriptors = address();
      layout_.available = address();
      layout_.used = address();
    }
  }

  void run() {
    while (start()) {
      while (!input_.empty() && !leave_) step();
    }
  }

 private:
  // A new queue over the memory as it is, as after a reset.
  bool start() {
    if (input_.empty()) return false;
    reasons_ = host_.reasons().size();
    auto made = Queue::create(ram_.memory(), layout_, doorbell_, interrupt_, host_);
    if (!made) return false;
    queue_ = std::move(made).value();
    held_.clear();
    newest_ = leave_ = false;
    available_ = 0;
    le16 zero;
    put(GuestAddress{layout_.available.value + kRingIndex}, std::as_bytes(std::span(&zero, 1)));
    return true;
  }

  GuestAddress address() {
    switch (input_.below(8)) {
      case 0:
        return GuestAddress{input_.take<uint64_t>()};
      case 1:
        return GuestAddress{0x14000u - input_.below(64)};  // across the touching edge
      case 2:
        return GuestAddress{0x16000u - input_.below(64)};  // into the hole
      case 3:
        return GuestAddress{0ull - input_.below(4096)};
      default:
        return GuestAddress{0x10000u + input_.below(0x9000)};
    }
  }

  RingDescriptor descriptor() {
    uint32_t length = input_.below(4) == 0 ? input_.take<uint32_t>() : input_.below(300);
    auto flags = static_cast<uint16_t>(input_.below(16) == 0 ? input_.take<uint16_t>() : input_.below(8));
    auto next = static_cast<uint16_t>(input_.below(layout_.size + 2u));
    if ((flags & kDescIndirect) != 0 && input_.below(4) != 0) {
      length = 16 * input_.below(layout_.size + 2u);
      flags = kDescIndirect;
    }
    return {address().value, length, flags, next};
  }

  void put(GuestAddress at, std::span<const std::byte> bytes) { (void)ram_.memory().write(at, bytes); }

  void step() {
    switch (input_.below(14)) {
      case 0:
      case 1:
      case 2: {
        RingDescriptor made = descriptor();
        uint64_t at = input_.below(8) == 0 ? address().value
                                           : layout_.descriptors.value + 16ull * input_.below(layout_.size);
        put(GuestAddress{at}, std::as_bytes(std::span(&made, 1)));
        break;
      }
      case 3:
      case 4:
        offer();
        break;
      case 5: {
        le16 index = input_.take<uint16_t>();
        if (input_.below(4) == 0) {
          available_ = index;
          put(GuestAddress{layout_.available.value + kRingIndex}, std::as_bytes(std::span(&index, 1)));
        }
        break;
      }
      case 6: {
        uint64_t value = input_.take<uint64_t>();
        put(address(), std::as_bytes(std::span(&value, 1)));
        break;
      }
      case 7:
      case 8:
        pop();
        break;
      case 9:
        push();
        break;
      case 10:
        unpop();
        break;
      case 11: {
        int before = interrupt_.count();
        queue_->notify();
        CHECK(interrupt_.count() <= before + 1);
        CHECK(!queue_->broken() || interrupt_.count() == before);
        break;
      }
      case 12:
        leave_ = queue_->broken();
        break;
      default: {
        int before = interrupt_.count();
        if (input_.below(2) == 0) queue_->disarm_doorbell();
        bool more = queue_->arm_doorbell();
        CHECK(!more || !queue_->broken());
        CHECK(interrupt_.count() == before);
        break;
      }
    }
    CHECK(host_.reasons().size() == reasons_ + (queue_->broken() ? 1 : 0));
  }

  void offer() {
    le16 head = static_cast<uint16_t>(input_.below(layout_.size + (input_.below(8) == 0 ? 2u : 0u)));
    uint64_t entry = layout_.available.value + kRingEntries + 2ull * (available_ % layout_.size);
    put(GuestAddress{entry}, std::as_bytes(std::span(&head, 1)));
    le16 index = ++available_;
    put(GuestAddress{layout_.available.value + kRingIndex}, std::as_bytes(std::span(&index, 1)));
  }

  bool in_ram(const iovec& part) const {
    auto* start = static_cast<std::byte*>(part.iov_base);
    auto regions = ram_.memory().regions();
    return std::any_of(regions.begin(), regions.end(), [&](const GuestMemory::Region& region) {
      return start >= region.host && part.iov_len <= region.size &&
             start - region.host <= static_cast<std::ptrdiff_t>(region.size - part.iov_len);
    });
  }

  void pop() {
    bool was_broken = queue_->broken();
    uint16_t in_flight = queue_->in_flight();
    if (!queue_->pop(chain_)) {
      CHECK(queue_->in_flight() == in_flight);
      return;
    }
    CHECK(!was_broken && !queue_->broken());
    CHECK(chain_.head() < layout_.size && queue_->in_flight() == in_flight + 1);
    CHECK(std::find(held_.begin(), held_.end(), chain_.head()) == held_.end());
    held_.push_back(chain_.head());
    // Each descriptor has at least one byte, and one can be cut at each touching edge of regions.
    CHECK(chain_.readable().size() + chain_.writable().size() <= layout_.size * kRanges.size());
    CHECK(uint64_t{chain_.readable_bytes()} + chain_.writable_bytes() <= kMaxChainBytes);
    uint64_t readable = 0;
    uint64_t writable = 0;
    for (const iovec& part : chain_.readable()) {
      CHECK(part.iov_len != 0 && in_ram(part));
      readable += part.iov_len;
    }
    for (const iovec& part : chain_.writable()) {
      CHECK(part.iov_len != 0 && in_ram(part));
      writable += part.iov_len;
    }
    CHECK(readable == chain_.readable_bytes() && writable == chain_.writable_bytes());
    std::vector<std::byte> copy(std::min<uint64_t>(readable, 64));
    CHECK(chain_.read_at(readable - copy.size(), copy));
    CHECK(!chain_.read_at(readable - copy.size() + 1, std::span(copy.data(), copy.size())) || copy.empty());
    copy.assign(std::min<uint64_t>(writable, 64), std::byte{0x5a});
    CHECK(chain_.write_at(writable - copy.size(), copy));
    newest_ = true;
  }

  void push() {
    if (held_.empty()) return;
    size_t which = input_.below(static_cast<uint32_t>(held_.size()));
    queue_->push(held_[which], input_.take<uint32_t>());
    held_.erase(held_.begin() + static_cast<std::ptrdiff_t>(which));
    newest_ = false;
    if (input_.below(2) == 0) queue_->publish();
  }

  void unpop() {
    if (!newest_) return;
    queue_->unpop(chain_);
    held_.pop_back();
    newest_ = false;
  }

  Input& input_;
  testing::GuestRam ram_;
  EventFd doorbell_;
  testing::CountingInterrupt interrupt_;
  testing::RecordingHost host_;
  QueueLayout layout_;
  std::unique_ptr<Queue> queue_;
  Chain chain_;
  std::vector<uint16_t> held_;
  bool newest_ = false;  // chain_ is the newest popped one
  bool leave_ = false;   // a reset is due
  size_t reasons_ = 0;   // what the host was told of the queues before
  uint16_t available_ = 0;
};

}  // namespace
}  // namespace haneul::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  haneul::fuzz::Input input(data, size);
  haneul::fuzz::World(input).run();
  return 0;
}
