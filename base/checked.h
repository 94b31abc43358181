// SPDX-License-Identifier: Apache-2.0
// Arithmetic on numbers that a guest or a file supplied: it says when it overflows.
#pragma once

#include <bit>
#include <concepts>
#include <cstdint>
#include <limits>
#include <optional>

namespace haneul {

template <std::unsigned_integral T>
constexpr std::optional<T> checked_add(T a, T b) {
  T sum{};
  if (__builtin_add_overflow(a, b, &sum)) return std::nullopt;
  return sum;
}

template <std::unsigned_integral T>
constexpr std::optional<T> checked_mul(T a, T b) {
  T product{};
  if (__builtin_mul_overflow(a, b, &product)) return std::nullopt;
  return product;
}

/// Whether [start, start + length) lies inside [0, limit), with no wrap.
constexpr bool range_within(uint64_t start, uint64_t length, uint64_t limit) {
  return start <= limit && length <= limit - start;
}

/// value rounded up to a multiple of alignment (a power of two); nullopt if that does not fit.
constexpr std::optional<uint64_t> checked_align_up(uint64_t value, uint64_t alignment) {
  auto bumped = checked_add(value, alignment - 1);
  if (!bumped) return std::nullopt;
  return *bumped & ~(alignment - 1);
}

/// For values of our own that cannot overflow.
constexpr uint64_t align_up(uint64_t value, uint64_t alignment) {
  return (value + alignment - 1) & ~(alignment - 1);
}
constexpr uint64_t align_down(uint64_t value, uint64_t alignment) {
  return value & ~(alignment - 1);
}
constexpr bool is_aligned(uint64_t value, uint64_t alignment) {
  return (value & (alignment - 1)) == 0;
}

/// A narrowing whose loss is a bug of the caller's; use only after the value was bounded.
template <std::integral To, std::integral From>
constexpr To narrow(From value) {
  return static_cast<To>(value);
}

constexpr uint64_t operator""_KiB(unsigned long long n) {
  return n << 10;
}
constexpr uint64_t operator""_MiB(unsigned long long n) {
  return n << 20;
}
constexpr uint64_t operator""_GiB(unsigned long long n) {
  return n << 30;
}
constexpr uint64_t operator""_TiB(unsigned long long n) {
  return n << 40;
}

}  // namespace haneul
