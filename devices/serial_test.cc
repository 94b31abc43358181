// SPDX-License-Identifier: Apache-2.0
#include "devices/serial.h"

#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

namespace haneul::devices {
namespace {

class CountingInterrupt final : public Interrupt {
 public:
  void trigger() override { ++count; }
  int count = 0;
};

class SerialTest : public ::testing::Test {
 protected:
  uint8_t in(uint64_t offset) {
    std::byte value{};
    serial.read(offset, std::span(&value, 1));
    return std::to_integer<uint8_t>(value);
  }
  void out(uint64_t offset, uint8_t value) {
    auto byte = static_cast<std::byte>(value);
    serial.write(offset, std::span(&byte, 1));
  }
  size_t type(std::string_view text) { return serial.feed(std::as_bytes(std::span(text))); }

  CountingInterrupt interrupt;
  std::string printed;
  Serial serial{interrupt, [this](std::span<const std::byte> data) {
                  printed.append(reinterpret_cast<const char*>(data.data()), data.size());
                }};
};

TEST_F(SerialTest, PrintsAtOnceAndIsAlwaysReadyForMore) {
  for (char c : std::string("hello\n")) {
    EXPECT_EQ(in(5) & 0x60, 0x60);
    out(0, static_cast<uint8_t>(c));
  }
  EXPECT_EQ(printed, "hello\n");
}

TEST_F(SerialTest, LooksLikeA16550AToAProbe) {
  out(1, 0x0f);
  EXPECT_EQ(in(1), 0x0f);
  out(1, 0);
  EXPECT_EQ(in(1), 0);
  out(7, 0x5a);
  EXPECT_EQ(in(7), 0x5a);
  out(2, 0x01);
  EXPECT_EQ(in(2) & 0xc0, 0xc0);
  out(2, 0x00);
  EXPECT_EQ(in(2) & 0xc0, 0x00);
  // The loopback test of Linux's 8250 driver: RTS and OUT2 come back as CTS and DCD.
  out(4, 0x10 | 0x0a);
  EXPECT_EQ(in(6) & 0xf0, 0x90);
  out(4, 0);
  EXPECT_EQ(in(6) & 0xf0, 0xb0);
  EXPECT_TRUE(printed.empty());
}

TEST_F(SerialTest, TheDivisorLatchHidesDataAndEnable) {
  out(1, 0x05);
  out(3, 0x83);
  out(0, 0x34);
  out(1, 0x12);
  EXPECT_EQ(in(0), 0x34);
  EXPECT_EQ(in(1), 0x12);
  out(3, 0x03);
  EXPECT_EQ(in(1), 0x05);
  EXPECT_TRUE(printed.empty());
}

TEST_F(SerialTest, OneInterruptForEachEmptyTransmitter) {
  out(1, 0x02);
  EXPECT_EQ(interrupt.count, 1);
  EXPECT_EQ(in(2) & 0x0f, 0x02);
  EXPECT_EQ(in(2) & 0x0f, 0x01) << "reading the identity served it";
  out(0, 'a');
  EXPECT_EQ(interrupt.count, 2);
  out(0, 'b');
  EXPECT_EQ(interrupt.count, 2) << "the first has not been served";
  EXPECT_EQ(in(2) & 0x0f, 0x02);
  out(0, 'c');
  EXPECT_EQ(interrupt.count, 3);
}

TEST_F(SerialTest, ReceivesInOrderWithInterrupts) {
  out(2, 0x01);
  out(1, 0x01);
  EXPECT_EQ(type("root\n"), 5u);
  EXPECT_EQ(interrupt.count, 1);
  EXPECT_EQ(in(2), 0xc4);
  std::string got;
  while ((in(5) & 1) != 0) got.push_back(static_cast<char>(in(0)));
  EXPECT_EQ(got, "root\n");
  EXPECT_EQ(in(2), 0xc1);
  type("x");
  EXPECT_EQ(interrupt.count, 2);
}

TEST_F(SerialTest, InputIsBoundedAndSaysWhenThereIsRoom) {
  int told = 0;
  serial.set_on_space([&] { ++told; });
  out(2, 0x01);
  std::string flood(100'000, 'z');
  EXPECT_EQ(type(flood), Serial::kInputBytes);
  EXPECT_EQ(type(flood), 16u) << "what went to the FIFO made room";
  EXPECT_EQ(type(flood), 0u);
  EXPECT_EQ(serial.free_space(), 0u);
  for (int i = 0; i < 2000; ++i) in(0);
  EXPECT_EQ(told, 0);
  for (int i = 0; i < 100; ++i) in(0);
  EXPECT_EQ(told, 1) << "once, at half empty";
  EXPECT_GE(serial.free_space(), Serial::kInputBytes / 2);
}

TEST_F(SerialTest, AFloodInLoopbackOverrunsAndStaysBounded) {
  out(2, 0x01);
  out(4, 0x10);
  out(1, 0x04);
  for (int i = 0; i < 1'000'000; ++i) out(0, static_cast<uint8_t>(i));
  EXPECT_TRUE(printed.empty());
  EXPECT_EQ(in(2) & 0x0f, 0x06);
  EXPECT_EQ(in(5) & 0x03, 0x03);
  EXPECT_EQ(in(5) & 0x02, 0x00) << "reading clears the overrun";
  for (int i = 0; i < 16; ++i) EXPECT_EQ(in(0), i) << "the newest are lost";
  EXPECT_EQ(in(5) & 1, 0);
}

TEST_F(SerialTest, ClearingTheFifoForgetsWhatWasTyped) {
  out(2, 0x01);
  type("abc");
  out(2, 0x03);
  EXPECT_EQ(in(5) & 1, 0);
}

TEST_F(SerialTest, WideAndOddAccessesAreSafe) {
  std::vector<std::byte> eight(8, std::byte{0xa5});
  serial.read(5, eight);
  EXPECT_EQ(eight[0], std::byte{0x60});
  EXPECT_EQ(eight[3], std::byte{0xff});
  EXPECT_EQ(eight[7], std::byte{0xff});
  serial.write(7, std::vector<std::byte>(8, std::byte{0x77}));
  EXPECT_EQ(in(7), 0x77);
  EXPECT_TRUE(printed.empty());
}

TEST_F(SerialTest, AnyAccessesAtAll) {
  std::mt19937 random(1);
  for (int i = 0; i < 300'000; ++i) {
    std::vector<std::byte> data(1 + random() % 8);
    for (auto& byte : data) byte = static_cast<std::byte>(random());
    uint64_t offset = random() % 8;
    if (random() % 4 == 0) serial.feed(data);
    if (random() % 2 == 0) {
      serial.read(offset, data);
    } else {
      serial.write(offset, data);
    }
    ASSERT_LE(serial.free_space(), Serial::kInputBytes);
  }
}

}  // namespace
}  // namespace haneul::devices
