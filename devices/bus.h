// SPDX-License-Identifier: Apache-2.0
// Bus: which device answers at which address, for memory-mapped and for port I/O.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <shared_mutex>
#include <span>

#include "base/result.h"

namespace haneul::devices {

/// Registers at offsets from the place where the device sits on a bus. Accesses are 1 to 8 bytes, lie inside
/// the claimed range, and have any width and alignment a guest chooses. Called from vCPU threads, several at
/// once.
class BusDevice {
 public:
  virtual ~BusDevice() = default;
  virtual void read(uint64_t offset, std::span<std::byte> data) = 0;
  virtual void write(uint64_t offset, std::span<const std::byte> data) = 0;
};

/// Thread-safe. A device stays on the bus until remove() returns; after that no access to it is under way.
/// A device must not insert or remove from within its own read or write, except through deferred work.
class Bus {
 public:
  /// Claims [base, base + size); kExists if part of it is taken, kInvalidArgument if it is empty or wraps.
  Status insert(uint64_t base, uint64_t size, BusDevice& device);
  void remove(uint64_t base);

  /// Unclaimed addresses, and accesses that straddle a device's end, read as all ones and swallow writes.
  void read(uint64_t address, std::span<std::byte> data) const;
  void write(uint64_t address, std::span<const std::byte> data) const;

 private:
  struct Claim {
    uint64_t size;
    BusDevice* device;
  };
  const std::pair<const uint64_t, Claim>* find(uint64_t address, uint64_t length) const;

  mutable std::shared_mutex mutex_;
  std::map<uint64_t, Claim> claims_;
};

}  // namespace haneul::devices
