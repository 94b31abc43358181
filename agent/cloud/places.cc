// SPDX-License-Identifier: Apache-2.0
#include "agent/cloud/places.h"

#include <arpa/inet.h>

#include <array>

#include "agent/keys/key_pair.h"

namespace haneul::agent {
namespace {

constexpr uint32_t kSubnetSize = 1u << (32 - kSubnetBits);

// The same region and zone have the same ids in every cloud, as a tutorial's reader would like.
std::string fixed_id(std::string_view prefix, std::string_view name) {
  return fmt::format("{}-0{}", prefix, sha256_hex(name).substr(0, 16));
}

}  // namespace

std::vector<RegionPlan> default_regions() {
  return {{"us-east-1", {{"a", 0}, {"b", 1}, {"c", 2}}}, {"eu-west-1", {{"a", 3}, {"b", 4}, {"c", 5}}}};
}

// As EC2 makes them: the continent, the initials of the points of the compass, the number; ap-southeast-2 is apse2.
std::string short_name(std::string_view region) {
  static constexpr std::array<std::string_view, 5> kPoints = {"north", "south", "east", "west", "central"};
  size_t dash = region.find('-');
  std::string result(region.substr(0, dash));
  while (dash != std::string_view::npos) {
    region.remove_prefix(dash + 1);
    dash = region.find('-');
    std::string_view word = region.substr(0, dash);
    if (word.empty() || (word[0] >= '0' && word[0] <= '9')) {
      result += word;
      continue;
    }
    result += word[0];
    for (std::string_view point : kPoints) {
      if (word.starts_with(point) && word.size() > point.size()) result += word[point.size()];
    }
  }
  return result;
}

Places::Places(uint32_t vpc_network, const std::vector<RegionPlan>& regions) {
  for (const RegionPlan& plan : regions) {
    RegionPlace region{.name = plan.name, .vpc_id = fixed_id("vpc", plan.name), .zones = {}};
    for (const auto& [letter, number] : plan.zones) {
      Zone zone;
      zone.name = plan.name + letter;
      zone.zone_id = fmt::format("{}-az{}", short_name(plan.name), letter[0] - 'a' + 1);
      zone.region = plan.name;
      zone.subnet_id = fixed_id("subnet", zone.name);
      zone.network = vpc_network + static_cast<uint32_t>(number) * kSubnetSize;
      zone.label = std::string(1, static_cast<char>('a' + number));
      region.zones.push_back(std::move(zone));
    }
    regions_.push_back(std::move(region));
  }
}

const RegionPlace* Places::region(std::string_view name) const {
  for (const RegionPlace& region : regions_) {
    if (region.name == name) return &region;
  }
  return nullptr;
}

const Zone* Places::zone(std::string_view name) const {
  for (const RegionPlace& region : regions_) {
    for (const Zone& zone : region.zones) {
      if (zone.name == name) return &zone;
    }
  }
  return nullptr;
}

const Zone* Places::zone_of_subnet(std::string_view subnet_id) const {
  for (const RegionPlace& region : regions_) {
    for (const Zone& zone : region.zones) {
      if (zone.subnet_id == subnet_id) return &zone;
    }
  }
  return nullptr;
}

std::string address_text(uint32_t address) {
  return fmt::format("{}.{}.{}.{}", address >> 24, address >> 16 & 0xff, address >> 8 & 0xff, address & 0xff);
}

std::optional<uint32_t> address_from(std::string_view text) {
  in_addr raw{};
  if (::inet_pton(AF_INET, std::string(text).c_str(), &raw) != 1) return std::nullopt;
  return ntohl(raw.s_addr);
}

uint32_t gateway_of(const Zone& zone) {
  return zone.network + 1;
}

bool usable_address(const Zone& zone, uint32_t address) {
  return address >= zone.network + 4 && address < zone.network + kSubnetSize - 1;
}

std::optional<uint32_t> free_address(const Zone& zone, const std::set<std::string>& used) {
  for (uint32_t address = zone.network + 4; usable_address(zone, address); ++address) {
    if (!used.contains(address_text(address))) return address;
  }
  return std::nullopt;
}

std::string host_name(std::string_view address) {
  std::string name = fmt::format("ip-{}", address);
  for (char& c : name) {
    if (c == '.') c = '-';
  }
  return name;
}

std::string domain_name(std::string_view region) {
  return region == "us-east-1" ? "ec2.internal" : fmt::format("{}.compute.internal", region);
}

std::string mac_for_address(uint32_t address) {
  return fmt::format("02:68:{:02x}:{:02x}:{:02x}:{:02x}", address >> 24, address >> 16 & 0xff,
                     address >> 8 & 0xff, address & 0xff);
}

}  // namespace haneul::agent
