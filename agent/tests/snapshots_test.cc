// SPDX-License-Identifier: Apache-2.0
// Snapshots: the point in time, progress, copies, sharing, files, and every refusal.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <thread>

#include "agent/tests/world.h"
#include "base/file.h"

namespace haneul::agent::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using ::testing::StartsWith;

class SnapshotsTest : public ::testing::Test {
 protected:
  SnapshotsTest() : image_(world_.register_tiny()) {}

  std::string running() {
    std::string id = world_.run_one();
    EXPECT_TRUE(world_.becomes(id, "running"));
    return id;
  }
  bool becomes(const std::string& snapshot, const std::string& state) {
    return World::eventually([&] { return world_.snapshot(snapshot)["State"] == state; });
  }
  std::string begin(const std::string& volume) {
    return world_.call("CreateSnapshot", {{"VolumeId", volume}})["SnapshotId"];
  }
  void write(const std::string& volume, const std::string& text) { world_.blocks().write(volume, text); }

  World world_;
  std::string image_;
};

TEST_F(SnapshotsTest, AreTheVolumeAtTheMomentOfTheCall) {
  std::string volume = world_.make_volume();
  write(volume, "before");
  Json reply = world_.call("CreateSnapshot", {{"VolumeId", volume}, {"Description", "first"}});
  write(volume, "after");
  std::string id = reply["SnapshotId"];
  EXPECT_EQ(reply["State"], "pending");
  EXPECT_EQ(reply["Description"], "first");
  EXPECT_EQ(reply["OwnerId"], kAccount);
  EXPECT_EQ(reply["VolumeSize"], 8);
  ASSERT_TRUE(becomes(id, "completed"));
  EXPECT_EQ(world_.snapshot(id)["Progress"], "100%");
  std::string copy = world_.make_volume({{"SnapshotId", id}});
  EXPECT_EQ(world_.blocks().read(copy), "before");
  EXPECT_EQ(world_.volume(copy)["Size"], 8);
  EXPECT_EQ(
      world_.refusal("CreateVolume", {{"AvailabilityZone", "us-east-1a"}, {"Size", 4}, {"SnapshotId", id}}),
      "InvalidParameterValue: Volume of size 4GB is smaller than snapshot '" + id + "', expect size >= 8GB");
  // It survives its volume.
  world_.call("DeleteVolume", {{"VolumeId", volume}});
  world_.cloud->wait_idle();
  EXPECT_EQ(world_.blocks().read(id), "before");
  EXPECT_EQ(world_.snapshot(id)["VolumeId"], volume);
}

TEST_F(SnapshotsTest, OfAVolumeInUsePutALayerOnItsDisk) {
  std::string instance = running();
  std::string root = world_.root(instance);
  world_.make_snapshot(root);
  EXPECT_EQ(world_.machines->pushes, 1);
  world_.call("StopInstances", {{"InstanceIds", {instance}}});
  ASSERT_TRUE(world_.becomes(instance, "stopped"));
  world_.make_snapshot(root);
  EXPECT_EQ(world_.machines->pushes, 1);
}

TEST_F(SnapshotsTest, APushThatFailsIsRepeated) {
  std::string instance = running();
  world_.machines->fail_pushes = 2;
  std::string id = begin(world_.root(instance));
  ASSERT_TRUE(becomes(id, "completed"));
  EXPECT_EQ(world_.machines->fail_pushes, 0);
  EXPECT_EQ(world_.machines->pushes, 1);
}

TEST_F(SnapshotsTest, WhoseLayerTheVmmRefusesAreNone) {
  std::string instance = running();
  std::string root = world_.root(instance);
  world_.machines->refuse_pushes = "no more layers";
  EXPECT_EQ(world_.refusal("CreateSnapshot", {{"VolumeId", root}}), "InternalError: no more layers");
  EXPECT_THAT(
      world_.call("DescribeSnapshots",
                  {{"Filters", Json::array({{{"Name", "volume-id"}, {"Values", {root}}}})}})["Snapshots"],
      IsEmpty());
  world_.machines->refuse_pushes.clear();
  world_.make_snapshot(root);
  EXPECT_EQ(world_.refusal("ModifyVolume", {{"VolumeId", root}, {"Size", 20}}), "");
}

/// A VMM that stands still with a layer's push in its socket.
class StoppedVmmTest : public SnapshotsTest {
 protected:
  StoppedVmmTest() : instance_(running()), root_(world_.root(instance_)) {}
  ~StoppedVmmTest() override {
    if (caller_.joinable()) caller_.join();
  }
  void begin_snapshot() {
    world_.machines->stops_at_push = true;
    caller_ = std::thread([this] { said_ = world_.refusal("CreateSnapshot", {{"VolumeId", root_}}); });
  }
  /// A daemon that ended when it had pushed the layer of another snapshot, and the next.
  void restart_with_one_begun() {
    SnapshotRecord record;
    record.region = world_.region;
    record.volume_id = root_;
    record.work = "snapshot";
    record.group = "group-1";
    record.id = "snap-0123456789abcdef0";
    record.state = "pending";
    auto is_open = [](const std::string&) { return true; };
    ASSERT_TRUE(world_.blocks().begin_snapshots({{root_, record.id}}, is_open).ok());
    ASSERT_TRUE(world_.store->commit(Batch().put("snapshot", record.id, to_text(encode(record)))).ok());
    world_.stop();
    world_.machines->stopped = true;
    world_.start();
  }
  Json snapshots() {
    return world_.call(
        "DescribeSnapshots",
        {{"Filters", Json::array({{{"Name", "status"}, {"Values", {"pending"}}}})}})["Snapshots"];
  }
  /// Through more than one whole round.
  void expect_layer_kept() {
    const int before = world_.machines->unanswered;
    EXPECT_TRUE(World::eventually([&] { return world_.machines->unanswered >= before + 6; }));
    Json pending = snapshots();
    ASSERT_THAT(pending, SizeIs(1));
    EXPECT_TRUE(world_.blocks().ids().contains(pending[0]["SnapshotId"])) << "the VMM may yet take it";
  }

  std::string instance_;
  std::string root_;
  std::string said_;
  std::thread caller_;
};

TEST_F(StoppedVmmTest, TakesTheLayerWhenItGoesOn) {
  begin_snapshot();
  expect_layer_kept();
  world_.machines->stopped = false;
  caller_.join();
  EXPECT_EQ(said_, "");
  EXPECT_TRUE(World::eventually([&] { return snapshots().empty(); }));
  EXPECT_EQ(world_.machines->pushes, 1);
}

TEST_F(StoppedVmmTest, TakesItFromADaemonThatHasEnded) {
  restart_with_one_begun();
  expect_layer_kept();
  world_.machines->stopped = false;
  EXPECT_TRUE(becomes("snap-0123456789abcdef0", "completed"));
}

TEST_F(StoppedVmmTest, RefusesItWhenItGoesOn) {
  begin_snapshot();
  expect_layer_kept();
  world_.machines->refuse_pushes = "no more layers";
  world_.machines->stopped = false;
  caller_.join();
  EXPECT_EQ(said_, "InternalError: no more layers");
  EXPECT_THAT(snapshots(), IsEmpty());
}

TEST_F(StoppedVmmTest, NeverTakesItOnceItIsDead) {
  restart_with_one_begun();
  expect_layer_kept();
  world_.guest_ends(instance_, "powered-off");
  EXPECT_TRUE(World::eventually([&] { return snapshots().empty(); }));
}

TEST_F(SnapshotsTest, OfOneInstancesVolumesAtOnceArePushedOneAfterTheOther) {
  std::string instance = running();
  std::string root = world_.root(instance);
  std::string data = world_.make_volume();
  world_.call("AttachVolume", {{"VolumeId", data}, {"InstanceId", instance}, {"Device", "/dev/sdf"}});
  ASSERT_TRUE(World::eventually([&] { return world_.disks(instance).size() == 2; }));
  world_.cloud->wait_idle();
  world_.machines->push_time = std::chrono::milliseconds(50);
  std::vector<std::thread> callers;
  std::vector<std::string> ids(4);
  for (size_t i = 0; i < ids.size(); ++i)
    callers.emplace_back([&, i] { ids[i] = begin(i % 2 == 0 ? root : data); });
  for (std::thread& caller : callers) caller.join();
  for (const std::string& id : ids) EXPECT_TRUE(becomes(id, "completed"));
  EXPECT_EQ(world_.machines->most_pushing, 1);
  EXPECT_EQ(world_.machines->pushes, 4);
}

TEST_F(SnapshotsTest, UntilTheyHaveBegunTheirVolumeKeepsItsSize) {
  std::string instance = running();
  std::string root = world_.root(instance);
  world_.machines->fail_pushes = 1000;
  std::thread caller([&] { begin(root); });
  auto begins = [&] {
    return world_.refusal("ModifyVolume", {{"VolumeId", root}, {"Size", 20}, {"DryRun", true}})
        .starts_with("VolumeInUse: Volume " + root + " is about to become snapshot snap-");
  };
  EXPECT_TRUE(World::eventually(begins));
  world_.machines->fail_pushes = 0;
  caller.join();
  EXPECT_EQ(world_.refusal("ModifyVolume", {{"VolumeId", root}, {"Size", 20}}), "");
}

TEST_F(SnapshotsTest, WhatCannotBeBegunLeavesNothing) {
  std::string volume = world_.make_volume();
  world_.blocks().broken = "the disk is full";
  EXPECT_EQ(world_.refusal("CreateSnapshot", {{"VolumeId", volume}}), "InternalError: the disk is full");
  world_.blocks().broken = "";
  EXPECT_THAT(
      world_.call("DescribeSnapshots",
                  {{"Filters", Json::array({{{"Name", "volume-id"}, {"Values", {volume}}}})}})["Snapshots"],
      IsEmpty());
}

TEST_F(SnapshotsTest, ProgressIsShownAndSurvivesARestart) {
  std::string volume = world_.make_volume();
  world_.blocks().hold = true;
  std::string id = begin(volume);
  ASSERT_TRUE(World::eventually([&] { return world_.snapshot(id)["Progress"] == "40%"; }));
  EXPECT_EQ(world_.refusal("CreateVolume", {{"AvailabilityZone", "us-east-1a"}, {"SnapshotId", id}}),
            "IncorrectState: The snapshot '" + id + "' is not in the 'completed' state.");
  world_.restart();
  ASSERT_TRUE(becomes(id, "completed"));
}

TEST_F(SnapshotsTest, OfAllVolumesOfAnInstanceAreOnePointInTime) {
  std::string instance = running();
  std::string data = world_.make_volume();
  world_.call("AttachVolume", {{"VolumeId", data}, {"InstanceId", instance}, {"Device", "/dev/sdf"}});
  ASSERT_TRUE(World::eventually([&] { return world_.disks(instance).size() == 2; }));
  world_.cloud->wait_idle();
  Json reply = world_.call("CreateSnapshots",
                           {{"InstanceSpecification", {{"InstanceId", instance}}}, {"Description", "both"}});
  ASSERT_THAT(reply["Snapshots"], SizeIs(2));
  EXPECT_EQ(reply["Snapshots"][1]["VolumeId"], data);
  EXPECT_EQ(world_.machines->pushes, 2);
  reply = world_.call("CreateSnapshots",
                      {{"InstanceSpecification", {{"InstanceId", instance}, {"ExcludeBootVolume", true}}}});
  EXPECT_THAT(reply["Snapshots"], SizeIs(1));
}

TEST_F(SnapshotsTest, AreFoundByOwnerAndPermission) {
  std::string id = world_.make_snapshot(world_.make_volume());
  auto count = [&](Json request) { return world_.call("DescribeSnapshots", request)["Snapshots"].size(); };
  EXPECT_EQ(count({{"OwnerIds", {"self"}}}), 2U);
  EXPECT_EQ(count({{"OwnerIds", {"amazon"}}}), 0U);
  EXPECT_EQ(count({{"RestorableByUserIds", {"all"}}}), 0U);
  world_.call("ModifySnapshotAttribute",
              {{"SnapshotId", id}, {"CreateVolumePermission", {{"Add", Json::array({{{"Group", "all"}}})}}}});
  EXPECT_EQ(count({{"RestorableByUserIds", {"all"}}}), 1U);
  world_.call("ModifySnapshotAttribute", {{"SnapshotId", id},
                                          {"Attribute", "createVolumePermission"},
                                          {"OperationType", "add"},
                                          {"UserIds", {"123456789012"}}});
  Json shown =
      world_.call("DescribeSnapshotAttribute", {{"SnapshotId", id}, {"Attribute", "createVolumePermission"}});
  EXPECT_EQ(shown["CreateVolumePermissions"].dump(), R"([{"Group":"all"},{"UserId":"123456789012"}])");
  EXPECT_EQ(world_.refusal("ModifySnapshotAttribute",
                           {{"SnapshotId", id}, {"OperationType", "add"}, {"UserIds", {"me"}}}),
            "InvalidUserID.Malformed: Invalid user id: \"me\"");
  world_.call("ResetSnapshotAttribute", {{"SnapshotId", id}, {"Attribute", "createVolumePermission"}});
  EXPECT_EQ(count({{"RestorableByUserIds", {"all"}}}), 0U);
}

TEST_F(SnapshotsTest, DeletionSparesWhatBacksAnImage) {
  std::string id = world_.make_snapshot(world_.make_volume());
  world_.call("DeleteSnapshot", {{"SnapshotId", id}});
  EXPECT_EQ(world_.refusal("DescribeSnapshots", {{"SnapshotIds", {id}}}),
            "InvalidSnapshot.NotFound: The snapshot '" + id + "' does not exist.");
  world_.cloud->wait_idle();
  EXPECT_FALSE(world_.blocks().ids().contains(id));
  EXPECT_GT(world_.blocks().collected, 0);
  std::string root = world_.image(image_)["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"];
  EXPECT_EQ(world_.refusal("DeleteSnapshot", {{"SnapshotId", root}}),
            "InvalidSnapshot.InUse: The snapshot " + root + " is currently in use by " + image_);
  EXPECT_EQ(world_.refusal("DeleteSnapshot", {{"SnapshotId", "snap-1"}}),
            "InvalidSnapshotID.Malformed: Invalid id: \"snap-1\" (expecting \"snap-...\")");
}

TEST_F(SnapshotsTest, AreCopiedToAnotherRegion) {
  std::string volume = world_.make_volume();
  write(volume, "far away");
  std::string source = world_.make_snapshot(volume);
  EXPECT_EQ(world_.refusal("CopySnapshot", {{"SourceRegion", "mars-1"}, {"SourceSnapshotId", source}}),
            "InvalidParameterValue: Invalid region: [mars-1]");
  world_.region = "eu-west-1";
  EXPECT_EQ(world_.refusal("DescribeSnapshots", {{"SnapshotIds", {source}}}),
            "InvalidSnapshot.NotFound: The snapshot '" + source + "' does not exist.");
  world_.blocks().hold = true;
  std::string copy = world_.call("CopySnapshot",
                                 {{"SourceRegion", "us-east-1"}, {"SourceSnapshotId", source}})["SnapshotId"];
  ASSERT_TRUE(World::eventually([&] { return world_.snapshot(copy)["Progress"] == "40%"; }));
  world_.region = "us-east-1";
  EXPECT_EQ(world_.refusal("DeleteSnapshot", {{"SnapshotId", source}}),
            "InvalidSnapshot.InUse: The snapshot " + source + " is currently in use by " + copy);
  // A new daemon goes on with it.
  world_.restart();
  world_.region = "eu-west-1";
  ASSERT_TRUE(becomes(copy, "completed"));
  std::string there = world_.make_volume({{"SnapshotId", copy}});
  EXPECT_EQ(world_.blocks().read(there), "far away");
}

TEST_F(SnapshotsTest, FilesComeInAndGoOut) {
  std::filesystem::path file = world_.folder / "disk.raw";
  std::ofstream(file) << "a disk";
  std::filesystem::resize_file(file, 1 << 20);
  auto refusal = [&](const std::string& path, const std::string& format) {
    return world_.refusal("ImportSnapshotFile", {{"Path", path}, {"Format", format}});
  };
  EXPECT_EQ(
      refusal(file, "vmdk"),
      "InvalidParameterValue: Value (vmdk) for parameter format is invalid: it is raw or qcow2, and never "
      "guessed");
  EXPECT_EQ(refusal("disk.raw", "raw"),
            "InvalidParameterValue: 'disk.raw' is not an absolute path of this host");
  EXPECT_THAT(refusal("/nonexistent", "raw"), StartsWith("InvalidParameterValue: cannot open /nonexistent"));
  EXPECT_EQ(refusal("/dev/null", "raw"), "InvalidParameterValue: /dev/null is neither a file nor a disk");
  std::string id =
      world_.call("ImportSnapshotFile", {{"Path", file.string()}, {"Format", "raw"}})["SnapshotId"];
  ASSERT_TRUE(becomes(id, "completed"));
  EXPECT_EQ(world_.blocks().read(id), "a disk");
  std::filesystem::path out = world_.folder / "out.qcow2";
  Json request{{"SnapshotId", id}, {"Path", out.string()}, {"Format", "qcow2"}};
  std::string task = world_.call("ExportSnapshotFile", request)["TaskId"];
  auto state = [&] { return world_.call("DescribeTasks", {{"TaskIds", {task}}})["Tasks"][0]["State"]; };
  ASSERT_TRUE(World::eventually([&] { return state() == "completed"; }));
  EXPECT_EQ(read_file(out).value(),
            "QFI\xfb"
            "a disk");
  // And in again: as what it is said to be, never as what it looks like.
  auto import = [&](const std::string& path, const char* format) -> std::string {
    return world_.call("ImportSnapshotFile", {{"Path", path}, {"Format", format}})["SnapshotId"];
  };
  std::string back = import(out, "qcow2");
  ASSERT_TRUE(becomes(back, "completed"));
  EXPECT_EQ(world_.blocks().read(back), "a disk");
  std::string wrong = import(file, "qcow2");
  ASSERT_TRUE(becomes(wrong, "error"));
  EXPECT_EQ(world_.snapshot(wrong)["StateMessage"], "the file is not a qcow2 image");
  EXPECT_FALSE(std::filesystem::exists(out.string() + ".part"));
  EXPECT_EQ(world_.refusal("ExportSnapshotFile", request),
            "InvalidParameterValue: " + out.string() + " is there already");
}

TEST_F(SnapshotsTest, ACancelledExportLeavesNoFile) {
  std::string id = world_.make_snapshot(world_.make_volume());
  world_.blocks().hold = true;
  std::filesystem::path out = world_.folder / "out.raw";
  std::string task = world_.call("ExportSnapshotFile",
                                 {{"SnapshotId", id}, {"Path", out.string()}, {"Format", "raw"}})["TaskId"];
  ASSERT_TRUE(World::eventually([&] { return std::filesystem::exists(out.string() + ".part"); }));
  world_.call("CancelTask", {{"TaskId", task}});
  world_.cloud->wait_idle();
  EXPECT_FALSE(std::filesystem::exists(out));
  EXPECT_FALSE(std::filesystem::exists(out.string() + ".part"));
  EXPECT_EQ(world_.refusal("CancelTask", {{"TaskId", task}}),
            "IncorrectState: The task '" + task + "' is cancelled already");
}

TEST_F(SnapshotsTest, CheckNamesWhatIsWrong) {
  std::string id = world_.make_volume();
  world_.blocks().write(id, "damaged");
  std::string task = world_.call("CheckVolume", {{"ResourceId", id}})["TaskId"];
  auto shown = [&] { return world_.call("DescribeTasks", {{"TaskIds", {task}}})["Tasks"][0]; };
  ASSERT_TRUE(World::eventually([&] { return shown()["State"] == "completed"; }));
  ASSERT_THAT(shown()["Faults"], SizeIs(1));
  EXPECT_EQ(shown()["Faults"][0]["Subject"], id);
  EXPECT_EQ(shown()["Faults"][0]["What"], "its sum is wrong");
  EXPECT_THAT(world_.refusal("CheckVolume", {{"ResourceId", "vol-0123456789abcdef0"}}),
              StartsWith("InvalidVolume.NotFound"));
  EXPECT_EQ(world_.refusal("DescribeTasks", {{"TaskIds", {"check-1"}}}),
            "InvalidExportTaskID.NotFound: The task 'check-1' does not exist");
}

}  // namespace
}  // namespace haneul::agent::testing
