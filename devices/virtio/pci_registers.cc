// SPDX-License-Identifier: Apache-2.0
// The common configuration (VIRTIO 1.2, section 4.1.4.3) and what its registers set off.
#include <array>
#include <cstring>

#include "base/checked.h"
#include "base/endian.h"
#include "devices/virtio/pci_function.h"

namespace haneul::devices::virtio {

// Reading has no side effect, so an access of any width sees the bytes that are there.
void Transport::common_read(uint64_t offset, std::span<std::byte> data) {
  if (!range_within(offset, data.size(), common::kSize)) return;
  std::array<std::byte, common::kSize> image{};
  auto features_word = [](uint64_t features, uint32_t select) {
    return select > 1 ? 0 : static_cast<uint32_t>(features >> (32 * select));
  };
  store_le<uint32_t>(&image[common::kDeviceFeatureSelect], device_feature_select_);
  store_le<uint32_t>(&image[common::kDeviceFeature], features_word(offered(), device_feature_select_));
  store_le<uint32_t>(&image[common::kDriverFeatureSelect], driver_feature_select_);
  store_le<uint32_t>(&image[common::kDriverFeature], features_word(driver_features_, driver_feature_select_));
  store_le<uint16_t>(&image[common::kConfigVector], config_vector_.load(std::memory_order_relaxed));
  store_le<uint16_t>(&image[common::kNumQueues], static_cast<uint16_t>(queues_.size()));
  image[common::kStatus] = std::byte{status_.load(std::memory_order_acquire)};
  image[common::kGeneration] = std::byte{generation_.load(std::memory_order_acquire)};
  store_le<uint16_t>(&image[common::kQueueSelect], queue_select_);
  if (const QueueSlot* slot = selected()) {
    store_le<uint16_t>(&image[common::kQueueSize], slot->size);
    store_le<uint16_t>(&image[common::kQueueVector], slot->interrupt.vector.load(std::memory_order_relaxed));
    store_le<uint16_t>(&image[common::kQueueEnable], slot->enabled ? 1 : 0);
    store_le<uint16_t>(&image[common::kQueueNotifyOff], queue_select_);
    store_le<uint64_t>(&image[common::kQueueDescriptors], slot->descriptors);
    store_le<uint64_t>(&image[common::kQueueAvailable], slot->available);
    store_le<uint64_t>(&image[common::kQueueUsed], slot->used);
  }
  std::memcpy(data.data(), &image[offset], data.size());
}

// Section 4.1.3.1: a driver writes each field with its own width, 64-bit ones also as halves. Others are
// swallowed.
void Transport::common_write(uint64_t offset, uint64_t value, size_t width) {
  auto is = [&](uint32_t field, size_t field_width) { return offset == field && width == field_width; };
  bool negotiating = (status_.load(std::memory_order_acquire) & kFeaturesOk) == 0;
  if (is(common::kDeviceFeatureSelect, 4)) {
    device_feature_select_ = static_cast<uint32_t>(value);
  } else if (is(common::kDriverFeatureSelect, 4)) {
    driver_feature_select_ = static_cast<uint32_t>(value);
  } else if (is(common::kDriverFeature, 4)) {
    if (!negotiating || driver_feature_select_ > 1) return;
    unsigned shift = 32 * driver_feature_select_;
    driver_features_ = (driver_features_ & ~(uint64_t{0xffffffff} << shift)) | (value << shift);
  } else if (is(common::kConfigVector, 2)) {
    config_vector_.store(value < msix_->vectors() ? static_cast<uint16_t>(value) : kNoVector,
                         std::memory_order_relaxed);
  } else if (is(common::kStatus, 1)) {
    write_status(static_cast<uint8_t>(value));
  } else if (is(common::kQueueSelect, 2)) {
    queue_select_ = static_cast<uint16_t>(value);
  } else {
    queue_write(offset, value, width);
  }
}

void Transport::queue_write(uint64_t offset, uint64_t value, size_t width) {
  QueueSlot* slot = selected();
  if (slot == nullptr) return;
  auto is = [&](uint32_t field, size_t field_width) { return offset == field && width == field_width; };
  if (is(common::kQueueVector, 2)) {
    slot->interrupt.vector.store(value < msix_->vectors() ? static_cast<uint16_t>(value) : kNoVector,
                                 std::memory_order_relaxed);
    return;
  }
  // An enabled queue has its copy of these, and keeps it until the reset.
  if (slot->enabled) return;
  auto set_address = [&](uint32_t field, uint64_t& address) {
    if (is(field, 8)) address = value;
    if (is(field, 4)) address = (address & ~uint64_t{0xffffffff}) | value;
    if (is(field + 4, 4)) address = (address & 0xffffffff) | value << 32;
  };
  set_address(common::kQueueDescriptors, slot->descriptors);
  set_address(common::kQueueAvailable, slot->available);
  set_address(common::kQueueUsed, slot->used);
  if (is(common::kQueueSize, 2)) slot->size = static_cast<uint16_t>(value);
  if (is(common::kQueueEnable, 2) && value == 1) enable_queue(*slot);
}

// Section 4.1.5.1.3: after the features are agreed on, before DRIVER_OK.
void Transport::enable_queue(QueueSlot& slot) {
  uint8_t status = status_.load(std::memory_order_acquire);
  if ((status & kFeaturesOk) == 0 || (status & kDriverOk) != 0) {
    warn(fmt::format("queue {} enabled at the wrong time", queue_select_));
    return;
  }
  if (slot.size > slot.max_size) {
    needs_reset(fmt::format("queue {}: {} entries of at most {}", queue_select_, slot.size, slot.max_size));
    return;
  }
  QueueLayout layout{.index = queue_select_,
                     .size = slot.size,
                     .descriptors = GuestAddress{slot.descriptors},
                     .available = GuestAddress{slot.available},
                     .used = GuestAddress{slot.used},
                     .event_idx = (driver_features_ & kFeatureEventIdx) != 0,
                     .indirect = (driver_features_ & kFeatureIndirectDesc) != 0};
  auto queue = Queue::create(memory_, layout, slot.doorbell, slot.interrupt, *this);
  if (!queue) {
    needs_reset(fmt::format("queue {}: {}", queue_select_, queue.error().message()));
    return;
  }
  slot.ready = std::move(queue).value();
  slot.enabled = true;
}

// Section 2.1: the driver sets bits one after the other, and clears them only all at once.
void Transport::write_status(uint8_t value) {
  if (value == 0) {
    reset();
    return;
  }
  auto added = static_cast<uint8_t>(value & ~status_.load(std::memory_order_acquire));
  status_.fetch_or(value & (kAcknowledge | kDriver | kFailed), std::memory_order_acq_rel);
  if ((added & kFeaturesOk) != 0) accept_features();
  if ((added & kDriverOk) != 0) start();
}

// Section 3.1.1, step 5: if we do not agree, the bit stays clear, and the driver sees that.
void Transport::accept_features() {
  bool agreed = (driver_features_ & ~offered()) == 0 && (driver_features_ & kFeatureVersion1) != 0 &&
                device_->accepts(driver_features_);
  if (agreed) {
    status_.fetch_or(kFeaturesOk, std::memory_order_acq_rel);
  } else {
    warn(fmt::format("the driver wants features {:#x} of {:#x}", driver_features_, offered()));
  }
}

void Transport::start() {
  uint8_t status = status_.load(std::memory_order_acquire);
  if ((status & kFeaturesOk) == 0 || (status & kNeedsReset) != 0) {
    needs_reset("DRIVER_OK before its time");
    return;
  }
  Activation activation{.memory = memory_, .threads = threads_, .features = driver_features_, .queues = {}};
  for (auto& slot : queues_) activation.queues.push_back(std::move(slot->ready));
  // Before the device runs: it may want to interrupt, or to be reset, at once.
  status_.fetch_or(kDriverOk, std::memory_order_acq_rel);
  if (Status active = device_->activate(std::move(activation)); !active) {
    needs_reset(active.error().message());
    return;
  }
  bind_doorbells();
}

// Section 2.4. The device's threads have ended before anything of theirs is forgotten.
void Transport::reset() {
  unbind_doorbells();
  device_->reset();
  for (auto& slot : queues_) {
    slot->size = slot->max_size;
    slot->descriptors = slot->available = slot->used = 0;
    slot->enabled = false;
    slot->ready.reset();
    slot->interrupt.vector.store(kNoVector, std::memory_order_relaxed);
    slot->doorbell.drain();
  }
  device_feature_select_ = driver_feature_select_ = 0;
  driver_features_ = 0;
  queue_select_ = 0;
  config_vector_.store(kNoVector, std::memory_order_relaxed);
  msix_->clear_pending();
  isr_.store(0, std::memory_order_release);
  status_.store(0, std::memory_order_release);
}

}  // namespace haneul::devices::virtio
