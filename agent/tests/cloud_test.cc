// SPDX-License-Identifier: Apache-2.0
// The life of instances as a client sees it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fcntl.h>
#include <sys/stat.h>

#include <fstream>

#include "agent/tests/world.h"
#include "base/console_ring.h"
#include "base/file.h"

namespace haneul::agent::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using ::testing::StartsWith;

class CloudTest : public ::testing::Test {
 protected:
  void SetUp() override { image_ = world_.register_tiny(); }
  Json ids(const std::string& id) { return {{"InstanceIds", {id}}}; }

  World world_;
  std::string image_;
};

TEST_F(CloudTest, RunsAnInstanceThatIsPendingInTheReplyAndRunningSoonAfter) {
  Json reply = world_.call(
      "RunInstances", {{"ImageId", image_}, {"InstanceType", "t2.micro"}, {"MinCount", 1}, {"MaxCount", 1}});
  Json instance = reply["Instances"][0];
  std::string id = instance["InstanceId"];
  EXPECT_EQ(instance["State"].dump(), R"({"Code":0,"Name":"pending"})");
  EXPECT_TRUE(valid_id(id, "i"));
  EXPECT_EQ(id.size(), 19U);
  ASSERT_TRUE(world_.becomes(id, "running"));
  Json running = world_.instance(id);
  EXPECT_EQ(running["State"]["Code"], 16);
  EXPECT_EQ(running["PrivateIpAddress"], "172.31.0.4");
  EXPECT_EQ(running["PrivateDnsName"], "ip-172-31-0-4.ec2.internal");
  EXPECT_EQ(running["Placement"]["AvailabilityZone"], "us-east-1a");
  EXPECT_EQ(running["StateTransitionReason"], "");
  EXPECT_EQ(running["BlockDeviceMappings"][0]["DeviceName"], "/dev/xvda");
  EXPECT_THAT(world_.network->taps(), ElementsAre(id));
  EXPECT_THAT(world_.record(id).uuid, StartsWith("ec2"));
  EXPECT_EQ(world_.record(id).uuid.size(), 36U);
  EXPECT_EQ(world_.blocks().volume(world_.root(id)).value().size_bytes, 64U << 20);
}

TEST_F(CloudTest, StopAndStartKeepAddressAndDisk) {
  std::string id = world_.run_one();
  ASSERT_TRUE(world_.becomes(id, "running"));
  world_.blocks().write(world_.root(id), "written by the guest");
  Json change = world_.call("StopInstances", ids(id))["StoppingInstances"][0];
  EXPECT_EQ(change["CurrentState"]["Code"], 64);
  EXPECT_EQ(change["PreviousState"]["Code"], 16);
  ASSERT_TRUE(world_.becomes(id, "stopped"));
  EXPECT_THAT(world_.network->taps(), IsEmpty());
  EXPECT_THAT(world_.machines->processes(), IsEmpty());
  Json stopped = world_.instance(id);
  EXPECT_EQ(stopped["State"]["Code"], 80);
  EXPECT_EQ(stopped["StateReason"]["Code"], "Client.UserInitiatedShutdown");
  EXPECT_THAT(stopped["StateTransitionReason"].get<std::string>(), StartsWith("User initiated (20"));
  EXPECT_EQ(stopped["PrivateIpAddress"], "172.31.0.4");
  world_.call("StartInstances", ids(id));
  ASSERT_TRUE(world_.becomes(id, "running"));
  EXPECT_EQ(world_.instance(id)["PrivateIpAddress"], "172.31.0.4");
  EXPECT_FALSE(world_.instance(id).contains("StateReason"));
  EXPECT_EQ(world_.blocks().read(world_.root(id)), "written by the guest");
}

TEST_F(CloudTest, StartOnRunningAndStopOnStoppedChangeNothing) {
  std::string id = world_.run_one();
  ASSERT_TRUE(world_.becomes(id, "running"));
  Json change = world_.call("StartInstances", ids(id))["StartingInstances"][0];
  EXPECT_EQ(change["CurrentState"]["Name"], "running");
  EXPECT_EQ(change["PreviousState"]["Name"], "running");
  world_.call("StopInstances", ids(id));
  ASSERT_TRUE(world_.becomes(id, "stopped"));
  EXPECT_EQ(world_.call("StopInstances", ids(id))["StoppingInstances"][0]["CurrentState"]["Name"], "stopped");
  EXPECT_EQ(world_.machines->launches, 1);
}

TEST_F(CloudTest, TerminateDeletesTheRootVolumeAndStaysVisible) {
  std::string id = world_.run_one();
  ASSERT_TRUE(world_.becomes(id, "running"));
  std::string root = world_.root(id);
  EXPECT_EQ(world_.call("TerminateInstances", ids(id))["TerminatingInstances"][0]["CurrentState"]["Code"],
            32);
  ASSERT_TRUE(world_.becomes(id, "terminated"));
  EXPECT_FALSE(world_.blocks().ids().contains(root));
  EXPECT_FALSE(world_.instance(id).contains("PrivateIpAddress"));
  EXPECT_EQ(world_.call("TerminateInstances", ids(id))["TerminatingInstances"][0]["CurrentState"]["Code"],
            48);
  EXPECT_EQ(
      world_.refusal("StartInstances", ids(id)),
      "IncorrectInstanceState: The instance '" + id + "' is not in a state from which it can be started.");
  EXPECT_EQ(
      world_.refusal("StopInstances", ids(id)),
      "IncorrectInstanceState: The instance '" + id + "' is not in a state from which it can be stopped.");
  EXPECT_EQ(world_.run_one().size(), 19U);
  world_.cloud->wait_idle();
}

TEST_F(CloudTest, TerminatedInstancesVanishAfterTheirTime) {
  std::string id = world_.run_one({{"ClientToken", "abc"}});
  ASSERT_TRUE(world_.becomes(id, "running"));
  world_.call("TerminateInstances", ids(id));
  ASSERT_TRUE(world_.becomes(id, "terminated"));
  world_.keeper.terminated_visible = std::chrono::milliseconds(0);
  world_.restart();
  EXPECT_EQ(world_.refusal("DescribeInstances", ids(id)),
            "InvalidInstanceID.NotFound: The instance ID '" + id + "' does not exist");
  EXPECT_FALSE(std::filesystem::exists(world_.keeper.layout.instance(id)));
  EXPECT_THAT(world_.store->list("token").value(), IsEmpty());
}

TEST_F(CloudTest, DeafGuestIsSwitchedOff) {
  world_.machines->deaf = true;
  std::string id = world_.run_one();
  ASSERT_TRUE(world_.becomes(id, "running"));
  world_.call("StopInstances", ids(id));
  EXPECT_TRUE(world_.becomes(id, "stopped"));
}

TEST_F(CloudTest, ForcedStopDoesNotWait) {
  world_.keeper.stop_timeout = std::chrono::hours(1);
  world_.restart();
  world_.machines->deaf = true;
  std::string id = world_.run_one();
  ASSERT_TRUE(world_.becomes(id, "running"));
  world_.call("StopInstances", {{"InstanceIds", {id}}, {"Force", true}});
  EXPECT_TRUE(world_.becomes(id, "stopped"));
}

TEST_F(CloudTest, GuestPowersOffByItself) {
  std::string stays = world_.run_one();
  std::string goes =
      world_.run_one({{"InstanceInitiatedShutdownBehavior", "terminate"}, {"DisableApiTermination", true}});
  ASSERT_TRUE(world_.becomes(stays, "running"));
  ASSERT_TRUE(world_.becomes(goes, "running"));
  world_.guest_ends(stays, "powered-off");
  world_.guest_ends(goes, "powered-off");
  EXPECT_TRUE(world_.becomes(stays, "stopped"));
  EXPECT_TRUE(world_.becomes(goes, "terminated"));
  EXPECT_EQ(
      world_.instance(stays)["StateReason"].dump(),
      R"({"Code":"Client.InstanceInitiatedShutdown","Message":"Client.InstanceInitiatedShutdown: Instance initiated shutdown"})");
}

TEST_F(CloudTest, KilledVmmStopsTheInstanceWithTheReason) {
  std::string killed = world_.run_one();
  std::string faulted = world_.run_one();
  ASSERT_TRUE(world_.becomes(killed, "running"));
  ASSERT_TRUE(world_.becomes(faulted, "running"));
  world_.guest_ends(killed, "");
  world_.guest_ends(faulted, "triple-fault");
  ASSERT_TRUE(world_.becomes(killed, "stopped"));
  ASSERT_TRUE(world_.becomes(faulted, "stopped"));
  EXPECT_EQ(world_.instance(killed)["StateReason"]["Message"],
            "Server.InternalError: the virtual machine's process was killed or crashed (killed by signal 9 "
            "(Killed))");
  EXPECT_EQ(world_.instance(faulted)["StateReason"]["Message"],
            "Server.InternalError: the virtual machine ended: triple-fault (at address 0x10)");
  world_.call("StartInstances", ids(killed));
  EXPECT_TRUE(world_.becomes(killed, "running"));
}

TEST_F(CloudTest, LaunchThatFailsTerminatesANewInstanceAndStopsAnOldOne) {
  std::string old = world_.run_one();
  ASSERT_TRUE(world_.becomes(old, "running"));
  world_.call("StopInstances", ids(old));
  ASSERT_TRUE(world_.becomes(old, "stopped"));
  world_.machines->fail_launch = "the VMM could not start: no memory";
  std::string fresh = world_.run_one();
  world_.call("StartInstances", ids(old));
  ASSERT_TRUE(world_.becomes(fresh, "terminated"));
  ASSERT_TRUE(world_.becomes(old, "stopped"));
  for (const std::string& id : {fresh, old}) {
    EXPECT_EQ(world_.instance(id)["StateReason"]["Message"],
              "Server.InternalError: the VMM could not start: no memory");
  }
  EXPECT_THAT(world_.network->taps(), IsEmpty());
  EXPECT_TRUE(world_.blocks().ids().contains(world_.root(old)));
}

TEST_F(CloudTest, RebootStartsANewVmmAndStaysRunning) {
  std::string id = world_.run_one();
  ASSERT_TRUE(world_.becomes(id, "running"));
  int64_t before = world_.record(id).pid;
  world_.call("RebootInstances", ids(id));
  for (int i = 0; i < 1000 && (world_.record(id).pid == before || world_.record(id).pid == 0); ++i)
    ::usleep(5000);
  EXPECT_NE(world_.record(id).pid, before);
  EXPECT_EQ(world_.state(id), "running");
  EXPECT_FALSE(world_.record(id).rebooting);
  EXPECT_EQ(world_.machines->launches, 2);
}

TEST_F(CloudTest, RebootOfADeafGuestIsAReset) {
  world_.machines->deaf = true;
  std::string id = world_.run_one();
  ASSERT_TRUE(world_.becomes(id, "running"));
  world_.call("RebootInstances", ids(id));
  for (int i = 0; i < 1000 && world_.machines->resets == 0; ++i) ::usleep(5000);
  EXPECT_EQ(world_.machines->resets, 1);
  EXPECT_EQ(world_.machines->launches, 1);
  EXPECT_EQ(world_.state(id), "running");
}

TEST_F(CloudTest, InstancesRunOnWhileTheDaemonRestarts) {
  std::string id = world_.run_one();
  ASSERT_TRUE(world_.becomes(id, "running"));
  auto before = world_.machines->processes();
  world_.restart();
  EXPECT_EQ(world_.state(id), "running");
  EXPECT_EQ(world_.machines->processes(), before);
  EXPECT_THAT(world_.network->taps(), ElementsAre(id));
  world_.guest_ends(id, "powered-off");
  EXPECT_TRUE(world_.becomes(id, "stopped"));
}

TEST_F(CloudTest, WhatEndedWhileNoDaemonRanIsFound) {
  std::string killed = world_.run_one();
  std::string off = world_.run_one({{"InstanceInitiatedShutdownBehavior", "terminate"}});
  ASSERT_TRUE(world_.becomes(killed, "running"));
  ASSERT_TRUE(world_.becomes(off, "running"));
  std::string uuid = world_.record(off).uuid;
  auto status = world_.keeper.layout.status(off);
  world_.stop();
  std::ofstream(status) << R"({"reason":"powered-off","detail":""})";
  world_.machines->kill_all();
  world_.start();
  EXPECT_TRUE(world_.becomes(killed, "stopped"));
  EXPECT_EQ(world_.instance(killed)["StateReason"]["Code"], "Server.InternalError");
  EXPECT_TRUE(world_.becomes(off, "terminated"));
  EXPECT_THAT(world_.network->taps(), IsEmpty());
}

TEST_F(CloudTest, ManyInstancesOfOneRequestShareAReservation) {
  Json reply = world_.call("RunInstances", {{"ImageId", "tiny"}, {"MinCount", 3}, {"MaxCount", 3}});
  ASSERT_THAT(reply["Instances"], SizeIs(3));
  std::set<std::string> addresses;
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(reply["Instances"][i]["AmiLaunchIndex"], i);
    addresses.insert(reply["Instances"][i]["PrivateIpAddress"].get<std::string>());
  }
  EXPECT_THAT(addresses, SizeIs(3));
  Json described = world_.call("DescribeInstances", Json::object());
  ASSERT_THAT(described["Reservations"], SizeIs(1));
  EXPECT_EQ(described["Reservations"][0]["ReservationId"], reply["ReservationId"]);
  world_.cloud->wait_idle();
}

TEST_F(CloudTest, ClientTokenMakesARequestRepeatable) {
  Json request{{"ImageId", "tiny"}, {"MinCount", 1}, {"MaxCount", 1}, {"ClientToken", "one"}};
  Json first = world_.call("RunInstances", request);
  world_.restart();
  Json second = world_.call("RunInstances", request);
  EXPECT_EQ(first["ReservationId"], second["ReservationId"]);
  EXPECT_EQ(first["Instances"][0]["InstanceId"], second["Instances"][0]["InstanceId"]);
  request["InstanceType"] = "t2.nano";
  EXPECT_EQ(world_.refusal("RunInstances", request),
            "IdempotentParameterMismatch: The request uses the same client token as a previous, but "
            "non-identical request.");
  world_.cloud->wait_idle();
}

TEST_F(CloudTest, BadInputIsRefusedWithEc2sCodes) {
  auto run = [&](Json extra) {
    Json request{{"ImageId", "tiny"}, {"MinCount", 1}, {"MaxCount", 1}};
    request.update(extra);
    return world_.refusal("RunInstances", request);
  };
  EXPECT_EQ(run({{"ImageId", "ami-0123456789abcdef0"}}),
            "InvalidAMIID.NotFound: The image id '[ami-0123456789abcdef0]' does not exist");
  EXPECT_EQ(run({{"ImageId", "ami-xyz"}}),
            "InvalidAMIID.Malformed: Invalid id: \"ami-xyz\" (expecting \"ami-...\")");
  EXPECT_EQ(run({{"InstanceType", "t9.huge"}}),
            "InvalidInstanceType: The instance type 't9.huge' does not exist");
  EXPECT_EQ(run({{"InstanceType", "m5.24xlarge"}}),
            "InsufficientInstanceCapacity: m5.24xlarge has 96 vCPUs; a virtual machine of this host has at "
            "most 32");
  EXPECT_EQ(run({{"InstanceType", "m5.4xlarge"}}),
            "InsufficientInstanceCapacity: m5.4xlarge needs 65536 MiB of memory; this host has 40000 MiB");
  EXPECT_EQ(run({{"KeyName", "nobody"}}), "InvalidKeyPair.NotFound: The key pair 'nobody' does not exist");
  EXPECT_EQ(run({{"MinCount", 2}}), "InvalidParameterCombination: MaxCount 1 is smaller than MinCount 2");
  EXPECT_EQ(run({{"MinCount", 0}}), "InvalidParameterValue: MinCount and MaxCount must be at least 1");
  EXPECT_EQ(run({{"MaxCount", "many"}}), "InvalidParameterValue: The parameter MaxCount must be an integer");
  EXPECT_EQ(run({{"Colour", "red"}}), "UnknownParameter: The parameter Colour is not recognized");
  EXPECT_EQ(run({{"UserData", "not base64!"}}),
            "InvalidUserData.Malformed: Invalid BASE64 encoding of user data.");
  EXPECT_EQ(run({{"UserData", to_base64(std::string(16385, 'x'))}}),
            "InvalidParameterValue: User data is limited to 16384 bytes");
  EXPECT_EQ(run({{"Placement", {{"AvailabilityZone", "mars-1a"}}}}),
            "InvalidParameterValue: Invalid availability zone: [mars-1a]");
  EXPECT_EQ(run({{"PrivateIpAddress", "172.31.0.3"}}),
            "InvalidParameterValue: Address 172.31.0.3 does not fall within the subnet's address range");
  EXPECT_EQ(run({{"DryRun", true}}),
            "DryRunOperation: Request would have succeeded, but DryRun flag is set.");
  EXPECT_EQ(world_.refusal("RunInstances", {{"ImageId", "tiny"}, {"MinCount", 1}}),
            "MissingParameter: The request must contain the parameter MaxCount");
  EXPECT_EQ(world_.refusal("StopInstances", ids("i-12")),
            "InvalidInstanceID.Malformed: Invalid id: \"i-12\" (expecting \"i-...\")");
  EXPECT_EQ(
      world_.refusal("DescribeInstances", {{"InstanceIds", {"i-0123456789abcdef0", "i-0123456789abcdef1"}}}),
      "InvalidInstanceID.NotFound: The instance IDs 'i-0123456789abcdef0, i-0123456789abcdef1' do not exist");
  EXPECT_THAT(world_.store->list("instance").value(), IsEmpty());
  EXPECT_EQ(world_.machines->launches, 0);
}

TEST_F(CloudTest, LimitsInstancesAndAddresses) {
  world_.max_instances = 2;
  world_.restart();
  EXPECT_EQ(world_.refusal("RunInstances", {{"ImageId", "tiny"}, {"MinCount", 3}, {"MaxCount", 3}}),
            "InstanceLimitExceeded: You have 0 instances and asked for 3 more; the limit is 2");
  EXPECT_THAT(
      world_.call("RunInstances", {{"ImageId", "tiny"}, {"MinCount", 1}, {"MaxCount", 3}})["Instances"],
      SizeIs(2));
  world_.cloud->wait_idle();
}

TEST_F(CloudTest, OneWrongInstanceLeavesAllAsTheyWere) {
  std::string good = world_.run_one();
  std::string gone = world_.run_one();
  ASSERT_TRUE(world_.becomes(good, "running"));
  ASSERT_TRUE(world_.becomes(gone, "running"));
  world_.call("TerminateInstances", ids(gone));
  ASSERT_TRUE(world_.becomes(gone, "terminated"));
  EXPECT_THAT(world_.refusal("StopInstances", {{"InstanceIds", {good, gone}}}),
              StartsWith("IncorrectInstanceState"));
  EXPECT_EQ(world_.state(good), "running");
}

TEST_F(CloudTest, ProtectionKeepsTheApiButNotTheGuestFromTerminating) {
  std::string id = world_.run_one({{"DisableApiTermination", true}});
  ASSERT_TRUE(world_.becomes(id, "running"));
  EXPECT_THAT(world_.refusal("TerminateInstances", ids(id)),
              StartsWith("OperationNotPermitted: The instance '" + id));
  world_.call("ModifyInstanceAttribute", {{"InstanceId", id}, {"DisableApiTermination", {{"Value", false}}}});
  world_.call("TerminateInstances", ids(id));
  EXPECT_TRUE(world_.becomes(id, "terminated"));
}

TEST_F(CloudTest, TypeAndUserDataChangeOnlyWhenStopped) {
  std::string id = world_.run_one();
  ASSERT_TRUE(world_.becomes(id, "running"));
  Json change{{"InstanceId", id}, {"InstanceType", {{"Value", "t2.small"}}}};
  EXPECT_EQ(world_.refusal("ModifyInstanceAttribute", change),
            "IncorrectInstanceState: The instance '" + id + "' is not in the 'stopped' state.");
  world_.call("StopInstances", ids(id));
  ASSERT_TRUE(world_.becomes(id, "stopped"));
  world_.call("ModifyInstanceAttribute", change);
  world_.call("ModifyInstanceAttribute",
              {{"InstanceId", id}, {"UserData", {{"Value", to_base64("#!/bin/sh")}}}});
  EXPECT_EQ(world_.instance(id)["InstanceType"], "t2.small");
  Json attribute = world_.call("DescribeInstanceAttribute", {{"InstanceId", id}, {"Attribute", "userData"}});
  EXPECT_EQ(attribute["UserData"]["Value"], to_base64("#!/bin/sh"));
  EXPECT_EQ(world_.refusal("ModifyInstanceAttribute", {{"InstanceId", id}}),
            "InvalidParameterCombination: No attributes specified.");
}

TEST_F(CloudTest, FiltersAndPages) {
  for (const char* name : {"web-1", "web-2", "db"}) {
    world_.run_one({{"TagSpecifications",
                     Json::array({{{"ResourceType", "instance"},
                                   {"Tags", Json::array({{{"Key", "Name"}, {"Value", name}}})}}})}});
  }
  auto count = [&](const char* name, Json values) {
    Json filters = Json::array({{{"Name", name}, {"Values", values}}});
    return world_.call("DescribeInstances", {{"Filters", filters}})["Reservations"].size();
  };
  EXPECT_EQ(count("tag:Name", {"web-*"}), 2U);
  EXPECT_EQ(count("tag:Name", {"web-?", "db"}), 3U);
  EXPECT_EQ(count("tag:Name", {"web-\\*"}), 0U);
  EXPECT_EQ(count("tag-key", {"Name"}), 3U);
  EXPECT_EQ(count("instance-type", {"t2.micro"}), 3U);
  EXPECT_EQ(world_.refusal("DescribeInstances",
                           {{"Filters", Json::array({{{"Name", "colour"}, {"Values", {"red"}}}})}}),
            "InvalidParameterValue: The filter 'colour' is invalid");
  for (int i = 0; i < 4; ++i) world_.run_one();
  Json first = world_.call("DescribeInstances", {{"MaxResults", 5}});
  EXPECT_THAT(first["Reservations"], SizeIs(5));
  Json second = world_.call("DescribeInstances", {{"MaxResults", 5}, {"NextToken", first["NextToken"]}});
  EXPECT_THAT(second["Reservations"], SizeIs(2));
  EXPECT_FALSE(second.contains("NextToken"));
  EXPECT_EQ(world_.refusal("DescribeInstances", {{"NextToken", "rubbish"}}),
            "InvalidNextToken: The token 'rubbish' is invalid");
  world_.cloud->wait_idle();
}

TEST_F(CloudTest, TagsAreMergedListedAndRemoved) {
  std::string id = world_.run_one();
  auto tag = [](const char* key, const char* value) { return Json{{"Key", key}, {"Value", value}}; };
  world_.call("CreateTags",
              {{"Resources", {id, image_}}, {"Tags", {tag("Stage", "test"), tag("Owner", "me")}}});
  world_.call("CreateTags", {{"Resources", {id}}, {"Tags", {tag("Stage", "prod")}}});
  EXPECT_EQ(world_.instance(id)["Tags"].dump(),
            R"([{"Key":"Stage","Value":"prod"},{"Key":"Owner","Value":"me"}])");
  Json filter = Json::array({{{"Name", "resource-type"}, {"Values", {"instance"}}}});
  EXPECT_THAT(world_.call("DescribeTags", {{"Filters", filter}})["Tags"], SizeIs(2));
  world_.call("DeleteTags", {{"Resources", {id}}, {"Tags", {tag("Stage", "test"), tag("Owner", "me")}}});
  EXPECT_EQ(world_.instance(id)["Tags"].dump(), R"([{"Key":"Stage","Value":"prod"}])");
  EXPECT_EQ(world_.refusal("CreateTags", {{"Resources", {id}}, {"Tags", {tag("aws:x", "y")}}}),
            "InvalidParameterValue: Tag keys starting with 'aws:' are reserved for internal use");
  EXPECT_EQ(
      world_.refusal("CreateTags", {{"Resources", {id, "i-0123456789abcdef0"}}, {"Tags", {tag("a", "b")}}}),
      "InvalidInstanceID.NotFound: The instance ID 'i-0123456789abcdef0' does not exist");
  EXPECT_THAT(world_.instance(id)["Tags"], SizeIs(1));
  world_.cloud->wait_idle();
}

TEST_F(CloudTest, ImageFilesStayAsLongAsInstancesStandOnThem) {
  std::string id = world_.run_one();
  ASSERT_TRUE(world_.becomes(id, "running"));
  world_.call("DeregisterImage", {{"ImageId", image_}});
  world_.cloud->wait_idle();
  EXPECT_THAT(world_.call("DescribeImages", Json::object())["Images"], IsEmpty());
  EXPECT_TRUE(std::filesystem::exists(world_.keeper.layout.image(image_) / "kernel"));
  world_.call("StopInstances", ids(id));
  ASSERT_TRUE(world_.becomes(id, "stopped"));
  world_.call("StartInstances", ids(id));
  ASSERT_TRUE(world_.becomes(id, "running"));
  world_.call("TerminateInstances", ids(id));
  ASSERT_TRUE(world_.becomes(id, "terminated"));
  world_.restart();
  EXPECT_FALSE(std::filesystem::exists(world_.keeper.layout.image(image_)));
  world_.cloud->wait_idle();
  EXPECT_THAT(world_.blocks().ids(), IsEmpty());
}

TEST_F(CloudTest, ImageIsCopiedAndRefusedWhenItIsNone) {
  EXPECT_EQ(read_file(world_.keeper.layout.image(image_) / "kernel").value(), "kernel");
  std::filesystem::remove_all(world_.image_folder / "kernel");
  auto again = [&](const char* name) {
    return world_.refusal("RegisterImage", {{"Name", name}, {"ImageLocation", world_.image_folder.string()}});
  };
  EXPECT_EQ(again("tiny"), "InvalidAMIName.Duplicate: AMI name tiny is already in use by AMI " + image_);
  EXPECT_THAT(again("other"), StartsWith("InternalError: cannot open " + world_.image_folder.string()));
  EXPECT_THAT(world_.store->list("image").value(), SizeIs(1));
  std::filesystem::create_symlink("/etc/passwd", world_.image_folder / "kernel");
  EXPECT_THAT(again("other"), StartsWith("InternalError: cannot open"));
  EXPECT_THAT(world_.refusal("RegisterImage", {{"Name", "none"}, {"ImageLocation", "/nonexistent"}}),
              StartsWith("InvalidManifest: /nonexistent is not an image"));
}

TEST_F(CloudTest, RootVolumeMayBeLargerThanTheImageAndNotSmaller) {
  auto mapping = [](int size) {
    return Json{{"BlockDeviceMappings",
                 Json::array({{{"DeviceName", "/dev/xvda"}, {"Ebs", {{"VolumeSize", size}}}}})}};
  };
  std::string id = world_.run_one(mapping(8));
  ASSERT_TRUE(world_.becomes(id, "running"));
  EXPECT_EQ(world_.blocks().volume(world_.root(id)).value().size_bytes, uint64_t{8} << 30);
  std::filesystem::resize_file(world_.image_folder / "root.img", uint64_t{3} << 30);
  world_.call("RegisterImage", {{"Name", "large"}, {"ImageLocation", world_.image_folder.string()}});
  Json request = mapping(2);
  request.update({{"ImageId", "large"}, {"MinCount", 1}, {"MaxCount", 1}});
  Json large = world_.call("DescribeImages", Json::object())["Images"];
  std::string snapshot;
  for (const Json& image : large) {
    if (image["Name"] == "large") snapshot = image["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"];
  }
  EXPECT_EQ(world_.refusal("RunInstances", request),
            "InvalidBlockDeviceMapping: Volume of size 2GB is smaller than snapshot '" + snapshot +
                "', expect size >= 3GB");
}

TEST_F(CloudTest, ALostRootVolumeIsNotReplacedByAnEmptyOne) {
  std::string id = world_.run_one();
  ASSERT_TRUE(world_.becomes(id, "running"));
  world_.call("StopInstances", ids(id));
  ASSERT_TRUE(world_.becomes(id, "stopped"));
  std::string root = world_.root(id);
  world_.blocks().delete_volume(root).value();
  world_.call("StartInstances", ids(id));
  world_.cloud->wait_idle();
  ASSERT_TRUE(world_.becomes(id, "stopped"));
  EXPECT_THAT(world_.instance(id)["StateReason"]["Message"].get<std::string>(),
              StartsWith("Server.InternalError: volume " + root + ": there is no volume"));
}

TEST_F(CloudTest, ConsoleOutputIsTheRingsContent) {
  std::string id = world_.run_one();
  ASSERT_TRUE(world_.becomes(id, "running"));
  EXPECT_EQ(world_.call("GetConsoleOutput", {{"InstanceId", id}})["Output"], "");
  UniqueFd file = open_file(world_.keeper.layout.console(id), O_RDWR).value();
  std::string text = "login: ";
  ConsoleRing::open(file).value().append(std::as_bytes(std::span(text)));
  EXPECT_EQ(world_.call("GetConsoleOutput", {{"InstanceId", id}})["Output"], to_base64(text));
}

TEST_F(CloudTest, RegionsAreApart) {
  std::string id = world_.run_one();
  world_.region = "eu-west-1";
  EXPECT_THAT(world_.call("DescribeInstances", Json::object())["Reservations"], IsEmpty());
  EXPECT_THAT(world_.refusal("TerminateInstances", ids(id)), StartsWith("InvalidInstanceID.NotFound"));
  EXPECT_THAT(world_.refusal("RunInstances", {{"ImageId", image_}, {"MinCount", 1}, {"MaxCount", 1}}),
              StartsWith("InvalidAMIID.NotFound"));
  world_.register_tiny();
  std::string other = world_.run_one();
  EXPECT_EQ(world_.instance(other)["PrivateDnsName"], "ip-172-31-48-4.eu-west-1.compute.internal");
  EXPECT_THAT(world_.call("DescribeRegions", Json::object())["Regions"], SizeIs(2));
  EXPECT_THAT(world_.call("DescribeAvailabilityZones", Json::object())["AvailabilityZones"], SizeIs(3));
  world_.cloud->wait_idle();
}

TEST_F(CloudTest, MetalIsFoundAsMetal) {
  Json filter = Json::array({{{"Name", "bare-metal"}, {"Values", {"true"}}}});
  Json reply = world_.call("DescribeInstanceTypes", {{"Filters", filter}});
  std::set<std::string> found;
  for (const Json& type : reply["InstanceTypes"]) found.insert(type["InstanceType"].get<std::string>());
  EXPECT_THAT(found, ::testing::ElementsAre("c5.metal", "m5.metal"));
}

TEST_F(CloudTest, KeyPairIsGivenToTheInstanceAndMayBeDeletedLater) {
  Json key = world_.call("CreateKeyPair", {{"KeyName", "mine"}, {"KeyType", "ed25519"}});
  EXPECT_THAT(key["KeyMaterial"].get<std::string>(), StartsWith("-----BEGIN OPENSSH PRIVATE KEY-----\n"));
  EXPECT_EQ(world_.refusal("CreateKeyPair", {{"KeyName", "mine"}}),
            "InvalidKeyPair.Duplicate: The keypair 'mine' already exists.");
  std::string id = world_.run_one({{"KeyName", "mine"}});
  world_.call("DeleteKeyPair", {{"KeyName", "mine"}});
  world_.call("DeleteKeyPair", {{"KeyName", "mine"}});
  EXPECT_EQ(world_.instance(id)["KeyName"], "mine");
  EXPECT_THAT(world_.record(id).authorized_key, StartsWith("ssh-ed25519 AAAA"));
  for (const auto& object : world_.store->list("key").value())
    EXPECT_EQ(object.value.find("PRIVATE"), std::string::npos);
  world_.cloud->wait_idle();
}

}  // namespace
}  // namespace haneul::agent::testing
