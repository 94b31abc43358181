// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include "agent/cli/commands.h"
#include "agent/cli/progress.h"
#include "agent/cli/wait.h"

namespace haneul::agent {
namespace {

Result<int> print_snapshot(Api& api, const Shared& shared, const std::string& id, bool wait) {
  if (wait) {
    int status = TRY(wait_for_snapshot(api, id));
    if (status != kCliOk) return status;
  }
  Json snapshot = TRY(api.snapshot(id));
  if (shared.json) {
    print_json(snapshot);
  } else {
    fmt::print("{} {} {}\n", id, text_of(snapshot, "State"), text_of(snapshot, "Progress"));
  }
  return kCliOk;
}

void print_line(std::string_view label, const std::string& value) {
  if (!value.empty()) fmt::print("{:<18}{}\n", label, value);
}

// An operation sent to another region than the command's.
Api in_region(const Api& api, const std::string& region) {
  return Api(api.socket(), region);
}

}  // namespace

Result<int> snapshot_create_command(Api& api, const Shared& shared, const SnapshotOptions& options) {
  Json request{{"VolumeId", TRY(api.volume_id(options.one))}};
  if (!options.description.empty()) request["Description"] = options.description;
  Json tags = TRY(tag_specifications("snapshot", options.name, options.tags));
  if (!tags.empty()) request["TagSpecifications"] = tags;
  std::string id = text_of(TRY(api.call("CreateSnapshot", request)), "SnapshotId");
  return print_snapshot(api, shared, id, options.wait);
}

Result<int> snapshot_list_command(Api& api, const Shared& shared) {
  Json reply = TRY(api.call("DescribeSnapshots", {{"OwnerIds", {"self"}}}));
  if (shared.json) {
    print_json(reply);
    return kCliOk;
  }
  if (reply["Snapshots"].empty()) {
    fmt::print(stderr, "no snapshots (haneul snapshot create VOLUME makes one)\n");
    return kCliOk;
  }
  Table table({"ID", "NAME", "STATE", "PROGRESS", "SIZE", "VOLUME", "STARTED", "DESCRIPTION"});
  for (const Json& snapshot : reply["Snapshots"]) {
    table.add({text_of(snapshot, "SnapshotId"), tag_of(snapshot, "Name"), text_of(snapshot, "State"),
               text_of(snapshot, "Progress"), text_of(snapshot, "VolumeSize") + " GiB",
               text_of(snapshot, "VolumeId"), text_of(snapshot, "StartTime").substr(0, 19),
               text_of(snapshot, "Description")});
  }
  table.print();
  return kCliOk;
}

Result<int> snapshot_show_command(Api& api, const Shared& shared, const std::string& name) {
  Json snapshot = TRY(api.snapshot(TRY(api.snapshot_id(name))));
  if (shared.json) {
    print_json(snapshot);
    return kCliOk;
  }
  print_line("Id", text_of(snapshot, "SnapshotId"));
  print_line("Name", tag_of(snapshot, "Name"));
  print_line("State", text_of(snapshot, "State"));
  print_line("Reason", text_of(snapshot, "StateMessage"));
  print_line("Progress", text_of(snapshot, "Progress"));
  print_line("Description", text_of(snapshot, "Description"));
  print_line("Volume", text_of(snapshot, "VolumeId"));
  print_line("Size", text_of(snapshot, "VolumeSize") + " GiB");
  print_line("Held by itself", text_of(snapshot, "ChangedBytes") + " bytes");
  print_line("Encrypted", snapshot["Encrypted"] == true ? "yes" : "no");
  print_line("Started", text_of(snapshot, "StartTime"));
  for (const Json& tag : snapshot.value("Tags", Json::array()))
    print_line("Tag", fmt::format("{}={}", text_of(tag, "Key"), text_of(tag, "Value")));
  return kCliOk;
}

Result<int> snapshot_copy_command(Api& api, const Shared& shared, const SnapshotOptions& options) {
  std::string source = TRY(api.snapshot_id(options.one));
  std::string own = TRY(api.own_region());
  Api there = in_region(api, options.to_region.empty() ? own : options.to_region);
  Json request{{"SourceRegion", own}, {"SourceSnapshotId", source}};
  if (!options.description.empty()) request["Description"] = options.description;
  Json tags = TRY(tag_specifications("snapshot", options.name, options.tags));
  if (!tags.empty()) request["TagSpecifications"] = tags;
  std::string id = text_of(TRY(there.call("CopySnapshot", request)), "SnapshotId");
  return print_snapshot(there, shared, id, options.wait);
}

Result<int> snapshot_remove_command(Api& api, const Shared& shared,
                                    const std::vector<std::string>& snapshots) {
  return remove_each(shared, snapshots, "SnapshotId", [&](const std::string& name) -> Result<Removed> {
    std::string id = TRY(api.snapshot_id(name));
    return Removed{id, TRY(api.call("DeleteSnapshot", {{"SnapshotId", id}}))};
  });
}

Result<int> snapshot_share_command(Api& api, const Shared& shared, const SnapshotOptions& options) {
  std::string id = TRY(api.snapshot_id(options.one));
  Json list = Json::array();
  if (options.everyone) list.push_back({{"Group", "all"}});
  for (const std::string& account : options.accounts) list.push_back({{"UserId", account}});
  if (!list.empty()) {
    TRY(api.call(
        "ModifySnapshotAttribute",
        {{"SnapshotId", id}, {"CreateVolumePermission", {{options.remove ? "Remove" : "Add", list}}}}));
  } else if (options.remove) {
    TRY(api.call("ResetSnapshotAttribute", {{"SnapshotId", id}, {"Attribute", "createVolumePermission"}}));
  }
  Json shown = TRY(
      api.call("DescribeSnapshotAttribute", {{"SnapshotId", id}, {"Attribute", "createVolumePermission"}}));
  if (shared.json) {
    print_json(shown);
    return kCliOk;
  }
  std::string with;
  for (const Json& permission : shown["CreateVolumePermissions"]) {
    std::string account = text_of(permission, "UserId");
    with += (with.empty() ? "" : ", ") + (account.empty() ? std::string("everyone") : account);
  }
  fmt::print("{} {}\n", id, with.empty() ? "private" : "shared with " + with);
  return kCliOk;
}

Result<int> snapshot_export_command(Api& api, const Shared& shared, const SnapshotOptions& options) {
  std::string id = TRY(api.snapshot_id(options.one));
  std::string path = TRY(writable_path(options.file));
  Json request{{"SnapshotId", id}, {"Path", path}, {"Format", options.format}};
  std::string task = text_of(TRY(api.call("ExportSnapshotFile", request)), "TaskId");
  EndedTask ended = TRY(wait_for_task(api, task));
  if (ended.status != kCliOk) return ended.status;
  if (shared.json) {
    print_json(ended.task);
  } else {
    fmt::print("{}\n", path);
  }
  return kCliOk;
}

Result<int> snapshot_import_command(Api& api, const Shared& shared, const SnapshotOptions& options) {
  Json request{{"Path", TRY(readable_path(options.file))}, {"Format", options.format}};
  if (!options.description.empty()) request["Description"] = options.description;
  if (options.encrypted) request["Encrypted"] = true;
  Json tags = TRY(tag_specifications("snapshot", options.name, options.tags));
  if (!tags.empty()) request["TagSpecifications"] = tags;
  std::string id = text_of(TRY(api.call("ImportSnapshotFile", request)), "SnapshotId");
  return print_snapshot(api, shared, id, true);
}

}  // namespace haneul::agent
