// SPDX-License-Identifier: Apache-2.0
// The operations that make and delete snapshots.
#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>

#include "agent/cloud/cloud.h"
#include "agent/cloud/crash.h"
#include "base/file.h"

namespace haneul::agent {
namespace {

constexpr int64_t kMaxBytes = int64_t{1} << 44;

}  // namespace

SnapshotRecord Cloud::new_snapshot(const VolumeRecord& volume, const std::string& group,
                                   const std::string& description, std::vector<Tag> tags) {
  SnapshotRecord snapshot;
  snapshot.id = new_id("snap");
  snapshot.region = volume.region;
  snapshot.owner = kAccount;
  snapshot.volume_id = volume.id;
  snapshot.bytes = volume.bytes;
  snapshot.state = "pending";
  snapshot.work = "snapshot";
  snapshot.group = group;
  snapshot.started = now();
  snapshot.description = description;
  snapshot.encrypted = volume.encrypted;
  snapshot.image_id = volume.image_id;
  snapshot.tags = std::move(tags);
  return snapshot;
}

// When it returns, the point in time is fixed. What could not be made leaves no record.
Answer<void> Cloud::begin_recorded(const std::string& group) {
  crash_point("create-snapshot.intended");
  Status begun = archive_.begin(group);
  if (begun.ok()) return {};
  std::scoped_lock lock(model_.mutex());
  Update update(model_);
  for (const auto& [id, snapshot] : model_.snapshots()) {
    if (snapshot.group == group) update.remove<SnapshotRecord>(id);
  }
  update.commit_result();
  return begun.error();
}

Answer<Snapshot> Cloud::create_snapshot(const Caller& caller, const CreateSnapshotRequest& request) {
  SnapshotRecord snapshot;
  {
    std::scoped_lock lock(model_.mutex());
    VolumeRecord volume = TRY(find_volume(caller, request.volume_id));
    if (volume.state != "available" && volume.state != "in-use") {
      return api_error(ApiCode::kIncorrectState, "Volume '{}' is in the '{}' state.", volume.id,
                       volume.state);
    }
    auto tags = TRY(tags_for(request.tag_specifications, "snapshot", {"snapshot"}));
    TRY(check_room(0, 1));
    if (request.dry_run.value_or(false)) return dry_run_error();
    snapshot = new_snapshot(volume, new_id("group"), request.description.value_or(""), std::move(tags));
    TRY(Update(model_).put(snapshot).commit());
  }
  TRY(begin_recorded(snapshot.group));
  snapshot.state = "pending";
  return describe(snapshot);
}

Answer<CreateSnapshotsReply> Cloud::create_snapshots(const Caller& caller,
                                                     const CreateSnapshotsRequest& request) {
  std::vector<SnapshotRecord> snapshots;
  std::string group = new_id("group");
  {
    std::scoped_lock lock(model_.mutex());
    auto found = TRY(find_instances(caller, {request.instance_specification.instance_id}));
    auto tags = TRY(tags_for(request.tag_specifications, "snapshot", {"snapshot"}));
    bool copy_tags = request.copy_tags_from_source == "volume";
    bool without_root = request.instance_specification.exclude_boot_volume.value_or(false);
    Update update(model_);
    for (const VolumeRecord& volume : model_.volumes_of(found[0])) {
      if (without_root && volume.device == found[0].root_device) continue;
      if (volume.state == "creating") {
        return api_error(ApiCode::kIncorrectState, "Volume '{}' is in the 'creating' state.", volume.id);
      }
      std::vector<Tag> own = copy_tags ? volume.tags : std::vector<Tag>{};
      for (const Tag& tag : tags) {
        std::erase_if(own, [&](const Tag& other) { return other.key == tag.key; });
        own.push_back(tag);
      }
      TRY(check_tags(own));
      snapshots.push_back(new_snapshot(volume, group, request.description.value_or(""), std::move(own)));
      update.put(snapshots.back());
    }
    if (snapshots.empty()) {
      return api_error(ApiCode::kInvalidParameterValue, "The instance '{}' has no volumes to snapshot",
                       found[0].id);
    }
    TRY(check_room(0, snapshots.size()));
    if (request.dry_run.value_or(false)) return dry_run_error();
    TRY(update.commit());
  }
  TRY(begin_recorded(group));
  CreateSnapshotsReply reply;
  for (const SnapshotRecord& snapshot : snapshots) {
    Snapshot full = describe(snapshot);
    reply.snapshots.push_back({.description = full.description,
                               .tags = full.tags,
                               .encrypted = full.encrypted,
                               .volume_id = full.volume_id,
                               .state = full.state,
                               .volume_size = full.volume_size,
                               .start_time = full.start_time,
                               .progress = full.progress,
                               .owner_id = full.owner_id,
                               .snapshot_id = full.snapshot_id});
  }
  return reply;
}

// ---- copy, import ----

Answer<CopySnapshotReply> Cloud::copy_snapshot(const Caller& caller, const CopySnapshotRequest& request) {
  SnapshotRecord copy;
  {
    std::scoped_lock lock(model_.mutex());
    if (places_.region(request.source_region) == nullptr)
      return api_error(ApiCode::kInvalidParameterValue, "Invalid region: [{}]", request.source_region);
    if (request.destination_region && *request.destination_region != caller.region) {
      return api_error(ApiCode::kInvalidParameterValue,
                       "The request goes to the region that is copied to: it is {}, not {}", caller.region,
                       *request.destination_region);
    }
    SnapshotRecord source = TRY(find_snapshot({.region = request.source_region}, request.source_snapshot_id));
    if (source.state != "completed") {
      return api_error(ApiCode::kIncorrectState, "The snapshot '{}' is not in the 'completed' state.",
                       source.id);
    }
    if (request.encrypted.value_or(false) && !source.encrypted) {
      return api_error(ApiCode::kUnsupportedOperation,
                       "A copy is encrypted if '{}' is: make an encrypted volume of it, and snapshot that",
                       source.id);
    }
    copy = source;
    copy.id = new_id("snap");
    copy.region = caller.region;
    copy.state = "pending";
    copy.progress = 0;
    copy.work = "copy";
    copy.group.clear();
    copy.source_region = request.source_region;
    copy.source_snapshot = source.id;
    copy.for_image.clear();
    copy.started = now();
    copy.description =
        request.description.value_or(fmt::format("[Copied {} from {}]", source.id, request.source_region));
    copy.permissions = {};
    copy.tags = TRY(tags_for(request.tag_specifications, "snapshot", {"snapshot"}));
    TRY(check_room(0, 1));
    if (request.dry_run.value_or(false)) return dry_run_error();
    TRY(Update(model_).put(copy).commit());
  }
  crash_point("copy-snapshot.intended");
  archive_.finish(copy.id);
  return CopySnapshotReply{.snapshot_id = copy.id, .tags = copy.tags};
}

Answer<void> check_import(const std::string& path, const std::string& format) {
  if (!image_format(format)) {
    return api_error(ApiCode::kInvalidParameterValue,
                     "Value ({}) for parameter format is invalid: it is raw or qcow2, and never guessed",
                     format);
  }
  if (!std::filesystem::path(path).is_absolute())
    return api_error(ApiCode::kInvalidParameterValue, "'{}' is not an absolute path of this host", path);
  auto file = open_file(path, O_RDONLY | O_NONBLOCK);
  if (!file.ok()) return ApiError(ApiCode::kInvalidParameterValue, file.error().message());
  struct stat info {};
  if (::fstat(file->get(), &info) != 0 || (!S_ISREG(info.st_mode) && !S_ISBLK(info.st_mode)))
    return api_error(ApiCode::kInvalidParameterValue, "{} is neither a file nor a disk", path);
  return {};
}

Answer<ImportSnapshotFileReply> Cloud::import_snapshot_file(const Caller& caller,
                                                            const ImportSnapshotFileRequest& request) {
  TRY(check_import(request.path, request.format));
  SnapshotRecord snapshot;
  snapshot.bytes = request.size.value_or(0);
  if (snapshot.bytes < 0 || snapshot.bytes > kMaxBytes || snapshot.bytes % 512 != 0) {
    return api_error(ApiCode::kInvalidParameterValue,
                     "Size {} is not a multiple of 512 bytes, at most 16 TiB", snapshot.bytes);
  }
  snapshot.id = new_id("snap");
  snapshot.region = caller.region;
  snapshot.owner = kAccount;
  snapshot.volume_id = "vol-ffffffff";
  snapshot.state = "pending";
  snapshot.work = "import";
  snapshot.path = request.path;
  snapshot.format = request.format;
  snapshot.started = now();
  snapshot.description = request.description.value_or(fmt::format("Imported from {}", request.path));
  snapshot.encrypted = request.encrypted.value_or(false);
  snapshot.tags = TRY(tags_for(request.tag_specifications, "snapshot", {"snapshot"}));
  if (request.dry_run.value_or(false)) return dry_run_error();
  {
    std::scoped_lock lock(model_.mutex());
    TRY(check_room(0, 1));
    TRY(Update(model_).put(snapshot).commit());
  }
  crash_point("import-snapshot.intended");
  archive_.finish(snapshot.id);
  return ImportSnapshotFileReply{.snapshot_id = snapshot.id};
}

// ---- delete ----

Answer<Nothing> Cloud::delete_snapshot(const Caller& caller, const DeleteSnapshotRequest& request) {
  {
    std::scoped_lock lock(model_.mutex());
    SnapshotRecord snapshot = TRY(find_snapshot(caller, request.snapshot_id));
    std::string user = snapshot_user(model_, snapshot);
    if (!user.empty()) {
      return api_error(ApiCode::kInvalidSnapshotInUse, "The snapshot {} is currently in use by {}",
                       snapshot.id, user);
    }
    if (snapshot.state == "pending" && snapshot.work == "snapshot" && !snapshot.begun) {
      return api_error(ApiCode::kIncorrectState, "The snapshot {} is being begun; try again in a moment",
                       snapshot.id);
    }
    if (request.dry_run.value_or(false)) return dry_run_error();
    snapshot.state = "deleting";
    TRY(Update(model_).put(snapshot).commit());
  }
  crash_point("delete-snapshot.intended");
  archive_.remove(request.snapshot_id);
  return Nothing{};
}

}  // namespace haneul::agent
