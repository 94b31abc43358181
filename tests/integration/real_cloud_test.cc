// SPDX-License-Identifier: Apache-2.0
// What users do, through the real `haneul` to the real daemon and its VMMs: the life of an instance, restarts of the
// daemon, two clouds at once, curl, and a daemon without root.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include "tests/integration/real_cloud.h"

namespace haneul::testing {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

std::string change_of(const Json& reply, const char* list) {
  return reply[list].at(0)["CurrentState"]["Name"];
}

// Its address and its root volume, which stop and start must not change.
std::pair<std::string, std::string> identity(const Json& instance) {
  return {instance["PrivateIpAddress"], instance["BlockDeviceMappings"].at(0)["Ebs"]["VolumeId"]};
}

TEST(RealCloud, TheLifeOfAnInstance) {
  RealCloud cloud;
  cloud.start();
  cloud.add_image("boots", "boots");
  Ended launched = cloud.haneul({"run", "boots", "--type", "t2.nano", "--name", "web", "--wait"});
  ASSERT_EQ(launched.status, 0) << launched.err;
  EXPECT_THAT(launched.out, StartsWith("i-"));
  std::string id = launched.out.substr(0, 19);
  EXPECT_THAT(cloud.haneul({"ls"}).out, ::testing::ContainsRegex(id + " +web +running +t2.nano"));
  EXPECT_THAT(cloud.haneul({"show", "web"}).out, ::testing::ContainsRegex("State +running"));
  Json shown = cloud.json({"show", "web"});
  EXPECT_EQ(shown["InstanceId"], id);
  EXPECT_EQ(shown["InstanceType"], "t2.nano");
  cloud.expect_console(id, "boots=1\nready\n");
  EXPECT_EQ(cloud.json({"console", id})["InstanceId"], id);
  EXPECT_THAT(agent::from_base64(cloud.json({"console", id})["Output"].get<std::string>()).value(),
              HasSubstr("boots=1\nready\n"));
  Machine first = cloud.machines()[id];

  EXPECT_EQ(change_of(cloud.json({"stop", "web", id, "--wait"}), "StoppingInstances"), "stopped");
  EXPECT_TRUE(cloud.machines().empty());
  EXPECT_TRUE(cloud.taps().empty());
  Json stopped = cloud.json({"show", "web"});
  EXPECT_THAT(stopped["StateTransitionReason"].get<std::string>(), StartsWith("User initiated"));
  EXPECT_EQ(identity(stopped), identity(shown));

  EXPECT_EQ(cloud.haneul({"start", "web", "--wait"}).out, id + " running\n");
  EXPECT_EQ(identity(cloud.json({"show", id})), identity(shown));
  cloud.expect_console(id, "boots=2\nready\n");
  EXPECT_FALSE(cloud.machines()[id] == first);

  EXPECT_TRUE(cloud.json({"reboot", "web"}).is_object());
  cloud.expect_console(id, "boots=3\nready\n");
  EXPECT_EQ(cloud.state_of(id), "running");
  cloud.expect_consistent();

  EXPECT_EQ(change_of(cloud.json({"terminate", "web", "--wait"}), "TerminatingInstances"), "terminated");
  EXPECT_THAT(cloud.haneul({"ls"}).err, HasSubstr("no instances"));
  EXPECT_EQ(cloud.json({"volume", "ls"})["Volumes"].size(), 0u) << "the root volume goes with its instance";
  cloud.expect_nothing_left();
}

TEST(RealCloud, AGuestThatPowersOffStopsItsInstance) {
  RealCloud cloud;
  cloud.start();
  cloud.add_image("hello", "hello");
  std::string id = cloud.json({"run", "hello", "--type", "t2.nano"})["Instances"].at(0)["InstanceId"];
  cloud.expect_state(id, "stopped");
  EXPECT_THAT(cloud.console_of(id), HasSubstr("hello\ndone\n"));
  EXPECT_THAT(cloud.haneul({"show", id}).out,
              HasSubstr("Client.InstanceInitiatedShutdown: Instance initiated shutdown"));
  cloud.expect_nothing_left();
}

TEST(RealCloud, InstancesRunOnWhileTheDaemonRestarts) {
  RealCloud cloud;
  cloud.start();
  cloud.add_image("boots", "boots");
  cloud.add_image("idle", "0halt");
  std::string web = cloud.run("boots", 1, "web").at(0);
  std::string idle = cloud.run("idle").at(0);
  cloud.expect_console(web, "boots=1\nready\n");
  auto before = cloud.machines();
  ASSERT_EQ(before.size(), 2u);
  std::set<std::string> taps = cloud.taps();
  for (int signal : {SIGTERM, SIGKILL}) {
    EXPECT_EQ(cloud.end(signal), signal == SIGTERM ? 0 : 128 + SIGKILL);
    EXPECT_EQ(cloud.machines(), before) << "they live without a daemon";
    cloud.start();
    EXPECT_EQ(cloud.state_of("web"), "running");
    EXPECT_EQ(cloud.machines(), before) << "found again, not started again";
    EXPECT_EQ(cloud.taps(), taps);
    EXPECT_THAT(cloud.console_of(web), HasSubstr("boots=1\nready\n"));
    cloud.expect_consistent();
  }
  // The new daemon hears of their ends, although it is not their parent.
  ::kill(before[idle].pid, SIGKILL);
  cloud.expect_state(idle, "stopped");
  EXPECT_EQ(cloud.haneul({"stop", "web", "--wait"}).status, 0);
  EXPECT_EQ(cloud.haneul({"start", "web", "--wait"}).status, 0);
  cloud.expect_console(web, "boots=2\nready\n");
  cloud.expect_nothing_left();
}

TEST(RealCloud, AVmmThatEndsWhileNoDaemonRunsIsNoticedByTheNext) {
  RealCloud cloud;
  std::string id = cloud.start_one("idle", "0halt");
  pid_t machine = cloud.machines()[id].pid;
  cloud.end(SIGKILL);
  ::kill(machine, SIGKILL);
  EXPECT_TRUE(eventually([&] { return cloud.machines().empty(); }));
  cloud.start();
  cloud.expect_state(id, "stopped");
  EXPECT_THAT(cloud.haneul({"show", id}).out,
              HasSubstr("the virtual machine's process was killed or crashed"));
  cloud.expect_nothing_left();
}

TEST(RealCloud, AKilledVmmStopsItsInstanceWithTheReason) {
  RealCloud cloud;
  cloud.start();
  cloud.add_image("boots", "boots");
  std::string id = cloud.run("boots", 1, "web").at(0);
  std::string other = cloud.run("boots").at(0);
  cloud.expect_console(id, "boots=1\n");
  ::kill(cloud.machines()[id].pid, SIGKILL);
  cloud.expect_state(id, "stopped");
  EXPECT_THAT(
      cloud.haneul({"show", "web"}).out,
      HasSubstr(
          "Server.InternalError: the virtual machine's process was killed or crashed (killed by signal 9 "
          "(Killed))\n"));
  EXPECT_EQ(cloud.state_of(other), "running") << "it costs one instance";
  cloud.expect_consistent();
  EXPECT_EQ(cloud.haneul({"start", "web", "--wait"}).status, 0);
  cloud.expect_console(id, "boots=2\n");
  cloud.expect_nothing_left();
}

TEST(RealCloud, TwoCloudsDoNotSeeEachOther) {
  RealCloud first;
  RealCloud second;
  first.start();
  second.start();
  first.add_image("idle", "0halt");
  second.add_image("idle", "0halt");
  std::string one = first.run("idle", 1, "web").at(0);
  std::string two = second.run("idle", 1, "web").at(0);
  EXPECT_NE(one, two);
  EXPECT_THAT(first.haneul({"ls"}).out, Not(HasSubstr(two)));
  EXPECT_THAT(second.haneul({"ls"}).out, Not(HasSubstr(one)));
  EXPECT_THAT(second.haneul({"terminate", one}).err, HasSubstr("InvalidInstanceID.NotFound"));
  EXPECT_EQ(first.state_of("web"), "running");
  EXPECT_THAT(first.taps(), ::testing::SizeIs(1));
  EXPECT_NE(*first.network_holder(), *second.network_holder());
  // One ends, violently and then for good; the other does not notice.
  Machine machine = second.machines()[two];
  EXPECT_EQ(first.end(SIGKILL), 128 + SIGKILL);
  first.start();
  EXPECT_EQ(first.haneul({"terminate", "web", "--wait"}).status, 0);
  EXPECT_EQ(first.end(SIGTERM), 0);
  EXPECT_FALSE(first.network_holder());
  EXPECT_EQ(second.state_of("web"), "running");
  EXPECT_EQ(second.machines()[two], machine);
  second.expect_consistent();
  second.expect_nothing_left();
}

TEST(RealCloud, CurlSpeaksToTheSocket) {
  RealCloud cloud;
  cloud.start();
  cloud.add_image("idle", "0halt");
  auto curl = [&](const std::string& operation, const std::string& body) {
    Ended ended = run_program({"curl", "-sS", "--unix-socket", cloud.socket(), "-w", "%{stderr}%{http_code}",
                               "http://localhost/" + operation, "-d", body});
    EXPECT_EQ(ended.status, 0) << ended.err;
    return std::pair(ended.err, agent::parse_json(ended.out).value());
  };
  auto [status, reply] =
      curl("RunInstances", R"({"ImageId":"idle","InstanceType":"t2.nano","MinCount":1,"MaxCount":1})");
  EXPECT_EQ(status, "200");
  std::string id = reply["Instances"].at(0)["InstanceId"];
  EXPECT_EQ(reply["Instances"].at(0)["State"], Json({{"Code", 0}, {"Name", "pending"}}));
  cloud.expect_state(id, "running");
  auto [found, described] = curl("DescribeInstances", "{}");
  EXPECT_EQ(found, "200");
  EXPECT_EQ(described["Reservations"].at(0)["Instances"].at(0)["InstanceId"], id);
  auto [refused, error] = curl("StopInstances", R"({"InstanceIds":["i-0123456789abcdef0"]})");
  EXPECT_EQ(refused, "400");
  EXPECT_EQ(error["Error"]["Code"], "InvalidInstanceID.NotFound");
  auto [ended, changes] = curl("TerminateInstances", fmt::format(R"({{"InstanceIds":["{}"]}})", id));
  EXPECT_EQ(ended, "200");
  EXPECT_EQ(changes["TerminatingInstances"].at(0)["PreviousState"]["Name"], "running");
  cloud.expect_state(id, "terminated");
  cloud.expect_nothing_left();
}

TEST(RealCloud, RefusalsEndWithStatusesOfTheirOwn) {
  RealCloud cloud;
  cloud.start();
  cloud.add_image("idle", "0halt");
  ASSERT_EQ(cloud.haneul({"run", "idle", "--type", "t2.nano", "--name", "web", "--protect", "--wait"}).status,
            0);
  Json web = cloud.json({"show", "web"});
  Ended refused = cloud.haneul({"terminate", "web"});
  EXPECT_EQ(refused.status, 11);
  EXPECT_THAT(refused.err, HasSubstr("(OperationNotPermitted)"));
  Ended in_use = cloud.haneul({"volume", "rm", identity(web).second});
  EXPECT_EQ(in_use.status, 9);
  EXPECT_THAT(in_use.err, HasSubstr("(VolumeInUse)"));
  EXPECT_EQ(cloud.haneul({"image", "create", "web", "--name", "idle"}).status, 9);
  std::string unprotect =
      Json{{"InstanceId", web["InstanceId"]}, {"DisableApiTermination", {{"Value", false}}}}.dump();
  EXPECT_EQ(run_program({"curl", "-sSf", "--unix-socket", cloud.socket(),
                         "http://localhost/ModifyInstanceAttribute", "-d", unprotect})
                .status,
            0);
  cloud.expect_nothing_left();
}

}  // namespace
}  // namespace haneul::testing
