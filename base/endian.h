// SPDX-License-Identifier: Apache-2.0
// Integers with a stated byte order, for structures shared with guests and files.
#pragma once

#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

namespace haneul {

template <std::unsigned_integral T>
constexpr T byte_swapped(T value) {
  if constexpr (sizeof(T) == 1) return value;
  if constexpr (sizeof(T) == 2) return static_cast<T>(__builtin_bswap16(value));
  if constexpr (sizeof(T) == 4) return static_cast<T>(__builtin_bswap32(value));
  if constexpr (sizeof(T) == 8) return static_cast<T>(__builtin_bswap64(value));
}

template <std::unsigned_integral T, std::endian Order>
class Endian {
 public:
  constexpr Endian() = default;
  constexpr Endian(T value) : raw_(convert(value)) {}     // NOLINT(google-explicit-constructor)
  constexpr operator T() const { return convert(raw_); }  // NOLINT(google-explicit-constructor)
  constexpr T value() const { return convert(raw_); }

 private:
  static constexpr T convert(T value) { return std::endian::native == Order ? value : byte_swapped(value); }
  T raw_ = 0;
};

using le16 = Endian<uint16_t, std::endian::little>;
using le32 = Endian<uint32_t, std::endian::little>;
using le64 = Endian<uint64_t, std::endian::little>;
using be16 = Endian<uint16_t, std::endian::big>;
using be32 = Endian<uint32_t, std::endian::big>;
using be64 = Endian<uint64_t, std::endian::big>;
static_assert(sizeof(le16) == 2 && sizeof(le32) == 4 && sizeof(le64) == 8);

/// Loads from and stores to bytes at any alignment. The caller has checked the bounds.
template <std::endian kOrder, std::unsigned_integral T>
T load_as(const void* from) {
  T value;
  std::memcpy(&value, from, sizeof value);
  return std::endian::native == kOrder ? value : byte_swapped(value);
}
template <std::endian kOrder, std::unsigned_integral T>
void store_as(void* to, T value) {
  T raw = std::endian::native == kOrder ? value : byte_swapped(value);
  std::memcpy(to, &raw, sizeof raw);
}

template <std::unsigned_integral T>
T load_le(const void* from) {
  return load_as<std::endian::little, T>(from);
}
template <std::unsigned_integral T>
void store_le(void* to, T value) {
  store_as<std::endian::little>(to, value);
}
template <std::unsigned_integral T>
T load_be(const void* from) {
  return load_as<std::endian::big, T>(from);
}
template <std::unsigned_integral T>
void store_be(void* to, T value) {
  store_as<std::endian::big>(to, value);
}

/// The bytes of a register access (1, 2, 4 or 8 of them) as a number, and back.
inline uint64_t load_bytes(std::span<const std::byte> data) {
  uint64_t value = 0;
  std::memcpy(&value, data.data(), data.size() < 8 ? data.size() : 8);
  return value;
}
inline void store_bytes(std::span<std::byte> data, uint64_t value) {
  std::memset(data.data(), 0, data.size());
  std::memcpy(data.data(), &value, data.size() < 8 ? data.size() : 8);
}

}  // namespace haneul
