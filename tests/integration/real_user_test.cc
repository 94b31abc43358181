// SPDX-License-Identifier: Apache-2.0
// Who uses a cloud: users without root with a daemon of their own, and users of root's daemon.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>

#include "tests/integration/real_cloud.h"

namespace haneul::testing {
namespace {

using ::testing::HasSubstr;

constexpr uid_t kNobody = 65534;
const Words kAsNobody = {"setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"};

// Mounts of our own from here on, which the host does not see.
void own_mounts() {
  ASSERT_EQ(::unshare(CLONE_NEWNS), 0);
  ASSERT_EQ(::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr), 0);
}

// The device for everybody, as the group kvm makes it for its members.
bool open_to_all(const std::string& device, const TempFolder& folder) {
  struct stat info {};
  std::string copy = folder / std::filesystem::path(device).filename().string();
  return ::stat(device.c_str(), &info) == 0 && ::mknod(copy.c_str(), S_IFCHR, info.st_rdev) == 0 &&
         ::chmod(copy.c_str(), 0666) == 0 && ::access(copy.c_str(), R_OK | W_OK) == 0 &&
         ::mount(copy.c_str(), device.c_str(), nullptr, MS_BIND, nullptr) == 0;
}

class RealUser : public ::testing::Test {
 protected:
  void SetUp() override {
    if (::geteuid() != 0) GTEST_SKIP() << "it becomes another user";
    own_mounts();
  }
};

TEST_F(RealUser, ADaemonWithoutRootRunsInstances) {
  TempFolder devices;
  if (!open_to_all("/dev/kvm", devices) || !open_to_all("/dev/net/tun", devices))
    GTEST_SKIP() << "device nodes cannot be made here";
  RealCloud cloud({}, {.before = kAsNobody, .environment = {}});
  cloud.give_to(kNobody);
  cloud.begin();
  cloud.wait_until_served();
  if (!std::filesystem::exists(cloud.socket())) {
    EXPECT_THAT(cloud.log(), HasSubstr("user namespaces")) << "it says in one sentence what it needs";
    EXPECT_EQ(cloud.end(SIGTERM), 6);
    GTEST_SKIP() << "the kernel does not let users make namespaces";
  }
  cloud.add_image("boots", "boots");
  std::string id = cloud.run("boots", 1, "web").at(0);
  cloud.expect_console(id, "boots=1\nready\n");
  auto before = cloud.machines();
  ASSERT_EQ(before.size(), 1u);
  struct stat owner {};
  ::stat(fmt::format("/proc/{}", before[id].pid).c_str(), &owner);
  EXPECT_NE(owner.st_uid, 0u);
  cloud.expect_consistent();
  for (int signal : {SIGTERM, SIGKILL}) {
    cloud.end(signal);
    cloud.start();
    EXPECT_EQ(cloud.machines(), before) << "found again, in the same network";
    cloud.expect_consistent();
  }
  EXPECT_EQ(cloud.haneul({"stop", "web", "--wait"}).status, 0);
  EXPECT_EQ(cloud.haneul({"start", "web", "--wait"}).status, 0);
  cloud.expect_console(id, "boots=2\nready\n");
  cloud.expect_nothing_left();
}

TEST_F(RealUser, RootsSocketIsFoundByOtherUsers) {
  ASSERT_EQ(::mount("none", "/run", "tmpfs", 0, "mode=0755"), 0);
  RealCloud cloud;
  cloud.serve_at("/run/haneul/haneul.sock");
  cloud.start();
  std::string haneul = cloud.program("haneul");
  Setting nobody{.before = kAsNobody, .environment = {{"HOME", "/nonexistent"}}};
  Ended refused = run_program({haneul, "ls"}, nobody);
  EXPECT_EQ(refused.status, 11);
  EXPECT_EQ(refused.err, "haneul: no permission to use /run/haneul/haneul.sock: run haneul with sudo\n");
  ASSERT_EQ(::chown("/run/haneul/haneul.sock", 0, 1), 0);
  EXPECT_EQ(run_program({haneul, "ls"}, nobody).err,
            "haneul: no permission to use /run/haneul/haneul.sock: run haneul with sudo, or join the group "
            "daemon\n");
  Setting member = nobody;
  member.before = {"setpriv", "--reuid", "65534", "--regid", "65534", "--groups", "1"};
  EXPECT_EQ(run_program({haneul, "status"}, member).status, 0);
  // A socket of the user's own comes first, served or not.
  nobody.environment["XDG_RUNTIME_DIR"] = cloud.folder();
  ::chmod(cloud.folder().c_str(), 0755);
  std::filesystem::create_directory(cloud.folder() / "haneul");
  std::ofstream(cloud.folder() / "haneul" / "haneul.sock");
  ::chmod((cloud.folder() / "haneul" / "haneul.sock").c_str(), 0666);
  Ended own = run_program({haneul, "ls"}, nobody);
  EXPECT_EQ(own.status, 4);
  EXPECT_THAT(own.err, HasSubstr((cloud.folder() / "haneul" / "haneul.sock").string()));
  EXPECT_EQ(cloud.end(SIGTERM), 0);
}

}  // namespace
}  // namespace haneul::testing
