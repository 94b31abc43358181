// SPDX-License-Identifier: Apache-2.0
// The wire format of virtio-net (VIRTIO 1.2, section 5.1), and what a transmitted frame's header may say.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>

#include "base/endian.h"

namespace haneul::devices::virtio::net {

// Section 5.1.3.
inline constexpr uint64_t kFeatureChecksum = 1ull << 0;
inline constexpr uint64_t kFeatureGuestChecksum = 1ull << 1;
inline constexpr uint64_t kFeatureMtu = 1ull << 3;
inline constexpr uint64_t kFeatureMac = 1ull << 5;
inline constexpr uint64_t kFeatureGuestTso4 = 1ull << 7;
inline constexpr uint64_t kFeatureGuestTso6 = 1ull << 8;
inline constexpr uint64_t kFeatureGuestEcn = 1ull << 9;
inline constexpr uint64_t kFeatureHostTso4 = 1ull << 11;
inline constexpr uint64_t kFeatureHostTso6 = 1ull << 12;
inline constexpr uint64_t kFeatureHostEcn = 1ull << 13;
inline constexpr uint64_t kFeatureMergeableBuffers = 1ull << 15;
inline constexpr uint64_t kFeatureStatus = 1ull << 16;

// Section 5.1.4.
struct Config {
  std::array<uint8_t, 6> mac{};
  le16 status;
  le16 max_virtqueue_pairs;
  le16 mtu;
};
static_assert(sizeof(Config) == 12);
inline constexpr uint16_t kStatusLinkUp = 1;

// Section 5.1.6.
struct Header {
  uint8_t flags = 0;
  uint8_t gso_type = 0;
  le16 hdr_len;
  le16 gso_size;
  le16 csum_start;
  le16 csum_offset;
  le16 num_buffers;
};
static_assert(sizeof(Header) == 12 && offsetof(Header, num_buffers) == 10);

inline constexpr uint8_t kNeedsChecksum = 1;
inline constexpr uint8_t kDataValid = 2;
inline constexpr uint8_t kGsoNone = 0;
inline constexpr uint8_t kGsoTcp4 = 1;
inline constexpr uint8_t kGsoUdp = 3;
inline constexpr uint8_t kGsoTcp6 = 4;
inline constexpr uint8_t kGsoEcn = 0x80;

inline constexpr uint32_t kEthernetBytes = 14;

/// Section 5.1.3.1: which features need which.
bool consistent(uint64_t features);

/// The header to give to the tap for a frame of `frame_bytes` that came with `header`; nullopt if the driver
/// asks for what was not negotiated, or for work outside the frame (section 5.1.6.2).
std::optional<Header> checked_for_transmit(const Header& header, uint32_t frame_bytes, uint64_t features);

/// The header for the guest of a frame that came from the tap with `header`; nullopt if the guest did not agree to
/// do what is left to do on it (section 5.1.6.4): the tap still holds what it queued for an earlier driver.
std::optional<Header> checked_for_receive(const Header& header, uint64_t features);

/// TUNSETOFFLOAD's argument: what the host may leave to the guest.
unsigned tap_offloads(uint64_t features);

}  // namespace haneul::devices::virtio::net
