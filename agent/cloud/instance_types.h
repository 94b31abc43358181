// SPDX-License-Identifier: Apache-2.0
// EC2's instance types and their sizes, from agent/instance_types.json, which is built into the daemon.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "agent/ops/shapes.h"

namespace haneul::agent {

struct InstanceType {
  std::string name;
  int64_t vcpus = 0;
  int64_t memory_mib = 0;
  std::string network;
  std::optional<std::string> hypervisor;  ///< none: bare metal
  double clock_ghz = 0;
  int64_t threads_per_core = 1;
  bool free_tier = false;
  bool burstable = false;
  std::string ebs_optimized;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    visit({.name = "name", .required = true}, &InstanceType::name);
    visit({.name = "vcpus", .required = true}, &InstanceType::vcpus);
    visit({.name = "memory_mib", .required = true}, &InstanceType::memory_mib);
    visit({.name = "network", .required = true}, &InstanceType::network);
    visit({.name = "hypervisor"}, &InstanceType::hypervisor);
    visit({.name = "clock_ghz", .required = true}, &InstanceType::clock_ghz);
    visit({.name = "threads_per_core", .required = true}, &InstanceType::threads_per_core);
    visit({.name = "free_tier"}, &InstanceType::free_tier);
    visit({.name = "burstable"}, &InstanceType::burstable);
    visit({.name = "ebs_optimized", .required = true}, &InstanceType::ebs_optimized);
  }
};

/// All types, in the file's order. The built-in text is right: a test reads it.
const std::vector<InstanceType>& instance_types();
const InstanceType* find_instance_type(std::string_view name);
InstanceTypeInfo describe(const InstanceType& type);

}  // namespace haneul::agent
