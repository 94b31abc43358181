// SPDX-License-Identifier: Apache-2.0
// Regions, zones and the default VPC's subnets. One host is all regions; their zones share one /16, EC2's
// 172.31.0.0/16 unless this host uses it otherwise, a /20 each, so that no two zones of one cloud have the same
// addresses. So there are 16 zones at most.
#pragma once

#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "agent/ops/shape.h"
#include "base/result.h"

namespace haneul::agent {

struct Zone {
  std::string name;     ///< "us-east-1a"
  std::string zone_id;  ///< "use1-az1"
  std::string region;
  std::string subnet_id;
  uint32_t network = 0;  ///< the subnet's address, in host byte order
  std::string label;     ///< one letter, of its own in the cloud
};
constexpr unsigned kSubnetBits = 20;
constexpr size_t kMaxZones = size_t{1} << (kSubnetBits - 16);  ///< subnets of a /16
constexpr uint32_t kEc2sVpc = 172u << 24 | 31u << 16;

/// A zone as it is configured. Its subnet is the one of this number, 0 to 15, for as long as the zone is there.
struct ZonePlan {
  std::string letter;
  int64_t number = 0;
  bool operator==(const ZonePlan&) const = default;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    visit({.name = "letter"}, &ZonePlan::letter);
    visit({.name = "number"}, &ZonePlan::number);
  }
};
struct RegionPlan {
  std::string name;
  std::vector<ZonePlan> zones;  ///< at least one
  bool operator==(const RegionPlan&) const = default;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    visit({.name = "name"}, &RegionPlan::name);
    visit({.name = "zones"}, &RegionPlan::zones);
  }
};
/// us-east-1 and eu-west-1, three zones each.
std::vector<RegionPlan> default_regions();

struct RegionPlace {
  std::string name;
  std::string vpc_id;
  std::vector<Zone> zones;
};

class Places {
 public:
  /// In the /16 that begins at vpc_network. At least one region; the first is that of callers who name none.
  explicit Places(uint32_t vpc_network = kEc2sVpc,
                  const std::vector<RegionPlan>& regions = default_regions());

  const std::vector<RegionPlace>& regions() const { return regions_; }
  const RegionPlace* region(std::string_view name) const;
  const Zone* zone(std::string_view name) const;
  const Zone* zone_of_subnet(std::string_view subnet_id) const;
  std::string_view default_region() const { return regions_.front().name; }

 private:
  std::vector<RegionPlace> regions_;
};

/// What begins the ids of a region's zones: "use1" for us-east-1.
std::string short_name(std::string_view region);
/// "172.31.0.5"
std::string address_text(uint32_t address);
std::optional<uint32_t> address_from(std::string_view text);
uint32_t gateway_of(const Zone& zone);
/// The lowest free address: neither in use, nor one of the first four of the subnet, nor the last.
std::optional<uint32_t> free_address(const Zone& zone, const std::set<std::string>& used);
/// Whether an instance may have it.
bool usable_address(const Zone& zone, uint32_t address);
/// "ip-172-31-0-5"
std::string host_name(std::string_view address);
/// "ec2.internal" in us-east-1, "REGION.compute.internal" elsewhere.
std::string domain_name(std::string_view region);
/// Locally administered, from the address.
std::string mac_for_address(uint32_t address);

}  // namespace haneul::agent
