// SPDX-License-Identifier: Apache-2.0
// GuestMemory: the guest's RAM as the devices see it.
//
// The guest writes to this memory while we look at it. So nothing here gives out a reference that could be
// read twice: values are copied out once and the copy is checked. The one exception is slice(), which gives
// the host's address of a buffer for bulk data (disk and network payload) that the kernel or a memcpy moves
// and nobody interprets.
//
// Thread-safe: the regions never change after construction.
#pragma once

#include <atomic>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <type_traits>
#include <vector>

namespace haneul::devices {

/// A guest-physical address (gpa).
struct GuestAddress {
  uint64_t value = 0;
  constexpr auto operator<=>(const GuestAddress&) const = default;
};

class GuestMemory {
 public:
  /// One stretch of RAM, mapped at `host` for as long as the GuestMemory lives.
  struct Region {
    GuestAddress start;
    uint64_t size = 0;
    std::byte* host = nullptr;
  };

  /// Regions in ascending order, not overlapping, at most 16.
  explicit GuestMemory(std::vector<Region> regions);

  std::span<const Region> regions() const { return regions_; }
  uint64_t total_bytes() const;

  /// The host's view of [address, address + length), or nullopt unless it lies in one region whole.
  std::optional<std::span<std::byte>> slice(GuestAddress address, uint64_t length) const;

  /// Copies; false (and nothing promised about out) unless the whole range is RAM. May cross adjacent
  /// regions.
  bool read(GuestAddress address, std::span<std::byte> out) const;
  bool write(GuestAddress address, std::span<const std::byte> data) const;

  /// One copy of a plain structure.
  template <typename T>
  requires std::is_trivially_copyable_v<T> std::optional<T> read_object(GuestAddress address)
  const {
    T object;
    if (!read(address, std::as_writable_bytes(std::span(&object, 1)))) return std::nullopt;
    return object;
  }
  template <typename T>
  requires std::is_trivially_copyable_v<T>
  bool write_object(GuestAddress address, const T& object) const {
    return write(address, std::as_bytes(std::span(&object, 1)));
  }

  /// A single aligned atomic access of 2, 4 or 8 bytes (ring indices); nullopt or false if unaligned or not
  /// RAM.
  template <typename T>
  std::optional<T> load(GuestAddress address, std::memory_order order) const {
    T* place = atom<T>(address);
    if (place == nullptr) return std::nullopt;
    return std::atomic_ref<T>(*place).load(order);
  }
  template <typename T>
  bool store(GuestAddress address, T value, std::memory_order order) const {
    T* place = atom<T>(address);
    if (place == nullptr) return false;
    std::atomic_ref<T>(*place).store(value, order);
    return true;
  }

 private:
  template <typename T>
  T* atom(GuestAddress address) const {
    if (address.value % sizeof(T) != 0) return nullptr;
    auto bytes = slice(address, sizeof(T));
    return bytes ? reinterpret_cast<T*>(bytes->data()) : nullptr;
  }
  std::vector<Region> regions_;
};

}  // namespace haneul::devices
