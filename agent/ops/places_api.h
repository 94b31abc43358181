// SPDX-License-Identifier: Apache-2.0
// Requests and replies of the operations on places.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "agent/ops/shapes.h"

namespace haneul::agent {

struct DescribeRegionsRequest {
  std::vector<Filter> filters;
  std::vector<std::string> region_names;
  std::optional<bool> dry_run;
  std::optional<bool> all_regions;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    visit({.name = "Filters", .wire = "Filter"}, &DescribeRegionsRequest::filters);
    visit({.name = "RegionNames", .wire = "RegionName"}, &DescribeRegionsRequest::region_names);
    visit({.name = "DryRun"}, &DescribeRegionsRequest::dry_run);
    visit({.name = "AllRegions", .wire = "AllRegions"}, &DescribeRegionsRequest::all_regions);
  }
};

struct DescribeRegionsReply {
  std::vector<Region> regions;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    visit({.name = "Regions", .wire = "regionInfo"}, &DescribeRegionsReply::regions);
  }
};

struct DescribeAvailabilityZonesRequest {
  std::vector<Filter> filters;
  std::vector<std::string> zone_names;
  std::vector<std::string> zone_ids;
  std::optional<bool> all_availability_zones;
  std::optional<bool> dry_run;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    visit({.name = "Filters", .wire = "Filter"}, &DescribeAvailabilityZonesRequest::filters);
    visit({.name = "ZoneNames", .wire = "ZoneName"}, &DescribeAvailabilityZonesRequest::zone_names);
    visit({.name = "ZoneIds", .wire = "ZoneId"}, &DescribeAvailabilityZonesRequest::zone_ids);
    visit({.name = "AllAvailabilityZones", .wire = "AllAvailabilityZones"},
          &DescribeAvailabilityZonesRequest::all_availability_zones);
    visit({.name = "DryRun"}, &DescribeAvailabilityZonesRequest::dry_run);
  }
};

struct DescribeAvailabilityZonesReply {
  std::vector<AvailabilityZone> availability_zones;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    visit({.name = "AvailabilityZones", .wire = "availabilityZoneInfo"},
          &DescribeAvailabilityZonesReply::availability_zones);
  }
};

}  // namespace haneul::agent
