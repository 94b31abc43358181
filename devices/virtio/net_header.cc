// SPDX-License-Identifier: Apache-2.0
#include "devices/virtio/net_header.h"

#include <linux/if_tun.h>

namespace haneul::devices::virtio::net {

bool consistent(uint64_t features) {
  auto has = [&](uint64_t any_of) { return (features & any_of) != 0; };
  constexpr uint64_t kGuestTso = kFeatureGuestTso4 | kFeatureGuestTso6;
  constexpr uint64_t kHostTso = kFeatureHostTso4 | kFeatureHostTso6;
  if (has(kGuestTso) && !has(kFeatureGuestChecksum)) return false;
  if (has(kHostTso) && !has(kFeatureChecksum)) return false;
  if (has(kFeatureGuestEcn) && !has(kGuestTso)) return false;
  return !has(kFeatureHostEcn) || has(kHostTso);
}

std::optional<Header> checked_for_transmit(const Header& header, uint32_t frame_bytes, uint64_t features) {
  Header out;
  if ((header.flags & ~kNeedsChecksum) != 0) return std::nullopt;
  if ((header.flags & kNeedsChecksum) != 0) {
    if ((features & kFeatureChecksum) == 0) return std::nullopt;
    // The checksum's two bytes lie behind the Ethernet header and inside the frame.
    uint32_t at = uint32_t{header.csum_start} + header.csum_offset;
    if (header.csum_start < kEthernetBytes || at + 2 > frame_bytes) return std::nullopt;
    out.flags = kNeedsChecksum;
    out.csum_start = header.csum_start;
    out.csum_offset = header.csum_offset;
  }
  if (header.gso_type == kGsoNone) return out;

  uint64_t needed = 0;
  switch (header.gso_type & ~kGsoEcn) {
    case kGsoTcp4:
      needed = kFeatureHostTso4;
      break;
    case kGsoTcp6:
      needed = kFeatureHostTso6;
      break;
    default:
      return std::nullopt;
  }
  if ((header.gso_type & kGsoEcn) != 0) needed |= kFeatureHostEcn;
  if ((features & needed) != needed) return std::nullopt;
  if (out.flags != kNeedsChecksum || header.gso_size == 0) return std::nullopt;
  if (header.hdr_len > frame_bytes) return std::nullopt;
  out.gso_type = header.gso_type;
  out.gso_size = header.gso_size;
  out.hdr_len = header.hdr_len;
  return out;
}

std::optional<Header> checked_for_receive(const Header& header, uint64_t features) {
  Header out = header;
  uint64_t needed = 0;
  if ((header.flags & kNeedsChecksum) != 0) needed |= kFeatureGuestChecksum;
  if ((features & kFeatureGuestChecksum) == 0) out.flags &= static_cast<uint8_t>(~kDataValid);
  switch (header.gso_type & ~kGsoEcn) {
    case kGsoNone:
      break;
    case kGsoTcp4:
      needed |= kFeatureGuestTso4;
      break;
    case kGsoTcp6:
      needed |= kFeatureGuestTso6;
      break;
    default:
      return std::nullopt;
  }
  if ((header.gso_type & kGsoEcn) != 0) needed |= kFeatureGuestEcn;
  if ((features & needed) != needed) return std::nullopt;
  return out;
}

unsigned tap_offloads(uint64_t features) {
  unsigned offloads = 0;
  if ((features & kFeatureGuestChecksum) == 0) return offloads;
  offloads |= TUN_F_CSUM;
  if ((features & kFeatureGuestTso4) != 0) offloads |= TUN_F_TSO4;
  if ((features & kFeatureGuestTso6) != 0) offloads |= TUN_F_TSO6;
  if ((features & kFeatureGuestEcn) != 0 && offloads != TUN_F_CSUM) offloads |= TUN_F_TSO_ECN;
  return offloads;
}

}  // namespace haneul::devices::virtio::net
