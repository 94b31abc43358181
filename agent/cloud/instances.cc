// SPDX-License-Identifier: Apache-2.0
// RunInstances.
#include <algorithm>

#include "agent/cloud/cloud.h"
#include "agent/cloud/crash.h"
#include "agent/keys/key_pair.h"

namespace haneul::agent {
namespace {

constexpr size_t kMaxUserDataBytes = 16 << 10;

// SMBIOS: by the first three letters software in the guest knows that it is on EC2.
std::string new_uuid() {
  std::string hex = new_id("x").substr(3) + new_id("x").substr(3);
  return fmt::format("ec2{}-{}-4{}-a{}-{}", hex.substr(0, 5), hex.substr(5, 4), hex.substr(9, 3),
                     hex.substr(12, 3), hex.substr(15, 12));
}

Answer<Blob> user_data_of(const RunInstancesRequest& request) {
  auto bytes = from_base64(request.user_data.value_or(""));
  if (!bytes) return ApiError(ApiCode::kInvalidUserDataMalformed, "Invalid BASE64 encoding of user data.");
  if (bytes->size() > kMaxUserDataBytes) {
    return ApiError(ApiCode::kInvalidParameterValue, "User data is limited to 16384 bytes");
  }
  return Blob{*bytes};
}

Answer<std::string> shutdown_behavior_of(const std::optional<std::string>& wanted) {
  std::string value = wanted.value_or("stop");
  if (value == "stop" || value == "terminate") return value;
  return api_error(ApiCode::kInvalidParameterValue,
                   "Value ({}) for parameter instanceInitiatedShutdownBehavior is invalid.", value);
}

Answer<void> check_counts(const RunInstancesRequest& request) {
  if (request.min_count < 1 || request.max_count < 1) {
    return ApiError(ApiCode::kInvalidParameterValue, "MinCount and MaxCount must be at least 1");
  }
  if (request.max_count < request.min_count) {
    return api_error(ApiCode::kInvalidParameterCombination, "MaxCount {} is smaller than MinCount {}",
                     request.max_count, request.min_count);
  }
  return {};
}

// The volume that a mapping gives an instance. It is made in the store when the instance starts.
VolumeRecord volume_of(const InstanceRecord& instance, const MappingRecord& mapping,
                       const std::vector<Tag>& tags) {
  VolumeRecord volume;
  volume.id = new_id("vol");
  volume.region = instance.region;
  volume.zone = instance.zone;
  volume.bytes = mapping.bytes;
  volume.snapshot_id = mapping.snapshot_id;
  volume.encrypted = mapping.encrypted;
  volume.type = mapping.type;
  volume.iops = mapping.iops;
  volume.throughput = mapping.throughput;
  volume.state = "creating";
  volume.created = volume.attached = now();
  volume.instance_id = instance.id;
  volume.device = mapping.device;
  volume.attachment = "attaching";
  volume.delete_on_termination = mapping.delete_on_termination;
  if (mapping.device == instance.root_device) volume.image_id = instance.image_id;
  volume.tags = tags;
  return volume;
}

Answer<const Zone*> zone_for(const Places& places, const Caller& caller, const RunInstancesRequest& request) {
  const Zone* zone = nullptr;
  if (request.subnet_id) {
    zone = places.zone_of_subnet(*request.subnet_id);
    if (zone == nullptr || zone->region != caller.region) {
      return api_error(ApiCode::kInvalidSubnetIdNotFound, "The subnet ID '{}' does not exist",
                       *request.subnet_id);
    }
  }
  auto wanted = request.placement ? request.placement->availability_zone : std::nullopt;
  if (!wanted) return zone != nullptr ? zone : &places.region(caller.region)->zones.front();
  const Zone* named = places.zone(*wanted);
  if (named == nullptr || named->region != caller.region) {
    return api_error(ApiCode::kInvalidParameterValue, "Invalid availability zone: [{}]", *wanted);
  }
  if (zone != nullptr && zone != named) {
    return api_error(ApiCode::kInvalidParameterValue, "The subnet {} is in {}, not in {}", *request.subnet_id,
                     zone->name, *wanted);
  }
  return named;
}

}  // namespace

// What all instances of one request share.
Answer<InstanceRecord> Cloud::instance_template(const Caller& caller, const RunInstancesRequest& request,
                                                const ImageRecord& image) {
  InstanceRecord record;
  record.region = caller.region;
  record.image_id = image.id;
  record.type = request.instance_type.value_or("t2.micro");
  TRY(check_size(record.type));
  record.user_data = TRY(user_data_of(request));
  record.shutdown_behavior = TRY(shutdown_behavior_of(request.instance_initiated_shutdown_behavior));
  record.root_device = image.root_device;
  record.tags =
      TRY(tags_for(request.tag_specifications, "instance", {"instance", "volume", "network-interface"}));
  record.disable_api_termination = request.disable_api_termination.value_or(false);
  record.client_token = request.client_token.value_or("");
  if (request.key_name) {
    const KeyRecord* key = find_key(caller, *request.key_name);
    if (key == nullptr) {
      return api_error(ApiCode::kInvalidKeyPairNotFound, "The key pair '{}' does not exist",
                       *request.key_name);
    }
    record.key_name = key->name;
    record.authorized_key = key->public_key;
  }
  for (const std::string& group : request.security_groups) {
    if (group != "default") {
      return api_error(ApiCode::kInvalidGroupNotFound, "The security group '{}' does not exist", group);
    }
  }
  for (const std::string& group : request.security_group_ids) {
    return api_error(ApiCode::kInvalidGroupNotFound, "The security group '{}' does not exist", group);
  }
  record.reservation_id = new_id("r");
  record.launch_time = now();
  record.state = name(State::kPending);
  return record;
}

Answer<Cloud::Launch> Cloud::new_instances(const Caller& caller, const RunInstancesRequest& request) {
  TRY(check_counts(request));
  if (!request.image_id) {
    return ApiError(ApiCode::kMissingParameter, "The request must contain the parameter ImageId");
  }
  ImageRecord image = TRY(find_image(caller, *request.image_id));
  InstanceRecord record = TRY(instance_template(caller, request, image));
  auto mappings = TRY(launch_mappings(caller, request, image));
  auto volume_tags =
      TRY(tags_for(request.tag_specifications, "volume", {"instance", "volume", "network-interface"}));
  const Zone* zone = TRY(zone_for(places_, caller, request));
  record.zone = zone->name;

  std::set<std::string> used = used_addresses();
  if (used.size() + static_cast<size_t>(request.min_count) > options_.max_instances) {
    return api_error(ApiCode::kInstanceLimitExceeded,
                     "You have {} instances and asked for {} more; the limit is {}", used.size(),
                     request.min_count, options_.max_instances);
  }
  auto room = static_cast<int64_t>(options_.max_instances - used.size());
  int64_t count = std::min(request.max_count, room);
  if (request.private_ip_address && count != 1) {
    return ApiError(ApiCode::kInvalidParameterCombination, "PrivateIpAddress is for one instance only");
  }
  Launch launch;
  for (int64_t index = 0; index < count; ++index) {
    auto address = free_address(*zone, used);
    if (request.private_ip_address) {
      address = address_from(*request.private_ip_address);
      if (!address || !usable_address(*zone, *address)) {
        return api_error(ApiCode::kInvalidParameterValue,
                         "Address {} does not fall within the subnet's address range",
                         *request.private_ip_address);
      }
      if (used.contains(*request.private_ip_address)) {
        return api_error(ApiCode::kInvalidIpAddressInUse, "Address {} is in use.",
                         *request.private_ip_address);
      }
    }
    if (!address) break;
    record.id = new_id("i");
    record.root_volume.clear();
    record.ephemerals.clear();
    record.uuid = new_uuid();
    record.launch_index = index;
    record.address = address_text(*address);
    record.mac = mac_for_address(*address);
    used.insert(record.address);
    for (const MappingRecord& mapping : mappings) {
      if (!mapping.virtual_name.empty()) {
        record.ephemerals.push_back(
            {.device = mapping.device, .virtual_name = mapping.virtual_name, .bytes = mapping.bytes});
        continue;
      }
      launch.volumes.push_back(volume_of(record, mapping, volume_tags));
      if (mapping.device != image.root_device) continue;
      record.root_volume = launch.volumes.back().id;
      record.root_bytes = mapping.bytes;
    }
    launch.instances.push_back(record);
  }
  if (static_cast<int64_t>(launch.instances.size()) < request.min_count) {
    return api_error(ApiCode::kInsufficientFreeAddressesInSubnet,
                     "The subnet of {} has not enough free addresses", zone->name);
  }
  return launch;
}

Answer<Reservation> Cloud::earlier_reservation(const TokenRecord& token, const std::string& digest) {
  if (token.request != digest) {
    return ApiError(ApiCode::kIdempotentParameterMismatch,
                    "The request uses the same client token as a previous, but non-identical request.");
  }
  std::vector<InstanceRecord> records;
  for (const auto& [id, instance] : model_.instances()) {
    if (instance.reservation_id == token.reservation_id) records.push_back(instance);
  }
  return reservation(records);
}

Answer<Reservation> Cloud::run_instances(const Caller& caller, const RunInstancesRequest& request) {
  std::string token = request.client_token.value_or("");
  if (token.size() > 64 ||
      std::any_of(token.begin(), token.end(), [](char c) { return c < ' ' || c > '~'; })) {
    return ApiError(ApiCode::kInvalidParameterValue, "ClientToken may have at most 64 ASCII characters");
  }
  std::string digest = sha256_hex(to_text(encode(request)));
  std::vector<InstanceRecord> records;
  {
    std::scoped_lock lock(model_.mutex());
    auto earlier = model_.tokens().find(caller.region + ":" + token);
    if (!token.empty() && earlier != model_.tokens().end())
      return earlier_reservation(earlier->second, digest);
    Launch launch = TRY(new_instances(caller, request));
    TRY(check_room(launch.volumes.size(), 0));
    if (request.dry_run.value_or(false)) return dry_run_error();
    records = std::move(launch.instances);
    Update update(model_);
    for (const VolumeRecord& volume : launch.volumes) update.put(volume);
    for (const InstanceRecord& record : records) update.put(record);
    if (!token.empty()) {
      update.put(TokenRecord{
          .id = caller.region + ":" + token, .request = digest, .reservation_id = records[0].reservation_id});
    }
    TRY(update.commit());
  }
  crash_point("run.intended");
  for (const InstanceRecord& record : records) keeper_.start(record.id);
  std::scoped_lock lock(model_.mutex());
  return reservation(records);
}

}  // namespace haneul::agent
