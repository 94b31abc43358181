// SPDX-License-Identifier: Apache-2.0
// CRC-32C (Castagnoli), as iSCSI and ext4 use it: reflected polynomial 0x82f63b78, start and end inverted.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace haneul::storage {

uint32_t crc32c(std::span<const std::byte> data);

}  // namespace haneul::storage
