// SPDX-License-Identifier: Apache-2.0
#include "devices/virtio/net.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>

#include <cstring>
#include <random>

#include "base/socket.h"
#include "devices/testing/driver.h"
#include "devices/virtio/net_header.h"

namespace haneul::devices::virtio {
namespace {

using namespace std::chrono_literals;
using net::Header;
using testing::Driver;
using testing::GuestRam;
using testing::Request;
using Bytes = std::vector<std::byte>;

constexpr size_t kRx = 0;
constexpr size_t kTx = 1;
constexpr uint64_t kAll = ~0ull;

Bytes pattern(size_t size, unsigned seed = 1) {
  std::mt19937 random(seed);
  Bytes bytes(size);
  for (auto& byte : bytes) byte = static_cast<std::byte>(random());
  return bytes;
}

Bytes with_header(const Header& header, const Bytes& frame) {
  Bytes message(sizeof header + frame.size());
  std::memcpy(message.data(), &header, sizeof header);
  std::copy(frame.begin(), frame.end(), message.data() + sizeof header);
  return message;
}

// A driver, and in the tap's place a socket whose messages are header and frame.
class NetTest : public ::testing::Test {
 protected:
  void start(uint64_t features = kAll) {
    auto [device_end, our_end] = socket_pair(SOCK_SEQPACKET).value();
    int size = 1 << 20;
    ::setsockopt(our_end.get(), SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
    wire = std::move(our_end);
    auto device =
        make_net({.mac = {2, 0, 0, 0, 0, 1}, .mtu = 1500, .is_tap = false}, std::move(device_end)).value();
    net_device = device.get();
    driver = std::make_unique<Driver>(ram, std::move(device), Driver::Options{.features = features});
  }
  void expect_broken(const std::string& reason) {
    ASSERT_TRUE(driver->host().wait_for_needs_reset());
    EXPECT_THAT(driver->host().reasons(), ::testing::ElementsAre(::testing::HasSubstr(reason)));
  }

  // Transmit.
  Request transmit(const Header& header, const Bytes& frame) {
    auto request = driver->queue(kTx).chain().readable_object(header).readable(frame).submit();
    driver->kick(kTx);
    auto used = driver->wait_used(kTx);
    EXPECT_TRUE(used.has_value() && used->head == request.head && used->written == 0);
    return request;
  }
  bool wire_is_quiet() {
    pollfd ready{.fd = wire.get(), .events = POLLIN, .revents = 0};
    return ::poll(&ready, 1, 50) == 0;
  }
  Bytes from_wire() {
    Bytes message(128 << 10);
    pollfd ready{.fd = wire.get(), .events = POLLIN, .revents = 0};
    if (::poll(&ready, 1, 10'000) != 1) return {};
    ssize_t got = ::recv(wire.get(), message.data(), message.size(), 0);
    message.resize(got > 0 ? static_cast<size_t>(got) : 0);
    return message;
  }
  void expect_dropped(const Header& header, const Bytes& frame) {
    uint64_t before = net_device->statistics().transmit_drops;
    transmit(header, frame);
    EXPECT_EQ(net_device->statistics().transmit_drops, before + 1);
    EXPECT_TRUE(wire_is_quiet());
    EXPECT_TRUE(driver->host().reasons().empty());
  }

  // Receive.
  void to_wire(const Bytes& frame, const Header& header = {}) {
    auto message = with_header(header, frame);
    ASSERT_EQ(::send(wire.get(), message.data(), message.size(), 0), static_cast<ssize_t>(message.size()));
  }
  Request offer(uint32_t length) { return driver->queue(kRx).chain().writable(length).submit(); }

  GuestRam ram{64_MiB};
  UniqueFd wire;
  Net* net_device = nullptr;
  std::unique_ptr<Driver> driver;
};

TEST_F(NetTest, Transmits) {
  start();
  Bytes frame = pattern(1514);
  transmit({}, frame);
  EXPECT_EQ(from_wire(), with_header({}, frame));
  EXPECT_EQ(net_device->statistics().transmitted, 1u);
  EXPECT_EQ(net_device->statistics().transmitted_bytes, 1514u);
}

TEST_F(NetTest, TransmitsFromBuffersCutAnywhere) {
  start();
  std::mt19937 random(1);
  for (int round = 0; round < 100; ++round) {
    uint64_t mark = ram.mark();
    Bytes frame = pattern(14 + random() % 3000, static_cast<unsigned>(round));
    Bytes message = with_header({}, frame);
    auto chain = driver->queue(kTx).chain();
    if (round % 2 == 0) chain.indirect();
    for (size_t at = 0; at < message.size();) {
      size_t piece = std::min(message.size() - at, 1 + random() % (at < 24 ? 7 : 900));
      chain.readable(std::span(message).subspan(at, piece));
      at += piece;
    }
    chain.submit();
    driver->kick(kTx);
    ASSERT_EQ(from_wire(), message);
    ASSERT_TRUE(driver->wait_used(kTx));
    ram.rewind(mark);
  }
}

TEST_F(NetTest, OffloadsPassTheHeaderThrough) {
  start();
  Bytes frame = pattern(40'000);
  Header header;
  header.flags = net::kNeedsChecksum;
  header.gso_type = net::kGsoTcp4;
  header.hdr_len = 54;
  header.gso_size = 1448;
  header.csum_start = 34;
  header.csum_offset = 16;
  transmit(header, frame);
  EXPECT_EQ(from_wire(), with_header(header, frame));
}

TEST_F(NetTest, HeadersAreHeldToWhatWasNegotiated) {
  Header checksum;
  checksum.flags = net::kNeedsChecksum;
  checksum.csum_start = 34;
  checksum.csum_offset = 16;
  Header tso = checksum;
  tso.gso_type = net::kGsoTcp4;
  tso.gso_size = 1448;
  tso.hdr_len = 54;
  Bytes frame = pattern(2000);

  start(kAll &
        ~(net::kFeatureChecksum | net::kFeatureHostTso4 | net::kFeatureHostTso6 | net::kFeatureHostEcn));
  expect_dropped(checksum, frame);
  expect_dropped(tso, frame);

  start(kAll & ~(net::kFeatureHostTso6 | net::kFeatureHostEcn));
  Header bad = tso;
  bad.gso_type = net::kGsoTcp6;
  expect_dropped(bad, frame);
  bad.gso_type = net::kGsoTcp4 | net::kGsoEcn;
  expect_dropped(bad, frame);
  transmit(tso, frame);
  EXPECT_EQ(from_wire(), with_header(tso, frame));
}

TEST_F(NetTest, HeadersThatPointOutsideTheFrameAreDropped) {
  start();
  Bytes frame = pattern(100);
  Header good;
  good.flags = net::kNeedsChecksum;
  good.csum_start = 34;
  good.csum_offset = 64;
  transmit(good, frame);
  EXPECT_EQ(from_wire(), with_header(good, frame)) << "the checksum is the frame's last two bytes";

  Header bad = good;
  bad.csum_offset = 65;
  expect_dropped(bad, frame);
  bad.csum_offset = 0xffff;
  bad.csum_start = 0xffff;
  expect_dropped(bad, frame);
  bad.csum_start = 13;
  bad.csum_offset = 0;
  expect_dropped(bad, frame);

  Header tso = good;
  tso.gso_type = net::kGsoTcp4;
  tso.gso_size = 1000;
  tso.hdr_len = 101;
  expect_dropped(tso, frame);
  tso.hdr_len = 54;
  tso.gso_size = 0;
  expect_dropped(tso, frame);
  tso.gso_size = 1000;
  tso.flags = 0;
  expect_dropped(tso, frame);
  for (int type : {2, 3, 5, 6, 0x7f, 0x80, 0xff}) {
    tso = good;
    tso.gso_size = 1000;
    tso.gso_type = static_cast<uint8_t>(type);
    expect_dropped(tso, frame);
  }
  for (int flags : {2, 3, 4, 0x80, 0xff}) {
    bad = good;
    bad.flags = static_cast<uint8_t>(flags);
    expect_dropped(bad, frame);
  }
}

TEST_F(NetTest, WhatIsNotAskedForIsNotPassedOn) {
  start();
  Header noise;
  noise.hdr_len = 0x1234;
  noise.gso_size = 7;
  noise.csum_start = 0xffff;
  noise.csum_offset = 0xffff;
  noise.num_buffers = 0xffff;
  Bytes frame = pattern(60);
  transmit(noise, frame);
  EXPECT_EQ(from_wire(), with_header({}, frame));
}

TEST_F(NetTest, RuntAndGiantFramesAreDropped) {
  start();
  expect_dropped({}, pattern(13));
  expect_dropped({}, pattern(kMaxFrameBytes + 1));
  transmit({}, pattern(kMaxFrameBytes));
  EXPECT_EQ(from_wire().size(), sizeof(Header) + kMaxFrameBytes);
  driver->queue(kTx).chain().readable_object(Header{}).submit();
  driver->kick(kTx);
  EXPECT_TRUE(driver->wait_used(kTx));
  EXPECT_EQ(net_device->statistics().transmit_drops, 3u);
}

TEST_F(NetTest, AFrameWithoutAHeaderBreaksTheQueue) {
  start();
  driver->queue(kTx).chain().readable(pattern(11)).submit();
  driver->kick(kTx);
  expect_broken("a transmitted frame without a header");
}

TEST_F(NetTest, ReceivesIntoMergeableBuffers) {
  start();
  Bytes frame = pattern(9000);
  std::vector<Request> buffers;
  for (int i = 0; i < 8; ++i) buffers.push_back(offer(1526));
  driver->kick(kRx);
  Header header;
  header.flags = net::kNeedsChecksum;
  header.csum_start = 34;
  header.csum_offset = 16;
  to_wire(frame, header);
  Bytes got;
  for (int i = 0; i < 6; ++i) {
    auto used = driver->wait_used(kRx);
    ASSERT_TRUE(used);
    EXPECT_EQ(used->head, buffers[static_cast<size_t>(i)].head);
    auto piece = ram.read(buffers[static_cast<size_t>(i)].buffers[0].address, 1526);
    got.insert(got.end(), piece.begin(), piece.begin() + used->written);
    // Not a byte more than the frame.
    EXPECT_THAT(std::span(piece).subspan(used->written), ::testing::Each(std::byte{0xa5}));
  }
  header.num_buffers = 6;
  EXPECT_EQ(got, with_header(header, frame));
  to_wire(pattern(60));
  auto used = driver->wait_used(kRx);
  ASSERT_TRUE(used);
  EXPECT_EQ(used->written, 72u);
}

TEST_F(NetTest, ReceivesIntoOneBufferWithoutMerging) {
  start(kAll & ~net::kFeatureMergeableBuffers);
  auto small = offer(1526);
  driver->kick(kRx);
  to_wire(pattern(1600, 1));
  Bytes frame = pattern(1514, 2);
  to_wire(frame);
  auto used = driver->wait_used(kRx);
  ASSERT_TRUE(used);
  EXPECT_EQ(used->written, 1526u);
  Header header;
  header.num_buffers = 1;
  EXPECT_EQ(ram.read(small.buffers[0].address, 1526), with_header(header, frame))
      << "the larger one was dropped";
  EXPECT_EQ(net_device->statistics().receive_drops, 1u);
}

TEST_F(NetTest, FramesForAnEarlierDriverDoNotReachTheNext) {
  start();
  Header large;
  large.flags = net::kNeedsChecksum;
  large.gso_type = net::kGsoTcp4;
  large.gso_size = 1448;
  driver->set_features(0);
  driver->reset();
  // What the tap had queued by then.
  to_wire(pattern(3000), large);
  ASSERT_TRUE(driver->activate().ok());
  to_wire(pattern(60));
  offer(4096);
  driver->kick(kRx);
  auto used = driver->wait_used(kRx);
  ASSERT_TRUE(used.has_value());
  EXPECT_EQ(used->written, sizeof(Header) + 60);
  EXPECT_EQ(net_device->statistics().receive_drops, 1u);
}

TEST_F(NetTest, ReceivedHeadersAreHeldToWhatWasNegotiated) {
  using namespace net;
  struct Case {
    uint8_t flags;
    uint8_t gso;
    uint64_t needs;
  };
  const Case cases[] = {{0, kGsoNone, 0},
                        {kNeedsChecksum, kGsoNone, kFeatureGuestChecksum},
                        {kNeedsChecksum, kGsoTcp4, kFeatureGuestChecksum | kFeatureGuestTso4},
                        {kNeedsChecksum, kGsoTcp6, kFeatureGuestChecksum | kFeatureGuestTso6},
                        {0, kGsoTcp4, kFeatureGuestTso4},
                        {0, kGsoTcp4 | kGsoEcn, kFeatureGuestTso4 | kFeatureGuestEcn}};
  for (const Case& c : cases) {
    Header header;
    header.flags = c.flags;
    header.gso_type = c.gso;
    EXPECT_TRUE(checked_for_receive(header, c.needs));
    for (uint64_t bit = 1; bit <= c.needs; bit <<= 1) {
      if ((c.needs & bit) == 0) continue;
      EXPECT_FALSE(checked_for_receive(header, c.needs & ~bit));
    }
  }
  Header header;
  header.gso_type = kGsoUdp;
  EXPECT_FALSE(checked_for_receive(header, kAll)) << "never offered";
  header.gso_type = kGsoNone;
  header.flags = kDataValid;
  EXPECT_EQ(checked_for_receive(header, kFeatureGuestChecksum)->flags, kDataValid);
  EXPECT_EQ(checked_for_receive(header, 0)->flags, 0);
}

TEST_F(NetTest, AFrameWaitsUntilTheGuestHasOfferedEnough) {
  start();
  Bytes frame = pattern(4000);
  to_wire(frame);
  auto first = offer(1526);
  driver->kick(kRx);
  EXPECT_FALSE(driver->wait_used(kRx, 50ms));
  offer(1526);
  driver->kick(kRx);
  EXPECT_FALSE(driver->wait_used(kRx, 50ms));
  offer(1526);
  driver->kick(kRx);
  for (int i = 0; i < 3; ++i) {
    auto used = driver->wait_used(kRx);
    ASSERT_TRUE(used);
    if (i == 0) {
      EXPECT_EQ(used->head, first.head);
    }
  }
}

uint64_t thread_cpu_ns() {
  timespec now{};
  ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(now.tv_nsec);
}

TEST_F(NetTest, AFullReceiveRingUnderFloodDoesNotSpin) {
  start();
  // More than the device holds; the rest stays in the socket.
  for (int i = 0; i < 100; ++i) to_wire(pattern(60, static_cast<unsigned>(i)));
  std::this_thread::sleep_for(50ms);
  uint64_t before = thread_cpu_ns();
  std::this_thread::sleep_for(300ms);
  EXPECT_LT(thread_cpu_ns() - before, 100'000'000u);
  for (int round = 0; round < 10; ++round) {
    for (int i = 0; i < 10; ++i) offer(128);
    driver->kick_if_wanted(kRx);
    for (int i = 0; i < 10; ++i) ASSERT_TRUE(driver->wait_used(kRx)) << round << " " << i;
  }
  EXPECT_EQ(net_device->statistics().received, 100u);
}

TEST_F(NetTest, BuffersThatCanNeverHoldAFrameCostOnlyTheFrame) {
  start();
  uint16_t size = driver->queue(kRx).size();
  for (int i = 0; i < size; ++i) offer(12);
  driver->kick(kRx);
  to_wire(pattern(60'000));
  Bytes frame = pattern(60);
  to_wire(frame);
  Bytes got;
  for (int i = 0; i < 6; ++i) {
    auto used = driver->wait_used(kRx);
    ASSERT_TRUE(used);
    EXPECT_EQ(used->written, 12u);
  }
  EXPECT_EQ(net_device->statistics().receive_drops, 1u);
  EXPECT_EQ(net_device->statistics().received, 1u);
}

TEST_F(NetTest, ReceiveBuffersWithoutRoomForAHeaderBreakTheQueue) {
  start();
  offer(11);
  driver->kick(kRx);
  to_wire(pattern(60));
  expect_broken("a receive buffer smaller than a header");
}

TEST_F(NetTest, AReadableReceiveBufferBreaksTheQueue) {
  start();
  driver->queue(kRx).chain().readable(pattern(2000)).submit();
  driver->kick(kRx);
  to_wire(pattern(60));
  expect_broken("a receive buffer smaller than a header");
}

TEST_F(NetTest, ResetWithFramesUnderWay) {
  start();
  for (int round = 0; round < 50; ++round) {
    for (int i = 0; i < 20; ++i) {
      driver->queue(kTx).chain().readable_object(Header{}).readable(pattern(1000)).submit();
      offer(1526);
      to_wire(pattern(100));
    }
    driver->kick(kTx);
    driver->kick(kRx);
    driver->reset();
    Bytes drain(4096);
    while (::recv(wire.get(), drain.data(), drain.size(), MSG_DONTWAIT) > 0) {
    }
    ram.rewind(1_MiB);
    driver->reset();
    ASSERT_TRUE(driver->activate().ok());
  }
}

TEST_F(NetTest, ATransmitThatTheTapDoesNotTakeIsBoundedAndEndsWithAReset) {
  start();
  // Nobody reads the wire: its buffer fills, then frames wait, at most as many as the queue holds.
  uint64_t mark = ram.mark();
  for (int i = 0; i < 120; ++i) {
    driver->queue(kTx).chain().readable_object(Header{}).readable(pattern(60'000)).submit();
  }
  driver->kick(kTx);
  while (driver->wait_used(kTx, 100ms)) {
  }
  uint64_t before = thread_cpu_ns();
  std::this_thread::sleep_for(200ms);
  EXPECT_LT(thread_cpu_ns() - before, 100'000'000u);
  EXPECT_LT(net_device->statistics().transmitted, 120u);
  driver->device().reset();
  ram.rewind(mark);
}

TEST_F(NetTest, PauseHoldsStillAndLosesNoReceivedFrame) {
  start();
  ASSERT_TRUE(driver->device().pause().ok());
  to_wire(pattern(60));
  offer(1526);
  driver->kick(kRx);
  EXPECT_FALSE(driver->wait_used(kRx, 50ms));
  ASSERT_TRUE(driver->device().resume().ok());
  EXPECT_TRUE(driver->wait_used(kRx));
}

TEST_F(NetTest, AWireThatIsClosedIsQuiet) {
  start();
  wire.reset();
  std::this_thread::sleep_for(50ms);
  uint64_t before = thread_cpu_ns();
  std::this_thread::sleep_for(200ms);
  EXPECT_LT(thread_cpu_ns() - before, 100'000'000u);
  uint64_t drops = net_device->statistics().transmit_drops;
  transmit({}, pattern(60));
  EXPECT_EQ(net_device->statistics().transmit_drops, drops + 1);
}

TEST_F(NetTest, ConfigurationAndFeatureDependencies) {
  start();
  auto config = driver->config(0, sizeof(net::Config));
  EXPECT_EQ(config[0], std::byte{2});
  EXPECT_EQ(load_le<uint16_t>(&config[6]), net::kStatusLinkUp);
  EXPECT_EQ(load_le<uint16_t>(&config[10]), 1500);
  auto accepts = [&](uint64_t features) { return driver->device().accepts(features); };
  EXPECT_TRUE(accepts(0));
  EXPECT_TRUE(accepts(driver->device().features()));
  EXPECT_FALSE(accepts(net::kFeatureGuestTso4));
  EXPECT_FALSE(accepts(net::kFeatureHostTso6));
  EXPECT_FALSE(accepts(net::kFeatureChecksum | net::kFeatureHostEcn));
  EXPECT_FALSE(accepts(net::kFeatureGuestChecksum | net::kFeatureGuestEcn));
  EXPECT_TRUE(accepts(net::kFeatureChecksum | net::kFeatureHostTso4 | net::kFeatureHostEcn));
}

// The guest rewrites the header while the device reads it: the tap sees only headers that passed the check.
TEST_F(NetTest, HeadersChangedWhileTheyAreReadAreHarmless) {
#ifdef __SANITIZE_THREAD__
  GTEST_SKIP() << "the race is the guest's, and meant";
#endif
  start(kAll & ~(net::kFeatureHostTso4 | net::kFeatureHostTso6 | net::kFeatureHostEcn));
  auto place = ram.allocate(sizeof(Header));
  std::atomic<bool> done{false};
  std::thread vandal([&] {
    std::mt19937 random(1);
    while (!done) {
      std::array<std::byte, sizeof(Header)> noise;
      for (auto& byte : noise) byte = static_cast<std::byte>(random() % 4 == 0 ? random() : 0);
      ram.memory().write(place, noise);
    }
  });
  for (int i = 0; i < 3000; ++i) {
    uint64_t mark = ram.mark();
    driver->queue(kTx).chain().readable_at(place, sizeof(Header)).readable(pattern(60)).submit();
    driver->kick(kTx);
    ASSERT_TRUE(driver->wait_used(kTx));
    ram.rewind(mark);
    Bytes message(4096);
    ssize_t got = ::recv(wire.get(), message.data(), message.size(), MSG_DONTWAIT);
    if (got <= 0) continue;
    Header seen;
    std::memcpy(&seen, message.data(), sizeof seen);
    ASSERT_EQ(seen.gso_type, 0);
    ASSERT_TRUE(seen.flags == 0 || (seen.flags == 1 && seen.csum_start + seen.csum_offset + 2 <= 60));
  }
  done = true;
  vandal.join();
}

TEST(NetOptions, AreChecked) {
  auto [one, two] = socket_pair(SOCK_SEQPACKET).value();
  EXPECT_EQ(
      make_net({.mac = {1, 0, 0, 0, 0, 0}, .mtu = 1500, .is_tap = false}, std::move(one)).error().message(),
      "a network device's MAC address cannot be a multicast one");
  EXPECT_EQ(
      make_net({.mac = {2, 0, 0, 0, 0, 0}, .mtu = 67, .is_tap = false}, std::move(two)).error().message(),
      "an MTU of 67 is under the least, 68");
}

}  // namespace
}  // namespace haneul::devices::virtio
