// SPDX-License-Identifier: Apache-2.0
// pci::Device: one function on the bus: configuration space of type 0 with its capabilities, base address
// registers (BARs) and MSI-X. PCI Local Bus 3.0, chapter 6.
//
// What a guest may change is a mask beside the bytes: a write of any width at any offset is applied bit by
// bit where the mask allows, so BAR sizing (write ones, read the size) needs no code of its own.
//
// Threads: vCPU threads call config_* and bar_* at once; a derived class's bar_* and hooks do their own
// locking. No lock is held while a hook runs.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>

#include "base/result.h"
#include "devices/interrupt.h"
#include "devices/pci/msix.h"

namespace haneul::devices::pci {

inline constexpr uint32_t kConfigSize = 4096;
inline constexpr unsigned kBars = 6;

struct Identity {
  uint16_t vendor = 0;
  uint16_t device = 0;
  uint16_t subsystem_vendor = 0;
  uint16_t subsystem = 0;
  /// Base class, sub-class, interface: 0x020000 is an Ethernet controller.
  uint32_t class_code = 0;
  uint8_t revision = 0;
};

/// A BAR as the guest set it.
struct Bar {
  uint64_t size = 0;  // a power of two; 0: no such BAR
  bool is_64 = false;
  uint64_t address = 0;
  /// Memory decoding is on.
  bool decoding = false;
};

class Device {
 public:
  explicit Device(const Identity& identity);
  virtual ~Device() = default;
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  /// 1 to 8 bytes at any offset; what lies beyond the configuration space reads as ones.
  void config_read(uint32_t offset, std::span<std::byte> data);
  void config_write(uint32_t offset, std::span<const std::byte> data);

  std::array<Bar, kBars> bars() const;
  /// What firmware does: gives a BAR its first address and switches memory decoding on.
  void assign_bar(unsigned bar, uint64_t address);

  /// An access inside a BAR.
  virtual void bar_read(unsigned bar, uint64_t offset, std::span<std::byte> data) = 0;
  virtual void bar_write(unsigned bar, uint64_t offset, std::span<const std::byte> data) = 0;

  /// Told by the root after every change: where each BAR answers now, or nowhere. One call at a time.
  virtual void on_bars_placed(const std::array<std::optional<uint64_t>, kBars>& addresses) {
    (void)addresses;
  }
  /// Told by the root, once, when no access to it is under way and none comes any more: from here on the guest has no
  /// part in it, whenever its owner destroys it. Does not wait for what it has under way.
  virtual void on_removed() {}

 protected:
  /// For constructors of derived classes. A 64-bit BAR takes index + 1 as well.
  void add_memory_bar(unsigned index, uint64_t size, bool is_64);
  /// Appends a capability: its ID, the link and then `body`; `writable` is the mask of body's bits that the
  /// guest may change (empty: none). Returns its offset.
  uint8_t add_capability(uint8_t id, std::span<const std::byte> body,
                         std::span<const std::byte> writable = {});
  /// Appends the MSI-X capability over a table and pending bits that lie in `bar`. `msix` outlives the
  /// device.
  void add_msix(Msix& msix, unsigned bar, uint32_t table_offset, uint32_t pending_offset);

  /// Before a read of, and after a write to, [offset, offset + length) of the configuration space.
  virtual void before_config_read(uint32_t offset, uint32_t length) {
    (void)offset;
    (void)length;
  }
  virtual void after_config_write(uint32_t offset, uint32_t length) {
    (void)offset;
    (void)length;
  }

  /// Bytes of the configuration space, past the masks.
  void peek(uint32_t offset, std::span<std::byte> data) const;
  void poke(uint32_t offset, std::span<const std::byte> data);

 private:
  // Without extended capabilities, everything past the first 256 bytes is zero and read-only.
  static constexpr uint32_t kStored = 256;

  mutable std::mutex mutex_;
  std::array<std::byte, kStored> bytes_{};
  std::array<std::byte, kStored> writable_{};
  struct BarShape {
    uint64_t size = 0;
    bool is_64 = false;
  };
  std::array<BarShape, kBars> shapes_{};
  uint8_t next_capability_ = 0x40;
  uint8_t last_link_ = 0x34;
  Msix* msix_ = nullptr;
  uint8_t msix_capability_ = 0;
};

}  // namespace haneul::devices::pci
