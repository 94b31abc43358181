// SPDX-License-Identifier: Apache-2.0
#include "devices/pci/msix.h"

#include "base/checked.h"
#include "base/endian.h"

namespace haneul::devices::pci {
namespace {

// Table entry: message address, upper address, data, vector control (section 6.8.2.7 to 6.8.2.9).
constexpr uint64_t kEntryBytes = 16;
constexpr uint32_t kVectorMasked = 1;

bool is_whole(uint64_t offset, size_t length) {
  return (length == 4 || length == 8) && is_aligned(offset, length);
}

}  // namespace

Result<std::unique_ptr<Msix>> Msix::create(uint16_t vectors, MsiController& controller) {
  CHECK(vectors > 0 && vectors <= kMaxMsixVectors);
  std::unique_ptr<Msix> msix(new Msix());
  for (uint16_t i = 0; i < vectors; ++i) {
    auto entry = std::make_unique<Entry>();
    entry->vector = TRY(controller.allocate().context("MSI-X vector"));
    msix->entries_.push_back(std::move(entry));
  }
  return msix;
}

bool Msix::live(const Entry& entry) const {
  return enabled_.load(std::memory_order_acquire) && !function_masked_.load(std::memory_order_acquire) &&
         !entry.masked;
}

void Msix::fire(Entry& entry) {
  if (!entry.routed || entry.routed->address != entry.message.address ||
      entry.routed->data != entry.message.data) {
    if (Status status = entry.vector->route(entry.message); !status) {
      if (log_limit_.allow()) LOG_WARNING("MSI-X: {}", status.error().message());
      return;
    }
    entry.routed = entry.message;
  }
  entry.vector->trigger();
}

void Msix::settle(Entry& entry) {
  if (!entry.pending || !live(entry)) return;
  entry.pending = false;
  fire(entry);
}

void Msix::set_control(bool enabled, bool function_masked) {
  function_masked_.store(function_masked, std::memory_order_release);
  enabled_.store(enabled, std::memory_order_release);
  for (auto& entry : entries_) {
    std::lock_guard lock(entry->mutex);
    if (!enabled) entry->pending = false;
    settle(*entry);
  }
}

void Msix::trigger(uint16_t vector) {
  if (vector >= entries_.size()) return;
  Entry& entry = *entries_[vector];
  std::lock_guard lock(entry.mutex);
  if (live(entry)) {
    fire(entry);
  } else if (enabled()) {
    entry.pending = true;
  }
}

void Msix::clear_pending() {
  for (auto& entry : entries_) {
    std::lock_guard lock(entry->mutex);
    entry->pending = false;
  }
}

void Msix::table_read(uint64_t offset, std::span<std::byte> data) const {
  store_bytes(data, 0);
  if (!is_whole(offset, data.size()) || offset >= table_bytes()) return;
  const Entry& entry = *entries_[offset / kEntryBytes];
  std::byte bytes[kEntryBytes];
  {
    std::lock_guard lock(entry.mutex);
    store_le<uint64_t>(bytes, entry.message.address);
    store_le<uint32_t>(bytes + 8, entry.message.data);
    store_le<uint32_t>(bytes + 12, entry.masked ? kVectorMasked : 0);
  }
  std::memcpy(data.data(), bytes + offset % kEntryBytes, data.size());
}

void Msix::table_write(uint64_t offset, std::span<const std::byte> data) {
  if (!is_whole(offset, data.size()) || offset >= table_bytes()) return;
  Entry& entry = *entries_[offset / kEntryBytes];
  std::lock_guard lock(entry.mutex);
  std::byte bytes[kEntryBytes];
  store_le<uint64_t>(bytes, entry.message.address);
  store_le<uint32_t>(bytes + 8, entry.message.data);
  store_le<uint32_t>(bytes + 12, entry.masked ? kVectorMasked : 0);
  std::memcpy(bytes + offset % kEntryBytes, data.data(), data.size());
  // Messages are dwords: the low two bits of the address are zero (section 6.8.2.7).
  entry.message.address = load_le<uint64_t>(bytes) & ~uint64_t{3};
  entry.message.data = load_le<uint32_t>(bytes + 8);
  entry.masked = (load_le<uint32_t>(bytes + 12) & kVectorMasked) != 0;
  settle(entry);
}

void Msix::pending_read(uint64_t offset, std::span<std::byte> data) const {
  store_bytes(data, 0);
  if (!is_whole(offset, data.size()) || offset >= pending_bytes()) return;
  uint64_t bits = 0;
  for (size_t i = 0; i < data.size() * 8; ++i) {
    size_t vector = offset * 8 + i;
    if (vector >= entries_.size()) break;
    std::lock_guard lock(entries_[vector]->mutex);
    if (entries_[vector]->pending) bits |= uint64_t{1} << i;
  }
  store_bytes(data, bits);
}

}  // namespace haneul::devices::pci
