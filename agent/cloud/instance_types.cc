// SPDX-License-Identifier: Apache-2.0
#include "agent/cloud/instance_types.h"

#include <algorithm>

namespace haneul::agent {

extern const char* const kInstanceTypesJson;

const std::vector<InstanceType>& instance_types() {
  static const std::vector<InstanceType> types = [] {
    Answer<Json> json = parse_json(kInstanceTypesJson);
    return decode_checked<std::vector<InstanceType>>(json.value()).value();
  }();
  return types;
}

const InstanceType* find_instance_type(std::string_view name) {
  for (const InstanceType& type : instance_types()) {
    if (type.name == name) return &type;
  }
  return nullptr;
}

InstanceTypeInfo describe(const InstanceType& type) {
  InstanceTypeInfo info;
  info.instance_type = type.name;
  info.current_generation = true;
  info.free_tier_eligible = type.free_tier;
  info.supported_usage_classes = {"on-demand"};
  info.supported_root_device_types = {"ebs"};
  info.supported_virtualization_types = {"hvm"};
  info.bare_metal = !type.hypervisor;
  info.hypervisor = type.hypervisor;
  info.processor_info.supported_architectures = {"x86_64"};
  info.processor_info.sustained_clock_speed_in_ghz = type.clock_ghz;
  info.vcpu_info.default_vcpus = type.vcpus;
  info.vcpu_info.default_threads_per_core = type.threads_per_core;
  info.vcpu_info.default_cores = std::max<int64_t>(1, type.vcpus / type.threads_per_core);
  info.memory_info.size_in_mib = type.memory_mib;
  info.ebs_info = EbsInfo{.ebs_optimized_support = type.ebs_optimized, .encryption_support = "supported"};
  info.network_info.network_performance = type.network;
  info.burstable_performance_supported = type.burstable;
  return info;
}

}  // namespace haneul::agent
