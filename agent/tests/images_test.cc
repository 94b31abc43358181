// SPDX-License-Identifier: Apache-2.0
// Images made of instances, snapshots, other regions' images and files.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "agent/tests/world.h"
#include "base/file.h"

namespace haneul::agent::testing {
namespace {

using ::testing::IsEmpty;
using ::testing::SizeIs;
using ::testing::StartsWith;

class ImagesTest : public ::testing::Test {
 protected:
  ImagesTest() : tiny_(world_.register_tiny()) {}

  std::string running(const std::string& image) {
    std::string id = world_.run_one({{"ImageId", image}});
    EXPECT_TRUE(world_.becomes(id, "running"));
    return id;
  }
  bool becomes(const std::string& image, const std::string& state) {
    return World::eventually([&] { return world_.image(image)["State"] == state; });
  }
  std::string create(const std::string& instance, const std::string& name, Json extra = Json::object()) {
    Json request{{"InstanceId", instance}, {"Name", name}};
    request.update(extra);
    return world_.call("CreateImage", request)["ImageId"];
  }

  World world_;
  std::string tiny_;
};

TEST_F(ImagesTest, OfAnInstanceRebootsItAndHoldsItsChanges) {
  std::string instance = running(tiny_);
  world_.blocks().write(world_.root(instance), "changed");
  int launches = world_.machines->launches;
  std::string image = create(instance, "mine");
  ASSERT_TRUE(becomes(image, "available"));
  EXPECT_EQ(world_.machines->launches, launches + 1);
  EXPECT_EQ(world_.machines->pushes, 0) << "the disk was closed when the snapshot was taken";
  ASSERT_TRUE(world_.becomes(instance, "running"));
  Json shown = world_.image(image);
  EXPECT_EQ(shown["Name"], "mine");
  EXPECT_EQ(shown["RootDeviceName"], "/dev/xvda");
  ASSERT_THAT(shown["BlockDeviceMappings"], SizeIs(1));
  for (int i = 0; i < 3; ++i) {
    std::string copy = running(image);
    EXPECT_EQ(world_.blocks().read(world_.root(copy)), "changed");
  }
  EXPECT_EQ(read_file(world_.keeper.layout.image(image) / "kernel").value(), "kernel");
}

TEST_F(ImagesTest, WithoutRebootTheInstanceRunsOn) {
  std::string instance = running(tiny_);
  int launches = world_.machines->launches;
  ASSERT_TRUE(becomes(create(instance, "mine", {{"NoReboot", true}}), "available"));
  EXPECT_EQ(world_.machines->launches, launches);
  EXPECT_EQ(world_.machines->pushes, 1);
}

TEST_F(ImagesTest, OfAGuestThatDoesNotShutDownAreTakenLiveBeforeItIsReset) {
  std::string instance = running(tiny_);
  world_.machines->deaf = true;
  ASSERT_TRUE(becomes(create(instance, "mine"), "available"));
  EXPECT_EQ(world_.machines->pushes, 1);
  EXPECT_TRUE(World::eventually([&] { return world_.machines->resets == 1; }));
}

TEST_F(ImagesTest, ComeWithAllVolumesAndTheirMappings) {
  std::string instance = running(tiny_);
  std::string data = world_.make_volume({{"Size", 2}});
  world_.blocks().write(data, "data");
  world_.call("AttachVolume", {{"VolumeId", data}, {"InstanceId", instance}, {"Device", "/dev/sdf"}});
  ASSERT_TRUE(World::eventually([&] { return world_.disks(instance).size() == 2; }));
  world_.cloud->wait_idle();
  std::string image = create(instance, "both", {{"NoReboot", true}});
  ASSERT_TRUE(becomes(image, "available"));
  std::string copy = running(image);
  Json mappings = world_.instance(copy)["BlockDeviceMappings"];
  ASSERT_THAT(mappings, SizeIs(2));
  EXPECT_EQ(mappings[1]["DeviceName"], "/dev/sdf");
  EXPECT_EQ(world_.blocks().read(mappings[1]["Ebs"]["VolumeId"]), "data");
  Json without = Json::array({{{"DeviceName", "/dev/sdf"}, {"NoDevice", ""}}});
  image = create(instance, "one", {{"NoReboot", true}, {"BlockDeviceMappings", without}});
  ASSERT_TRUE(becomes(image, "available"));
  EXPECT_THAT(world_.image(image)["BlockDeviceMappings"], SizeIs(1));
}

TEST_F(ImagesTest, RefuseWhatEc2Refuses) {
  std::string instance = running(tiny_);
  auto refusal = [&](const std::string& id, const std::string& name) {
    return world_.refusal("CreateImage", {{"InstanceId", id}, {"Name", name}});
  };
  EXPECT_EQ(refusal(instance, "tiny"),
            "InvalidAMIName.Duplicate: AMI name tiny is already in use by AMI " + tiny_);
  EXPECT_THAT(refusal(instance, "x"), StartsWith("InvalidAMIName.Malformed"));
  EXPECT_THAT(refusal("i-1", "mine"), StartsWith("InvalidInstanceID.Malformed"));
  world_.call("TerminateInstances", {{"InstanceIds", {instance}}});
  ASSERT_TRUE(world_.becomes(instance, "terminated"));
  EXPECT_EQ(refusal(instance, "mine"),
            "IncorrectState: Instance '" + instance + "' is terminated, neither running nor stopped.");
}

TEST_F(ImagesTest, WhoseSnapshotFailsIsFailedAndSaysWhy) {
  std::string instance = running(tiny_);
  world_.blocks().hold = true;
  std::string image = create(instance, "mine", {{"NoReboot", true}});
  EXPECT_EQ(world_.refusal("RunInstances", {{"ImageId", image}, {"MinCount", 1}, {"MaxCount", 1}}),
            "InvalidAMIID.Unavailable: The image id '[" + image + "]' is pending");
  world_.blocks().broken = "the disk is full";
  world_.blocks().hold = false;
  ASSERT_TRUE(becomes(image, "failed"));
  EXPECT_EQ(world_.image(image)["StateReason"]["Message"], "the disk is full");
  world_.blocks().broken = "";
  world_.call("DeregisterImage", {{"ImageId", image}});
}

TEST_F(ImagesTest, AreRegisteredOfARootsSnapshotWithItsKernel) {
  std::string instance = running(tiny_);
  std::string root = world_.root(instance);
  world_.blocks().write(root, "from a snapshot");
  std::string snapshot = world_.make_snapshot(root);
  auto mapping = [](const std::string& id) {
    return Json::array({{{"DeviceName", "/dev/xvda"}, {"Ebs", {{"SnapshotId", id}}}}});
  };
  Json request{
      {"Name", "again"}, {"RootDeviceName", "/dev/xvda"}, {"BlockDeviceMappings", mapping(snapshot)}};
  std::string image = world_.call("RegisterImage", request)["ImageId"];
  EXPECT_EQ(world_.image(image)["State"], "available");
  std::string copy = running(image);
  EXPECT_EQ(world_.blocks().read(world_.root(copy)), "from a snapshot");
  // The kernel stays when the image that it came from goes.
  world_.call("DeregisterImage", {{"ImageId", tiny_}});
  EXPECT_EQ(read_file(world_.keeper.layout.image(image) / "kernel").value(), "kernel");
  std::string bare = world_.make_snapshot(world_.make_volume());
  request = {{"Name", "bare"}, {"RootDeviceName", "/dev/xvda"}, {"BlockDeviceMappings", mapping(bare)}};
  EXPECT_EQ(world_.refusal("RegisterImage", request),
            "MissingParameter: The snapshot " + bare +
                " comes from no image: KernelImage must name one whose kernel is to boot it");
  request["KernelImage"] = "again";
  EXPECT_EQ(world_.refusal("RegisterImage", request), "");
  request = {{"Name", "nothing"}, {"RootDeviceName", "/dev/sda1"}, {"BlockDeviceMappings", mapping(bare)}};
  EXPECT_EQ(
      world_.refusal("RegisterImage", request),
      "InvalidBlockDeviceMapping: The root device /dev/sda1 must be mapped to a volume with a snapshotId");
}

TEST_F(ImagesTest, OfAFolderLeaveTheirSnapshotToThoseThatNeedIt) {
  std::string snapshot = world_.image(tiny_)["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"];
  Json mapping = Json::array({{{"DeviceName", "/dev/xvda"}, {"Ebs", {{"SnapshotId", snapshot}}}}});
  std::string mine = world_.call(
      "RegisterImage",
      {{"Name", "mine"}, {"RootDeviceName", "/dev/xvda"}, {"BlockDeviceMappings", mapping}})["ImageId"];
  world_.blocks().hold = true;
  world_.region = "eu-west-1";
  world_.blocks().hold = true;
  std::string copy = world_.call(
      "CopySnapshot", {{"SourceRegion", "us-east-1"}, {"SourceSnapshotId", snapshot}})["SnapshotId"];
  world_.region = "us-east-1";
  std::filesystem::path out = world_.folder / "out.raw";
  world_.call("ExportSnapshotFile", {{"SnapshotId", snapshot}, {"Path", out.string()}, {"Format", "raw"}});
  world_.call("DeregisterImage", {{"ImageId", tiny_}});
  EXPECT_EQ(world_.snapshot(snapshot)["State"], "completed");
  std::string instance = running(mine);
  EXPECT_EQ(world_.blocks().read(world_.root(instance)), "root");
  world_.call("DeregisterImage", {{"ImageId", mine}});
  EXPECT_EQ(world_.snapshot(snapshot)["State"], "completed") << "a copy and an export read it";
  world_.stores->store("eu-west-1").hold = false;
  world_.region = "eu-west-1";
  EXPECT_TRUE(World::eventually([&] { return world_.snapshot(copy)["State"] == "completed"; }));
  EXPECT_EQ(world_.blocks().read(copy), "root");
  world_.region = "us-east-1";
  world_.blocks().hold = false;
  EXPECT_TRUE(World::eventually([&] { return !world_.blocks().ids().contains(snapshot); }));
  EXPECT_TRUE(std::filesystem::exists(out));
}

TEST_F(ImagesTest, AreCopiedToAnotherRegionWithTheirSnapshots) {
  world_.region = "eu-west-1";
  Json request{{"Name", "tiny"}, {"SourceRegion", "us-east-1"}, {"SourceImageId", tiny_}};
  std::string copy = world_.call("CopyImage", request)["ImageId"];
  ASSERT_TRUE(becomes(copy, "available"));
  std::string instance = running(copy);
  EXPECT_EQ(world_.blocks().read(world_.root(instance)), "root");
  EXPECT_THAT(world_.refusal("CopyImage", request), StartsWith("InvalidAMIName.Duplicate"));
}

TEST_F(ImagesTest, AreImportedFromAFileWithAnothersKernel) {
  std::filesystem::path file = world_.folder / "disk.raw";
  std::ofstream(file) << "imported";
  std::filesystem::resize_file(file, 1 << 20);
  std::string image = world_.call(
      "ImportImageFile",
      {{"Name", "imported"}, {"Path", file.string()}, {"Format", "raw"}, {"KernelImage", "tiny"}})["ImageId"];
  ASSERT_TRUE(becomes(image, "available"));
  std::string instance = running(image);
  EXPECT_EQ(world_.blocks().read(world_.root(instance)), "imported");
  EXPECT_EQ(world_.blocks().volume(world_.root(instance)).value().size_bytes, 1U << 20);
}

TEST_F(ImagesTest, ArePrivateUntilTheyAreShared) {
  auto found = [&](const std::string& user) {
    return world_.call("DescribeImages", {{"ExecutableUsers", {user}}})["Images"].size();
  };
  EXPECT_EQ(found("all"), 0U);
  world_.call("ModifyImageAttribute",
              {{"ImageId", tiny_}, {"LaunchPermission", {{"Add", Json::array({{{"Group", "all"}}})}}}});
  EXPECT_EQ(found("all"), 1U);
  EXPECT_EQ(world_.image(tiny_)["Public"], true);
  Json shown = world_.call("DescribeImageAttribute", {{"ImageId", tiny_}, {"Attribute", "launchPermission"}});
  EXPECT_EQ(shown["LaunchPermissions"].dump(), R"([{"Group":"all"}])");
  world_.call("ResetImageAttribute", {{"ImageId", tiny_}, {"Attribute", "launchPermission"}});
  EXPECT_EQ(found("all"), 0U);
}

}  // namespace
}  // namespace haneul::agent::testing
