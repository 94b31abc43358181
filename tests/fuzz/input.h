// SPDX-License-Identifier: Apache-2.0
// Input: the bytes of one fuzzing run as a stream of choices. When they are used up, every choice is 0.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

namespace haneul::fuzz {

class Input {
 public:
  Input(const uint8_t* data, size_t size) : rest_(data, size) {}

  bool empty() const { return rest_.empty(); }

  template <std::unsigned_integral T>
  T take() {
    T value = 0;
    size_t count = rest_.size() < sizeof value ? rest_.size() : sizeof value;
    if (count != 0) std::memcpy(&value, rest_.data(), count);
    rest_ = rest_.subspan(count);
    return value;
  }
  /// 0 to limit - 1, from one or two bytes.
  uint32_t below(uint32_t limit) { return (limit <= 256 ? take<uint8_t>() : take<uint16_t>()) % limit; }

 private:
  std::span<const uint8_t> rest_;
};

}  // namespace haneul::fuzz
