// SPDX-License-Identifier: Apache-2.0
// The operations that change volumes. Each records what is to be; the Keeper does it.
#include <algorithm>
#include <regex>

#include "agent/cloud/cloud.h"
#include "agent/cloud/crash.h"
#include "agent/keys/key_pair.h"

namespace haneul::agent {
namespace {

constexpr int64_t kGiB = int64_t{1} << 30;
constexpr int64_t kMaxGib = 16384;
/// Besides the root: as many as there are PCI slots for.
constexpr size_t kMaxAttached = 24;

Answer<void> out_of_range(std::string_view what, int64_t value, int64_t least, int64_t most) {
  if (value >= least && value <= most) return {};
  return api_error(ApiCode::kInvalidParameterValue, "Volume {} of {} is not between {} and {}", what, value,
                   least, most);
}

std::string token_id(const Caller& caller, const std::string& token) {
  return fmt::format("{}:CreateVolume:{}", caller.region, token);
}

}  // namespace

int64_t gib(int64_t bytes) {
  return (bytes + kGiB - 1) / kGiB;
}

bool valid_device(const std::string& name) {
  static const std::regex kNames("(/dev/)?(sd[a-z]|hd[a-z]|xvd[a-z]{1,2})([1-9]|1[0-5])?");
  return std::regex_match(name, kNames);
}

Answer<void> check_gib(int64_t size) {
  if (size >= 1 && size <= kMaxGib) return {};
  return api_error(ApiCode::kInvalidParameterValue, "Volume size {} GiB is not between 1 and {}", size,
                   kMaxGib);
}

Answer<void> check_performance(const std::string& type, std::optional<int64_t> wanted_iops,
                               std::optional<int64_t> wanted_throughput, int64_t& iops, int64_t& throughput) {
  static const std::set<std::string> kTypes = {"standard", "gp2", "gp3", "io1", "io2", "st1", "sc1"};
  if (!kTypes.contains(type))
    return api_error(ApiCode::kUnknownVolumeType, "Unsupported volume type '{}' for volume creation.", type);
  bool provisioned = type == "io1" || type == "io2";
  if (wanted_iops && !provisioned && type != "gp3") {
    return api_error(ApiCode::kInvalidParameterCombination,
                     "The parameter iops is not supported for {} volumes.", type);
  }
  if (wanted_throughput && type != "gp3") {
    return api_error(ApiCode::kInvalidParameterCombination,
                     "The parameter throughput is not supported for {} volumes.", type);
  }
  if (provisioned && !wanted_iops) {
    return api_error(ApiCode::kMissingParameter, "The parameter iops must be specified for {} volumes.",
                     type);
  }
  iops = wanted_iops.value_or(type == "gp3" ? 3000 : 0);
  throughput = wanted_throughput.value_or(type == "gp3" ? 125 : 0);
  if (type == "gp3") TRY(out_of_range("iops", iops, 3000, 16000));
  if (type == "gp3") TRY(out_of_range("throughput", throughput, 125, 1000));
  if (provisioned) TRY(out_of_range("iops", iops, 100, 64000));
  return {};
}

// ---- create, delete ----

// Under the lock.
Answer<void> Cloud::check_room(size_t new_volumes, size_t new_snapshots) {
  if (model_.volumes().size() + new_volumes > options_.max_volumes) {
    return api_error(ApiCode::kVolumeLimitExceeded, "You have {} volumes; the limit is {}",
                     model_.volumes().size(), options_.max_volumes);
  }
  if (model_.snapshots().size() + new_snapshots > options_.max_snapshots) {
    return api_error(ApiCode::kResourceLimitExceeded, "You have {} snapshots; the limit is {}",
                     model_.snapshots().size(), options_.max_snapshots);
  }
  return {};
}

// Under the lock.
Answer<VolumeRecord> Cloud::new_volume(const Caller& caller, const CreateVolumeRequest& request) {
  VolumeRecord volume;
  const Zone* zone = places_.zone(request.availability_zone);
  if (zone == nullptr || zone->region != caller.region) {
    return api_error(ApiCode::kInvalidZoneNotFound, "The zone '{}' does not exist.",
                     request.availability_zone);
  }
  if (request.multi_attach_enabled.value_or(false)) {
    return ApiError(ApiCode::kUnsupportedOperation, "Multi-attach is not supported: one instance a volume");
  }
  if (!request.size && !request.snapshot_id) {
    return ApiError(ApiCode::kMissingParameter, "The request must contain the parameter size or snapshotId");
  }
  if (request.size) TRY(check_gib(*request.size));
  volume.type = request.volume_type.value_or("gp3");
  TRY(check_performance(volume.type, request.iops, request.throughput, volume.iops, volume.throughput));
  volume.bytes = request.size.value_or(0) * kGiB;
  volume.encrypted = request.encrypted.value_or(false);
  if (request.snapshot_id) {
    SnapshotRecord snapshot = TRY(find_snapshot(caller, *request.snapshot_id));
    if (snapshot.state != "completed") {
      return api_error(ApiCode::kIncorrectState, "The snapshot '{}' is not in the 'completed' state.",
                       snapshot.id);
    }
    if (request.size && volume.bytes < snapshot.bytes) {
      return api_error(ApiCode::kInvalidParameterValue,
                       "Volume of size {}GB is smaller than snapshot '{}', expect size >= {}GB",
                       *request.size, snapshot.id, gib(snapshot.bytes));
    }
    if (!request.size) volume.bytes = snapshot.bytes;
    volume.snapshot_id = snapshot.id;
    volume.encrypted = volume.encrypted || snapshot.encrypted;
    volume.image_id = snapshot.image_id;
  }
  volume.tags = TRY(tags_for(request.tag_specifications, "volume", {"volume"}));
  volume.id = new_id("vol");
  volume.region = caller.region;
  volume.zone = zone->name;
  volume.state = "creating";
  volume.created = now();
  return volume;
}

Answer<Volume> Cloud::create_volume(const Caller& caller, const CreateVolumeRequest& request) {
  std::string token = request.client_token.value_or("");
  if (token.size() > 64)
    return ApiError(ApiCode::kInvalidParameterValue, "ClientToken may have at most 64 ASCII characters");
  std::string digest = sha256_hex(to_text(encode(request)));
  Volume reply;
  {
    std::scoped_lock lock(model_.mutex());
    auto earlier = model_.tokens().find(token_id(caller, token));
    if (!token.empty() && earlier != model_.tokens().end()) {
      if (earlier->second.request == digest)
        return describe(TRY(find_volume(caller, earlier->second.reservation_id)));
      return ApiError(ApiCode::kIdempotentParameterMismatch,
                      "The request uses the same client token as a previous, but non-identical request.");
    }
    VolumeRecord volume = TRY(new_volume(caller, request));
    TRY(check_room(1, 0));
    if (request.dry_run.value_or(false)) return dry_run_error();
    Update update(model_);
    update.put(volume);
    if (!token.empty()) {
      update.put(TokenRecord{.id = token_id(caller, token), .request = digest, .reservation_id = volume.id});
    }
    TRY(update.commit());
    reply = describe(volume);
  }
  crash_point("create-volume.intended");
  keeper_.create_volume(reply.volume_id);
  return reply;
}

// Under the lock. Until a snapshot's point in time is fixed, the volume stays, as large as it is.
Answer<void> Cloud::check_no_snapshot_begins(const VolumeRecord& volume) {
  for (const auto& [id, snapshot] : model_.snapshots()) {
    bool begins = snapshot.volume_id == volume.id && snapshot.state == "pending" && !snapshot.begun;
    if (begins && snapshot.work == "snapshot")
      return api_error(ApiCode::kVolumeInUse, "Volume {} is about to become snapshot {}", volume.id, id);
  }
  return {};
}

Answer<Nothing> Cloud::delete_volume(const Caller& caller, const DeleteVolumeRequest& request) {
  VolumeRecord volume;
  {
    std::scoped_lock lock(model_.mutex());
    volume = TRY(find_volume(caller, request.volume_id));
    if (!volume.instance_id.empty()) {
      return api_error(ApiCode::kVolumeInUse, "Volume {} is currently attached to {}", volume.id,
                       volume.instance_id);
    }
    if (volume.state == "creating") {
      return api_error(ApiCode::kIncorrectState, "Volume '{}' is in the 'creating' state.", volume.id);
    }
    TRY(check_no_snapshot_begins(volume));
    if (request.dry_run.value_or(false)) return dry_run_error();
    volume.state = "deleting";
    TRY(Update(model_).put(volume).commit());
  }
  crash_point("delete-volume.intended");
  keeper_.delete_volume(volume.id);
  return Nothing{};
}

// ---- attach, detach ----

Answer<void> Cloud::check_attach(const VolumeRecord& volume, const InstanceRecord& instance,
                                 const AttachVolumeRequest& request) {
  if (!valid_device(request.device)) {
    return api_error(ApiCode::kInvalidParameterValue,
                     "Value ({0}) for parameter device is invalid. {0} is not a valid EBS device name.",
                     request.device);
  }
  if (!volume.instance_id.empty())
    return api_error(ApiCode::kVolumeInUse, "{} is already attached to an instance", volume.id);
  if (volume.state != "available")
    return api_error(ApiCode::kIncorrectState, "Volume '{}' is in the '{}' state, not 'available'.",
                     volume.id, volume.state);
  if (volume.zone != instance.zone) {
    return api_error(ApiCode::kInvalidVolumeZoneMismatch,
                     "The volume '{}' is not in the same availability zone as instance '{}'", volume.id,
                     instance.id);
  }
  if (instance.state != name(State::kRunning) && instance.state != name(State::kStopped))
    return api_error(ApiCode::kIncorrectState, "Instance '{}' is not 'running'.", instance.id);
  std::vector<VolumeRecord> attached = model_.volumes_of(instance);
  bool taken = std::any_of(attached.begin(), attached.end(),
                           [&](const VolumeRecord& other) { return other.device == request.device; }) ||
               std::any_of(instance.ephemerals.begin(), instance.ephemerals.end(),
                           [&](const EphemeralRecord& other) { return other.device == request.device; });
  if (taken) {
    return api_error(ApiCode::kInvalidParameterValue,
                     "Invalid value '{0}' for unixDevice. Attachment point {0} is already in use",
                     request.device);
  }
  if (attached.size() + instance.ephemerals.size() <= kMaxAttached) return {};
  return api_error(ApiCode::kAttachmentLimitExceeded, "{} has {} volumes, and no room for another",
                   instance.id, attached.size());
}

Answer<VolumeAttachment> Cloud::attach_volume(const Caller& caller, const AttachVolumeRequest& request) {
  VolumeRecord volume;
  {
    std::scoped_lock lock(model_.mutex());
    volume = TRY(find_volume(caller, request.volume_id));
    InstanceRecord instance = TRY(find_instances(caller, {request.instance_id}))[0];
    TRY(check_attach(volume, instance, request));
    if (request.dry_run.value_or(false)) return dry_run_error();
    volume.instance_id = instance.id;
    volume.device = request.device;
    volume.state = "in-use";
    volume.attachment = "attaching";
    volume.attached = now();
    volume.delete_on_termination = false;
    volume.message.clear();
    TRY(Update(model_).put(volume).commit());
  }
  crash_point("attach.intended");
  keeper_.attach(volume);
  return describe(volume).attachments.at(0);
}

// Under the lock.
Answer<VolumeRecord> Cloud::detachable(const Caller& caller, const DetachVolumeRequest& request) {
  VolumeRecord volume = TRY(find_volume(caller, request.volume_id));
  if (request.instance_id) TRY(find_instances(caller, {*request.instance_id}));
  if (volume.instance_id.empty()) {
    return api_error(ApiCode::kIncorrectState, "Volume '{}' is in the '{}' state.", volume.id, volume.state);
  }
  bool elsewhere = (request.instance_id && *request.instance_id != volume.instance_id) ||
                   (request.device && *request.device != volume.device);
  if (elsewhere) {
    return api_error(ApiCode::kInvalidAttachmentNotFound, "The volume '{}' is not attached to '{}' as {}",
                     volume.id, request.instance_id.value_or(volume.instance_id),
                     request.device.value_or(volume.device));
  }
  const InstanceRecord& instance = model_.instances()[volume.instance_id];
  if (volume.device == instance.root_device && instance.state != name(State::kStopped)) {
    return api_error(ApiCode::kOperationNotPermitted, "Unable to detach root volume '{}' from instance '{}'",
                     volume.id, instance.id);
  }
  return volume;
}

Answer<VolumeAttachment> Cloud::detach_volume(const Caller& caller, const DetachVolumeRequest& request) {
  VolumeRecord volume;
  {
    std::scoped_lock lock(model_.mutex());
    volume = TRY(detachable(caller, request));
    if (request.dry_run.value_or(false)) return dry_run_error();
    volume.attachment = "detaching";
    volume.force = volume.force || request.force.value_or(false);
    TRY(Update(model_).put(volume).commit());
  }
  crash_point("detach.intended");
  keeper_.detach(volume);
  return describe(volume).attachments.at(0);
}

// ---- modify ----

Answer<ModifyVolumeReply> Cloud::modify_volume(const Caller& caller, const ModifyVolumeRequest& request) {
  VolumeRecord volume;
  {
    std::scoped_lock lock(model_.mutex());
    volume = TRY(find_volume(caller, request.volume_id));
    if (volume.state != "available" && volume.state != "in-use") {
      return api_error(ApiCode::kIncorrectState, "Volume '{}' is in the '{}' state.", volume.id,
                       volume.state);
    }
    if (volume.modification.state == "modifying") {
      return api_error(ApiCode::kIncorrectModificationState,
                       "Volume '{}' is being modified already; wait until that is completed", volume.id);
    }
    TRY(check_no_snapshot_begins(volume));
    if (request.multi_attach_enabled.value_or(false)) {
      return ApiError(ApiCode::kUnsupportedOperation, "Multi-attach is not supported: one instance a volume");
    }
    volume.modification = {.state = "modifying",
                           .message = "",
                           .original_bytes = volume.bytes,
                           .original_type = volume.type,
                           .original_iops = volume.iops,
                           .original_throughput = volume.throughput,
                           .started = now(),
                           .ended = {}};
    if (request.size) {
      TRY(check_gib(*request.size));
      if (*request.size < gib(volume.bytes)) {
        return api_error(ApiCode::kInvalidParameterValue,
                         "New size cannot be smaller than existing size: {} GiB", gib(volume.bytes));
      }
      volume.bytes = std::max(volume.bytes, *request.size * kGiB);
    }
    bool same_type = !request.volume_type || *request.volume_type == volume.type;
    volume.type = request.volume_type.value_or(volume.type);
    auto iops = request.iops;
    auto throughput = request.throughput;
    if (same_type && !iops && volume.iops > 0) iops = volume.iops;
    if (same_type && !throughput && volume.throughput > 0) throughput = volume.throughput;
    TRY(check_performance(volume.type, iops, throughput, volume.iops, volume.throughput));
    if (request.dry_run.value_or(false)) return dry_run_error();
    TRY(Update(model_).put(volume).commit());
  }
  crash_point("modify.intended");
  keeper_.modify(volume);
  Caller here{.region = caller.region};
  auto reply = TRY(describe_volumes_modifications(here, {.dry_run = std::nullopt,
                                                         .volume_ids = {volume.id},
                                                         .filters = {},
                                                         .next_token = std::nullopt,
                                                         .max_results = std::nullopt}));
  return ModifyVolumeReply{.volume_modification = reply.volumes_modifications.at(0)};
}

}  // namespace haneul::agent
