// SPDX-License-Identifier: Apache-2.0
// Block device mappings: what an image says, as a request changes it.
#include <algorithm>
#include <regex>

#include "agent/cloud/cloud.h"

namespace haneul::agent {
namespace {

constexpr int64_t kGiB = int64_t{1} << 30;

ApiError bad_mapping(std::string sentence) {
  return ApiError(ApiCode::kInvalidBlockDeviceMapping, std::move(sentence));
}

MappingRecord* find_mapping(std::vector<MappingRecord>& mappings, const std::string& device) {
  for (MappingRecord& mapping : mappings) {
    if (mapping.device == device) return &mapping;
  }
  return nullptr;
}

Answer<void> apply_ephemeral(const BlockDeviceMapping& wanted, std::vector<MappingRecord>& mappings) {
  static const std::regex kNames("ephemeral([0-9]|1[0-9]|2[0-3])");
  if (!std::regex_match(*wanted.virtual_name, kNames)) {
    return bad_mapping(
        fmt::format("'{}' is not a virtual name: they are ephemeral0 to ephemeral23", *wanted.virtual_name));
  }
  // As on EC2's types without instance store: nothing comes of it.
  if (!wanted.ephemeral_size) return {};
  TRY(check_gib(*wanted.ephemeral_size));
  if (find_mapping(mappings, *wanted.device_name) != nullptr)
    return bad_mapping(fmt::format("The device {} is mapped to a volume already", *wanted.device_name));
  for (const MappingRecord& other : mappings) {
    if (other.virtual_name == *wanted.virtual_name)
      return bad_mapping(fmt::format("{} is mapped twice", *wanted.virtual_name));
  }
  MappingRecord mapping;
  mapping.device = *wanted.device_name;
  mapping.virtual_name = *wanted.virtual_name;
  mapping.bytes = *wanted.ephemeral_size * kGiB;
  mappings.push_back(std::move(mapping));
  return {};
}

}  // namespace

std::vector<BlockDeviceMapping> describe_mappings(const ImageRecord& image) {
  std::vector<BlockDeviceMapping> described;
  for (const MappingRecord& mapping : image.mappings) {
    BlockDeviceMapping one;
    one.device_name = mapping.device;
    if (!mapping.virtual_name.empty()) {
      one.virtual_name = mapping.virtual_name;
      one.ephemeral_size = gib(mapping.bytes);
    } else {
      one.ebs = EbsBlockDevice{};
      one.ebs->delete_on_termination = mapping.delete_on_termination;
      if (!mapping.snapshot_id.empty()) one.ebs->snapshot_id = mapping.snapshot_id;
      one.ebs->volume_size = gib(mapping.bytes);
      one.ebs->volume_type = mapping.type;
      if (mapping.iops > 0) one.ebs->iops = mapping.iops;
      if (mapping.throughput > 0) one.ebs->throughput = mapping.throughput;
      one.ebs->encrypted = mapping.encrypted;
    }
    described.push_back(std::move(one));
  }
  return described;
}

// Under the lock. A mapping that has a snapshot cannot become smaller than that.
Answer<void> Cloud::apply_ebs(const Caller& caller, const EbsBlockDevice& wanted, MappingRecord& mapping) {
  int64_t least = 0;
  if (wanted.snapshot_id && *wanted.snapshot_id != mapping.snapshot_id) {
    SnapshotRecord snapshot = TRY(find_snapshot(caller, *wanted.snapshot_id));
    if (snapshot.state != "completed") {
      return api_error(ApiCode::kIncorrectState, "The snapshot '{}' is not in the 'completed' state.",
                       snapshot.id);
    }
    mapping.snapshot_id = snapshot.id;
    mapping.bytes = snapshot.bytes;
    mapping.encrypted = snapshot.encrypted;
  }
  if (!mapping.snapshot_id.empty()) {
    auto snapshot = model_.snapshots().find(mapping.snapshot_id);
    least = snapshot == model_.snapshots().end() ? mapping.bytes : snapshot->second.bytes;
  }
  if (wanted.volume_size) {
    TRY(check_gib(*wanted.volume_size));
    if (*wanted.volume_size * kGiB < least) {
      return bad_mapping(fmt::format("Volume of size {}GB is smaller than snapshot '{}', expect size >= {}GB",
                                     *wanted.volume_size, mapping.snapshot_id, gib(least)));
    }
    mapping.bytes = *wanted.volume_size * kGiB;
  }
  if (mapping.bytes == 0) {
    return ApiError(ApiCode::kMissingParameter, "The request must contain the parameter size or snapshotId");
  }
  mapping.encrypted = mapping.encrypted || wanted.encrypted.value_or(false);
  mapping.delete_on_termination = wanted.delete_on_termination.value_or(mapping.delete_on_termination);
  bool same_type = !wanted.volume_type || *wanted.volume_type == mapping.type;
  mapping.type = wanted.volume_type.value_or(mapping.type);
  auto iops = wanted.iops;
  auto throughput = wanted.throughput;
  if (same_type && !iops && mapping.iops > 0) iops = mapping.iops;
  if (same_type && !throughput && mapping.throughput > 0) throughput = mapping.throughput;
  return check_performance(mapping.type, iops, throughput, mapping.iops, mapping.throughput);
}

Answer<void> Cloud::apply_mapping(const Caller& caller, const BlockDeviceMapping& wanted,
                                  std::vector<MappingRecord>& mappings) {
  std::string device = wanted.device_name.value_or("");
  if (device.empty())
    return ApiError(ApiCode::kMissingParameter, "The request must contain the parameter deviceName");
  if (!valid_device(device)) {
    return api_error(ApiCode::kInvalidParameterValue,
                     "Value ({0}) for parameter device is invalid. {0} is not a valid EBS device name.",
                     device);
  }
  if (wanted.no_device) {
    std::erase_if(mappings, [&](const MappingRecord& mapping) { return mapping.device == device; });
    return {};
  }
  if (wanted.virtual_name && wanted.ebs)
    return bad_mapping(fmt::format("{} is mapped to both a volume and {}", device, *wanted.virtual_name));
  if (wanted.virtual_name) return apply_ephemeral(wanted, mappings);
  if (!wanted.ebs) return bad_mapping(fmt::format("The mapping of {} says nothing", device));
  MappingRecord* known = find_mapping(mappings, device);
  if (known != nullptr && !known->virtual_name.empty())
    return bad_mapping(fmt::format("The device {} is mapped to {} already", device, known->virtual_name));
  if (known != nullptr) return apply_ebs(caller, *wanted.ebs, *known);
  MappingRecord added;
  added.device = device;
  added.delete_on_termination = false;
  TRY(apply_ebs(caller, *wanted.ebs, added));
  mappings.push_back(std::move(added));
  return {};
}

// /dev/sda1 means the root device, whatever the image calls it, as most clients' examples do.
Answer<std::vector<MappingRecord>> Cloud::launch_mappings(const Caller& caller,
                                                          const RunInstancesRequest& request,
                                                          const ImageRecord& image) {
  std::vector<MappingRecord> mappings = image.mappings;
  std::set<std::string> seen;
  for (BlockDeviceMapping mapping : request.block_device_mappings) {
    if (mapping.device_name == "/dev/sda1" || mapping.device_name == "/dev/xvda")
      mapping.device_name = image.root_device;
    std::string device = mapping.device_name.value_or("");
    if (!seen.insert(device).second) return bad_mapping(fmt::format("The device {} is mapped twice", device));
    if (device == image.root_device) {
      const MappingRecord* root = find_mapping(mappings, device);
      if (root == nullptr)
        return bad_mapping(fmt::format("The image {} has no root volume to map", image.id));
      if (mapping.no_device) return bad_mapping("The root device cannot be left out");
      bool other = mapping.ebs && mapping.ebs->snapshot_id && *mapping.ebs->snapshot_id != root->snapshot_id;
      if (other) return bad_mapping("snapshotId cannot be modified on root device");
    }
    TRY(apply_mapping(caller, mapping, mappings));
  }
  return mappings;
}

}  // namespace haneul::agent
