// SPDX-License-Identifier: Apache-2.0
// The operations that look at volumes.
#include <algorithm>

#include "agent/cloud/cloud.h"

namespace haneul::agent {
namespace {

std::string text(bool value) {
  return value ? "true" : "false";
}

const FilterTable<VolumeRecord>& volume_filters() {
  using R = const VolumeRecord&;
  using V = std::vector<std::string>;
  auto attached = [](R r, const std::string& value) { return r.instance_id.empty() ? V{} : V{value}; };
  static const FilterTable<VolumeRecord> table({
      {"volume-id", [](R r) -> V { return {r.id}; }},
      {"status", [](R r) -> V { return {r.state}; }},
      {"size", [](R r) -> V { return {std::to_string(gib(r.bytes))}; }},
      {"volume-type", [](R r) -> V { return {r.type}; }},
      {"snapshot-id", [](R r) -> V { return {r.snapshot_id}; }},
      {"availability-zone", [](R r) -> V { return {r.zone}; }},
      {"create-time", [](R r) -> V { return {to_text(r.created)}; }},
      {"encrypted", [](R r) -> V { return {text(r.encrypted)}; }},
      {"multi-attach-enabled", [](R) -> V { return {"false"}; }},
      {"fast-restored", [](R) -> V { return {"false"}; }},
      {"attachment.instance-id", [=](R r) { return attached(r, r.instance_id); }},
      {"attachment.device", [=](R r) { return attached(r, r.device); }},
      {"attachment.status", [=](R r) { return attached(r, r.attachment); }},
      {"attachment.attach-time", [=](R r) { return attached(r, to_text(r.attached)); }},
      {"attachment.delete-on-termination", [=](R r) { return attached(r, text(r.delete_on_termination)); }},
  });
  return table;
}

const FilterTable<VolumeRecord>& modification_filters() {
  using R = const VolumeRecord&;
  using V = std::vector<std::string>;
  static const FilterTable<VolumeRecord> table({
      {"volume-id", [](R r) -> V { return {r.id}; }},
      {"modification-state", [](R r) -> V { return {r.modification.state}; }},
      {"original-size", [](R r) -> V { return {std::to_string(gib(r.modification.original_bytes))}; }},
      {"original-volume-type", [](R r) -> V { return {r.modification.original_type}; }},
      {"original-iops", [](R r) -> V { return {std::to_string(r.modification.original_iops)}; }},
      {"target-size", [](R r) -> V { return {std::to_string(gib(r.bytes))}; }},
      {"target-volume-type", [](R r) -> V { return {r.type}; }},
      {"target-iops", [](R r) -> V { return {std::to_string(r.iops)}; }},
      {"start-time", [](R r) -> V { return {to_text(r.modification.started)}; }},
  });
  return table;
}

std::optional<int64_t> nonzero(int64_t value) {
  return value == 0 ? std::nullopt : std::optional(value);
}

VolumeModification describe_modification(const VolumeRecord& volume) {
  const ModificationRecord& change = volume.modification;
  VolumeModification reply;
  reply.volume_id = volume.id;
  reply.modification_state = change.state;
  if (!change.message.empty()) reply.status_message = change.message;
  reply.target_size = gib(volume.bytes);
  reply.target_iops = nonzero(volume.iops);
  reply.target_volume_type = volume.type;
  reply.target_throughput = nonzero(volume.throughput);
  reply.original_size = gib(change.original_bytes);
  reply.original_iops = nonzero(change.original_iops);
  reply.original_volume_type = change.original_type;
  reply.original_throughput = nonzero(change.original_throughput);
  reply.progress = change.state == "completed" ? 100 : 0;
  reply.start_time = change.started;
  if (change.ended.ms != 0) reply.end_time = change.ended;
  return reply;
}

bool listed(const std::vector<std::string>& list, const std::string& value) {
  return list.empty() || std::find(list.begin(), list.end(), value) != list.end();
}

}  // namespace

// Under the lock, as all of these.
Answer<VolumeRecord> Cloud::find_volume(const Caller& caller, const std::string& id) {
  if (!valid_id(id, "vol")) return malformed_id(ApiCode::kInvalidVolumeIdMalformed, id, "vol");
  auto found = model_.volumes().find(id);
  bool here = found != model_.volumes().end() && found->second.region == caller.region;
  if (!here || found->second.state == "deleting") return unknown_id(id);
  return found->second;
}

Volume Cloud::describe(const VolumeRecord& record) {
  Volume volume;
  volume.availability_zone = record.zone;
  volume.create_time = record.created;
  volume.encrypted = record.encrypted;
  volume.size = gib(record.bytes);
  volume.snapshot_id = record.snapshot_id;
  volume.state = record.state;
  volume.volume_id = record.id;
  volume.iops = nonzero(record.iops);
  volume.tags = record.tags;
  volume.volume_type = record.type;
  volume.throughput = nonzero(record.throughput);
  if (!record.message.empty()) volume.state_message = record.message;
  if (!record.instance_id.empty()) {
    volume.attachments.push_back({.attach_time = record.attached,
                                  .device = record.device,
                                  .instance_id = record.instance_id,
                                  .state = record.attachment,
                                  .volume_id = record.id,
                                  .delete_on_termination = record.delete_on_termination});
  }
  return volume;
}

Answer<DescribeVolumesReply> Cloud::describe_volumes(const Caller& caller,
                                                     const DescribeVolumesRequest& request) {
  TRY(volume_filters().check(request.filters));
  if (!request.volume_ids.empty() && request.max_results) {
    return ApiError(ApiCode::kInvalidParameterCombination,
                    "The parameter volumeIds cannot be used with the parameter maxResults");
  }
  std::scoped_lock lock(model_.mutex());
  for (const std::string& id : request.volume_ids) TRY(find_volume(caller, id));
  if (request.dry_run.value_or(false)) return dry_run_error();
  std::vector<std::string> ids;
  for (const auto& [id, volume] : model_.volumes()) {
    bool shown = volume.region == caller.region && volume.state != "deleting";
    if (shown && listed(request.volume_ids, id) &&
        volume_filters().matches(volume, volume.tags, request.filters)) {
      ids.push_back(id);
    }
  }
  Page page = TRY(page_of(ids, request.max_results, request.next_token));
  DescribeVolumesReply reply;
  for (size_t i = page.begin; i < page.end; ++i) reply.volumes.push_back(describe(model_.volumes()[ids[i]]));
  reply.next_token = page.next_token;
  return reply;
}

Answer<DescribeVolumesModificationsReply> Cloud::describe_volumes_modifications(
    const Caller& caller, const DescribeVolumesModificationsRequest& request) {
  TRY(modification_filters().check(request.filters));
  std::scoped_lock lock(model_.mutex());
  for (const std::string& id : request.volume_ids) TRY(find_volume(caller, id));
  if (request.dry_run.value_or(false)) return dry_run_error();
  std::vector<std::string> ids;
  for (const auto& [id, volume] : model_.volumes()) {
    bool shown = volume.region == caller.region && !volume.modification.state.empty();
    if (shown && listed(request.volume_ids, id) &&
        modification_filters().matches(volume, volume.tags, request.filters)) {
      ids.push_back(id);
    }
  }
  Page page = TRY(page_of(ids, request.max_results, request.next_token));
  DescribeVolumesModificationsReply reply;
  for (size_t i = page.begin; i < page.end; ++i)
    reply.volumes_modifications.push_back(describe_modification(model_.volumes()[ids[i]]));
  reply.next_token = page.next_token;
  return reply;
}

}  // namespace haneul::agent
