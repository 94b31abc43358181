// SPDX-License-Identifier: Apache-2.0
// The console's socket without a guest: what is sent when, and what a slow reader gets.
#include "vmm/console.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>

#include "base/socket.h"
#include "tests/support/files.h"

namespace haneul::vmm {
namespace {

class ConsoleTest : public ::testing::Test {
 protected:
  // Packets show where one message ends; the daemon's sockets are streams.
  void open(int type) {
    UniqueFd ring = open_file(folder_ / "ring", O_RDWR | O_CREAT).value();
    console_ = Console::create(loop_, ring, listen_unix(folder_ / "console", type).value()).value();
  }
  UniqueFd connect(int type) {
    UniqueFd socket = connect_unix(folder_ / "console", type).value();
    turn();
    return socket;
  }
  void write(std::string_view text) {
    for (const char& byte : text) console_->output(std::as_bytes(std::span(&byte, 1)));
  }
  void turn() { ASSERT_TRUE(loop_.run_once(0).ok()); }
  /// What one recv() gives: a packet, or all that has come on a stream.
  static std::string receive(const UniqueFd& socket) {
    std::string text(1 << 20, '\0');
    ssize_t got = ::recv(socket.get(), text.data(), text.size(), MSG_DONTWAIT);
    text.resize(got > 0 ? static_cast<size_t>(got) : 0);
    return text;
  }
  /// A text in which every place is different.
  static std::string numbers(size_t size) {
    std::string text;
    while (text.size() < size) text += fmt::format("{} ", text.size());
    return text.substr(0, size);
  }

  testing::TempFolder folder_;
  EventLoop loop_ = EventLoop::create().value();
  std::unique_ptr<Console> console_;
};

TEST_F(ConsoleTest, WhatGatheredIsOneMessage) {
  open(SOCK_SEQPACKET);
  UniqueFd reader = connect(SOCK_SEQPACKET);
  std::string text = numbers(10'000);
  write(text);
  EXPECT_EQ(receive(reader), "") << "nothing is sent on the guest's time";
  turn();
  EXPECT_EQ(receive(reader), text);
  EXPECT_EQ(receive(reader), "");
  write("more");
  turn();
  EXPECT_EQ(receive(reader), "more");
  turn();
  EXPECT_EQ(receive(reader), "") << "nothing comes twice";
}

TEST_F(ConsoleTest, ANewReaderGetsWhatWasInOneMessage) {
  open(SOCK_SEQPACKET);
  write("before ");
  UniqueFd first = connect(SOCK_SEQPACKET);
  EXPECT_EQ(receive(first), "before ");
  write("between ");
  UniqueFd second = connect(SOCK_SEQPACKET);
  turn();
  EXPECT_EQ(receive(second), "before between ");
  EXPECT_EQ(receive(second), "");
  EXPECT_EQ(receive(first), "between ");
}

TEST_F(ConsoleTest, AReaderWithinTheRingLosesNothing) {
  open(SOCK_STREAM);
  UniqueFd reader = connect(SOCK_STREAM);
  std::string text = numbers(1 << 20);
  std::string got;
  for (size_t at = 0; at < text.size(); at += kConsoleRingBytes) {
    write(text.substr(at, kConsoleRingBytes));
    turn();
    got += receive(reader);
  }
  EXPECT_TRUE(got == text) << got.size();
}

TEST_F(ConsoleTest, ASlowReaderLosesTheOldestAndCatchesUp) {
  open(SOCK_STREAM);
  UniqueFd reader = connect(SOCK_STREAM);
  std::string text = numbers(2 << 20);
  for (size_t at = 0; at < text.size(); at += 10'000) {
    write(text.substr(at, 10'000));
    turn();
  }
  std::string got;
  for (std::string part = receive(reader); !part.empty(); part = receive(reader)) {
    got += part;
    turn();
  }
  ASSERT_GE(got.size(), kConsoleRingBytes);
  EXPECT_LT(got.size(), text.size());
  EXPECT_TRUE(got.ends_with(text.substr(text.size() - kConsoleRingBytes)));
  EXPECT_TRUE(text.starts_with(got.substr(0, got.size() - kConsoleRingBytes))) << "one gap, no more";
  write("and on");
  turn();
  EXPECT_EQ(receive(reader), "and on");
}

TEST_F(ConsoleTest, ASlowReaderCostsTheOthersNothing) {
  open(SOCK_STREAM);
  UniqueFd slow = connect(SOCK_STREAM);
  UniqueFd fast = connect(SOCK_STREAM);
  std::string text = numbers(1 << 20);
  std::string got;
  for (size_t at = 0; at < text.size(); at += 10'000) {
    write(text.substr(at, 10'000));
    turn();
    got += receive(fast);
  }
  EXPECT_TRUE(got == text) << got.size();
}

TEST_F(ConsoleTest, TheLastWordsAreSentAtTheEnd) {
  open(SOCK_STREAM);
  UniqueFd reader = connect(SOCK_STREAM);
  write("reboot: Power down\n");
  console_.reset();
  EXPECT_EQ(receive(reader), "reboot: Power down\n");
}

TEST_F(ConsoleTest, AReaderThatLeftIsForgotten) {
  open(SOCK_STREAM);
  { UniqueFd reader = connect(SOCK_STREAM); }
  write("into the void");
  turn();
  turn();
  UniqueFd reader = connect(SOCK_STREAM);
  EXPECT_EQ(receive(reader), "into the void");
}

}  // namespace
}  // namespace haneul::vmm
