// SPDX-License-Identifier: Apache-2.0
#include "base/socket.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>

#include "base/file.h"

namespace haneul {
namespace {

class SocketTest : public ::testing::Test {
 protected:
  void SetUp() override {
    char folder[] = "/tmp/haneul-socket-XXXXXX";
    ASSERT_NE(::mkdtemp(folder), nullptr);
    folder_ = folder;
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  std::filesystem::path folder_;
};

TEST_F(SocketTest, PacketsCarryDescriptors) {
  auto [a, b] = socket_pair(SOCK_SEQPACKET).value();
  UniqueFd file = make_memfd("x").value();
  ASSERT_TRUE(write_all_at(file.get(), 0, std::as_bytes(std::span("hi", 2))).ok());
  int fds[] = {file.get()};
  ASSERT_TRUE(send_packet(a.get(), "attach", fds).ok());
  Packet packet = receive_packet(b.get()).value();
  EXPECT_EQ(packet.text, "attach");
  ASSERT_EQ(packet.fds.size(), 1u);
  EXPECT_EQ(file_size(packet.fds[0].get()).value(), 2u);
  a.reset();
  EXPECT_EQ(receive_packet(b.get()).error().code(), ErrorCode::kCancelled);
}

TEST_F(SocketTest, ALiveSocketIsRefusedAndADeadOneReplaced) {
  auto path = folder_ / "control";
  {
    UniqueFd first = listen_unix(path, SOCK_STREAM).value();
    auto second = listen_unix(path, SOCK_STREAM);
    ASSERT_FALSE(second.ok());
    EXPECT_EQ(second.error().message(), path.string() + " is already served by a live process");
  }
  EXPECT_TRUE(listen_unix(path, SOCK_STREAM).ok());
}

// A daemon that is killed between fork() and exec() leaves a child that has its socket open.
TEST_F(SocketTest, AListenerThatStaysIsDeadWhenItsProcessIs) {
  auto path = folder_ / "control";
  UniqueFd kept;
  {
    auto [end, its_end] = socket_pair(SOCK_SEQPACKET).value();
    pid_t pid = ::fork();
    if (pid == 0) {
      UniqueFd listener = listen_unix(path, SOCK_STREAM).value();
      int fds[] = {listener.get()};
      (void)send_packet(its_end.get(), "listening", fds).ok();
      ::pause();
    }
    kept = std::move(receive_packet(end.get()).value().fds[0]);
    EXPECT_EQ(listen_unix(path, SOCK_STREAM, 0600, Listener::kStays).error().code(), ErrorCode::kExists);
    ::kill(pid, SIGKILL);
    ASSERT_EQ(::waitpid(pid, nullptr, 0), pid);
  }
  EXPECT_EQ(listen_unix(path, SOCK_STREAM).error().code(), ErrorCode::kExists)
      << "it may have been passed on";
  EXPECT_TRUE(listen_unix(path, SOCK_STREAM, 0600, Listener::kStays).ok());
}

TEST_F(SocketTest, OnlyARefusedConnectionMeansDead) {
  auto path = folder_ / "datagrams";
  UniqueFd other(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path.string().copy(address.sun_path, sizeof address.sun_path - 1);
  ASSERT_EQ(::bind(other.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  auto refused = listen_unix(path, SOCK_STREAM);
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code(), ErrorCode::kExists);
  EXPECT_EQ(refused.error().message(), path.string() + " is a socket of another kind, of a live process");
  EXPECT_TRUE(std::filesystem::exists(path));
}

// A VMM that its guest took over keeps every connection in its queue and accepts none.
TEST_F(SocketTest, AListenerThatNeverAcceptsHoldsNobodyForEver) {
  auto path = folder_ / "control";
  UniqueFd listener = listen_unix(path, SOCK_STREAM).value();
  std::string refused;
  for (int i = 0; i < 200 && refused.empty(); ++i) {
    auto connected = connect_unix(path, SOCK_STREAM, std::chrono::milliseconds(50));
    if (!connected.ok()) {
      EXPECT_EQ(connected.error().code(), ErrorCode::kTimeout);
      refused = connected.error().message();
    }
  }
  EXPECT_EQ(refused, path.string() + " takes no connection within 50 ms");
  EXPECT_EQ(listen_unix(path, SOCK_STREAM).error().message(),
            path.string() + " is already served by a live process");
}

TEST_F(SocketTest, PathsLongerThanASocketAddressWork) {
  auto deep = folder_ / std::string(100, 'a') / std::string(100, 'b');
  std::filesystem::create_directories(deep);
  UniqueFd listener = listen_unix(deep / "control", SOCK_STREAM).value();
  EXPECT_TRUE(connect_unix(deep / "control", SOCK_STREAM).ok());
}

TEST_F(SocketTest, AFileThatIsNoSocketIsLeftAlone) {
  ASSERT_TRUE(replace_file(folder_ / "precious", "data").ok());
  auto listener = listen_unix(folder_ / "precious", SOCK_STREAM);
  ASSERT_FALSE(listener.ok());
  EXPECT_EQ(read_file(folder_ / "precious").value(), "data");
}

}  // namespace
}  // namespace haneul
