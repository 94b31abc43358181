// SPDX-License-Identifier: Apache-2.0
// virtio-net on a real tap, in a network namespace of the test's own: the host's kernel is the peer.
#include <arpa/inet.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstring>

#include "base/endian.h"
#include "base/file.h"
#include "devices/testing/driver.h"
#include "devices/virtio/net.h"
#include "devices/virtio/net_header.h"

namespace haneul::devices::virtio {
namespace {

using namespace std::chrono_literals;
using net::Header;
using testing::Driver;
using testing::GuestRam;
using Bytes = std::vector<std::byte>;

constexpr std::array<uint8_t, 6> kGuestMac{0x02, 0, 0, 0, 0, 0x07};
constexpr uint32_t kHostAddress = 0x0a000001;   // 10.0.0.1
constexpr uint32_t kGuestAddress = 0x0a000002;  // 10.0.0.2
constexpr uint16_t kPort = 7777;

// A namespace with nothing in it, made once. Only root, or a kernel with user namespaces, can.
bool enter_namespace() {
  static bool entered = ::unshare(CLONE_NEWNET) == 0 || ::unshare(CLONE_NEWUSER | CLONE_NEWNET) == 0;
  return entered;
}

void put16(Bytes& bytes, size_t at, uint16_t value) {
  bytes[at] = static_cast<std::byte>(value >> 8);
  bytes[at + 1] = static_cast<std::byte>(value);
}
void put32(Bytes& bytes, size_t at, uint32_t value) {
  put16(bytes, at, static_cast<uint16_t>(value >> 16));
  put16(bytes, at + 2, static_cast<uint16_t>(value));
}
uint16_t sum16(std::span<const std::byte> data, uint32_t sum = 0) {
  for (size_t i = 0; i + 1 < data.size(); i += 2) {
    sum += static_cast<uint32_t>(std::to_integer<unsigned>(data[i]) << 8 |
                                 std::to_integer<unsigned>(data[i + 1]));
  }
  if (data.size() % 2 == 1) sum += std::to_integer<unsigned>(data.back()) << 8;
  while ((sum >> 16) != 0) sum = (sum & 0xffff) + (sum >> 16);
  return static_cast<uint16_t>(sum);
}

class NetTapTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!enter_namespace()) GTEST_SKIP() << "no network namespace can be made here";
    tap = open_file("/dev/net/tun", O_RDWR).value();
    ifreq request{};
    request.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
    std::strcpy(request.ifr_name, "hnltest0");
    ASSERT_EQ(::ioctl(tap.get(), TUNSETIFF, &request), 0) << strerror(errno);
    UniqueFd control(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    set_address(control, SIOCSIFADDR, kHostAddress);
    set_address(control, SIOCSIFNETMASK, 0xffffff00);
    set_flags(control, "hnltest0");
    set_neighbour(control);
  }

  static void set_address(const UniqueFd& control, unsigned long what, uint32_t address) {
    ifreq request{};
    std::strcpy(request.ifr_name, "hnltest0");
    sockaddr_in place{};
    place.sin_family = AF_INET;
    place.sin_addr.s_addr = htonl(address);
    std::memcpy(&request.ifr_addr, &place, sizeof place);
    ASSERT_EQ(::ioctl(control.get(), what, &request), 0) << strerror(errno);
  }
  static void set_flags(const UniqueFd& control, const char* name) {
    ifreq request{};
    std::strcpy(request.ifr_name, name);
    ASSERT_EQ(::ioctl(control.get(), SIOCGIFFLAGS, &request), 0);
    request.ifr_flags = static_cast<short>(request.ifr_flags | IFF_UP);
    ASSERT_EQ(::ioctl(control.get(), SIOCSIFFLAGS, &request), 0) << strerror(errno);
    ASSERT_EQ(::ioctl(control.get(), SIOCGIFHWADDR, &request), 0);
    std::memcpy(host_mac.data(), request.ifr_hwaddr.sa_data, 6);
  }
  // So that no ARP is needed.
  static void set_neighbour(const UniqueFd& control) {
    struct {
      sockaddr address;
      sockaddr hardware;
      int flags;
      sockaddr netmask;
      char device[16];
    } request{};
    sockaddr_in place{};
    place.sin_family = AF_INET;
    place.sin_addr.s_addr = htonl(kGuestAddress);
    std::memcpy(&request.address, &place, sizeof place);
    request.hardware.sa_family = 1;  // Ethernet
    std::memcpy(request.hardware.sa_data, kGuestMac.data(), 6);
    request.flags = 0x02 | 0x04;  // complete, permanent
    std::strcpy(request.device, "hnltest0");
    ASSERT_EQ(::ioctl(control.get(), SIOCSARP, &request), 0) << strerror(errno);
  }

  void start(uint64_t features = ~0ull) {
    auto device = make_net({.mac = kGuestMac, .mtu = 1500}, std::move(tap)).value();
    net_device = device.get();
    driver = std::make_unique<Driver>(ram, std::move(device), Driver::Options{.features = features});
  }

  // An Ethernet frame with a UDP datagram from the guest to the host. With `partial`, the checksum is left to
  // the host as virtio has it: only the pseudo header's sum is there.
  static Bytes datagram(std::string_view text, bool partial) {
    Bytes frame(14 + 20 + 8 + text.size());
    for (size_t i = 0; i < 6; ++i) {
      frame[i] = static_cast<std::byte>(host_mac[i]);
      frame[6 + i] = static_cast<std::byte>(kGuestMac[i]);
    }
    put16(frame, 12, 0x0800);
    frame[14] = std::byte{0x45};
    put16(frame, 16, static_cast<uint16_t>(28 + text.size()));
    frame[22] = std::byte{64};
    frame[23] = std::byte{17};
    put32(frame, 26, kGuestAddress);
    put32(frame, 30, kHostAddress);
    put16(frame, 24, static_cast<uint16_t>(~sum16(std::span(frame).subspan(14, 20))));
    put16(frame, 34, kPort);
    put16(frame, 36, kPort);
    auto length = static_cast<uint16_t>(8 + text.size());
    put16(frame, 38, length);
    std::memcpy(&frame[42], text.data(), text.size());
    uint16_t pseudo = sum16(std::span(frame).subspan(26, 8), 17u + length);
    if (partial) {
      put16(frame, 40, pseudo);
    } else {
      put16(frame, 40, static_cast<uint16_t>(~sum16(std::span(frame).subspan(34), pseudo)));
    }
    return frame;
  }
  void transmit(const Header& header, const Bytes& frame) {
    driver->queue(1).chain().readable_object(header).readable(frame).submit();
    driver->kick(1);
    ASSERT_TRUE(driver->wait_used(1));
  }
  static UniqueFd listen() {
    UniqueFd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    sockaddr_in place{};
    place.sin_family = AF_INET;
    place.sin_port = htons(kPort);
    EXPECT_EQ(::bind(socket.get(), reinterpret_cast<sockaddr*>(&place), sizeof place), 0);
    return socket;
  }
  static std::string receive(const UniqueFd& socket) {
    pollfd ready{.fd = socket.get(), .events = POLLIN, .revents = 0};
    if (::poll(&ready, 1, 10'000) != 1) return "(nothing came)";
    std::string text(70'000, '\0');
    ssize_t got = ::recv(socket.get(), text.data(), text.size(), 0);
    text.resize(got > 0 ? static_cast<size_t>(got) : 0);
    return text;
  }
  // The next frame from the host that is a UDP datagram for our port; others (IPv6 chatter) are passed over.
  Bytes next_datagram(Header& header) {
    for (int i = 0; i < 50; ++i) {
      driver->queue(0).chain().writable(4096).submit();
      driver->kick(0);
      Bytes frame;
      size_t parts = 0;
      do {
        auto used = driver->wait_used(0);
        if (!used) return {};
        // Buffers are allocated in order and used in order.
        auto piece = ram.read(GuestAddress{next_buffer(used->head)}, used->written);
        if (parts == 0) {
          std::memcpy(&header, piece.data(), sizeof header);
          parts = header.num_buffers;
          piece.erase(piece.begin(), piece.begin() + sizeof header);
        }
        frame.insert(frame.end(), piece.begin(), piece.end());
      } while (--parts > 0);
      if (frame.size() > 42 && frame[23] == std::byte{17} && frame[12] == std::byte{0x08}) return frame;
    }
    return {};
  }
  uint64_t next_buffer(uint16_t head) {
    // The descriptor still says where the buffer is.
    return driver->ram()
        .memory()
        .read_object<le64>(GuestAddress{driver->queue(0).layout().descriptors.value + head * 16u})
        ->value();
  }

  static inline std::array<uint8_t, 6> host_mac{};
  GuestRam ram{32_MiB};
  UniqueFd tap;
  Net* net_device = nullptr;
  std::unique_ptr<Driver> driver;
};

TEST_F(NetTapTest, FramesReachTheHost) {
  start();
  auto socket = listen();
  transmit({}, datagram("hello", false));
  EXPECT_EQ(receive(socket), "hello");
  EXPECT_EQ(net_device->statistics().transmitted, 1u);
}

TEST_F(NetTapTest, TheHostCompletesChecksums) {
  start();
  auto socket = listen();
  Header header;
  header.flags = net::kNeedsChecksum;
  header.csum_start = 34;
  header.csum_offset = 6;
  transmit(header, datagram("checked by the host", true));
  EXPECT_EQ(receive(socket), "checked by the host");
}

TEST_F(NetTapTest, FramesReachTheGuest) {
  start();
  UniqueFd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  sockaddr_in place{};
  place.sin_family = AF_INET;
  place.sin_port = htons(kPort);
  place.sin_addr.s_addr = htonl(kGuestAddress);
  std::string text(1400, 'g');
  ASSERT_EQ(
      ::sendto(socket.get(), text.data(), text.size(), 0, reinterpret_cast<sockaddr*>(&place), sizeof place),
      static_cast<ssize_t>(text.size()));
  Header header;
  Bytes frame = next_datagram(header);
  ASSERT_EQ(frame.size(), 42 + text.size());
  EXPECT_EQ(std::memcmp(&frame[42], text.data(), text.size()), 0);
  // The host left the checksum to the guest, which said it can.
  EXPECT_EQ(header.flags, net::kNeedsChecksum);
  EXPECT_EQ(header.csum_start, 34);
}

TEST_F(NetTapTest, AGuestWithoutChecksumOffloadGetsWholeChecksums) {
  constexpr uint64_t kOffloads =
      net::kFeatureGuestChecksum | net::kFeatureGuestTso4 | net::kFeatureGuestTso6 | net::kFeatureGuestEcn;
  start(~kOffloads);
  UniqueFd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  sockaddr_in place{};
  place.sin_family = AF_INET;
  place.sin_port = htons(kPort);
  place.sin_addr.s_addr = htonl(kGuestAddress);
  ASSERT_EQ(::sendto(socket.get(), "four", 4, 0, reinterpret_cast<sockaddr*>(&place), sizeof place), 4);
  Header header;
  Bytes frame = next_datagram(header);
  ASSERT_EQ(frame.size(), 46u);
  EXPECT_EQ(header.flags & net::kNeedsChecksum, 0);
  uint16_t pseudo = sum16(std::span(frame).subspan(26, 8), 17u + 12u);
  EXPECT_EQ(sum16(std::span(frame).subspan(34), pseudo), 0xffff);
}

TEST_F(NetTapTest, AFloodFromTheHostLosesFramesAndNothingElse) {
  start();
  UniqueFd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  sockaddr_in place{};
  place.sin_family = AF_INET;
  place.sin_port = htons(kPort);
  place.sin_addr.s_addr = htonl(kGuestAddress);
  std::string text(1000, 'f');
  for (int i = 0; i < 20'000; ++i) {
    ::sendto(socket.get(), text.data(), text.size(), MSG_DONTWAIT, reinterpret_cast<sockaddr*>(&place),
             sizeof place);
  }
  auto listener = listen();
  transmit({}, datagram("still here", false));
  EXPECT_EQ(receive(listener), "still here");
  Header header;
  for (int i = 0; i < 100; ++i) EXPECT_EQ(next_datagram(header).size(), 1042u);
}

}  // namespace
}  // namespace haneul::devices::virtio
