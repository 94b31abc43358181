// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "agent/daemon/network_record.h"
#include "agent/daemon/regions_record.h"
#include "agent/state/records.h"
#include "agent/state/volume_records.h"
#include "tests/support/files.h"

namespace haneul::agent {
namespace {

TEST(ParseRegions, NamesAndLetters) {
  auto regions = parse_regions("ap-southeast-2,us-gov-west-1:cab").value();
  ASSERT_EQ(regions.size(), 2u);
  EXPECT_EQ(regions[0].name, "ap-southeast-2");
  EXPECT_EQ(regions[0].letters, "abc");
  EXPECT_EQ(regions[1].letters, "abc");
  EXPECT_TRUE(parse_regions("us-east-1:abcdefghijklmnop").ok());
}

TEST(ParseRegions, WhatIsRefused) {
  auto said = [](const std::string& text) {
    auto regions = parse_regions(text);
    return regions.ok() ? std::string("accepted") : regions.error().message();
  };
  for (const char* bad :
       {"", "us", "1", "us-east", "US-east-1", "us-east-1a", "us--1", "../x-1", "us-east-1,"})
    EXPECT_THAT(said(bad), ::testing::EndsWith("is not a region's name, as us-east-1")) << bad;
  for (const char* bad : {"us-east-1:", "us-east-1:aa", "us-east-1:a1", "us-east-1:a:b"})
    EXPECT_THAT(said(bad), ::testing::HasSubstr("the zones of a region are letters, each once")) << bad;
  EXPECT_EQ(said("us-east-1,us-east-1"), "the region us-east-1 is there twice");
  EXPECT_EQ(said("us-east-1,us-earth-1"),
            "the zones of us-earth-1 and us-east-1 would have the same ids, use1-az1");
  EXPECT_EQ(said("us-east-1:abcdefgh,us-west-1:abcdefghi"),
            "a cloud has 16 zones at most, in all regions together, not 17: its /16 has no more subnets");
}

class RegionsRecordTest : public ::testing::Test {
 protected:
  RegionsRecordTest() : store_(SqliteStore::open(folder_ / "state.db").value()) {}
  /// "us-east-1 a0 b1; eu-west-1 a2", or the error.
  std::string settled(const std::string& wanted = "") {
    auto parsed = wanted.empty() ? std::nullopt : std::optional(parse_regions(wanted).value());
    auto regions = settle_regions(*store_, parsed);
    if (!regions.ok()) return regions.error().message();
    std::string text;
    for (const RegionPlan& region : *regions) {
      text += (text.empty() ? "" : "; ") + region.name;
      for (const ZonePlan& zone : region.zones) text += fmt::format(" {}{}", zone.letter, zone.number);
    }
    return text;
  }
  template <typename Record>
  void put(Record record) {
    ASSERT_TRUE(store_->commit(Batch().put(Record::kKind, record.id, to_text(encode(record)))).ok());
  }
  void put_instance(const std::string& zone, const std::string& state) {
    InstanceRecord instance;
    instance.id = "i-1";
    instance.region = zone.substr(0, zone.size() - 1);
    instance.zone = zone;
    instance.state = state;
    put(instance);
  }

  haneul::testing::TempFolder folder_;
  std::unique_ptr<SqliteStore> store_;
};

constexpr const char* kDefault = "us-east-1 a0 b1 c2; eu-west-1 a3 b4 c5";

TEST_F(RegionsRecordTest, TwoByDefault) {
  EXPECT_EQ(settled(), kDefault);
}

TEST_F(RegionsRecordTest, ThoseOfTheFirstStartAreKept) {
  EXPECT_EQ(settled("ap-south-1:ab,us-east-1:a"), "ap-south-1 a0 b1; us-east-1 a2");
  store_.reset();
  store_ = SqliteStore::open(folder_ / "state.db").value();
  EXPECT_EQ(settled(), "ap-south-1 a0 b1; us-east-1 a2");
}

TEST_F(RegionsRecordTest, AZoneKeepsItsNumberWhereverItIsInTheList) {
  EXPECT_EQ(settled(), kDefault);
  EXPECT_EQ(settled("ap-south-1,eu-west-1:abcd,us-east-1"),
            "ap-south-1 a6 b7 c8; eu-west-1 a3 b4 c5 d9; us-east-1 a0 b1 c2");
  EXPECT_EQ(settled("eu-west-1:bd"), "eu-west-1 b4 d9");
  EXPECT_EQ(settled("eu-west-1:abd,us-west-2:a"), "eu-west-1 a0 b4 d9; us-west-2 a1");
}

// Its zones' numbers are in the addresses of its instances.
TEST_F(RegionsRecordTest, ACloudFromBeforeThereWasAChoiceHasTheDefault) {
  ASSERT_TRUE(store_->commit(Batch().put(NetworkRecord::kKind, NetworkRecord::kId, "{}")).ok());
  EXPECT_EQ(settled("eu-west-1,us-east-1"), "eu-west-1 a3 b4 c5; us-east-1 a0 b1 c2");
}

TEST_F(RegionsRecordTest, WhatIsInUseStays) {
  EXPECT_EQ(settled(), kDefault);
  put_instance("us-east-1c", "stopped");
  EXPECT_EQ(settled("us-east-1:ab,eu-west-1"),
            "i-1 is still in us-east-1c: delete it first, or leave us-east-1c among the --regions");
  SnapshotRecord snapshot;
  snapshot.id = "snap-1";
  snapshot.region = "eu-west-1";
  put(snapshot);
  EXPECT_EQ(settled("us-east-1"),
            "snap-1 is still in eu-west-1: delete it first, or leave eu-west-1 among the --regions");
  EXPECT_EQ(settled("us-east-1,eu-west-1:a"), "us-east-1 a0 b1 c2; eu-west-1 a3") << "it is in no zone";
  VolumeRecord volume;
  volume.id = "vol-1";
  volume.region = "us-east-1";
  volume.zone = "us-east-1b";
  put(volume);
  EXPECT_THAT(settled("us-east-1:ac,eu-west-1:a"), ::testing::StartsWith("vol-1 is still in us-east-1b"));
  EXPECT_EQ(settled(), "us-east-1 a0 b1 c2; eu-west-1 a3") << "nothing changed";
}

TEST_F(RegionsRecordTest, WhatHasEndedIsInNobodysWay) {
  EXPECT_EQ(settled(), kDefault);
  put_instance("eu-west-1a", "terminated");
  ImageRecord image;
  image.id = "ami-1";
  image.region = "eu-west-1";
  image.state = "deregistered";
  put(image);
  TaskRecord task;
  task.id = "check-1";
  task.region = "eu-west-1";
  put(task);
  EXPECT_THAT(settled("us-east-1"), ::testing::StartsWith("check-1 is still in eu-west-1"));
  task.state = "completed";
  put(task);
  EXPECT_EQ(settled("us-east-1"), "us-east-1 a0 b1 c2");
}

TEST_F(RegionsRecordTest, ARecordThatCannotBeReadIsLeftToTheModel) {
  EXPECT_EQ(settled(), kDefault);
  ASSERT_TRUE(store_->commit(Batch().put("volume", "vol-1", R"({"zone": 5, "region": []})")).ok());
  EXPECT_EQ(settled("us-east-1"), "us-east-1 a0 b1 c2");
}

TEST_F(RegionsRecordTest, ADamagedRecordIsRefused) {
  for (
      const char* damaged :
      {"x", "{}", R"({"regions": []})", R"({"regions": [{"name": "us-east-1", "zones": []}]})",
       R"({"regions": [{"name": "us-east-1", "zones": [{"letter": "a", "number": 16}]}]})",
       R"({"regions": [{"name": "us-east-1", "zones": [{"letter": "", "number": 0}]}]})",
       R"({"regions": [{"name": "us-east-1", "zones": [{"letter": "a", "number": 0}, {"letter": "b", "number": 0}]}]})"}) {
    ASSERT_TRUE(store_->commit(Batch().put(RegionsRecord::kKind, RegionsRecord::kId, damaged)).ok());
    EXPECT_EQ(settled(), "the state of regions regions cannot be read") << damaged;
  }
}

}  // namespace
}  // namespace haneul::agent
