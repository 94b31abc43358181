// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include "agent/cli/commands.h"
#include "agent/cli/progress.h"
#include "agent/cli/wait.h"
#include "agent/ops/ids.h"

namespace haneul::agent {
namespace {

Json attachment_of(const Json& volume) {
  Json attachments = volume.value("Attachments", Json::array());
  return attachments.empty() ? Json::object() : attachments[0];
}

void print_line(std::string_view label, const std::string& value) {
  if (!value.empty()) fmt::print("{:<18}{}\n", label, value);
}

Result<int> print_volume(Api& api, const Shared& shared, const std::string& id) {
  Json volume = TRY(api.volume(id));
  if (shared.json) {
    print_json(volume);
  } else {
    fmt::print("{} {}\n", id, text_of(volume, "State"));
  }
  return kCliOk;
}

// Until the volume is attached, or free again, in which case it says why it is not attached.
Result<int> wait_for_attachment(Api& api, const std::string& id, const std::string& wanted, int timeout_s) {
  Waiting waiting{fmt::format("{} to be {}", id, wanted), "haneul volume show " + id, timeout_s};
  return wait_until(waiting, [&]() -> Result<Polled> {
    Json volume = TRY(api.volume(id));
    Polled polled;
    if (wanted == "available") {
      polled.done = volume["State"] == "available";
    } else {
      polled.done = text_of(attachment_of(volume), "State") == "attached";
      if (volume["State"] == "available") polled.failure = text_of(volume, "StateMessage");
    }
    if (volume["State"] == "error") polled.failure = text_of(volume, "StateMessage");
    return polled;
  });
}

Result<std::string> free_device(Api& api, const std::string& instance) {
  Json shown = TRY(api.instance(instance));
  for (char letter = 'f'; letter <= 'p'; ++letter) {
    std::string device = fmt::format("/dev/sd{}", letter);
    bool taken = false;
    for (const Json& mapping : shown.value("BlockDeviceMappings", Json::array()))
      taken = taken || text_of(mapping, "DeviceName") == device;
    if (!taken) return device;
  }
  return make_error(ErrorCode::kNoSpace, "/dev/sdf to /dev/sdp are taken: name one with --device");
}

void print_faults(const Json& task) {
  for (const Json& fault : task.value("Faults", Json::array())) {
    fmt::print("{}: {}: {}\n", text_of(fault, "Subject"), text_of(fault, "Where"), text_of(fault, "What"));
  }
}

}  // namespace

Result<int> volume_create_command(Api& api, const Shared& shared, const VolumeOptions& options) {
  Json request{{"AvailabilityZone", TRY(zone_name(api, options.zone))}, {"ClientToken", new_id("cli")}};
  if (!options.size.empty()) request["Size"] = TRY(gib_from(options.size));
  if (!options.from.empty()) request["SnapshotId"] = TRY(api.snapshot_id(options.from));
  if (options.size.empty() && options.from.empty())
    return Error(ErrorCode::kInvalidArgument, "a volume needs --size, --from, or both");
  if (!options.type.empty()) request["VolumeType"] = options.type;
  if (options.iops > 0) request["Iops"] = options.iops;
  if (options.throughput > 0) request["Throughput"] = options.throughput;
  if (options.encrypted) request["Encrypted"] = true;
  Json tags = TRY(tag_specifications("volume", options.name, options.tags));
  if (!tags.empty()) request["TagSpecifications"] = tags;
  std::string id = text_of(TRY(api.call("CreateVolume", request)), "VolumeId");
  int status = TRY(wait_for_attachment(api, id, "available", options.timeout_s));
  if (status != kCliOk) return status;
  return print_volume(api, shared, id);
}

Result<int> volume_list_command(Api& api, const Shared& shared) {
  Json reply = TRY(api.call("DescribeVolumes", Json::object()));
  if (shared.json) {
    print_json(reply);
    return kCliOk;
  }
  if (reply["Volumes"].empty()) {
    fmt::print(stderr, "no volumes (haneul volume create --size 8G makes one)\n");
    return kCliOk;
  }
  Table table({"ID", "NAME", "STATE", "SIZE", "ZONE", "INSTANCE", "DEVICE", "SNAPSHOT"});
  for (const Json& volume : reply["Volumes"]) {
    Json attachment = attachment_of(volume);
    std::string state = text_of(volume, "State");
    std::string step = text_of(attachment, "State");
    if (!step.empty() && step != "attached") state = step;
    table.add({text_of(volume, "VolumeId"), tag_of(volume, "Name"), state, text_of(volume, "Size") + " GiB",
               text_of(volume, "AvailabilityZone"), text_of(attachment, "InstanceId"),
               text_of(attachment, "Device"), text_of(volume, "SnapshotId")});
  }
  table.print();
  return kCliOk;
}

Result<int> volume_show_command(Api& api, const Shared& shared, const std::string& name) {
  Json volume = TRY(api.volume(TRY(api.volume_id(name))));
  if (shared.json) {
    print_json(volume);
    return kCliOk;
  }
  Json attachment = attachment_of(volume);
  print_line("Id", text_of(volume, "VolumeId"));
  print_line("Name", tag_of(volume, "Name"));
  print_line("State", text_of(volume, "State"));
  print_line("Reason", text_of(volume, "StateMessage"));
  print_line("Size", text_of(volume, "Size") + " GiB");
  print_line("Type", text_of(volume, "VolumeType"));
  print_line("Zone", text_of(volume, "AvailabilityZone"));
  print_line("Snapshot", text_of(volume, "SnapshotId"));
  print_line("Encrypted", volume["Encrypted"] == true ? "yes" : "no");
  print_line("Created", text_of(volume, "CreateTime"));
  if (!attachment.empty()) {
    print_line("Attached", fmt::format("{} as {}, {}", text_of(attachment, "InstanceId"),
                                       text_of(attachment, "Device"), text_of(attachment, "State")));
    print_line("On termination", attachment["DeleteOnTermination"] == true ? "deleted" : "kept");
  }
  for (const Json& tag : volume.value("Tags", Json::array()))
    print_line("Tag", fmt::format("{}={}", text_of(tag, "Key"), text_of(tag, "Value")));
  return kCliOk;
}

Result<int> volume_attach_command(Api& api, const Shared& shared, const VolumeOptions& options) {
  std::string id = TRY(api.volume_id(options.volume));
  std::string instance = TRY(api.instance_id(options.instance));
  std::string device = options.device.empty() ? TRY(free_device(api, instance)) : options.device;
  TRY(api.call("AttachVolume", {{"VolumeId", id}, {"InstanceId", instance}, {"Device", device}}));
  int status = TRY(wait_for_attachment(api, id, "attached", options.timeout_s));
  if (status != kCliOk) return status;
  if (shared.json) return print_volume(api, shared, id);
  fmt::print("{} {} {}\n", id, instance, device);
  return kCliOk;
}

Result<int> volume_detach_command(Api& api, const Shared& shared, const VolumeOptions& options) {
  std::string id = TRY(api.volume_id(options.volume));
  Json request{{"VolumeId", id}};
  if (options.force) request["Force"] = true;
  TRY(api.call("DetachVolume", request));
  int status = TRY(wait_for_attachment(api, id, "available", options.timeout_s));
  return status == kCliOk ? print_volume(api, shared, id) : status;
}

Result<int> volume_resize_command(Api& api, const Shared& shared, const VolumeOptions& options) {
  std::string id = TRY(api.volume_id(options.volume));
  TRY(api.call("ModifyVolume", {{"VolumeId", id}, {"Size", TRY(gib_from(options.size))}}));
  Waiting waiting{id + " to grow", "haneul volume show " + id, options.timeout_s};
  int status = TRY(wait_until(waiting, [&]() -> Result<Polled> {
    Json reply = TRY(api.call("DescribeVolumesModifications", {{"VolumeIds", {id}}}));
    Json change = reply["VolumesModifications"].at(0);
    Polled polled{.done = change["ModificationState"] == "completed", .percent = -1, .failure = ""};
    if (change["ModificationState"] == "failed") polled.failure = text_of(change, "StatusMessage");
    return polled;
  }));
  if (status != kCliOk || shared.json) return status == kCliOk ? print_volume(api, shared, id) : status;
  fmt::print("{} {} GiB\n", id, text_of(TRY(api.volume(id)), "Size"));
  return kCliOk;
}

Result<int> volume_remove_command(Api& api, const Shared& shared, const std::vector<std::string>& volumes) {
  return remove_each(shared, volumes, "VolumeId", [&](const std::string& name) -> Result<Removed> {
    std::string id = TRY(api.volume_id(name));
    return Removed{id, TRY(api.call("DeleteVolume", {{"VolumeId", id}}))};
  });
}

Result<int> volume_check_command(Api& api, const Shared& shared, const std::string& name,
                                 const std::string& task, bool quick) {
  std::string id = task;
  if (id.empty()) {
    Json request = Json::object();
    bool snapshot = name.starts_with("snap-");
    if (!name.empty()) request["ResourceId"] = snapshot ? name : TRY(api.volume_id(name));
    if (quick) request["MetadataOnly"] = true;
    id = text_of(TRY(api.call("CheckVolume", request)), "TaskId");
  }
  EndedTask ended = TRY(wait_for_task(api, id));
  if (ended.status != kCliOk) return ended.status;
  size_t faults = ended.task.value("Faults", Json::array()).size();
  if (shared.json) {
    print_json(ended.task);
  } else if (text_of(ended.task, "Kind") == "export") {
    fmt::print("{}\n", text_of(ended.task, "Path"));
  } else {
    print_faults(ended.task);
    fmt::print("{} layers, {} blocks: {}\n", text_of(ended.task, "CheckedLayers"),
               text_of(ended.task, "CheckedBlocks"),
               faults == 0 ? "all is well" : fmt::format("{} faults", faults));
  }
  return faults == 0 ? kCliOk : kCliFailed;
}

}  // namespace haneul::agent
