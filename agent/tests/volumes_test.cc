// SPDX-License-Identifier: Apache-2.0
// Volumes by EC2's rules: what they go through, and every refusal by its code and sentence.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "agent/tests/world.h"

namespace haneul::agent::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using ::testing::StartsWith;

Json list(std::initializer_list<Json> items) {
  Json array = Json::array();
  for (const Json& item : items) array.push_back(item);
  return array;
}

class VolumesTest : public ::testing::Test {
 protected:
  VolumesTest() : image_(world_.register_tiny()) {}

  std::string running(Json extra = Json::object()) {
    std::string id = world_.run_one(std::move(extra));
    EXPECT_TRUE(world_.becomes(id, "running"));
    return id;
  }
  void stop(const std::string& id) {
    world_.call("StopInstances", {{"InstanceIds", {id}}});
    ASSERT_TRUE(world_.becomes(id, "stopped"));
  }
  void attach(const std::string& volume, const std::string& instance,
              const std::string& device = "/dev/sdf") {
    world_.call("AttachVolume", {{"VolumeId", volume}, {"InstanceId", instance}, {"Device", device}});
    ASSERT_TRUE(attachment_becomes(volume, "attached"));
  }
  bool attachment_becomes(const std::string& volume, const std::string& state) {
    return World::eventually([&] {
      Json attachments = world_.volume(volume)["Attachments"];
      return !attachments.empty() && attachments[0]["State"] == state;
    });
  }
  bool becomes(const std::string& volume, const std::string& state) {
    return World::eventually([&] { return world_.volume(volume)["State"] == state; });
  }

  World world_;
  std::string image_;
};

TEST_F(VolumesTest, AreCreatedAndShown) {
  Json reply = world_.call(
      "CreateVolume",
      {{"AvailabilityZone", "us-east-1b"},
       {"Size", 8},
       {"TagSpecifications",
        list({{{"ResourceType", "volume"}, {"Tags", list({{{"Key", "Name"}, {"Value", "data"}}})}}})}});
  std::string id = reply["VolumeId"];
  EXPECT_EQ(reply["State"], "creating");
  EXPECT_TRUE(valid_id(id, "vol"));
  ASSERT_TRUE(becomes(id, "available"));
  Json volume = world_.volume(id);
  EXPECT_EQ(volume["Size"], 8);
  EXPECT_EQ(volume["AvailabilityZone"], "us-east-1b");
  EXPECT_EQ(volume["VolumeType"], "gp3");
  EXPECT_EQ(volume["Iops"], 3000);
  EXPECT_EQ(volume["Throughput"], 125);
  EXPECT_EQ(volume["Encrypted"], false);
  EXPECT_EQ(volume["SnapshotId"], "");
  EXPECT_THAT(volume["Attachments"], IsEmpty());
  EXPECT_EQ(volume["Tags"][0]["Value"], "data");
  EXPECT_EQ(world_.blocks().volume(id).value().size_bytes, uint64_t{8} << 30);
  auto find = [&](const char* name, const char* value) {
    Json filters = list({{{"Name", name}, {"Values", {value}}}});
    return world_.call("DescribeVolumes", {{"Filters", filters}})["Volumes"].size();
  };
  EXPECT_EQ(find("tag:Name", "da*"), 1U);
  EXPECT_EQ(find("availability-zone", "us-east-1a"), 0U);
  EXPECT_EQ(find("size", "8"), 1U);
  EXPECT_EQ(world_.refusal("DescribeVolumes", {{"Filters", list({{{"Name", "colour"}, {"Values", {"x"}}}})}}),
            "InvalidParameterValue: The filter 'colour' is invalid");
  world_.region = "eu-west-1";
  EXPECT_EQ(world_.refusal("DescribeVolumes", {{"VolumeIds", {id}}}),
            "InvalidVolume.NotFound: The volume '" + id + "' does not exist.");
}

TEST_F(VolumesTest, CreationRefusesWhatEc2Refuses) {
  auto refusal = [&](Json extra) {
    Json request{{"AvailabilityZone", "us-east-1a"}, {"Size", 8}};
    request.update(extra);
    return world_.refusal("CreateVolume", request);
  };
  EXPECT_EQ(refusal({{"AvailabilityZone", "us-east-1z"}}),
            "InvalidZone.NotFound: The zone 'us-east-1z' does not exist.");
  EXPECT_EQ(refusal({{"AvailabilityZone", "eu-west-1a"}}),
            "InvalidZone.NotFound: The zone 'eu-west-1a' does not exist.");
  EXPECT_EQ(refusal({{"Size", 0}}), "InvalidParameterValue: Volume size 0 GiB is not between 1 and 16384");
  EXPECT_EQ(refusal({{"Size", 16385}}),
            "InvalidParameterValue: Volume size 16385 GiB is not between 1 and 16384");
  EXPECT_EQ(refusal({{"SnapshotId", "snap-x"}}),
            "InvalidSnapshotID.Malformed: Invalid id: \"snap-x\" (expecting \"snap-...\")");
  EXPECT_EQ(refusal({{"SnapshotId", "snap-0123456789abcdef0"}}),
            "InvalidSnapshot.NotFound: The snapshot 'snap-0123456789abcdef0' does not exist.");
  EXPECT_EQ(refusal({{"VolumeType", "gp9"}}),
            "UnknownVolumeType: Unsupported volume type 'gp9' for volume creation.");
  EXPECT_EQ(refusal({{"VolumeType", "io1"}}),
            "MissingParameter: The parameter iops must be specified for io1 volumes.");
  EXPECT_EQ(refusal({{"VolumeType", "gp2"}, {"Iops", 500}}),
            "InvalidParameterCombination: The parameter iops is not supported for gp2 volumes.");
  EXPECT_EQ(refusal({{"Iops", 20000}}),
            "InvalidParameterValue: Volume iops of 20000 is not between 3000 and 16000");
  EXPECT_EQ(refusal({{"MultiAttachEnabled", true}}),
            "UnsupportedOperation: Multi-attach is not supported: one instance a volume");
  EXPECT_EQ(refusal({{"DryRun", true}}),
            "DryRunOperation: Request would have succeeded, but DryRun flag is set.");
  EXPECT_EQ(world_.refusal("CreateVolume", {{"AvailabilityZone", "us-east-1a"}}),
            "MissingParameter: The request must contain the parameter size or snapshotId");
  EXPECT_THAT(world_.call("DescribeVolumes", Json::object())["Volumes"], IsEmpty());
}

TEST_F(VolumesTest, ClientTokenMakesOneVolume) {
  Json request{{"AvailabilityZone", "us-east-1a"}, {"Size", 8}, {"ClientToken", "once"}};
  std::string id = world_.call("CreateVolume", request)["VolumeId"];
  EXPECT_EQ(world_.call("CreateVolume", request)["VolumeId"], id);
  request["Size"] = 9;
  EXPECT_THAT(world_.refusal("CreateVolume", request), StartsWith("IdempotentParameterMismatch"));
}

TEST_F(VolumesTest, AVolumeThatCannotBeMadeSaysWhy) {
  world_.blocks().broken = "no space left";
  std::string id = world_.call("CreateVolume", {{"AvailabilityZone", "us-east-1a"}, {"Size", 8}})["VolumeId"];
  ASSERT_TRUE(becomes(id, "error"));
  EXPECT_EQ(world_.volume(id)["StateMessage"], "volume " + id + ": no space left");
  world_.blocks().broken = "";
  world_.call("DeleteVolume", {{"VolumeId", id}});
  world_.cloud->wait_idle();
  EXPECT_THAT(world_.refusal("DescribeVolumes", {{"VolumeIds", {id}}}), StartsWith("InvalidVolume.NotFound"));
}

TEST_F(VolumesTest, AttachToARunningInstancePlugsADiskWithTheVolumesSerial) {
  std::string id = world_.make_volume();
  std::string instance = running();
  Json reply =
      world_.call("AttachVolume", {{"VolumeId", id}, {"InstanceId", instance}, {"Device", "/dev/sdf"}});
  EXPECT_EQ(reply["State"], "attaching");
  EXPECT_EQ(reply["DeleteOnTermination"], false);
  ASSERT_TRUE(attachment_becomes(id, "attached"));
  EXPECT_EQ(world_.volume(id)["State"], "in-use");
  EXPECT_THAT(world_.disks(instance), ElementsAre(disk_serial(world_.root(instance)), disk_serial(id)));
  EXPECT_EQ(disk_serial(id).size(), 20U);
  Json mappings = world_.instance(instance)["BlockDeviceMappings"];
  ASSERT_THAT(mappings, SizeIs(2));
  EXPECT_EQ(mappings[1]["DeviceName"], "/dev/sdf");
  EXPECT_EQ(mappings[1]["Ebs"]["VolumeId"], id);
  EXPECT_EQ(world_.refusal("DeleteVolume", {{"VolumeId", id}}),
            "VolumeInUse: Volume " + id + " is currently attached to " + instance);
  EXPECT_EQ(world_.call("DetachVolume", {{"VolumeId", id}})["State"], "detaching");
  ASSERT_TRUE(becomes(id, "available"));
  EXPECT_THAT(world_.disks(instance), ElementsAre(disk_serial(world_.root(instance))));
  world_.call("DeleteVolume", {{"VolumeId", id}});
  world_.cloud->wait_idle();
  EXPECT_FALSE(world_.blocks().ids().contains(id));
}

TEST_F(VolumesTest, AttachRefusesWhatEc2Refuses) {
  std::string id = world_.make_volume();
  std::string other = world_.make_volume();
  std::string far = world_.make_volume({{"AvailabilityZone", "us-east-1b"}});
  std::string instance = running();
  auto refusal = [&](const std::string& volume, const std::string& to, const std::string& device) {
    return world_.refusal("AttachVolume", {{"VolumeId", volume}, {"InstanceId", to}, {"Device", device}});
  };
  EXPECT_EQ(refusal("vol-x", instance, "/dev/sdf"),
            "InvalidVolumeID.Malformed: Invalid id: \"vol-x\" (expecting \"vol-...\")");
  EXPECT_EQ(refusal("vol-0123456789abcdef0", instance, "/dev/sdf"),
            "InvalidVolume.NotFound: The volume 'vol-0123456789abcdef0' does not exist.");
  EXPECT_THAT(refusal(id, "i-0123456789abcdef0", "/dev/sdf"), StartsWith("InvalidInstanceID.NotFound"));
  EXPECT_EQ(
      refusal(id, instance, "/dev/null"),
      "InvalidParameterValue: Value (/dev/null) for parameter device is invalid. /dev/null is not a valid "
      "EBS device name.");
  EXPECT_EQ(refusal(id, instance, "/dev/xvda"),
            "InvalidParameterValue: Invalid value '/dev/xvda' for unixDevice. Attachment point /dev/xvda is "
            "already in use");
  EXPECT_EQ(refusal(far, instance, "/dev/sdf"), "InvalidVolume.ZoneMismatch: The volume '" + far +
                                                    "' is not in the same availability zone as instance '" +
                                                    instance + "'");
  attach(id, instance);
  EXPECT_EQ(refusal(id, instance, "/dev/sdg"), "VolumeInUse: " + id + " is already attached to an instance");
  EXPECT_EQ(refusal(other, instance, "/dev/sdf"),
            "InvalidParameterValue: Invalid value '/dev/sdf' for unixDevice. Attachment point /dev/sdf is "
            "already in use");
  world_.call("TerminateInstances", {{"InstanceIds", {instance}}});
  ASSERT_TRUE(world_.becomes(instance, "terminated"));
  EXPECT_EQ(refusal(other, instance, "/dev/sdf"),
            "IncorrectState: Instance '" + instance + "' is not 'running'.");
}

TEST_F(VolumesTest, AnAttachmentThatFailsGivesTheVolumeBackAndSaysWhy) {
  std::string id = world_.make_volume();
  std::string instance = running();
  world_.machines->fail_attach = "no slot is free";
  world_.call("AttachVolume", {{"VolumeId", id}, {"InstanceId", instance}, {"Device", "/dev/sdf"}});
  ASSERT_TRUE(becomes(id, "available"));
  EXPECT_EQ(world_.volume(id)["StateMessage"],
            "it could not be attached to " + instance + ": no slot is free");
}

TEST_F(VolumesTest, DetachWaitsForTheGuestAndForceDoesNot) {
  std::string id = world_.make_volume();
  std::string instance = running();
  attach(id, instance);
  world_.machines->clings = true;
  world_.call("DetachVolume", {{"VolumeId", id}});
  ASSERT_TRUE(attachment_becomes(id, "detaching"));
  EXPECT_THAT(world_.disks(instance), SizeIs(2));
  EXPECT_EQ(world_.volume(id)["State"], "in-use");
  // A new daemon goes on waiting.
  world_.restart();
  EXPECT_EQ(world_.volume(id)["Attachments"][0]["State"], "detaching");
  world_.call("DetachVolume", {{"VolumeId", id}, {"Force", true}});
  ASSERT_TRUE(becomes(id, "available"));
  EXPECT_THAT(world_.disks(instance), SizeIs(1));
}

TEST_F(VolumesTest, ADetachingVolumeIsLetGoWhenTheInstanceStops) {
  std::string id = world_.make_volume();
  std::string instance = running();
  attach(id, instance);
  world_.machines->clings = true;
  world_.call("DetachVolume", {{"VolumeId", id}});
  stop(instance);
  ASSERT_TRUE(becomes(id, "available"));
  EXPECT_THAT(world_.volume(id)["Attachments"], IsEmpty());
}

TEST_F(VolumesTest, DetachRefusesWhatEc2Refuses) {
  std::string id = world_.make_volume();
  std::string instance = running();
  std::string root = world_.root(instance);
  EXPECT_EQ(world_.refusal("DetachVolume", {{"VolumeId", id}}),
            "IncorrectState: Volume '" + id + "' is in the 'available' state.");
  EXPECT_EQ(
      world_.refusal("DetachVolume", {{"VolumeId", root}}),
      "OperationNotPermitted: Unable to detach root volume '" + root + "' from instance '" + instance + "'");
  attach(id, instance);
  EXPECT_EQ(world_.refusal("DetachVolume", {{"VolumeId", id}, {"Device", "/dev/sdg"}}),
            "InvalidAttachment.NotFound: The volume '" + id + "' is not attached to '" + instance +
                "' as /dev/sdg");
}

TEST_F(VolumesTest, ARootMayBeExchangedWhileTheInstanceIsStopped) {
  std::string instance = running();
  std::string root = world_.root(instance);
  stop(instance);
  world_.call("DetachVolume", {{"VolumeId", root}});
  ASSERT_TRUE(becomes(root, "available"));
  EXPECT_EQ(world_.refusal("StartInstances", {{"InstanceIds", {instance}}}),
            "InvalidParameterValue: Invalid value '" + instance +
                "' for instanceId. Instance does not have a volume attached at root (/dev/xvda)");
  attach(root, instance, "/dev/xvda");
  world_.call("StartInstances", {{"InstanceIds", {instance}}});
  ASSERT_TRUE(world_.becomes(instance, "running"));
  EXPECT_THAT(world_.disks(instance), ElementsAre(disk_serial(root)));
}

TEST_F(VolumesTest, StayAttachedOverStopStartAndReboot) {
  std::string id = world_.make_volume();
  std::string instance = running();
  attach(id, instance);
  world_.blocks().write(id, "kept");
  stop(instance);
  EXPECT_EQ(world_.volume(id)["Attachments"][0]["State"], "attached");
  world_.call("StartInstances", {{"InstanceIds", {instance}}});
  ASSERT_TRUE(world_.becomes(instance, "running"));
  EXPECT_THAT(world_.disks(instance), ElementsAre(disk_serial(world_.root(instance)), disk_serial(id)));
  int launches = world_.machines->launches;
  world_.call("RebootInstances", {{"InstanceIds", {instance}}});
  ASSERT_TRUE(World::eventually([&] { return world_.machines->launches > launches; }));
  world_.cloud->wait_idle();
  EXPECT_THAT(world_.disks(instance), SizeIs(2));
  EXPECT_EQ(world_.blocks().read(id), "kept");
}

TEST_F(VolumesTest, TerminationDeletesWhatItsMappingSays) {
  Json mappings =
      list({{{"DeviceName", "/dev/sdf"}, {"Ebs", {{"VolumeSize", 2}}}},
            {{"DeviceName", "/dev/sdg"}, {"Ebs", {{"VolumeSize", 3}, {"DeleteOnTermination", true}}}}});
  std::string instance = running({{"BlockDeviceMappings", mappings}});
  Json shown = world_.instance(instance)["BlockDeviceMappings"];
  ASSERT_THAT(shown, SizeIs(3));
  EXPECT_EQ(shown[0]["Ebs"]["DeleteOnTermination"], true);
  EXPECT_EQ(shown[1]["Ebs"]["DeleteOnTermination"], false);
  EXPECT_EQ(shown[2]["Ebs"]["DeleteOnTermination"], true);
  std::string kept = shown[1]["Ebs"]["VolumeId"];
  std::string also = world_.make_volume();
  attach(also, instance, "/dev/sdh");
  world_.call("ModifyInstanceAttribute",
              {{"InstanceId", instance},
               {"BlockDeviceMappings",
                list({{{"DeviceName", "/dev/sdh"}, {"Ebs", {{"DeleteOnTermination", true}}}},
                      {{"DeviceName", "/dev/xvda"}, {"Ebs", {{"DeleteOnTermination", false}}}}})}});
  EXPECT_EQ(
      world_.refusal("ModifyInstanceAttribute",
                     {{"InstanceId", instance},
                      {"BlockDeviceMappings",
                       list({{{"DeviceName", "/dev/sdz"}, {"Ebs", {{"DeleteOnTermination", true}}}}})}}),
      "InvalidParameterValue: No device is currently mapped at /dev/sdz");
  std::string root = world_.root(instance);
  world_.call("TerminateInstances", {{"InstanceIds", {instance}}});
  ASSERT_TRUE(world_.becomes(instance, "terminated"));
  world_.cloud->wait_idle();
  std::vector<std::string> left;
  Json volumes = world_.call("DescribeVolumes", Json::object())["Volumes"];
  for (const Json& volume : volumes) {
    left.push_back(volume["VolumeId"]);
    EXPECT_EQ(volume["State"], "available");
  }
  EXPECT_THAT(left, ::testing::UnorderedElementsAre(root, kept));
}

TEST_F(VolumesTest, InstanceStoreIsLostOnStopAndKeptOverReboot) {
  Json mappings = list({{{"DeviceName", "/dev/sdb"}, {"VirtualName", "ephemeral0"}, {"EphemeralSize", 4}}});
  std::string instance = running({{"BlockDeviceMappings", mappings}});
  EXPECT_THAT(world_.disks(instance), ElementsAre(disk_serial(world_.root(instance)), "ephemeral0"));
  EXPECT_THAT(world_.call("DescribeVolumes", Json::object())["Volumes"], SizeIs(1));
  std::string id = ephemeral_id(instance, "ephemeral0");
  world_.blocks().write(id, "scratch");
  int launches = world_.machines->launches;
  world_.call("RebootInstances", {{"InstanceIds", {instance}}});
  ASSERT_TRUE(World::eventually([&] { return world_.machines->launches > launches; }));
  world_.cloud->wait_idle();
  EXPECT_EQ(world_.blocks().read(id), "scratch");
  stop(instance);
  EXPECT_FALSE(world_.blocks().ids().contains(id));
  world_.call("StartInstances", {{"InstanceIds", {instance}}});
  ASSERT_TRUE(world_.becomes(instance, "running"));
  EXPECT_EQ(world_.blocks().read(id), "");
  world_.call("TerminateInstances", {{"InstanceIds", {instance}}});
  ASSERT_TRUE(world_.becomes(instance, "terminated"));
  EXPECT_FALSE(world_.blocks().ids().contains(id));
}

TEST_F(VolumesTest, MappingsOfALaunchAreChecked) {
  auto refusal = [&](Json mapping) {
    Json request{
        {"ImageId", image_}, {"MinCount", 1}, {"MaxCount", 1}, {"BlockDeviceMappings", list({mapping})}};
    return world_.refusal("RunInstances", request);
  };
  EXPECT_EQ(refusal({{"DeviceName", "/dev/sdf"}, {"Ebs", Json::object()}}),
            "MissingParameter: The request must contain the parameter size or snapshotId");
  EXPECT_EQ(refusal({{"Ebs", {{"VolumeSize", 1}}}}),
            "MissingParameter: The request must contain the parameter deviceName");
  EXPECT_EQ(refusal({{"DeviceName", "/dev/sdf"}}),
            "InvalidBlockDeviceMapping: The mapping of /dev/sdf says nothing");
  EXPECT_EQ(refusal({{"DeviceName", "/dev/xvda"}, {"NoDevice", ""}}),
            "InvalidBlockDeviceMapping: The root device cannot be left out");
  EXPECT_EQ(
      refusal({{"DeviceName", "/dev/sdf"}, {"VirtualName", "ephemeral99"}}),
      "InvalidBlockDeviceMapping: 'ephemeral99' is not a virtual name: they are ephemeral0 to ephemeral23");
  EXPECT_THAT(refusal({{"DeviceName", "/dev/sdf"}, {"Ebs", {{"SnapshotId", "snap-0123456789abcdef0"}}}}),
              StartsWith("InvalidSnapshot.NotFound"));
  EXPECT_THAT(world_.call("DescribeVolumes", Json::object())["Volumes"], IsEmpty());
}

TEST_F(VolumesTest, GrowInUseAndAtRest) {
  std::string id = world_.make_volume();
  std::string instance = running();
  attach(id, instance);
  Json change = world_.call("ModifyVolume", {{"VolumeId", id}, {"Size", 20}})["VolumeModification"];
  EXPECT_EQ(change["OriginalSize"], 8);
  EXPECT_EQ(change["TargetSize"], 20);
  auto state = [&] {
    return world_.call("DescribeVolumesModifications",
                       {{"VolumeIds", {id}}})["VolumesModifications"][0]["ModificationState"];
  };
  ASSERT_TRUE(World::eventually([&] { return state() == "completed"; }));
  EXPECT_EQ(world_.volume(id)["Size"], 20);
  EXPECT_EQ(world_.blocks().volume(id).value().size_bytes, uint64_t{20} << 30);
  EXPECT_EQ(world_.refusal("ModifyVolume", {{"VolumeId", id}, {"Size", 10}}),
            "InvalidParameterValue: New size cannot be smaller than existing size: 20 GiB");
  world_.call("ModifyVolume", {{"VolumeId", id}, {"VolumeType", "gp2"}});
  ASSERT_TRUE(World::eventually([&] { return state() == "completed"; }));
  EXPECT_EQ(world_.volume(id)["VolumeType"], "gp2");
  world_.blocks().broken = "the disk is full";
  world_.call("ModifyVolume", {{"VolumeId", id}, {"Size", 30}});
  ASSERT_TRUE(World::eventually([&] { return state() == "failed"; }));
  EXPECT_EQ(world_.volume(id)["Size"], 20);
}

}  // namespace
}  // namespace haneul::agent::testing
