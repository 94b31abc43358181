// SPDX-License-Identifier: Apache-2.0
// The command line with a daemon: images, volumes, keys, and what their errors end with.
#include <sys/stat.h>

#include "agent/tests/daemon_fixture.h"

namespace haneul::agent {
namespace {

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
  EXPECT_EQ(shrunk.status, 7);
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

TEST_F(DaemonTest, CliErrorsAreOneSentenceWithEc2sCode) {
  start_daemon();
  Ended unknown = haneul({"run", "ami-0123456789abcdef0"});
  EXPECT_EQ(unknown.status, 6);
  EXPECT_THAT(
      unknown.err,
      HasSubstr("haneul: The image id '[ami-0123456789abcdef0]' does not exist (InvalidAMIID.NotFound)\n"));
  EXPECT_EQ(haneul({"show", "web"}).err, "haneul: no instance has the id or name 'web'\n");
  EXPECT_EQ(haneul({"terminate", "i-0123456789abcdef0"}).err,
            "haneul: The instance ID 'i-0123456789abcdef0' does not exist (InvalidInstanceID.NotFound)\n");
  EXPECT_EQ(haneul({"--region", "mars", "ls"}).err,
            "haneul: Invalid region: [mars]; this cloud has us-east-1, eu-west-1 (InvalidParameterValue)\n");
}

TEST_F(DaemonTest, ZonesOfAllRegionsAreListed) {
  start_daemon();
  std::string zones = haneul({"zone", "ls"}).out;
  EXPECT_THAT(zones, HasSubstr("us-east-1b use1-az2 available"));
  EXPECT_THAT(zones, HasSubstr("eu-west-1c euw1-az3 available"));
  Json json = parse_json(haneul({"zone", "ls", "--json"}).out).value();
  EXPECT_EQ(json["AvailabilityZones"].size(), 6U);
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
  EXPECT_EQ(haneul({"key", "create", "mine"}).status, 9);
  std::filesystem::path chosen = folder_ / "chosen.pem";
  EXPECT_EQ(haneul({"key", "create", "other", "--type", "rsa", "-o", chosen.string()}).status, 0);
  EXPECT_THAT(read_file(chosen).value(), StartsWith("-----BEGIN RSA PRIVATE KEY-----"));
  EXPECT_EQ(haneul({"key", "create", "third", "-o", chosen.string()}).status, 9);
  EXPECT_THAT(haneul({"key", "ls"}).out, ::testing::Not(HasSubstr("third")));
  EXPECT_EQ(haneul({"key", "rm", "mine"}).out, "mine\n");
}

// What an image is registered in place of is there until the new one is.
TEST_F(DaemonTest, AnImageIsReplacedWhenTheNewOneIsThere) {
  std::filesystem::path image = make_image();
  std::ofstream(image / "image.json")
      << R"({"format":1,"name":"tiny","kernel":"kernel","root":"root.raw","cmdline":"quiet"})";
  std::ofstream(image / "root.raw") << "root";
  std::filesystem::resize_file(image / "root.raw", 1 << 20);
  start_daemon();
  std::string first = haneul({"image", "register", image.string()}).out;
  EXPECT_THAT(first, StartsWith("ami-"));
  auto images = [&] {
    std::string ids;
    Json reply = parse_json(haneul({"image", "ls", "--json"}).out).value();
    for (const Json& one : reply["Images"])
      ids += one["ImageId"].get<std::string>() + " " + one["Name"].get<std::string>() + "\n";
    return ids;
  };
  std::filesystem::rename(image / "kernel", image / "away");
  Ended failed = haneul({"image", "register", image.string()});
  EXPECT_EQ(failed.status, 12) << failed.err;
  EXPECT_THAT(failed.err, HasSubstr("kernel: No such file or directory"));
  EXPECT_EQ(images(), first);

  std::filesystem::rename(image / "away", image / "kernel");
  for (const char* moment : {"register.intended", "register.copied"}) {
    ::kill(daemons_[0], SIGKILL);
    end_of(daemons_[0]);
    ::setenv("HANEULD_CRASH_AT", moment, 1);
    start_daemon();
    ::unsetenv("HANEULD_CRASH_AT");
    EXPECT_EQ(haneul({"image", "register", image.string()}).status, 1) << moment;
    EXPECT_EQ(end_of(daemons_[0]), 137);
    start_daemon();
    EXPECT_EQ(images(), first) << moment;
  }

  std::string second = haneul({"image", "register", image.string()}).out;
  EXPECT_THAT(second, StartsWith("ami-"));
  EXPECT_NE(second, first);
  EXPECT_EQ(images(), second);
  EXPECT_EQ(parse_json(haneul({"snapshot", "ls", "--json"}).out).value()["Snapshots"].size(), 1u);
  EXPECT_THAT(haneul({"volume", "check"}).out, HasSubstr("all is well"));
}

// With a builder of ours in place of the real ones.
TEST_F(DaemonTest, BuildRunsTheBuilderAndRegistersWhatItMade) {
  std::filesystem::path builders = folder_ / "builders";
  std::filesystem::create_directories(builders / "tiny");
  std::ofstream(builders / "tiny" / "build") << R"sh(#!/bin/sh
echo "building with $*"
[ "$1 $3 $4" != "--out --kernel fast" ] || kernel=fast
mkdir -p "$2" && echo "kernel ${kernel:-debian}" >"$2/kernel"
echo '{"format":1,"name":"tiny","kernel":"kernel","cmdline":"quiet"}' >"$2/image.json"
exit "$(cat "$(dirname "$0")/status")"
)sh";
  ::chmod((builders / "tiny" / "build").c_str(), 0755);
  auto ends_with = [&](int status) { std::ofstream(builders / "tiny" / "status") << status; };
  ends_with(0);
  ::setenv("HANEUL_IMAGES", builders.c_str(), 1);
  EXPECT_EQ(haneul({"image", "build", "tiny"}).status, 4) << "before it builds for long";
  start_daemon();
  Ended built = haneul({"image", "build", "tiny"});
  EXPECT_EQ(built.status, 0) << built.err;
  EXPECT_THAT(built.out, ::testing::MatchesRegex("ami-[0-9a-f]+ tiny\n"));
  EXPECT_THAT(built.err,
              HasSubstr("building with --out " + (folder_ / ".cache/haneul/images/tiny").string() + "\n"));
  Ended fast = haneul({"image", "build", "tiny", "--kernel", "fast", "--json"});
  EXPECT_EQ(fast.status, 0) << fast.err;
  std::string id = parse_json(fast.out).value()["ImageId"];
  EXPECT_EQ(read_file(folder_ / "state" / "images" / id / "kernel").value(), "kernel fast\n");
  EXPECT_THAT(haneul({"image", "show", "tiny"}).out, HasSubstr(id)) << "the later one has the name";

  ends_with(64);
  EXPECT_EQ(haneul({"image", "build", "tiny"}).status, 2) << "the builder refused its arguments";
  ends_with(7);
  Ended failed = haneul({"image", "build", "tiny"});
  EXPECT_EQ(failed.status, 1);
  EXPECT_THAT(failed.err, HasSubstr("the builder of tiny ended with status 7"));
  EXPECT_THAT(haneul({"image", "show", "tiny"}).out, HasSubstr(id));
  Ended unknown = haneul({"image", "build", "huge"});
  ::unsetenv("HANEUL_IMAGES");
  EXPECT_EQ(unknown.status, 6);
  EXPECT_THAT(unknown.err, HasSubstr("no builder for the image 'huge'"));
}

TEST_F(DaemonTest, EachKindOfErrorHasAStatusOfItsOwn) {
  start_daemon();
  EXPECT_EQ(haneul({"terminate", "i-0123456789abcdef0"}).status, 6);
  EXPECT_EQ(haneul({"show", "nobody"}).status, 6);
  EXPECT_EQ(haneul({"--region", "mars", "ls"}).status, 7);
  EXPECT_EQ(haneul({"volume", "create", "--size", "large"}).status, 7);
  ASSERT_EQ(haneul({"image", "register", make_image().string()}).status, 0);
  EXPECT_EQ(haneul({"run", "tiny", "--type", "t9.huge"}).status, 7);
  EXPECT_EQ(haneul({"run", "tiny", "--key", "nobodys"}).status, 6);
  EXPECT_EQ(haneul({"run", "tiny", "--type", "m5.24xlarge", "--count", "1000"}).status, 10);
  ASSERT_EQ(haneul({"volume", "create", "--size", "1G", "--name", "data"}).status, 0);
  EXPECT_EQ(haneul({"volume", "detach", "data"}).status, 8);
}

TEST_F(DaemonTest, JsonIsTheReplyOfWhatChanges) {
  start_daemon();
  auto reply = [&](std::vector<std::string> words) {
    words.push_back("--json");
    Ended ended = haneul(words);
    EXPECT_EQ(ended.status, 0) << words[0] << ": " << ended.err;
    auto parsed = parse_json(ended.out);
    EXPECT_TRUE(parsed.ok()) << words[0] << ": " << ended.out;
    return parsed.ok() ? *parsed : Json::object();
  };
  std::string image = reply({"image", "register", make_image().string()})["ImageId"];
  std::string volume = reply({"volume", "create", "--size", "1G", "--name", "data"})["VolumeId"];
  EXPECT_TRUE(reply({"tag", volume, "color=blue"}).is_object());
  EXPECT_THAT(haneul({"volume", "show", "data"}).out, HasSubstr("color=blue"));
  std::string snapshot = reply({"snapshot", "create", "data", "--wait"})["SnapshotId"];
  EXPECT_EQ(reply({"key", "create", "mine"})["KeyName"], "mine");
  EXPECT_EQ(reply({"snapshot", "rm", snapshot})["Removed"].at(0)["SnapshotId"], snapshot);
  EXPECT_EQ(reply({"volume", "rm", "data"})["Removed"].at(0)["VolumeId"], volume);
  EXPECT_EQ(reply({"key", "rm", "mine"})["Removed"].at(0)["KeyName"], "mine");
  EXPECT_EQ(reply({"image", "rm", "tiny"})["Removed"].at(0)["ImageId"], image);
  // What was deleted before the error is told all the same.
  ASSERT_EQ(haneul({"key", "create", "mine"}).status, 0);
  Ended half = haneul({"key", "rm", "mine", "yours", "--json"});
  EXPECT_EQ(half.status, 6);
  EXPECT_EQ(parse_json(half.out).value()["Removed"].size(), 1u);
}

}  // namespace
}  // namespace haneul::agent
