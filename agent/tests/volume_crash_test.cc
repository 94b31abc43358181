// SPDX-License-Identifier: Apache-2.0
// kill -9 of the daemon between intent, act and result of everything that is done to volumes, snapshots and
// images. The next daemon goes on, and ends with what was asked for: nothing lost, nothing left over.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <thread>

#include "agent/tests/world.h"
#include "base/file.h"

namespace haneul::agent::testing {
namespace {

// What a scenario is about. An instance runs from the tiny image, a volume of 8 GiB is there.
struct Things {
  std::string image;
  std::string instance;
  std::string volume;
  std::string snapshot;
};

struct Scenario {
  const char* name;
  /// By a daemon that does not die.
  void (*prepare)(World&, Things&);
  /// By the one that dies.
  void (*act)(World&, const Things&);
  /// What becomes true of the next.
  bool (*holds)(World&, const Things&);
};

Json all(World& world, const char* operation, const char* member) {
  Json reply = world.call(operation, Json::object());
  return reply[member];
}

void attach(World& world, Things& things) {
  world.call("AttachVolume",
             {{"VolumeId", things.volume}, {"InstanceId", things.instance}, {"Device", "/dev/sdf"}});
  CHECK(World::eventually([&] { return world.disks(things.instance).size() == 2; }));
  world.cloud->wait_idle();
}

void attach_and_write(World& world, Things& things) {
  attach(world, things);
  world.blocks().write(things.volume, "content");
}

void snapshot(World& world, Things& things) {
  world.blocks().write(things.volume, "content");
  things.snapshot = world.make_snapshot(things.volume);
}

bool has_disk(World& world, const Things& things) {
  auto disks = world.disks(things.instance);
  return std::count(disks.begin(), disks.end(), disk_serial(things.volume)) == 1;
}

// All snapshots but that of the image are completed, and there are as many.
bool completed(World& world, size_t count) {
  Json snapshots = all(world, "DescribeSnapshots", "Snapshots");
  size_t done = 0;
  for (const Json& one : snapshots) {
    bool ours = one["State"] == "completed" && !one["Description"].get<std::string>().starts_with("Root of");
    done += ours && world.blocks().read(one["SnapshotId"]) == "content" ? 1U : 0U;
  }
  return done == count;
}

bool image_available(World& world, const std::string& name) {
  Json images = all(world, "DescribeImages", "Images");
  return std::any_of(images.begin(), images.end(), [&](const Json& image) {
    return image["Name"] == name && image["State"] == "available" &&
           std::filesystem::exists(world.keeper.layout.image(image["ImageId"]) / "kernel");
  });
}

const Scenario kCreate = {"Create", [](World&, Things&) {},
                          [](World& world, const Things&) {
                            world.call("CreateVolume", {{"AvailabilityZone", "us-east-1a"}, {"Size", 1}});
                          },
                          [](World& world, const Things&) {
                            Json volumes = all(world, "DescribeVolumes", "Volumes");
                            return std::count_if(volumes.begin(), volumes.end(), [](const Json& v) {
                                     return v["State"] == "available";
                                   }) == 2;
                          }};

const Scenario kDelete = {"Delete", [](World&, Things&) {},
                          [](World& world, const Things& things) {
                            world.call("DeleteVolume", {{"VolumeId", things.volume}});
                          },
                          [](World& world, const Things& things) {
                            return world.volume_record(things.volume).id.empty() &&
                                   !world.blocks().ids().contains(things.volume);
                          }};

const Scenario kAttach = {
    "Attach", [](World&, Things&) {},
    [](World& world, const Things& things) {
      world.call("AttachVolume",
                 {{"VolumeId", things.volume}, {"InstanceId", things.instance}, {"Device", "/dev/sdf"}});
    },
    [](World& world, const Things& things) {
      return world.volume_record(things.volume).attachment == "attached" && has_disk(world, things);
    }};

const Scenario kDetach = {"Detach", attach,
                          [](World& world, const Things& things) {
                            world.call("DetachVolume", {{"VolumeId", things.volume}});
                          },
                          [](World& world, const Things& things) {
                            return world.volume_record(things.volume).state == "available" &&
                                   !has_disk(world, things);
                          }};

const Scenario kModify = {"Modify", attach,
                          [](World& world, const Things& things) {
                            world.call("ModifyVolume", {{"VolumeId", things.volume}, {"Size", 20}});
                          },
                          [](World& world, const Things& things) {
                            return world.volume_record(things.volume).modification.state == "completed" &&
                                   world.blocks().volume(things.volume).value().size_bytes == uint64_t{20}
                                                                                                  << 30;
                          }};

const Scenario kSnapshot = {"Snapshot", attach_and_write,
                            [](World& world, const Things& things) {
                              world.call("CreateSnapshot", {{"VolumeId", things.volume}});
                            },
                            [](World& world, const Things&) { return completed(world, 1); }};

const Scenario kDeleteSnapshot = {"DeleteSnapshot", snapshot,
                                  [](World& world, const Things& things) {
                                    world.call("DeleteSnapshot", {{"SnapshotId", things.snapshot}});
                                  },
                                  [](World& world, const Things& things) {
                                    return completed(world, 0) &&
                                           !world.blocks().ids().contains(things.snapshot);
                                  }};

const Scenario kCopy = {
    "Copy", snapshot,
    [](World& world, const Things& things) {
      world.region = "eu-west-1";
      world.call("CopySnapshot", {{"SourceRegion", "us-east-1"}, {"SourceSnapshotId", things.snapshot}});
    },
    [](World& world, const Things&) {
      world.region = "eu-west-1";
      bool done = completed(world, 1);
      world.region = "us-east-1";
      return done;
    }};

const Scenario kImport = {
    "Import",
    [](World& world, Things&) {
      std::ofstream(world.folder / "disk.raw") << "content";
      std::filesystem::resize_file(world.folder / "disk.raw", 512);
    },
    [](World& world, const Things&) {
      world.call("ImportSnapshotFile",
                 {{"Path", (world.folder / "disk.raw").string()}, {"Format", "raw"}, {"Size", 512}});
    },
    [](World& world, const Things&) { return completed(world, 1); }};

const Scenario kExport = {"Export", snapshot,
                          [](World& world, const Things& things) {
                            world.call("ExportSnapshotFile", {{"SnapshotId", things.snapshot},
                                                              {"Path", (world.folder / "out.raw").string()},
                                                              {"Format", "raw"}});
                          },
                          [](World& world, const Things&) {
                            std::string text(7, '\0');
                            std::ifstream(world.folder / "out.raw").read(text.data(), 7);
                            bool part = std::filesystem::exists(world.folder / "out.raw.part");
                            Json tasks = all(world, "DescribeTasks", "Tasks");
                            return text == "content" && !part && tasks[0]["State"] == "completed";
                          }};

const Scenario kImage = {"Image", attach,
                         [](World& world, const Things& things) {
                           world.call("CreateImage", {{"InstanceId", things.instance}, {"Name", "mine"}});
                         },
                         [](World& world, const Things& things) {
                           return image_available(world, "mine") &&
                                  world.state(things.instance) == "running" &&
                                  world.machines->processes().size() == 1 && has_disk(world, things);
                         }};

const Scenario kCopyImage = {
    "CopyImage", [](World&, Things&) {},
    [](World& world, const Things& things) {
      world.region = "eu-west-1";
      world.call("CopyImage",
                 {{"Name", "there"}, {"SourceRegion", "us-east-1"}, {"SourceImageId", things.image}});
    },
    [](World& world, const Things&) {
      world.region = "eu-west-1";
      bool done = image_available(world, "there");
      world.region = "us-east-1";
      return done;
    }};

const Scenario kImportImage = {"ImportImage",
                               [](World& world, Things&) {
                                 std::ofstream(world.folder / "disk.raw") << "content";
                                 std::filesystem::resize_file(world.folder / "disk.raw", 512);
                               },
                               [](World& world, const Things& things) {
                                 world.call("ImportImageFile",
                                            {{"Name", "there"},
                                             {"Path", (world.folder / "disk.raw").string()},
                                             {"Format", "raw"},
                                             {"KernelImage", things.image}});
                               },
                               [](World& world, const Things&) { return image_available(world, "there"); }};

// The instance that was launched from it runs on, and keeps its kernel.
const Scenario kDeregister = {
    "Deregister", [](World&, Things&) {},
    [](World& world, const Things& things) {
      world.call("DeregisterImage", {{"ImageId", things.image}});
    },
    [](World& world, const Things& things) {
      return all(world, "DescribeImages", "Images").empty() &&
             all(world, "DescribeSnapshots", "Snapshots").empty() &&
             world.state(things.instance) == "running" &&
             std::filesystem::exists(world.keeper.layout.image(things.image) / "kernel");
    }};

struct Case {
  const Scenario* scenario;
  const char* point;
};
void PrintTo(const Case& value, std::ostream* out) {
  *out << value.scenario->name << " at " << value.point;
}

class VolumeCrashTest : public ::testing::TestWithParam<Case> {
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

  void prepare() {
    World world(folder_);
    Things things;
    things.image = world.register_tiny();
    things.instance = world.run_one();
    ASSERT_TRUE(world.becomes(things.instance, "running"));
    things.volume = world.make_volume();
    GetParam().scenario->prepare(world, things);
    world.cloud->wait_idle();
    things_ = things;
  }

  // Exactly what the records name is in the stores.
  static void expect_nothing_left_over(World& world) {
    for (const char* region : {"us-east-1", "eu-west-1"}) {
      std::set<std::string> known;
      for (const auto& object : world.store->list("volume").value()) {
        if (world.volume_record(object.id).region == region) known.insert(object.id);
      }
      for (const auto& object : world.store->list("snapshot").value()) {
        auto record = decode<SnapshotRecord>(parse_json(object.value).value());
        if (record.region == region) known.insert(object.id);
      }
      EXPECT_EQ(world.stores->store(region).ids(), known) << region;
    }
  }

  std::filesystem::path folder_;
  Things things_;
};

TEST_P(VolumeCrashTest, IsGoneOnWithByTheNextStart) {
  ASSERT_NO_FATAL_FAILURE(prepare());
  pid_t pid = ::fork();
  if (pid == 0) {
    ::setenv("HANEULD_CRASH_AT", GetParam().point, 1);
    World world(folder_);
    GetParam().scenario->act(world, things_);
    std::this_thread::sleep_for(std::chrono::seconds(10));
    ::_exit(3);
  }
  int status = 0;
  ::waitpid(pid, &status, 0);
  ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) << "the point was not reached: " << status;
  World world(folder_);
  EXPECT_TRUE(World::eventually([&] { return GetParam().scenario->holds(world, things_); }));
  world.cloud->wait_idle();
  EXPECT_TRUE(GetParam().scenario->holds(world, things_));
  expect_nothing_left_over(world);
}

constexpr Case kCases[] = {
    {&kCreate, "create-volume.intended"},
    {&kCreate, "create-volume.begun"},
    {&kCreate, "create-volume.made"},
    {&kDelete, "delete-volume.intended"},
    {&kDelete, "delete-volume.deleted"},
    {&kAttach, "attach.intended"},
    {&kAttach, "attach.begun"},
    {&kAttach, "attach.plugged"},
    {&kDetach, "detach.intended"},
    {&kDetach, "detach.begun"},
    {&kDetach, "detach.asked"},
    {&kModify, "modify.intended"},
    {&kModify, "modify.begun"},
    {&kModify, "modify.resized"},
    {&kSnapshot, "create-snapshot.intended"},
    {&kSnapshot, "snapshot.begun"},
    {&kSnapshot, "snapshot.pushed"},
    {&kSnapshot, "snapshot.recorded"},
    {&kSnapshot, "snapshot.finishing"},
    {&kSnapshot, "snapshot.finished"},
    {&kDeleteSnapshot, "delete-snapshot.intended"},
    {&kDeleteSnapshot, "delete-snapshot.deleted"},
    {&kCopy, "copy-snapshot.intended"},
    {&kCopy, "snapshot.finishing"},
    {&kCopy, "snapshot.finished"},
    {&kImport, "import-snapshot.intended"},
    {&kImport, "snapshot.finished"},
    {&kExport, "task.begun"},
    {&kExport, "task.done"},
    {&kImage, "create-image.intended"},
    {&kImage, "image.kernel-taken"},
    {&kImage, "ended.recorded"},
    {&kImage, "snapshot.begun"},
    {&kImage, "snapshot.recorded"},
    {&kImage, "start.launched"},
    {&kImage, "snapshot.finished"},
    {&kImportImage, "import-image.intended"},
    {&kImportImage, "image.kernel-taken"},
    {&kImportImage, "snapshot.finished"},
    {&kDeregister, "deregister.recorded"},
    {&kDeregister, "delete-snapshot.deleted"},
    {&kCopyImage, "copy-image.intended"},
    {&kCopyImage, "image.kernel-taken"},
    {&kCopyImage, "snapshot.finished"},
};

INSTANTIATE_TEST_SUITE_P(Points, VolumeCrashTest, ::testing::ValuesIn(kCases), [](const auto& each) {
  std::string name = fmt::format("{}_{}", each.param.scenario->name, each.param.point);
  for (char& c : name) {
    if (c == '.' || c == '-') c = '_';
  }
  return name;
});

}  // namespace
}  // namespace haneul::agent::testing
