// SPDX-License-Identifier: Apache-2.0
// Shapes, JSON, ids, filters; and all shapes against EC2's own model where a client's copy of it is
// installed.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "agent/cloud/instance_types.h"
#include "agent/cloud/operations.h"
#include "agent/cloud/places.h"
#include "base/file.h"

namespace haneul::agent {
namespace {

using ::testing::IsEmpty;

template <typename T>
std::string refusal(const std::string& text) {
  auto json = parse_json(text);
  if (!json.ok()) return fmt::format("{}: {}", name(json.error().code()), json.error().message());
  auto decoded = decode_checked<T>(*json);
  return decoded.ok() ? "" : fmt::format("{}: {}", name(decoded.error().code()), decoded.error().message());
}

TEST(Shape, DecodesWhatItEncodes) {
  RunInstancesRequest request;
  request.image_id = "ami-1";
  request.min_count = 1;
  request.max_count = 2;
  request.dry_run = false;
  request.tag_specifications = {{.resource_type = "instance", .tags = {{.key = "Name", .value = "하늘"}}}};
  Json json = encode(request);
  EXPECT_FALSE(json.contains("KeyName"));
  auto back = decode_checked<RunInstancesRequest>(parse_json(to_text(json)).value());
  ASSERT_TRUE(back.ok()) << back.error().message();
  EXPECT_EQ(encode(*back), json);
  EXPECT_EQ(back->tag_specifications[0].tags[0].value, "하늘");
}

TEST(Shape, NamesTheMemberThatIsWrong) {
  EXPECT_EQ(refusal<RunInstancesRequest>(
                R"({"MinCount":1,"MaxCount":1,"BlockDeviceMappings":[{},{"Ebs":{"VolumeSize":"x"}}]})"),
            "InvalidParameterValue: The parameter BlockDeviceMappings.2.Ebs.VolumeSize must be an integer");
  EXPECT_EQ(refusal<RunInstancesRequest>(R"({"MinCount":1,"MaxCount":1,"Placement":{"Planet":"mars"}})"),
            "UnknownParameter: The parameter Placement.Planet is not recognized");
  EXPECT_EQ(refusal<RunInstancesRequest>(R"({"MinCount":99999999999999999999,"MaxCount":1})"),
            "InvalidParameterValue: The parameter MinCount must be an integer");
  EXPECT_EQ(refusal<RunInstancesRequest>(R"({"MinCount":18446744073709551615,"MaxCount":1})"),
            "InvalidParameterValue: The parameter MinCount must be a 64-bit integer");
  EXPECT_EQ(refusal<RunInstancesRequest>("[]"),
            "InvalidParameterValue: The parameter body must be an object");
  EXPECT_EQ(refusal<StartInstancesRequest>(R"({"InstanceIds":[]})"),
            "MissingParameter: The request must contain the parameter InstanceIds");
  EXPECT_EQ(refusal<StartInstancesRequest>(R"({"InstanceIds":null})"),
            "MissingParameter: The request must contain the parameter InstanceIds");
  EXPECT_EQ(refusal<StartInstancesRequest>(R"({"InstanceIds":"i-1"})"),
            "InvalidParameterValue: The parameter InstanceIds must be a list");
}

TEST(Json, RefusesWhatIsDeepOrNotJson) {
  std::string deep(33, '[');
  EXPECT_EQ(refusal<Tag>(deep + std::string(33, ']')),
            "MalformedQueryString: The JSON is nested deeper than 32 levels");
  EXPECT_EQ(refusal<Tag>(std::string(8 << 20, '[')),
            "MalformedQueryString: The JSON is nested deeper than 32 levels");
  EXPECT_EQ(refusal<Tag>("{"), "MalformedQueryString: The body is not valid JSON");
  EXPECT_EQ(refusal<Tag>("{\"Key\":\"\xff\"}"), "MalformedQueryString: The body is not valid JSON");
  EXPECT_EQ(refusal<Tag>(R"({"Key":"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[","Value":"\"["})"), "");
}

TEST(Timestamp, TextAndBack) {
  EXPECT_EQ(to_text(Timestamp{1769860800123}), "2026-01-31T12:00:00.123Z");
  EXPECT_EQ(timestamp_from("2026-01-31T12:00:00.123Z"), Timestamp{1769860800123});
  EXPECT_EQ(timestamp_from("2026-01-31T12:00:00+00:00"), Timestamp{1769860800000});
  EXPECT_EQ(timestamp_from("yesterday"), std::nullopt);
}

TEST(Base64, RoundTripsAndRefuses) {
  for (std::string text : {"", "a", "ab", "abc", "abcd"}) EXPECT_EQ(from_base64(to_base64(text)), text);
  EXPECT_EQ(from_base64("YW Jj\n"), "abc");
  EXPECT_EQ(from_base64("YWJ"), std::nullopt);
  EXPECT_EQ(from_base64("Y=Jj"), std::nullopt);
  EXPECT_EQ(from_base64("Y!Jj"), std::nullopt);
}

TEST(Ids, HavePrefixAndSeventeenDigits) {
  std::string id = new_id("ami");
  EXPECT_EQ(id.size(), 21U);
  EXPECT_TRUE(valid_id(id, "ami"));
  EXPECT_NE(id, new_id("ami"));
  EXPECT_TRUE(valid_id("i-12345678", "i"));
  for (const char* bad : {"", "i", "i-", "i-0123456789abcdef", "i-0123456789abcdef01", "i-0123456789ABCDEF0",
                          "x-0123456789abcdef0"}) {
    EXPECT_FALSE(valid_id(bad, "i")) << bad;
  }
  EXPECT_EQ(id_prefix(id), "ami");
  EXPECT_EQ(id_prefix("nonsense"), "");
}

TEST(Pattern, StarsQuestionMarksAndBackslashes) {
  EXPECT_TRUE(matches_pattern("*", ""));
  EXPECT_TRUE(matches_pattern("a*c*e", "abcde"));
  EXPECT_TRUE(matches_pattern("a?c", "abc"));
  EXPECT_TRUE(matches_pattern("a\\*", "a*"));
  EXPECT_FALSE(matches_pattern("a\\*", "ab"));
  EXPECT_FALSE(matches_pattern("a?", "a"));
  EXPECT_FALSE(matches_pattern("abc", "ABC"));
  // No exponential time.
  EXPECT_FALSE(matches_pattern(std::string("a*a*a*a*a*a*a*a*a*a*b"), std::string(5000, 'a')));
}

TEST(InstanceTypes, AreEc2s) {
  ASSERT_NE(find_instance_type("t2.micro"), nullptr);
  EXPECT_EQ(find_instance_type("t2.micro")->memory_mib, 1024);
  EXPECT_EQ(find_instance_type("t3.2xlarge")->vcpus, 8);
  EXPECT_EQ(find_instance_type("m5.24xlarge")->memory_mib, 384 * 1024);
  EXPECT_EQ(find_instance_type("c5.18xlarge")->vcpus, 72);
  EXPECT_EQ(find_instance_type("c5.24xlarge")->memory_mib, 192 * 1024);
  InstanceTypeInfo metal = describe(*find_instance_type("c5.metal"));
  EXPECT_TRUE(metal.bare_metal);
  EXPECT_EQ(metal.hypervisor, std::nullopt);
  EXPECT_EQ(metal.vcpu_info.default_cores, 48);
  InstanceTypeInfo micro = describe(*find_instance_type("t3.micro"));
  EXPECT_FALSE(micro.bare_metal);
  EXPECT_EQ(micro.ebs_info->encryption_support, "supported");
  EXPECT_EQ(find_instance_type("t2"), nullptr);
  EXPECT_EQ(instance_types().size(), 32U);
}

TEST(Places, AddressesOfASubnet) {
  Places places;
  const Zone& zone = *places.zone("us-east-1b");
  EXPECT_EQ(address_text(gateway_of(zone)), "172.31.16.1");
  EXPECT_EQ(address_text(*free_address(zone, {})), "172.31.16.4");
  EXPECT_EQ(address_text(*free_address(zone, {"172.31.16.4", "172.31.16.6"})), "172.31.16.5");
  EXPECT_FALSE(usable_address(zone, *address_from("172.31.31.255")));
  EXPECT_TRUE(usable_address(zone, *address_from("172.31.31.254")));
  std::set<std::string> all;
  for (uint32_t a = 0; a < 4096; ++a) all.insert(address_text(zone.network + a));
  EXPECT_EQ(free_address(zone, all), std::nullopt);
  EXPECT_EQ(mac_for_address(*address_from("172.31.16.4")), "02:68:ac:1f:10:04");
  std::set<std::string> labels;
  std::set<std::string> subnets;
  for (const RegionPlace& region : places.regions()) {
    for (const Zone& each : region.zones) {
      labels.insert(each.label);
      subnets.insert(each.subnet_id);
    }
  }
  EXPECT_EQ(labels.size(), 6U);
  EXPECT_EQ(subnets.size(), 6U);
}

TEST(Places, ShortNamesAreEc2s) {
  EXPECT_EQ(short_name("us-east-1"), "use1");
  EXPECT_EQ(short_name("eu-west-1"), "euw1");
  EXPECT_EQ(short_name("ap-southeast-2"), "apse2");
  EXPECT_EQ(short_name("ap-northeast-1"), "apne1");
  EXPECT_EQ(short_name("ca-central-1"), "cac1");
  EXPECT_EQ(short_name("us-gov-west-1"), "usgw1");
}

// ---- against EC2's own model ----

std::string model_kind(const Json& shape) {
  std::string type = shape["type"];
  if (type == "long") return "integer";
  if (type == "float") return "double";
  return type;
}

const char* our_kind(Kind kind) {
  switch (kind) {
    case Kind::kString:
      return "string";
    case Kind::kInteger:
      return "integer";
    case Kind::kDouble:
      return "double";
    case Kind::kBoolean:
      return "boolean";
    case Kind::kTimestamp:
      return "timestamp";
    case Kind::kBlob:
      return "blob";
    case Kind::kList:
      return "list";
    case Kind::kStructure:
      return "structure";
  }
  return "";
}

class Comparison {
 public:
  explicit Comparison(const Json& shapes) : shapes_(shapes) {}

  void compare(const std::string& path, const Type& type, const std::string& shape_name, int depth) {
    const Json& shape = shapes_[shape_name];
    if (model_kind(shape) != our_kind(type.kind)) {
      differences.push_back(
          fmt::format("{}: {} in EC2, {} here", path, model_kind(shape), our_kind(type.kind)));
      return;
    }
    if (depth > 8) return;
    if (type.kind == Kind::kList) compare(path, *type.element, shape["member"]["shape"], depth + 1);
    if (type.kind == Kind::kStructure) compare_members(path, *type.shape, shape, depth);
  }

  std::vector<std::string> differences;

 private:
  void compare_members(const std::string& path, const Shape& ours, const Json& shape, int depth) {
    for (const Member& member : ours.members) {
      if (member.own) continue;
      std::string below = path + "." + member.name;
      auto theirs = shape["members"].find(member.name);
      if (theirs == shape["members"].end()) {
        differences.push_back(below + ": not in EC2");
        continue;
      }
      std::string wire = theirs->value("locationName", member.name);
      std::string query = wire;
      query[0] = static_cast<char>(std::toupper(static_cast<unsigned char>(query[0])));
      query = theirs->value("queryName", query);
      if (wire != member.wire)
        differences.push_back(fmt::format("{}: on the wire {} here, {} in EC2", below, member.wire, wire));
      if (query != member.query)
        differences.push_back(fmt::format("{}: in queries {} here, {} in EC2", below, member.query, query));
      compare(below, *member.type, (*theirs)["shape"], depth + 1);
    }
    for (const Json& required : shape.value("required", Json::array())) {
      const Member* member = ours.find(required.get<std::string>());
      if (member == nullptr)
        differences.push_back(
            fmt::format("{}.{}: required by EC2, unknown here", path, required.get<std::string>()));
    }
  }
  const Json& shapes_;
};

Json ec2_model() {
  for (const char* file :
       {"/usr/lib/python3/dist-packages/botocore/data/ec2/2016-11-15/service-2.json",
        "/usr/lib/python3/dist-packages/awscli/botocore/data/ec2/2016-11-15/service-2.json"}) {
    auto text = read_file(file, 64 << 20);
    if (text.ok()) return Json::parse(*text, nullptr, false);
  }
  return {};
}

TEST(Operations, HaveTheShapesOfEc2sModel) {
  Json model = ec2_model();
  if (!model.is_object()) GTEST_SKIP() << "no AWS client with EC2's model is installed";
  Comparison comparison(model["shapes"]);
  for (const Operation& operation : operations()) {
    if (operation.own) continue;
    std::string label(operation.name);
    ASSERT_TRUE(model["operations"].contains(label)) << label;
    const Json& theirs = model["operations"][label];
    comparison.compare(label, operation.request(), theirs["input"]["shape"], 0);
    if (theirs.contains("output"))
      comparison.compare(label + " reply", operation.reply(), theirs["output"]["shape"], 0);
  }
  EXPECT_THAT(comparison.differences, IsEmpty());
}

}  // namespace
}  // namespace haneul::agent
