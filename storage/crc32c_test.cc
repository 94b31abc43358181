// SPDX-License-Identifier: Apache-2.0
#include "storage/crc32c.h"

#include <gtest/gtest.h>

#include <numeric>
#include <string_view>
#include <vector>

namespace haneul::storage {
namespace {

uint32_t of(std::string_view text) {
  return crc32c(std::as_bytes(std::span(text)));
}

// RFC 3720, appendix B.4, and the check value of the polynomial.
TEST(Crc32c, KnownValues) {
  EXPECT_EQ(of(""), 0u);
  EXPECT_EQ(of("123456789"), 0xe3069283u);
  std::vector<uint8_t> bytes(32, 0);
  EXPECT_EQ(crc32c(std::as_bytes(std::span(bytes))), 0x8a9136aau);
  bytes.assign(32, 0xff);
  EXPECT_EQ(crc32c(std::as_bytes(std::span(bytes))), 0x62a8ab43u);
  std::iota(bytes.begin(), bytes.end(), uint8_t{0});
  EXPECT_EQ(crc32c(std::as_bytes(std::span(bytes))), 0x46dd794eu);
}

}  // namespace
}  // namespace haneul::storage
