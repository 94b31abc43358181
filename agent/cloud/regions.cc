// SPDX-License-Identifier: Apache-2.0
// DescribeRegions and DescribeAvailabilityZones.
#include <algorithm>

#include "agent/cloud/cloud.h"

namespace haneul::agent {
namespace {

bool listed(const std::vector<std::string>& list, const std::string& value) {
  return list.empty() || std::find(list.begin(), list.end(), value) != list.end();
}

std::string endpoint_of(const std::string& region) {
  return fmt::format("ec2.{}.amazonaws.com", region);
}

}  // namespace

Answer<DescribeRegionsReply> Cloud::describe_regions(const Caller&, const DescribeRegionsRequest& request) {
  using V = std::vector<std::string>;
  static const FilterTable<RegionPlace> filters({
      {"region-name", [](const RegionPlace& r) -> V { return {r.name}; }},
      {"endpoint", [](const RegionPlace& r) -> V { return {endpoint_of(r.name)}; }},
      {"opt-in-status", [](const RegionPlace&) -> V { return {"opt-in-not-required"}; }},
  });
  TRY(filters.check(request.filters));
  for (const std::string& name : request.region_names) {
    if (places_.region(name) == nullptr) {
      return api_error(ApiCode::kInvalidParameterValue, "Invalid region: [{}]", name);
    }
  }
  if (request.dry_run.value_or(false)) return dry_run_error();
  DescribeRegionsReply reply;
  for (const RegionPlace& region : places_.regions()) {
    if (!listed(request.region_names, region.name) || !filters.matches(region, {}, request.filters)) continue;
    reply.regions.push_back({.endpoint = endpoint_of(region.name),
                             .region_name = region.name,
                             .opt_in_status = "opt-in-not-required"});
  }
  return reply;
}

Answer<DescribeAvailabilityZonesReply> Cloud::describe_availability_zones(
    const Caller& caller, const DescribeAvailabilityZonesRequest& request) {
  using V = std::vector<std::string>;
  static const FilterTable<Zone> filters({
      {"zone-name", [](const Zone& z) -> V { return {z.name}; }},
      {"zone-id", [](const Zone& z) -> V { return {z.zone_id}; }},
      {"region-name", [](const Zone& z) -> V { return {z.region}; }},
      {"state", [](const Zone&) -> V { return {"available"}; }},
      {"zone-type", [](const Zone&) -> V { return {"availability-zone"}; }},
      {"opt-in-status", [](const Zone&) -> V { return {"opt-in-not-required"}; }},
      {"group-name", [](const Zone& z) -> V { return {z.region}; }},
  });
  TRY(filters.check(request.filters));
  const auto& zones = places_.region(caller.region)->zones;
  for (const std::string& name : request.zone_names) {
    if (std::none_of(zones.begin(), zones.end(), [&](const Zone& zone) { return zone.name == name; })) {
      return api_error(ApiCode::kInvalidParameterValue, "Invalid availability zone: [{}]", name);
    }
  }
  if (request.dry_run.value_or(false)) return dry_run_error();
  DescribeAvailabilityZonesReply reply;
  for (const Zone& zone : zones) {
    bool wanted = listed(request.zone_names, zone.name) && listed(request.zone_ids, zone.zone_id);
    if (!wanted || !filters.matches(zone, {}, request.filters)) continue;
    AvailabilityZone described;
    described.state = "available";
    described.opt_in_status = "opt-in-not-required";
    described.region_name = zone.region;
    described.zone_name = zone.name;
    described.zone_id = zone.zone_id;
    described.group_name = zone.region;
    described.network_border_group = zone.region;
    described.zone_type = "availability-zone";
    reply.availability_zones.push_back(std::move(described));
  }
  return reply;
}

}  // namespace haneul::agent
