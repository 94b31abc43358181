// SPDX-License-Identifier: Apache-2.0
#include "base/console_ring.h"

#include <gtest/gtest.h>

#include "base/file.h"

namespace haneul {
namespace {

std::span<const std::byte> bytes(const std::string& text) {
  return std::as_bytes(std::span(text));
}

TEST(ConsoleRing, KeepsTheLastBytesAndGoesOnAfterReopening) {
  UniqueFd file = make_memfd("ring").value();
  std::string all;
  {
    ConsoleRing ring = ConsoleRing::open(file).value();
    for (int i = 0; i < 20000; ++i) {
      std::string line = fmt::format("line {}\n", i);
      all += line;
      ring.append(bytes(line));
    }
  }
  ConsoleRing ring = ConsoleRing::open(file).value();
  ring.append(bytes("the end"));
  all += "the end";
  EXPECT_EQ(ring.contents(), all.substr(all.size() - kConsoleRingBytes));
  EXPECT_EQ(read_console_ring(file.get()).value(), ring.contents());
}

TEST(ConsoleRing, TellsWhatCameSinceAPosition) {
  UniqueFd file = make_memfd("ring").value();
  ConsoleRing ring = ConsoleRing::open(file).value();
  EXPECT_EQ(ring.since(0), "");
  ring.append(bytes("one two"));
  EXPECT_EQ(ring.total(), 7u);
  EXPECT_EQ(ring.since(0), "one two");
  EXPECT_EQ(ring.since(4), "two");
  EXPECT_EQ(ring.since(7), "");
  EXPECT_EQ(ring.since(~0ull), "") << "a position that is not there yet";
  std::string all = "one two";
  while (all.size() < 3 * kConsoleRingBytes) all += fmt::format("{} ", all.size());
  ring.append(bytes(all.substr(7)));
  EXPECT_EQ(ring.since(all.size() - 10), all.substr(all.size() - 10));
  EXPECT_EQ(ring.since(7), all.substr(all.size() - kConsoleRingBytes)) << "the oldest is gone";
}

TEST(ConsoleRing, OneHugeWriteKeepsItsEnd) {
  UniqueFd file = make_memfd("ring").value();
  ConsoleRing ring = ConsoleRing::open(file).value();
  std::string huge(3 * kConsoleRingBytes + 17, 'x');
  huge.back() = 'y';
  ring.append(bytes(huge));
  EXPECT_EQ(ring.contents(), huge.substr(huge.size() - kConsoleRingBytes));
}

TEST(ConsoleRing, TheReaderRefusesAFileThatIsNotARing) {
  UniqueFd file = make_memfd("ring").value();
  EXPECT_EQ(read_console_ring(file.get()).value(), "");
  ASSERT_TRUE(write_all_at(file.get(), 0, bytes("short")).ok());
  EXPECT_EQ(read_console_ring(file.get()).error().code(), ErrorCode::kCorrupt);
}

TEST(ConsoleRing, AForgedCountStaysInBounds) {
  UniqueFd file = make_memfd("ring").value();
  { ConsoleRing ring = ConsoleRing::open(file).value(); }
  std::string forged(8, '\xff');
  ASSERT_TRUE(write_all_at(file.get(), 16, bytes(forged)).ok());
  EXPECT_EQ(read_console_ring(file.get()).value().size(), kConsoleRingBytes);
}

}  // namespace
}  // namespace haneul
