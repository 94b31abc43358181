// SPDX-License-Identifier: Apache-2.0
// The daemon by itself: its start, its end, what it refuses to start on.
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "agent/tests/daemon_fixture.h"
#include "base/socket.h"

namespace haneul::agent {
namespace {

TEST_F(DaemonTest, ServesAndStopsOnSigterm) {
  pid_t pid = start_daemon();
  Ended status = haneul({"status", "--json"});
  EXPECT_EQ(status.status, 0) << status.err;
  auto json = parse_json(status.out);
  ASSERT_TRUE(json.ok()) << status.out;
  EXPECT_EQ((*json)["pid"], pid);
  EXPECT_EQ((*json)["network"], "none");
  ::kill(pid, SIGTERM);
  EXPECT_EQ(end_of(pid), 0);
  EXPECT_FALSE(std::filesystem::exists(socket_));
  EXPECT_THAT(read_file(folder_ / "daemon.err").value(), HasSubstr("stopping; instances run on"));
}

TEST_F(DaemonTest, KillMinusNineLosesNothing) {
  pid_t pid = start_daemon();
  ASSERT_EQ(haneul({"key", "create", "mine"}).status, 0);
  ASSERT_EQ(haneul({"image", "register", make_image().string()}).status, 0);
  ::kill(pid, SIGKILL);
  EXPECT_EQ(end_of(pid), 137);
  start_daemon();
  EXPECT_THAT(haneul({"key", "ls"}).out, HasSubstr("mine"));
  EXPECT_THAT(haneul({"image", "ls"}).out, HasSubstr("tiny"));
}

TEST_F(DaemonTest, SecondDaemonOnTheStateFolderIsRefused) {
  start_daemon();
  auto words = daemon_words();
  words[4] = (folder_ / "other.sock").string();
  Ended second = run(words);
  EXPECT_EQ(second.status, 4);
  EXPECT_THAT(second.err, HasSubstr("another haneuld has the state folder " + (folder_ / "state").string()));
  EXPECT_FALSE(std::filesystem::exists(folder_ / "other.sock"));
}

TEST_F(DaemonTest, ServedSocketIsRefusedAndADeadOneReplaced) {
  start_daemon();
  auto words = daemon_words();
  words[2] = (folder_ / "other").string();
  Ended second = run(words);
  EXPECT_EQ(second.status, 4);
  EXPECT_THAT(second.err, HasSubstr(socket_.string() + " is already served by a live process"));
  EXPECT_EQ(haneul({"status"}).status, 0);
  ::kill(daemons_[0], SIGKILL);
  end_of(daemons_[0]);
  EXPECT_TRUE(std::filesystem::exists(socket_));
  Ended dead = haneul({"status"});
  EXPECT_EQ(dead.status, 4);
  EXPECT_THAT(dead.err, HasSubstr("no haneuld serves " + socket_.string()));
  start_daemon();
}

TEST_F(DaemonTest, AFileInPlaceOfTheSocketIsLeftAlone) {
  std::ofstream(socket_) << "precious";
  Ended ended = run(daemon_words());
  EXPECT_EQ(ended.status, 4);
  EXPECT_THAT(ended.err, HasSubstr("exists and is not a socket"));
  EXPECT_EQ(read_file(socket_).value(), "precious");
}

TEST_F(DaemonTest, CorruptStateIsRefusedAndUntouched) {
  std::filesystem::create_directories(folder_ / "state");
  std::ofstream(folder_ / "state" / "state.db") << "this is no database, but it may be somebody's";
  std::string before = read_file(folder_ / "state" / "state.db").value();
  Ended ended = run(daemon_words());
  EXPECT_EQ(ended.status, 5);
  EXPECT_THAT(ended.err, HasSubstr("state.db"));
  EXPECT_EQ(read_file(folder_ / "state" / "state.db").value(), before);
  EXPECT_FALSE(std::filesystem::exists(socket_));
}

TEST_F(DaemonTest, InstancesWithoutADatabaseAreNotAnEmptyCloud) {
  std::filesystem::create_directories(folder_ / "state" / "instances" / "i-0123456789abcdef0");
  Ended ended = run(daemon_words());
  EXPECT_EQ(ended.status, 5);
  EXPECT_THAT(ended.err, HasSubstr("has instances but no state.db"));
}

TEST_F(DaemonTest, UsageErrorsAndHelp) {
  EXPECT_EQ(run({"haneuld", "--colour", "red"}).status, 2);
  EXPECT_EQ(run({"haneuld", "--network", "wireless"}).status, 2);
  EXPECT_EQ(run({"haneuld", "--help"}).status, 0);
  EXPECT_THAT(run({"haneuld", "--version"}).out, StartsWith("haneuld "));
  EXPECT_EQ(haneul({}).status, 2);
  EXPECT_EQ(haneul({"fly"}).status, 2);
  EXPECT_EQ(haneul({"run"}).status, 2);
}

TEST_F(DaemonTest, InstanceThatCannotStartEndsWithItsReason) {
  start_daemon();
  ASSERT_EQ(haneul({"image", "register", make_image().string()}).status, 0);
  Ended launched = haneul({"run", "tiny", "--name", "web", "--wait", "--timeout", "20"});
  EXPECT_EQ(launched.status, 1) << launched.out;
  EXPECT_THAT(launched.err, HasSubstr("is terminated: Server.InternalError: "));
  EXPECT_THAT(haneul({"ls"}).err, HasSubstr("no instances"));
  EXPECT_THAT(haneul({"ls", "--all"}).out, HasSubstr("web"));
}

TEST_F(DaemonTest, TellsTheServiceManagerThatItIsReady) {
  std::filesystem::path notify = folder_ / "notify";
  UniqueFd receiver(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  notify.string().copy(address.sun_path, sizeof address.sun_path - 1);
  ASSERT_EQ(::bind(receiver.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  timeval limit{20, 0};
  ::setsockopt(receiver.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  ::setenv("NOTIFY_SOCKET", notify.c_str(), 1);
  start_daemon();
  ::unsetenv("NOTIFY_SOCKET");
  char text[64] = {};
  EXPECT_EQ(::recv(receiver.get(), text, sizeof text, 0), 7);
  EXPECT_STREQ(text, "READY=1");
}

}  // namespace
}  // namespace haneul::agent
