// SPDX-License-Identifier: Apache-2.0
// `haneul` on a terminal: the interactive console, and Ctrl-C while it waits.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include <thread>

#include "tests/integration/real_cloud.h"

namespace haneul::testing {
namespace {

using ::testing::HasSubstr;

constexpr const char* kEscape = "\x1d";  // Ctrl-]
constexpr const char* kInterrupt = "\x03";

/// A program on a terminal of its own, which the test reads and types on.
class Terminal {
 public:
  /// Standard output goes to the file instead, if there is one.
  Terminal(const Words& words, const Setting& setting, const std::string& output = "") {
    int master = -1;
    int slave = -1;
    CHECK(::openpty(&master, &slave, nullptr, nullptr, nullptr) == 0);
    master_.reset(master);
    slave_.reset(slave);
    ::fcntl(master, F_SETFD, FD_CLOEXEC);
    ::fcntl(master, F_SETFL, O_NONBLOCK);
    before_ = mode();
    UniqueFd out = output.empty() ? UniqueFd(::dup(slave)) : open_file(output, O_WRONLY | O_CREAT).value();
    // setsid makes it the session's terminal, so that Ctrl-C is a signal.
    Words all = {"setsid", "--ctty"};
    all.insert(all.end(), words.begin(), words.end());
    pid_ = spawn(all, setting, slave, out.get(), slave);
  }
  ~Terminal() {
    if (pid_ == 0) return;
    signal(SIGKILL);
    status_of(pid_);
  }
  Terminal(const Terminal&) = delete;
  Terminal& operator=(const Terminal&) = delete;

  /// Waits for room, which a paste before it may have left none of.
  void type(const std::string& keys) { EXPECT_TRUE(put(keys)) << "the keyboard is no longer read"; }
  bool paste(size_t bytes) { return put(std::string(bytes, 'x')); }
  /// Waits until it has shown this.
  void expect(const std::string& text) {
    EXPECT_TRUE(eventually([&] {
      read();
      return shown_.find(text) != std::string::npos;
    })) << text
        << " is not in:\n"
        << shown_;
  }
  /// The status with which it ends.
  int wait() {
    EXPECT_TRUE(eventually([&] {
      read();
      siginfo_t info{};
      return ::waitid(P_PID, static_cast<id_t>(pid_), &info, WEXITED | WNOHANG | WNOWAIT) == 0 &&
             info.si_pid != 0;
    })) << "it does not end; shown:\n"
        << shown_;
    if (::testing::Test::HasFailure()) signal(SIGKILL);
    int status = status_of(std::exchange(pid_, 0));
    read();
    return status;
  }
  void signal(int number) { ::kill(pid_, number); }
  bool is_raw() const { return (mode().c_lflag & (ICANON | ECHO | ISIG)) == 0; }
  bool is_as_before() const {
    termios now = mode();
    return now.c_iflag == before_.c_iflag && now.c_oflag == before_.c_oflag && now.c_lflag == before_.c_lflag;
  }
  const std::string& shown() const { return shown_; }

 private:
  /// False if not all of it is taken.
  bool put(std::string_view text) {
    return eventually([&] {
      read();
      ssize_t wrote = 0;
      while (!text.empty() &&
             (wrote = ::write(master_.get(), text.data(), std::min<size_t>(text.size(), 1024))) > 0)
        text.remove_prefix(static_cast<size_t>(wrote));
      return text.empty();
    });
  }
  termios mode() const {
    termios mode{};
    ::tcgetattr(slave_.get(), &mode);
    return mode;
  }
  void read() {
    char buffer[4096];
    for (ssize_t got = 0; (got = ::read(master_.get(), buffer, sizeof buffer)) > 0;)
      shown_.append(buffer, static_cast<size_t>(got));
  }

  UniqueFd master_;
  UniqueFd slave_;
  termios before_{};
  pid_t pid_ = 0;
  std::string shown_;
};

TEST(RealConsole, KeysReachTheGuestAndTheEscapeLeaves) {
  RealCloud cloud;
  cloud.start();
  cloud.add_image("echo", "echo");
  std::string id = cloud.run("echo", 1, "web").at(0);
  for (int visit = 0; visit < 2; ++visit) {
    Terminal terminal(cloud.haneul_words({"console", "web"}), cloud.setting());
    terminal.expect("console of " + id + ": Ctrl-] leaves");
    terminal.expect("ready");
    EXPECT_TRUE(eventually([&] { return terminal.is_raw(); }));
    std::string typed = fmt::format("hello {}\r", visit);
    terminal.type(typed);
    terminal.expect(typed);
    // In raw mode Ctrl-C is a key like others.
    std::string interrupt = fmt::format("<{}{}>", visit, kInterrupt);
    terminal.type(interrupt);
    terminal.expect(interrupt);
    terminal.type(kEscape);
    EXPECT_EQ(terminal.wait(), 0);
    EXPECT_THAT(terminal.shown(), HasSubstr("left the console"));
    EXPECT_TRUE(terminal.is_as_before());
  }
  EXPECT_THAT(cloud.console_of(id), HasSubstr("hello 0\r<0\x03>hello 1\r<1\x03>"));
  cloud.expect_nothing_left();
}

TEST(RealConsole, TheEndOfTheGuestEndsIt) {
  RealCloud cloud;
  std::string id = cloud.start_one("echo", "echo");
  Terminal terminal(cloud.haneul_words({"console", id}), cloud.setting());
  terminal.expect("ready");
  terminal.type("q");
  EXPECT_EQ(terminal.wait(), 0);
  EXPECT_THAT(terminal.shown(), HasSubstr("done"));
  EXPECT_THAT(terminal.shown(), HasSubstr("the console has ended"));
  EXPECT_TRUE(terminal.is_as_before());
  cloud.expect_state(id, "stopped");
  cloud.expect_nothing_left();
}

TEST(RealConsole, ASignalPutsTheTerminalBack) {
  RealCloud cloud;
  std::string id = cloud.start_one("echo", "echo");
  for (int number : {SIGTERM, SIGHUP, SIGINT}) {
    Terminal terminal(cloud.haneul_words({"console", id}), cloud.setting());
    terminal.expect("ready");
    EXPECT_TRUE(eventually([&] { return terminal.is_raw(); }));
    terminal.signal(number);
    EXPECT_EQ(terminal.wait(), 130);
    EXPECT_TRUE(terminal.is_as_before());
  }
  cloud.expect_nothing_left();
}

// The guest never reads its serial port, so that everything on the way to it fills up.
TEST(RealConsole, APasteThatNobodyReadsDoesNotMakeTheKeysDead) {
  RealCloud cloud;
  std::string id = cloud.start_one("deaf", "0halt");
  {
    Terminal terminal(cloud.haneul_words({"console", id}), cloud.setting());
    terminal.expect("Ctrl-] leaves");
    EXPECT_TRUE(eventually([&] { return terminal.is_raw(); }));
    EXPECT_TRUE(terminal.paste(2 << 20)) << "the keyboard is no longer read";
    terminal.type(kEscape);
    EXPECT_EQ(terminal.wait(), 0);
    EXPECT_THAT(terminal.shown(), HasSubstr("bytes of what was typed were not taken by the instance"));
    EXPECT_TRUE(terminal.is_as_before());
  }
  Terminal terminal(cloud.haneul_words({"console", id}), cloud.setting());
  terminal.expect("Ctrl-] leaves");
  EXPECT_TRUE(eventually([&] { return terminal.is_raw(); }));
  EXPECT_TRUE(terminal.paste(2 << 20));
  terminal.signal(SIGTERM);
  EXPECT_EQ(terminal.wait(), 130);
  EXPECT_TRUE(terminal.is_as_before());
  cloud.expect_nothing_left();
}

TEST(RealConsole, FollowShowsWhatComesUntilTheEnd) {
  RealCloud cloud;
  std::string id = cloud.start_one("echo", "echo");
  UniqueFd null = open_file("/dev/null", O_RDWR).value();
  std::string file = cloud.folder() / "followed";
  UniqueFd out = open_file(file, O_WRONLY | O_CREAT).value();
  pid_t follower = spawn(cloud.haneul_words({"console", id, "--follow"}), cloud.setting(), null.get(),
                         out.get(), null.get());
  EXPECT_TRUE(eventually([&] { return read_file(file).value() == "!ready\n"; }));
  Terminal terminal(cloud.haneul_words({"console", id}), cloud.setting());
  terminal.expect("ready");
  terminal.type("later q");
  EXPECT_EQ(status_of(follower), 0);
  EXPECT_EQ(read_file(file).value(), "!ready\nlater done\n");
  EXPECT_EQ(terminal.wait(), 0);

  cloud.expect_state(id, "stopped");
  EXPECT_EQ(cloud.haneul({"start", id, "--wait"}).status, 0);
  Terminal interrupted(cloud.haneul_words({"console", id, "--follow"}), cloud.setting());
  interrupted.expect("ready");
  interrupted.type(kInterrupt);
  EXPECT_EQ(interrupted.wait(), 130);
  EXPECT_TRUE(interrupted.is_as_before());
  cloud.expect_nothing_left();
}

// A VMM that never enters a guest keeps the launch going.
class SlowLaunch {
 public:
  SlowLaunch() : cloud_({"--vmm", program()}) {}
  RealCloud& cloud() { return cloud_; }

 private:
  std::string program() {
    std::string path = folder_.file("vmm", "#!/bin/sh\nexec sleep 5\n");
    ::chmod(path.c_str(), 0755);
    return path;
  }
  TempFolder folder_;
  RealCloud cloud_;
};

TEST(RealConsole, InterruptedWaitingLeavesACleanLineAndTheId) {
  SlowLaunch slow;
  RealCloud& cloud = slow.cloud();
  cloud.start();
  cloud.add_image("idle", "0halt");
  std::string file = cloud.folder() / "launched";
  Terminal terminal(cloud.haneul_words({"run", "idle", "--type", "t2.nano", "--wait"}), cloud.setting(),
                    file);
  terminal.expect("waiting for i-");
  std::string id = read_file(file).value();
  ASSERT_EQ(id.size(), 20u) << id << ": the id is there before the waiting";
  id.pop_back();
  terminal.type(kInterrupt);
  EXPECT_EQ(terminal.wait(), 130);
  EXPECT_THAT(terminal.shown(),
              HasSubstr(fmt::format("\r\x1b[Khaneul: no longer waiting for {0} to be running; the launch "
                                    "goes on (haneul show {0} shows it)\r\n",
                                    id)));
  EXPECT_EQ(read_file(file).value(), id + "\n");
  EXPECT_EQ(cloud.state_of(id), "pending");

  // With --json there is one document, whatever ends the waiting.
  std::string document = cloud.folder() / "document";
  Terminal again(cloud.haneul_words({"run", "idle", "--type", "t2.nano", "--wait", "--json"}),
                 cloud.setting(), document);
  again.expect("waiting for i-");
  again.type(kInterrupt);
  EXPECT_EQ(again.wait(), 130);
  Json reply = agent::parse_json(read_file(document).value()).value();
  EXPECT_EQ(reply["Instances"].at(0)["State"]["Name"], "pending");

  Terminal change(cloud.haneul_words({"stop", id, "--wait"}), cloud.setting());
  EXPECT_NE(change.wait(), 0);
  Ended late = cloud.haneul({"run", "idle", "--type", "t2.nano", "--wait", "--timeout", "1"});
  EXPECT_EQ(late.status, 5);
  EXPECT_THAT(late.err, HasSubstr("haneul: waited 1 s for i-"));
  cloud.expect_nothing_left();
}

// A daemon that is there and does not answer keeps nobody.
TEST(RealConsole, InterruptsReachAWaitThatTheDaemonDoesNotAnswer) {
  SlowLaunch slow;
  RealCloud& cloud = slow.cloud();
  cloud.start();
  cloud.add_image("idle", "0halt");
  Terminal terminal(cloud.haneul_words({"run", "idle", "--type", "t2.nano", "--wait"}), cloud.setting());
  terminal.expect("waiting for i-");
  ::kill(cloud.daemon(), SIGSTOP);
  std::this_thread::sleep_for(std::chrono::milliseconds(500));  // so that it is within a request
  terminal.type(kInterrupt);
  EXPECT_EQ(terminal.wait(), 130);
  EXPECT_THAT(terminal.shown(), HasSubstr("the launch goes on"));
  ::kill(cloud.daemon(), SIGCONT);
  cloud.expect_nothing_left();
}

}  // namespace
}  // namespace haneul::testing
