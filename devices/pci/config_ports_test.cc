// SPDX-License-Identifier: Apache-2.0
#include "devices/pci/config_ports.h"

#include <gtest/gtest.h>

#include <random>
#include <vector>

#include "devices/testing/pci_machine.h"
#include "devices/virtio/rng.h"

namespace haneul::devices::pci {
namespace {

using testing::PciMachine;

struct ResetControl : BusDevice {
  void read(uint64_t offset, std::span<std::byte> data) override {
    store_bytes(data, 0x42);
    accesses.emplace_back(offset, data.size());
  }
  void write(uint64_t offset, std::span<const std::byte> data) override {
    accesses.emplace_back(offset, data.size());
    written.push_back(load_bytes(data));
  }
  std::vector<std::pair<uint64_t, size_t>> accesses;
  std::vector<uint64_t> written;
};

struct ConfigPortsTest : ::testing::Test {
  ConfigPortsTest() {
    slot = machine.add(virtio::make_rng().value());
    EXPECT_TRUE(ports.insert(ConfigPorts::kPort, ConfigPorts::kPorts, device).ok());
  }
  template <std::unsigned_integral T>
  T in(uint64_t port) {
    std::byte bytes[sizeof(T)];
    ports.read(port, bytes);
    return load_le<T>(bytes);
  }
  template <std::unsigned_integral T>
  void out(uint64_t port, T value) {
    std::byte bytes[sizeof(T)];
    store_le<T>(bytes, value);
    ports.write(port, bytes);
  }
  static uint32_t address(unsigned slot, uint32_t offset, unsigned bus = 0, unsigned function = 0) {
    return 1u << 31 | bus << 16 | slot << 11 | function << 8 | offset;
  }

  PciMachine machine;
  ResetControl reset;
  Bus ports;
  ConfigPorts device{machine.root, reset};
  unsigned slot = 0;
};

TEST_F(ConfigPortsTest, AnswersAsLinuxAsksWhetherItIsThere) {
  out<uint8_t>(0xcfb, 0x01);
  uint32_t before = in<uint32_t>(0xcf8);
  out<uint32_t>(0xcf8, 0x80000000);
  EXPECT_EQ(in<uint32_t>(0xcf8), 0x80000000u);
  EXPECT_EQ(in<uint32_t>(0xcfc), 0x00081b36u) << "the host bridge";
  out<uint32_t>(0xcf8, before);
  EXPECT_EQ(in<uint32_t>(0xcf8), 0u) << "the byte at 0xcfb was not the address register";
}

TEST_F(ConfigPortsTest, ReadsAndWritesWhatEcamDoes) {
  out<uint32_t>(0xcf8, address(slot, 0));
  EXPECT_EQ(in<uint32_t>(0xcfc), 0x10441af4u);
  EXPECT_EQ(in<uint16_t>(0xcfe), 0x1044u);
  EXPECT_EQ(in<uint8_t>(0xcfd), 0x1au);
  EXPECT_EQ(in<uint16_t>(0xcfd), 0x441au) << "unaligned, inside the window";
  out<uint32_t>(0xcf8, address(slot, 0x3c));
  out<uint8_t>(0xcfc, 0x5a);
  EXPECT_EQ(machine.config<uint8_t>(slot, 0x3c), 0x5au);
}

TEST_F(ConfigPortsTest, AMovedBarAnswersWhereItIs) {
  out<uint32_t>(0xcf8, address(slot, 0x04));
  auto command = in<uint16_t>(0xcfc);
  ASSERT_NE(command & 2, 0);
  // The first BAR that there is.
  uint32_t bar = 0x10;
  while (machine.config<uint32_t>(slot, bar) == 0) bar += 4;
  ASSERT_LE(bar, 0x24u);
  uint64_t old_place = machine.config<uint64_t>(slot, bar) & ~0xfull;
  uint64_t new_place = old_place + 512_MiB;
  auto first = machine.mmio<uint32_t>(old_place);
  ASSERT_NE(first, 0xffffffffu);
  out<uint32_t>(0xcf8, address(slot, bar));
  out<uint32_t>(0xcfc, static_cast<uint32_t>(new_place));
  out<uint32_t>(0xcf8, address(slot, bar + 4));
  out<uint32_t>(0xcfc, static_cast<uint32_t>(new_place >> 32));
  EXPECT_EQ(machine.mmio<uint32_t>(new_place), first);
  EXPECT_EQ(machine.mmio<uint32_t>(old_place), 0xffffffffu);
}

TEST_F(ConfigPortsTest, NothingIsThereUntilEnabled) {
  EXPECT_EQ(in<uint32_t>(0xcfc), 0xffffffffu);
  out<uint32_t>(0xcf8, address(slot, 0x3c) & ~(1u << 31));
  EXPECT_EQ(in<uint32_t>(0xcfc), 0xffffffffu);
  out<uint8_t>(0xcfc, 0x5a);
  EXPECT_EQ(machine.config<uint8_t>(slot, 0x3c), 0u);
}

TEST_F(ConfigPortsTest, OtherBusesSlotsAndFunctionsReadAsOnes) {
  for (uint32_t nowhere : {address(slot, 0, 1), address(slot, 0, 255), address(slot, 0, 0, 1),
                           address(slot, 0, 0, 7), address(slot + 1, 0), address(31, 0)}) {
    out<uint32_t>(0xcf8, nowhere);
    EXPECT_EQ(in<uint32_t>(0xcfc), 0xffffffffu) << std::hex << nowhere;
    out<uint32_t>(0xcfc, 0);
  }
  EXPECT_EQ(machine.config<uint32_t>(slot, 0), 0x10441af4u);
}

TEST_F(ConfigPortsTest, ReservedBitsOfTheAddressAreZero) {
  out<uint32_t>(0xcf8, 0xffffffff);
  EXPECT_EQ(in<uint32_t>(0xcf8), 0x80fffffcu);
  EXPECT_EQ(in<uint32_t>(0xcfc), 0xffffffffu);
  out<uint32_t>(0xcf8, address(slot, 0) | 0x7f000003);
  EXPECT_EQ(in<uint32_t>(0xcfc), 0x10441af4u) << "no way past the first 256 bytes, nor out of the register";
}

TEST_F(ConfigPortsTest, OddAccessesReadOnesAndChangeNothing) {
  out<uint32_t>(0xcf8, address(slot, 0x3c));
  for (uint64_t port : {0xcf8ull, 0xcfaull, 0xcfbull}) {
    EXPECT_EQ(in<uint8_t>(port), 0xffu) << std::hex << port;
    out<uint8_t>(port, 0);
  }
  EXPECT_EQ(in<uint16_t>(0xcf8), 0xffffu);
  EXPECT_EQ(in<uint32_t>(0xcf9), 0xffffffffu);
  EXPECT_EQ(in<uint32_t>(0xcfa), 0xffffffffu) << "from the address into the window";
  EXPECT_EQ(in<uint64_t>(0xcf8), ~0ull);
  EXPECT_EQ(in<uint32_t>(0xcfd), 0xffffffffu) << "over the end of the window";
  EXPECT_EQ(in<uint64_t>(0xcfc), ~0ull);
  out<uint16_t>(0xcf8, 0);
  out<uint32_t>(0xcfa, 0x5a5a5a5a);
  out<uint32_t>(0xcfd, 0x5a5a5a5a);
  out<uint64_t>(0xcf8, 0x5a5a5a5a00000000);
  EXPECT_EQ(in<uint32_t>(0xcf8), address(slot, 0x3c));
  EXPECT_EQ(machine.config<uint8_t>(slot, 0x3c), 0u);
  EXPECT_TRUE(reset.accesses.empty());
}

TEST_F(ConfigPortsTest, OneByteAtTheResetControlIsTheChipsets) {
  EXPECT_EQ(in<uint8_t>(0xcf9), 0x42u);
  out<uint8_t>(0xcf9, 0x06);
  EXPECT_EQ(reset.written, std::vector<uint64_t>{0x06});
  EXPECT_EQ(reset.accesses, (std::vector<std::pair<uint64_t, size_t>>{{0, 1}, {0, 1}}));
}

// Whatever is done to the ports is what the same accesses to ECAM do, or nothing.
TEST_F(ConfigPortsTest, AnythingAnywhereIsBounded) {
  auto seed = std::random_device{}();
  SCOPED_TRACE(::testing::Message() << "seed " << seed);
  std::mt19937 random(seed);
  uint32_t current = 0;
  for (int i = 0; i < 200'000; ++i) {
    if (random() % 2 == 0) {
      // Mostly near something.
      current = random() % 4 == 0 ? static_cast<uint32_t>(random()) : address(random() % 4, random() % 256);
      out<uint32_t>(0xcf8, current);
      current &= 0x80fffffc;
      continue;
    }
    std::byte bytes[8] = {};
    size_t length = 1 + random() % 8;
    uint64_t offset = random() % 8;
    if (offset == 1 && length == 1) continue;
    std::span<std::byte> data(bytes, length);
    if (random() % 4 == 0) {
      for (std::byte& byte : data) byte = static_cast<std::byte>(random());
      if (offset != 0 || length != 4) ports.write(0xcf8 + offset, data);
      continue;
    }
    ports.read(0xcf8 + offset, data);
    std::byte expected[8];
    std::memset(expected, 0xff, sizeof expected);
    if (offset == 0 && length == 4) {
      store_le<uint32_t>(expected, current);
    } else if (offset >= 4 && offset + length <= 8 && (current >> 31) != 0 && (current >> 16 & 0xff) == 0) {
      machine.bus.read(
          PciMachine::kLayout.ecam_base + ((current >> 8 & 0xff) << 12) + (current & 0xfc) + (offset - 4),
          std::span(expected, length));
    }
    ASSERT_TRUE(std::equal(data.begin(), data.end(), expected))
        << std::hex << "address " << current << " offset " << offset << " length " << length;
  }
}

}  // namespace
}  // namespace haneul::devices::pci
