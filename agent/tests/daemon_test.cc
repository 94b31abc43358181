// SPDX-License-Identifier: Apache-2.0
// The real programs haneuld and haneul, on state folders of their own, without network and without instances.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <fstream>
#include <thread>

#include "agent/http/http.h"
#include "agent/ops/shape.h"
#include "base/file.h"
#include "base/socket.h"

namespace haneul::agent {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

std::string program(const std::string& name) {
  const char* folder = std::getenv("HANEUL_BIN");
  std::error_code error;
  auto fallback = std::filesystem::read_symlink("/proc/self/exe", error).parent_path().parent_path();
  return ((folder != nullptr ? std::filesystem::path(folder) : fallback) / name).string();
}

struct Ended {
  int status = -1;
  std::string out;
  std::string err;
};

class DaemonTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string name = (std::filesystem::temp_directory_path() / "haneul-daemon-XXXXXX").string();
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    folder_ = name;
    socket_ = folder_ / "haneul.sock";
  }
  void TearDown() override {
    for (pid_t pid : daemons_) {
      ::kill(pid, SIGKILL);
      ::waitpid(pid, nullptr, 0);
    }
    std::filesystem::remove_all(folder_);
  }

  // In a home of its own, so that no test touches the user's keys.
  pid_t spawn(const std::vector<std::string>& words, const std::string& label) {
    pid_t pid = ::fork();
    if (pid != 0) return pid;
    ::setenv("HOME", folder_.c_str(), 1);
    for (const char* variable : {"XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME", "HANEUL_SOCKET"})
      ::unsetenv(variable);
    int in = ::open("/dev/null", O_RDONLY);
    int out = ::open((folder_ / (label + ".out")).c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    int err = ::open((folder_ / (label + ".err")).c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    ::dup2(in, 0);
    ::dup2(out, 1);
    ::dup2(err, 2);
    std::vector<char*> argv;
    for (const std::string& word : words) argv.push_back(const_cast<char*>(word.c_str()));
    argv.push_back(nullptr);
    ::execv(argv[0], argv.data());
    ::_exit(127);
  }

  Ended run(std::vector<std::string> words, const std::string& label = "run") {
    words[0] = program(words[0]);
    pid_t pid = spawn(words, label);
    int status = 0;
    ::waitpid(pid, &status, 0);
    return {WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status),
            read_file(folder_ / (label + ".out")).value(), read_file(folder_ / (label + ".err")).value()};
  }

  std::vector<std::string> daemon_words() {
    return {"haneuld",  "--state",        (folder_ / "state").string(),
            "--socket", socket_.string(), "--network",
            "none",     "--without-kvm"};
  }

  pid_t start_daemon() {
    auto words = daemon_words();
    words[0] = program(words[0]);
    pid_t pid = spawn(words, "daemon");
    daemons_.push_back(pid);
    for (int i = 0; i < 1000; ++i) {
      auto status = http_request(socket_, {.method = "GET", .target = "/status", .body = "", .region = ""});
      if (status.ok()) return pid;
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    ADD_FAILURE() << "the daemon does not answer: " << read_file(folder_ / "daemon.err").value();
    return pid;
  }

  int end_of(pid_t pid) {
    int status = 0;
    ::waitpid(pid, &status, 0);
    std::erase(daemons_, pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }

  Ended haneul(std::vector<std::string> words) {
    words.insert(words.begin(), {"haneul", "--socket", socket_.string()});
    return run(words, "cli");
  }

  std::filesystem::path make_image() {
    std::filesystem::path image = folder_ / "image";
    std::filesystem::create_directories(image);
    std::ofstream(image / "kernel") << "kernel";
    std::ofstream(image / "image.json")
        << R"({"format":1,"name":"tiny","kernel":"kernel","cmdline":"quiet"})";
    return image;
  }

  std::filesystem::path folder_;
  std::filesystem::path socket_;
  std::vector<pid_t> daemons_;
};

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

// The store and the command line for real; only no instance runs.
TEST_F(DaemonTest, VolumesAndSnapshotsByHand) {
  start_daemon();
  Ended made = haneul({"volume", "create", "--size", "1G", "--zone", "b", "--name", "data"});
  ASSERT_EQ(made.status, 0) << made.err;
  EXPECT_THAT(made.out, StartsWith("vol-"));
  EXPECT_THAT(haneul({"volume", "ls"}).out, HasSubstr("us-east-1b"));
  EXPECT_EQ(haneul({"volume", "resize", "data", "2G"}).status, 0);
  EXPECT_THAT(haneul({"volume", "show", "data"}).out, HasSubstr("2 GiB"));
  Ended shrunk = haneul({"volume", "resize", "data", "1G"});
  EXPECT_EQ(shrunk.status, 1);
  EXPECT_EQ(shrunk.err,
            "haneul: New size cannot be smaller than existing size: 2 GiB (InvalidParameterValue)\n");
  EXPECT_EQ(haneul({"volume", "attach", "data", "nobody"}).err,
            "haneul: no instance has the id or name 'nobody'\n");

  std::filesystem::path disk = folder_ / "disk.raw";
  std::string content = "QFI\xfb looks like another format" + std::string(8192, 'x');
  std::ofstream(disk) << content;
  std::filesystem::resize_file(disk, 4 << 20);
  Ended imported = haneul({"snapshot", "import", disk.string(), "--format", "raw", "--name", "disk"});
  ASSERT_EQ(imported.status, 0) << imported.err;
  ASSERT_EQ(haneul({"snapshot", "copy", "disk", "--to-region", "eu-west-1", "--wait"}).status, 0);
  ASSERT_EQ(haneul({"volume", "create", "--from", "disk", "--name", "clone"}).status, 0);
  Ended taken = haneul({"snapshot", "create", "clone", "--name", "second", "--wait"});
  ASSERT_EQ(taken.status, 0) << taken.err;
  EXPECT_THAT(taken.out, HasSubstr("completed 100%"));
  std::filesystem::path out = folder_ / "out.raw";
  Ended exported = haneul({"snapshot", "export", "second", out.string(), "--format", "raw"});
  ASSERT_EQ(exported.status, 0) << exported.err;
  EXPECT_TRUE(read_file(out).value() == read_file(disk).value());
  EXPECT_EQ(haneul({"snapshot", "export", "second", out.string(), "--format", "raw"}).err,
            "haneul: " + out.string() + " is there already (InvalidParameterValue)\n");
  EXPECT_THAT(haneul({"snapshot", "share", "disk", "--public"}).out, HasSubstr("shared with everyone"));
  Ended checked = haneul({"volume", "check"});
  EXPECT_EQ(checked.status, 0) << checked.out << checked.err;
  EXPECT_THAT(checked.out, HasSubstr("all is well"));

  // Deleting everything leaves nothing.
  EXPECT_EQ(haneul({"volume", "rm", "data", "clone"}).status, 0);
  EXPECT_EQ(haneul({"snapshot", "rm", "disk", "second"}).status, 0);
  EXPECT_THAT(haneul({"volume", "ls"}).err, HasSubstr("no volumes"));
  EXPECT_THAT(haneul({"snapshot", "ls"}).err, HasSubstr("no snapshots"));
}

TEST_F(DaemonTest, AnImagesRootIsASnapshotOfTheStore) {
  start_daemon();
  std::filesystem::path image = make_image();
  std::ofstream(image / "image.json")
      << R"({"format":1,"name":"tiny","kernel":"kernel","root":"root.raw","cmdline":"quiet"})";
  std::ofstream(image / "root.raw") << "root";
  std::filesystem::resize_file(image / "root.raw", 1 << 20);
  ASSERT_EQ(haneul({"image", "register", image.string()}).status, 0);
  EXPECT_THAT(haneul({"image", "show", "tiny"}).out, HasSubstr("/dev/xvda snap-"));
  std::filesystem::path out = folder_ / "out.raw";
  ASSERT_EQ(haneul({"image", "export", "tiny", out.string(), "--format", "raw"}).status, 0);
  EXPECT_TRUE(read_file(out).value() == read_file(image / "root.raw").value());
  Ended imported =
      haneul({"image", "import", out.string(), "--format", "raw", "--name", "again", "--kernel-of", "tiny"});
  EXPECT_EQ(imported.status, 0) << imported.err;
  Ended copied = haneul({"image", "copy", "tiny", "--to-region", "eu-west-1", "--wait"});
  EXPECT_EQ(copied.status, 0) << copied.err;
  EXPECT_THAT(copied.out, HasSubstr("tiny available"));
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
  for (const char* command : {"run", "ls", "show", "start", "stop", "reboot", "terminate", "tag", "console",
                              "ssh", "proxy", "image", "key", "type", "status", "doctor", "completion"}) {
    Ended help = haneul({command, "--help"});
    EXPECT_EQ(help.status, 0) << command;
    EXPECT_THAT(help.out, HasSubstr("Usage:")) << command;
  }
}

TEST_F(DaemonTest, WithoutADaemonTheCliSaysSo) {
  Ended ended = haneul({"ls"});
  EXPECT_EQ(ended.status, 4);
  EXPECT_EQ(ended.out, "");
  EXPECT_EQ(ended.err, "haneul: no haneuld serves " + socket_.string() +
                           ": start one, or choose with --socket or HANEUL_SOCKET\n");
}

TEST_F(DaemonTest, CliErrorsAreOneSentenceWithEc2sCode) {
  start_daemon();
  Ended unknown = haneul({"run", "ami-0123456789abcdef0"});
  EXPECT_EQ(unknown.status, 1);
  EXPECT_THAT(
      unknown.err,
      HasSubstr("haneul: The image id '[ami-0123456789abcdef0]' does not exist (InvalidAMIID.NotFound)\n"));
  EXPECT_EQ(haneul({"show", "web"}).err, "haneul: no instance has the id or name 'web'\n");
  EXPECT_EQ(haneul({"terminate", "i-0123456789abcdef0"}).err,
            "haneul: The instance ID 'i-0123456789abcdef0' does not exist (InvalidInstanceID.NotFound)\n");
  EXPECT_EQ(haneul({"--region", "mars", "ls"}).err,
            "haneul: Invalid region: [mars] (InvalidParameterValue)\n");
}

TEST_F(DaemonTest, KeysAreSavedForTheUserOnly) {
  start_daemon();
  Ended made = haneul({"key", "create", "mine", "--json"});
  ASSERT_EQ(made.status, 0) << made.err;
  Json json = parse_json(made.out).value();
  std::filesystem::path file = json["File"].get<std::string>();
  EXPECT_FALSE(json.contains("KeyMaterial"));
  EXPECT_THAT(read_file(file).value(), StartsWith("-----BEGIN OPENSSH PRIVATE KEY-----"));
  EXPECT_EQ(std::filesystem::status(file).permissions(),
            std::filesystem::perms::owner_read | std::filesystem::perms::owner_write);
  EXPECT_EQ(haneul({"key", "create", "mine"}).status, 1);
  std::filesystem::path chosen = folder_ / "chosen.pem";
  EXPECT_EQ(haneul({"key", "create", "other", "--type", "rsa", "-o", chosen.string()}).status, 0);
  EXPECT_THAT(read_file(chosen).value(), StartsWith("-----BEGIN RSA PRIVATE KEY-----"));
  EXPECT_EQ(haneul({"key", "create", "third", "-o", chosen.string()}).status, 1);
  EXPECT_THAT(haneul({"key", "ls"}).out, ::testing::Not(HasSubstr("third")));
  EXPECT_EQ(haneul({"key", "rm", "mine"}).out, "mine\n");
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

TEST_F(DaemonTest, CompletionIsAScript) {
  EXPECT_THAT(haneul({"completion", "bash"}).out, HasSubstr("complete -F _haneul haneul"));
  EXPECT_THAT(haneul({"completion", "zsh"}).out, StartsWith("#compdef haneul"));
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
