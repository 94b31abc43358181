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

Places::Places(uint32_t vpc_network) {
  static constexpr std::array<std::pair<const char*, const char*>, 2> kRegions = {
      {{"us-east-1", "use1"}, {"eu-west-1", "euw1"}}};
  unsigned index = 0;
  for (const auto& [name, short_name] : kRegions) {
    RegionPlace region{.name = name, .vpc_id = fixed_id("vpc", name), .zones = {}};
    for (char letter = 'a'; letter <= 'c'; ++letter, ++index) {
      Zone zone;
      zone.name = fmt::format("{}{}", name, letter);
      zone.zone_id = fmt::format("{}-az{}", short_name, letter - 'a' + 1);
      zone.region = name;
      zone.subnet_id = fixed_id("subnet", zone.name);
      zone.network = vpc_network + index * kSubnetSize;
      zone.label = std::string(1, static_cast<char>('a' + index));
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
