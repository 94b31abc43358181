// SPDX-License-Identifier: Apache-2.0
// The regions and zones of a cloud: configured with --regions, recorded in the state. A zone keeps its subnet's number
// for as long as it is there, because instances have addresses of it.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "agent/cloud/places.h"
#include "agent/state/store.h"

namespace haneul::agent {

struct RegionsRecord {
  static constexpr const char* kKind = "regions";
  static constexpr const char* kId = "regions";
  std::vector<RegionPlan> regions;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    visit({.name = "regions"}, &RegionsRecord::regions);
  }
};

struct WantedRegion {
  std::string name;
  std::string letters;  ///< of its zones, in order, each once
};

/// "us-east-1:abc,eu-west-1": one to 16 zones in all; a region without letters has abc. kInvalidArgument with the reason.
Result<std::vector<WantedRegion>> parse_regions(const std::string& text);

/// The regions wanted; nullopt: those of the record, at the first start the default ones. New zones get the lowest free
/// numbers. kExists: a zone that is to go has something in it; kCorrupt: the record cannot be read.
Result<std::vector<RegionPlan>> settle_regions(StateStore& store,
                                               const std::optional<std::vector<WantedRegion>>& wanted);

}  // namespace haneul::agent
