// SPDX-License-Identifier: Apache-2.0
// virtio-net over a tap (VIRTIO 1.2, section 5.1): one receive and one transmit queue, checksum and TSO
// offloads both ways, mergeable receive buffers.
//
// Transmit  the 12-byte header is copied once, checked against what was negotiated, and goes to the tap with the
//           frame's bytes straight from guest RAM. A bad frame is dropped and counted, and its buffer returned.
// Receive   frames are read into a few buffers of ours (in bursts, through the ring) and copied to the guest's,
//           exactly as many bytes as there are. When the guest offers no buffers, up to kReceiveBurst frames
//           wait here and the tap is not looked at until it does: a flood costs nothing.
// Thread    one I/O thread, one IoRing.
// System calls   make_net(): io_uring setup, fcntl. activate(): ioctl TUNSETOFFLOAD and TUNSETVNETHDRSZ on the
//           tap. The I/O thread: io_uring_enter, write (eventfd), and what the interrupts need.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>

#include "base/result.h"
#include "base/unique_fd.h"
#include "devices/virtio/device.h"

namespace haneul::devices::virtio {

inline constexpr uint16_t kNetQueueSize = 256;
/// Frames read from the tap at a time.
inline constexpr size_t kReceiveBurst = 8;
/// The largest frame: an IP packet of 65535 bytes behind an Ethernet header with a VLAN tag.
inline constexpr uint32_t kMaxFrameBytes = 65535 + 18;

struct NetOptions {
  std::array<uint8_t, 6> mac{};
  uint16_t mtu = 1500;
  /// False: the descriptor is a datagram socket on which each message is a header and a frame, and no ioctl
  /// is made.
  bool is_tap = true;
};

/// Thread-safe to read; each counts since the device was made.
struct NetStatistics {
  std::atomic<uint64_t> received{0};
  std::atomic<uint64_t> received_bytes{0};
  std::atomic<uint64_t> receive_drops{0};
  std::atomic<uint64_t> transmitted{0};
  std::atomic<uint64_t> transmitted_bytes{0};
  std::atomic<uint64_t> transmit_drops{0};
};

class Net : public Device {
 public:
  virtual const NetStatistics& statistics() const = 0;
};

/// The tap has IFF_VNET_HDR and IFF_NO_PI. kInvalidArgument for a multicast MAC or an MTU under 68;
/// IoRing::create()'s errors.
Result<std::unique_ptr<Net>> make_net(NetOptions options, UniqueFd tap);

}  // namespace haneul::devices::virtio
