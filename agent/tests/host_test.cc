// SPDX-License-Identifier: Apache-2.0
// The real haneuld on a host of its own: a network namespace, and mounts where a test takes something away. No instance
// runs.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <map>
#include <set>
#include <thread>

#include "agent/http/http.h"
#include "agent/ops/shape.h"
#include "base/file.h"
#include "net/testing/world.h"
#include "tests/support/files.h"
#include "tests/support/programs.h"

namespace haneul::agent {
namespace {

using net::testing::run;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

using haneul::testing::Ended;

class HostTest : public net::testing::NetworkTest {
 protected:
  using Words = std::vector<std::string>;

  void TearDown() override {
    for (const auto& [name, pid] : daemons_) {
      ::kill(pid, SIGKILL);
      ::waitpid(pid, nullptr, 0);
    }
    for (pid_t pid : holders()) ::kill(pid, SIGKILL);
    for (const std::string& mount : mounts_) ::umount2(mount.c_str(), MNT_DETACH);
  }

  std::filesystem::path state(const std::string& name) { return folder_.path() / name / "state"; }
  std::filesystem::path socket(const std::string& name) { return folder_.path() / name / "haneul.sock"; }
  std::string errors(const std::string& name) { return read_file(folder_ / (name + ".err")).value(); }

  // A cloud by its name; `before` runs in the new process.
  pid_t spawn(
      const std::string& name, const Words& more, const std::function<void()>& before = [] {}) {
    Words words = {(haneul::testing::bin_folder() / "haneuld").string(),
                   "--state",
                   state(name).string(),
                   "--socket",
                   socket(name).string(),
                   "--without-kvm"};
    words.insert(words.end(), more.begin(), more.end());
    pid_t pid = ::fork();
    if (pid != 0) return pid;
    int null = ::open("/dev/null", O_RDWR);
    int err = ::open((folder_ / (name + ".err")).c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    ::dup2(null, 0);
    ::dup2(null, 1);
    ::dup2(err, 2);
    ::setenv("HANEUL_TEST_HOST", folder_.path().c_str(), 1);
    before();
    std::vector<char*> argv;
    for (std::string& word : words) argv.push_back(word.data());
    argv.push_back(nullptr);
    ::execv(argv[0], argv.data());
    ::_exit(127);
  }
  int end_of(pid_t pid) {
    int status = haneul::testing::status_of(pid);
    std::erase_if(daemons_, [&](const auto& each) { return each.second == pid; });
    return status;
  }
  Ended run_daemon(
      const std::string& name, const Words& more, const std::function<void()>& before = [] {}) {
    int status = end_of(spawn(name, more, before));
    return {status, "", errors(name)};
  }
  bool ended(const std::string& name) {
    siginfo_t info{};
    ::waitid(P_PID, static_cast<id_t>(daemons_[name]), &info, WEXITED | WNOHANG | WNOWAIT);
    return info.si_pid != 0;
  }
  // Until it serves, or ends instead.
  bool serves(const std::string& name) {
    (void)haneul::testing::eventually([&] { return status(name).is_object() || ended(name); });
    return status(name).is_object();
  }
  void await(const std::string& name) { ASSERT_TRUE(serves(name)) << errors(name); }
  void start(const std::string& name, const Words& more = {}) {
    daemons_[name] = spawn(name, more);
    await(name);
  }
  int stop(const std::string& name, int signal) {
    pid_t pid = daemons_[name];
    ::kill(pid, signal);
    return end_of(pid);
  }
  Json status(const std::string& name) {
    auto reply = http_request(socket(name), {.method = "GET", .target = "/status", .body = "", .region = ""});
    return reply.ok() ? parse_json(reply->body).value() : Json();
  }
  std::string call(const std::string& name, const std::string& operation, const std::string& body) {
    auto reply =
        http_request(socket(name), {.method = "POST", .target = "/" + operation, .body = body, .region = ""});
    return reply.ok() ? reply->body : reply.error().message();
  }
  std::string vpc(const std::string& name) { return status(name).value("vpc", ""); }
  static std::string bridges() { return run({"ip", "-o", "-4", "addr", "show", "scope", "global"}); }

  // Mounts that only this test and what it starts see.
  void own_mounts() {
    ASSERT_EQ(::unshare(CLONE_NEWNS), 0);
    ASSERT_EQ(::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr), 0);
  }
  void mount_memory(const std::filesystem::path& where, const char* options) {
    ASSERT_EQ(::mount("none", where.c_str(), "tmpfs", 0, options), 0);
    mounts_.push_back(where.string());
  }

  // Processes that hold the network of a private cloud of this test.
  std::vector<pid_t> holders() {
    std::vector<pid_t> found;
    std::string mark = "HANEUL_TEST_HOST=" + folder_.path().string();
    std::error_code error;
    for (const auto& entry : std::filesystem::directory_iterator("/proc", error)) {
      auto name = read_file(entry.path() / "comm", 64);
      auto environment = read_file(entry.path() / "environ", 1 << 20);
      if (name.ok() && *name == "haneul-network\n" && environment.ok() &&
          environment->find(mark) != std::string::npos)
        found.push_back(static_cast<pid_t>(std::stol(entry.path().filename().string())));
    }
    return found;
  }

  haneul::testing::TempFolder folder_;
  std::map<std::string, pid_t> daemons_;
  std::vector<std::string> mounts_;
};

// ---- two clouds ----

TEST_F(HostTest, ASecondCloudRunsBesideTheFirst) {
  std::string before = everything();
  start("a");
  EXPECT_EQ(status("a")["network"], "host");
  EXPECT_EQ(vpc("a"), "172.31.0.0/16");
  std::string alone = everything();
  start("b");
  EXPECT_EQ(vpc("b"), "172.30.0.0/16");
  EXPECT_THAT(errors("b"),
              HasSubstr("the VPC is 172.30.0.0/16: 172.31.0.0/16 is in use on this host (interface hnl-"));
  EXPECT_THAT(bridges(), AllOf(HasSubstr(" 172.31.0.1/20"), HasSubstr(" 172.30.0.1/20")));

  // Killed and started again, in the other order: each has what it had.
  EXPECT_EQ(stop("a", SIGKILL), 137);
  EXPECT_EQ(stop("b", SIGKILL), 137);
  start("b");
  start("a");
  EXPECT_EQ(vpc("a"), "172.31.0.0/16");
  EXPECT_EQ(vpc("b"), "172.30.0.0/16");

  EXPECT_EQ(stop("b", SIGTERM), 0);
  EXPECT_EQ(everything(), alone);
  start("b");
  EXPECT_EQ(vpc("b"), "172.30.0.0/16");
  EXPECT_EQ(stop("a", SIGTERM), 0);
  EXPECT_EQ(stop("b", SIGTERM), 0);
  EXPECT_EQ(everything(), before);
}

TEST_F(HostTest, CloudsThatStartAtOneMomentDoNotCollide) {
  for (const char* name : {"a", "b", "c"}) daemons_[name] = spawn(name, {});
  std::set<std::string> ranges;
  for (const char* name : {"a", "b", "c"}) {
    await(name);
    ranges.insert(vpc(name));
  }
  EXPECT_EQ(ranges, (std::set<std::string>{"172.31.0.0/16", "172.30.0.0/16", "172.29.0.0/16"}));
}

TEST_F(HostTest, ARangeCanBeChosenOnce) {
  EXPECT_EQ(run_daemon("a", {"--vpc", "10.0.0.0/8"}).status, 2);
  start("a", {"--vpc", "10.7.0.0/16"});
  EXPECT_THAT(bridges(), HasSubstr(" 10.7.16.1/20"));
  EXPECT_EQ(stop("a", SIGTERM), 0);
  Ended other = run_daemon("a", {"--vpc", "10.8.0.0/16"});
  EXPECT_EQ(other.status, 6);
  EXPECT_THAT(other.err, HasSubstr("this cloud has had the range 10.7.0.0/16 since its first start"));
  start("a");
  EXPECT_EQ(vpc("a"), "10.7.0.0/16");

  Ended second = run_daemon("b", {"--vpc", "10.7.0.0/16"});
  EXPECT_EQ(second.status, 6);
  EXPECT_THAT(second.err, HasSubstr("the range 10.7.0.0/16 is in use on this host (interface hnl-"));
  EXPECT_FALSE(std::filesystem::exists(folder_.path() / "b")) << "nothing is left behind";
}

TEST_F(HostTest, RegionsAreAddedAndGoWhenTheyAreEmpty) {
  EXPECT_EQ(run_daemon("a", {"--regions", "us-east-1:aa"}).status, 2);
  start("a", {"--regions", "ap-south-1:ab"});
  EXPECT_EQ(status("a")["regions"], Json::array({"ap-south-1"}));
  EXPECT_THAT(bridges(), AllOf(HasSubstr(" 172.31.0.1/20"), HasSubstr(" 172.31.16.1/20"),
                               Not(HasSubstr(" 172.31.32.1/20"))));
  Json created =
      parse_json(call("a", "CreateVolume", R"({"AvailabilityZone": "ap-south-1b", "Size": 1})")).value();
  EXPECT_EQ(stop("a", SIGTERM), 0);

  start("a", {"--regions", "us-east-1:a,ap-south-1:ab"});
  EXPECT_EQ(status("a")["regions"], Json::array({"us-east-1", "ap-south-1"}));
  EXPECT_THAT(call("a", "DescribeAvailabilityZones", "{}"), HasSubstr("use1-az1"))
      << "the first is the default";
  EXPECT_THAT(bridges(), HasSubstr(" 172.31.32.1/20"));
  EXPECT_EQ(stop("a", SIGTERM), 0);

  Ended ended = run_daemon("a", {"--regions", "us-east-1:a,ap-south-1:a"});
  EXPECT_EQ(ended.status, 1);
  EXPECT_THAT(ended.err, HasSubstr(created["VolumeId"].get<std::string>() + " is still in ap-south-1b"));
  start("a");
  EXPECT_EQ(status("a")["regions"], Json::array({"us-east-1", "ap-south-1"})) << "kept";
}

TEST_F(HostTest, ARangeThatSomebodyTookSinceIsTold) {
  start("a");
  EXPECT_EQ(stop("a", SIGTERM), 0);
  run({"ip", "link", "add", "lan", "type", "bridge"});
  run({"ip", "addr", "add", "172.31.17.4/24", "dev", "lan"});
  std::string before = everything();
  Ended ended = run_daemon("a", {});
  EXPECT_EQ(ended.status, 6);
  EXPECT_THAT(ended.err,
              HasSubstr("(interface lan has 172.31.17.4/24): free it, or run the cloud in a network of its "
                        "own with `--network private`"));
  EXPECT_EQ(everything(), before);
  EXPECT_TRUE(std::filesystem::exists(state("a") / "state.db")) << "what was there before stays";
  start("b");
  EXPECT_EQ(vpc("b"), "172.30.0.0/16");
}

TEST_F(HostTest, AnInterfaceWithOurNameMeansAnotherTag) {
  start("a");
  std::string bridge = bridges().substr(bridges().find("hnl-"), 10);
  EXPECT_EQ(stop("a", SIGTERM), 0);
  run({"ip", "link", "add", bridge, "type", "veth", "peer", "name", "other"});
  start("a");
  EXPECT_THAT(bridges(), AllOf(HasSubstr(" 172.31.0.1/20"), Not(HasSubstr(bridge + " "))));
}

// ---- a host that changes ----

TEST_F(HostTest, FlushedRulesComeBack) {
  start("a");
  std::string before = everything();
  run({"nft", "flush", "ruleset"});
  EXPECT_NE(everything(), before);
  EXPECT_TRUE(haneul::testing::eventually([&] { return everything() == before; }));
  EXPECT_THAT(errors("a"), HasSubstr("somebody removed the firewall's rules; they are put back"));
}

TEST_F(HostTest, ADefaultRouteThatComesLaterIsUsed) {
  start("a");
  EXPECT_THAT(status("a")["warnings"].dump(), HasSubstr("no default route"));
  make_outside();
  EXPECT_TRUE(haneul::testing::eventually([&] {
    return run({"cat", "/proc/sys/net/ipv4/conf/eth0/forwarding"}) == "1\n";
  }));
  EXPECT_TRUE(haneul::testing::eventually([&] { return status("a")["warnings"].empty(); }));
}

// ---- hosts that lack something: their status, one sentence, and nothing left behind ----

TEST_F(HostTest, WithoutTun) {
  std::string before = everything();
  own_mounts();
  mount_memory("/dev/net", "");
  Ended ended = run_daemon("a", {});
  EXPECT_EQ(ended.status, 6);
  EXPECT_THAT(ended.err, HasSubstr("there is no /dev/net/tun: load the kernel module `tun`"));
  EXPECT_EQ(everything(), before);
  EXPECT_FALSE(std::filesystem::exists(folder_.path() / "a"));
}

TEST_F(HostTest, WithoutKvm) {
  own_mounts();
  mount_memory("/dev", "");
  std::filesystem::path program = haneul::testing::bin_folder() / "haneuld";
  std::string cloud = folder_ / "a";
  std::string err = folder_ / "kvm.err";
  pid_t pid = ::fork();
  if (pid == 0) {
    ::dup2(::open(err.c_str(), O_WRONLY | O_CREAT, 0600), 2);
    ::execl(program.c_str(), "haneuld", "--state", (cloud + "/state").c_str(), "--socket",
            (cloud + "/sock").c_str(), nullptr);
    ::_exit(127);
  }
  EXPECT_EQ(end_of(pid), 3);
  EXPECT_THAT(read_file(err).value(),
              HasSubstr("there is no /dev/kvm: this machine has no hardware virtualization"));
  EXPECT_FALSE(std::filesystem::exists(cloud));
}

TEST_F(HostTest, AKvmWithoutLinuxGuestsIsTold) {
  if (::access("/dev/kvm", R_OK | W_OK) != 0) GTEST_SKIP() << "no /dev/kvm";
  std::string vmm =
      folder_.file("vmm", "#!/bin/sh\necho 'it cannot run Linux guests, alas'\necho more\nexit 3\n");
  ASSERT_EQ(::chmod(vmm.c_str(), 0755), 0);
  start("a", {"--network", "none", "--vmm", vmm});
  EXPECT_EQ(status("a")["kvm"], "it cannot run Linux guests, alas");
  EXPECT_THAT(errors("a"), HasSubstr("warn Linux guests will not run: it cannot run Linux guests, alas\n"));
}

class FullDiskTest : public HostTest {
 protected:
  void SetUp() override {
    HostTest::SetUp();
    if (IsSkipped()) return;
    own_mounts();
    std::filesystem::create_directories(folder_.path() / "a");
    mount_memory(folder_.path() / "a", "size=2m");
  }
  void fill() {
    UniqueFd file = open_file(folder_ / "a/filler", O_WRONLY | O_CREAT).value();
    for (size_t size : {size_t{4096}, size_t{1}}) {
      std::string text(size, 'x');
      while (::write(file.get(), text.data(), text.size()) > 0) {
      }
    }
  }
  void free_space() { std::filesystem::remove(folder_ / "a/filler"); }
};

TEST_F(FullDiskTest, AFirstStartHasItsStatusAndLeavesNothing) {
  fill();
  Ended ended = run_daemon("a", {"--network", "none"});
  EXPECT_EQ(ended.status, 7) << ended.err;
  EXPECT_FALSE(std::filesystem::exists(state("a")));
  free_space();
  start("a", {"--network", "none"});
}

TEST_F(FullDiskTest, OperationsAreRefusedAndNothingIsLost) {
  start("a", {"--network", "none"});
  EXPECT_THAT(call("a", "CreateKeyPair", R"({"KeyName":"before"})"), HasSubstr("KeyMaterial"));
  fill();
  std::string refused;
  for (int i = 0; i < 50 && refused.empty(); ++i) {
    std::string reply = call("a", "CreateKeyPair", fmt::format(R"({{"KeyName":"full{}"}})", i));
    if (reply.find("Error") != std::string::npos) refused = reply;
  }
  EXPECT_THAT(refused, HasSubstr(R"({"Error":{"Code":"InsufficientVolumeCapacity","Message":)"));
  EXPECT_THAT(refused, HasSubstr("the disk is full"));
  std::string keys = call("a", "DescribeKeyPairs", "{}");
  EXPECT_THAT(keys, HasSubstr("before"));

  EXPECT_EQ(stop("a", SIGKILL), 137);
  // It may find all it needs, or say what it lacks.
  daemons_["a"] = spawn("a", {"--network", "none"});
  bool served = serves("a");
  EXPECT_EQ(stop("a", SIGKILL), served ? 137 : 7) << errors("a");
  free_space();
  start("a", {"--network", "none"});
  EXPECT_EQ(call("a", "DescribeKeyPairs", "{}"), keys);
  EXPECT_THAT(call("a", "CreateKeyPair", R"({"KeyName":"after"})"), HasSubstr("KeyMaterial"));
}

// ---- a private network ----

TEST_F(HostTest, APrivateNetworkOutlivesItsDaemon) {
  start("a", {"--network", "private"});
  ASSERT_EQ(holders().size(), 1u);
  pid_t holder = holders()[0];
  auto inside = [&] { return run({"nsenter", "-t", std::to_string(holder), "-n", "ip", "-4", "addr"}); };
  EXPECT_THAT(inside(), HasSubstr("172.31.0.1/20"));
  EXPECT_THAT(bridges(), IsEmpty());
  EXPECT_EQ(stop("a", SIGKILL), 137);
  EXPECT_THAT(inside(), HasSubstr("172.31.0.1/20"));
  start("a", {"--network", "private"});
  EXPECT_EQ(holders(), std::vector<pid_t>{holder});
  EXPECT_EQ(stop("a", SIGTERM), 0);
  EXPECT_TRUE(haneul::testing::eventually([&] { return holders().empty(); }));
  EXPECT_FALSE(std::filesystem::exists(state("a") / "network-holder"));
}

TEST_F(HostTest, ADaemonThatDiesBeforeItsHolderIsKnownLeavesNone) {
  for (const char* point : {"network-holder.forked", "network-holder.recorded"}) {
    Ended ended = run_daemon("a", {"--network", "private"}, [&] { ::setenv("HANEULD_CRASH_AT", point, 1); });
    EXPECT_EQ(ended.status, 137) << point << ": " << ended.err;
    EXPECT_TRUE(haneul::testing::eventually([&] { return holders().empty(); })) << point;
    folder_.file("a/state/network-holder.abcdef", "half a record");
    start("a", {"--network", "private"});
    EXPECT_EQ(holders().size(), 1u) << point;
    EXPECT_FALSE(std::filesystem::exists(state("a") / "network-holder.abcdef"));
    EXPECT_EQ(stop("a", SIGTERM), 0);
    EXPECT_TRUE(haneul::testing::eventually([&] { return holders().empty(); })) << point;
  }
}

}  // namespace
}  // namespace haneul::agent
