// SPDX-License-Identifier: Apache-2.0
// pci::Msix: the vectors of one function: table, pending bits, masks. PCI Local Bus 3.0, section 6.8.2.
//
// A vector that is masked, by itself or by its function, is remembered in its pending bit and fires when the
// last mask goes. With MSI-X off a trigger is lost, as there is no other kind of interrupt here.
//
// Threads: everything may be called from any thread. A vector has its own lock, so queues on different
// vectors do not meet; trigger() calls the vector under it, and so cannot fire after the guest's mask has
// returned.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <vector>

#include "base/log.h"
#include "base/result.h"
#include "devices/interrupt.h"

namespace haneul::devices::pci {

inline constexpr uint16_t kMaxMsixVectors = 256;

class Msix {
 public:
  /// 1 to kMaxMsixVectors vectors from the controller, which outlives this.
  static Result<std::unique_ptr<Msix>> create(uint16_t vectors, MsiController& controller);

  uint16_t vectors() const { return static_cast<uint16_t>(entries_.size()); }
  uint32_t table_bytes() const { return vectors() * 16u; }
  uint32_t pending_bytes() const { return (vectors() + 63u) / 64u * 8u; }

  bool enabled() const { return enabled_.load(std::memory_order_acquire); }
  /// Message Control's MSI-X Enable and Function Mask.
  void set_control(bool enabled, bool function_masked);

  /// Fires the vector, or sets its pending bit. No such vector: nothing.
  void trigger(uint16_t vector);
  /// The function was reset: what waited is not sent any more.
  void clear_pending();

  /// Accesses of 4 or 8 bytes, naturally aligned, as the specification demands; others read as zero and are
  /// swallowed.
  void table_read(uint64_t offset, std::span<std::byte> data) const;
  void table_write(uint64_t offset, std::span<const std::byte> data);
  void pending_read(uint64_t offset, std::span<std::byte> data) const;

 private:
  struct Entry {
    mutable std::mutex mutex;
    std::unique_ptr<MsiVector> vector;
    MsiMessage message;
    std::optional<MsiMessage> routed;
    bool masked = true;
    bool pending = false;
  };
  Msix() = default;
  // These three with the entry's lock.
  bool live(const Entry& entry) const;
  // The vector is given the guest's message when it first fires with it: an interrupt that never comes costs
  // no route, and a half-written message is never used.
  void fire(Entry& entry);
  // Fires what waited, if nothing masks it any more.
  void settle(Entry& entry);

  std::vector<std::unique_ptr<Entry>> entries_;
  std::atomic<bool> enabled_{false};
  std::atomic<bool> function_masked_{false};
  LogLimiter log_limit_;
};

}  // namespace haneul::devices::pci
