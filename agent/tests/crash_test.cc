// SPDX-License-Identifier: Apache-2.0
// kill -9 of the daemon at every point between an intent and its result. The next daemon finds the instance
// in a state that the request allows, with exactly the processes, taps and files that belong to it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <thread>

#include "agent/tests/world.h"

namespace haneul::agent::testing {
namespace {

struct Case {
  const char* point;
  const char* operation;  ///< what the daemon was doing
  const char* ends_in;    ///< the state that the next daemon brings the instance to
};

void PrintTo(const Case& value, std::ostream* out) {
  *out << value.operation << " at " << value.point;
}

class CrashTest : public ::testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    std::string name = (std::filesystem::temp_directory_path() / "haneul-crash-XXXXXX").string();
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    folder_ = name;
  }
  void TearDown() override {
    FakeMachines(folder_ / "state").kill_all();
    std::filesystem::remove_all(folder_);
  }

  std::filesystem::path folder_;
};

// The daemon that dies. Runs in a child process.
[[noreturn]] void daemon_that_dies(const std::filesystem::path& folder, const Case& wanted) {
  ::setenv("HANEULD_CRASH_AT", wanted.point, 1);
  World world(folder);
  world.register_tiny();
  std::string id = world.run_one();
  (void)world.becomes(id, "running");
  // A point may be behind what makes it running.
  if (*wanted.point != '\0') std::this_thread::sleep_for(std::chrono::seconds(10));
  ::_exit(3);
}

// The same, over the instance that an earlier daemon started.
[[noreturn]] void second_daemon_that_dies(const std::filesystem::path& folder, const Case& wanted) {
  ::setenv("HANEULD_CRASH_AT", wanted.point, 1);
  World world(folder);
  std::string id = world.store->list("instance").value().at(0).id;
  if (std::string(wanted.operation) == "GuestPowerOff") {
    world.guest_ends(id, "powered-off");
  } else {
    world.call(wanted.operation, {{"InstanceIds", {id}}});
  }
  std::this_thread::sleep_for(std::chrono::seconds(10));
  ::_exit(3);
}

int status_of_child(const std::function<void()>& body) {
  pid_t pid = ::fork();
  if (pid == 0) body();
  int status = 0;
  ::waitpid(pid, &status, 0);
  return status;
}

TEST_P(CrashTest, IsRepairedByTheNextStart) {
  std::string operation = GetParam().operation;
  bool first = operation == "RunInstances" || operation == "RegisterImage";
  if (!first) {
    int prepared = status_of_child([&] { daemon_that_dies(folder_, {"", "", ""}); });
    ASSERT_EQ(WEXITSTATUS(prepared), 3);
    if (operation == "StartInstances") {
      World world(folder_);
      std::string id = world.store->list("instance").value().at(0).id;
      world.call("StopInstances", {{"InstanceIds", {id}}});
      ASSERT_TRUE(world.becomes(id, "stopped"));
    }
  }
  int status = status_of_child([&] {
    if (first) daemon_that_dies(folder_, GetParam());
    second_daemon_that_dies(folder_, GetParam());
  });
  ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) << "the point was not reached: " << status;

  World world(folder_);
  if (operation == "RegisterImage") {
    EXPECT_TRUE(std::filesystem::is_empty(world.keeper.layout.state / "images"));
    EXPECT_TRUE(world.blocks().ids().empty());
    EXPECT_EQ(world.register_tiny().size(), 21U);
    return;
  }
  auto objects = world.store->list("instance").value();
  ASSERT_EQ(objects.size(), 1U);
  std::string id = objects[0].id;
  EXPECT_TRUE(world.becomes(id, GetParam().ends_in)) << world.state(id);
  world.cloud->wait_idle();
  bool runs = std::string(GetParam().ends_in) == "running";
  bool gone = std::string(GetParam().ends_in) == "terminated";
  // A reboot that is carried on is "running" before, while and after the process is replaced.
  EXPECT_TRUE(World::eventually([&] {
    world.cloud->wait_idle();
    InstanceRecord record = world.record(id);
    std::vector<pid_t> processes = world.machines->processes();
    bool settled = runs ? processes.size() == 1 && processes[0] == record.pid : processes.empty();
    return settled && !record.rebooting;
  }));
  EXPECT_EQ(world.network->taps().size(), runs ? 1U : 0U);
  // The image's snapshot, and the instance's volume.
  EXPECT_EQ(world.blocks().ids().size(), gone ? 1U : 2U);
}

constexpr Case kCases[] = {
    {"register.intended", "RegisterImage", ""},
    {"register.copying", "RegisterImage", ""},
    {"register.copied", "RegisterImage", ""},
    {"run.intended", "RunInstances", "running"},
    {"start.intended", "RunInstances", "running"},
    {"start.prepared", "RunInstances", "running"},
    {"start.volume-made", "RunInstances", "running"},
    {"start.opened", "RunInstances", "running"},
    {"start.plugged", "RunInstances", "running"},
    {"start.launched", "RunInstances", "running"},
    {"start.recorded", "RunInstances", "running"},
    {"start-instances.intended", "StartInstances", "running"},
    {"start.launched", "StartInstances", "running"},
    {"stop-instances.intended", "StopInstances", "stopped"},
    {"stop.intended", "StopInstances", "stopped"},
    {"ended.recorded", "StopInstances", "stopped"},
    {"release.released", "StopInstances", "stopped"},
    {"terminate-instances.intended", "TerminateInstances", "terminated"},
    {"ended.recorded", "TerminateInstances", "terminated"},
    {"release.volumes", "TerminateInstances", "terminated"},
    {"delete-volume.deleted", "TerminateInstances", "terminated"},
    {"release.released", "TerminateInstances", "terminated"},
    {"reboot-instances.intended", "RebootInstances", "running"},
    {"ended.recorded", "RebootInstances", "running"},
    {"start.launched", "RebootInstances", "running"},
    {"ended.recorded", "GuestPowerOff", "stopped"},
    {"release.released", "GuestPowerOff", "stopped"},
};

INSTANTIATE_TEST_SUITE_P(Points, CrashTest, ::testing::ValuesIn(kCases), [](const auto& each) {
  std::string name = fmt::format("{}_{}", each.param.operation, each.param.point);
  for (char& c : name) {
    if (c == '.' || c == '-') c = '_';
  }
  return name;
});

}  // namespace
}  // namespace haneul::agent::testing
