// SPDX-License-Identifier: Apache-2.0
#include "storage/crc32c.h"

#include <array>

#include "base/endian.h"

namespace haneul::storage {
namespace {

// tables[k][b]: the remainder of byte b followed by k zero bytes, so that eight bytes go at a time.
constexpr auto make_tables() {
  std::array<std::array<uint32_t, 256>, 8> tables{};
  for (uint32_t byte = 0; byte < 256; ++byte) {
    uint32_t crc = byte;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) != 0 ? 0x82f63b78u : 0u);
    tables[0][byte] = crc;
  }
  for (size_t k = 1; k < 8; ++k) {
    for (size_t byte = 0; byte < 256; ++byte) {
      uint32_t before = tables[k - 1][byte];
      tables[k][byte] = (before >> 8) ^ tables[0][before & 0xff];
    }
  }
  return tables;
}
constexpr auto kTables = make_tables();

}  // namespace

uint32_t crc32c(std::span<const std::byte> data) {
  uint32_t crc = ~0u;
  while (data.size() >= 8) {
    uint64_t word = load_le<uint64_t>(data.data()) ^ crc;
    crc = 0;
    for (size_t k = 0; k < 8; ++k) crc ^= kTables[7 - k][(word >> (8 * k)) & 0xff];
    data = data.subspan(8);
  }
  for (std::byte byte : data) {
    crc = (crc >> 8) ^ kTables[0][(crc ^ std::to_integer<uint32_t>(byte)) & 0xff];
  }
  return ~crc;
}

}  // namespace haneul::storage
