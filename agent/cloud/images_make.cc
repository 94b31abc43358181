// SPDX-License-Identifier: Apache-2.0
// CreateImage, CopyImage and ImportImageFile: images that are pending until their snapshots are completed.
#include <algorithm>

#include "agent/cloud/cloud.h"
#include "agent/cloud/crash.h"
#include "base/log.h"

namespace haneul::agent {
namespace {

MappingRecord mapping_of(const VolumeRecord& volume, const std::string& snapshot_id) {
  MappingRecord mapping;
  mapping.device = volume.device;
  mapping.snapshot_id = snapshot_id;
  mapping.bytes = volume.bytes;
  mapping.type = volume.type;
  mapping.iops = volume.iops;
  mapping.throughput = volume.throughput;
  mapping.encrypted = volume.encrypted;
  mapping.delete_on_termination = volume.delete_on_termination;
  return mapping;
}

}  // namespace

// ---- of an instance ----

// Under the lock.
Answer<Cloud::ImagePlan> Cloud::image_from_instance(const Caller& caller, const InstanceRecord& instance,
                                                    const CreateImageRequest& request) {
  ImagePlan plan;
  ImageRecord& image = plan.image;
  image.id = new_id("ami");
  image.region = caller.region;
  image.name = request.name;
  image.description = request.description.value_or("");
  image.state = "pending";
  image.work = "create";
  image.location = fmt::format("{}/{}", kAccount, image.name);
  image.created = now();
  image.source_instance = instance.id;
  image.root_device = instance.root_device;
  auto booted = model_.images().find(instance.image_id);
  if (booted == model_.images().end())
    return api_error(ApiCode::kIncorrectState, "The image {} of {} is gone", instance.image_id, instance.id);
  boot_like(booted->second, image);
  auto image_tags = TRY(tags_for(request.tag_specifications, "image", {"image", "snapshot"}));
  auto snapshot_tags = TRY(tags_for(request.tag_specifications, "snapshot", {"image", "snapshot"}));
  image.tags.insert(image.tags.end(), image_tags.begin(), image_tags.end());
  std::string group = new_id("group");
  std::string description = fmt::format("Created by CreateImage({}) for {}", instance.id, image.id);
  for (const VolumeRecord& volume : model_.volumes_of(instance)) {
    if (volume.state == "creating")
      return api_error(ApiCode::kIncorrectState, "Volume '{}' is in the 'creating' state.", volume.id);
    SnapshotRecord snapshot = new_snapshot(volume, group, description, snapshot_tags);
    snapshot.for_image = image.id;
    image.mappings.push_back(mapping_of(volume, snapshot.id));
    plan.snapshots.push_back(std::move(snapshot));
  }
  for (const EphemeralRecord& ephemeral : instance.ephemerals) {
    MappingRecord mapping;
    mapping.device = ephemeral.device;
    mapping.virtual_name = ephemeral.virtual_name;
    mapping.bytes = ephemeral.bytes;
    image.mappings.push_back(std::move(mapping));
  }
  for (const BlockDeviceMapping& mapping : request.block_device_mappings) {
    if (mapping.no_device && mapping.device_name == image.root_device)
      return ApiError(ApiCode::kInvalidBlockDeviceMapping, "The root device cannot be left out");
    TRY(apply_mapping(caller, mapping, image.mappings));
  }
  std::erase_if(plan.snapshots, [&](const SnapshotRecord& snapshot) {
    return std::none_of(image.mappings.begin(), image.mappings.end(),
                        [&](const MappingRecord& mapping) { return mapping.snapshot_id == snapshot.id; });
  });
  return plan;
}

Answer<CreateImageReply> Cloud::create_image(const Caller& caller, const CreateImageRequest& request) {
  ImagePlan plan;
  InstanceRecord instance;
  bool reboot = false;
  {
    std::scoped_lock lock(model_.mutex());
    instance = TRY(find_instances(caller, {request.instance_id}))[0];
    bool runs = instance.state == name(State::kRunning);
    if (!runs && instance.state != name(State::kStopped)) {
      return api_error(ApiCode::kIncorrectState, "Instance '{}' is {}, neither running nor stopped.",
                       instance.id, instance.state);
    }
    TRY(check_image_name(caller, request.name));
    plan = TRY(image_from_instance(caller, instance, request));
    TRY(check_room(0, plan.snapshots.size()));
    if (request.dry_run.value_or(false)) return dry_run_error();
    reboot = runs && !request.no_reboot.value_or(false) && !plan.snapshots.empty();
    Update update(model_);
    update.put(plan.image);
    for (SnapshotRecord& snapshot : plan.snapshots) {
      if (reboot) snapshot.after_shutdown = instance.id;
      update.put(snapshot);
    }
    if (reboot) {
      instance.rebooting = true;
      update.put(instance);
    }
    TRY(update.commit());
  }
  crash_point("create-image.intended");
  TRY(archive_.take_kernel(plan.image.id));
  if (reboot) {
    keeper_.reboot(instance.id);
  } else if (!plan.snapshots.empty()) {
    TRY(archive_.begin(plan.snapshots[0].group));
  }
  return CreateImageReply{.image_id = plan.image.id};
}

// ---- of another region's ----

// Under the lock.
Answer<Cloud::ImagePlan> Cloud::image_copy(const Caller& caller, const CopyImageRequest& request) {
  if (places_.region(request.source_region) == nullptr)
    return api_error(ApiCode::kInvalidParameterValue, "Invalid region: [{}]", request.source_region);
  ImageRecord source = TRY(find_image({.region = request.source_region}, request.source_image_id));
  TRY(check_image_name(caller, request.name));
  bool plain = std::any_of(source.mappings.begin(), source.mappings.end(), [](const MappingRecord& mapping) {
    return !mapping.snapshot_id.empty() && !mapping.encrypted;
  });
  if (request.encrypted.value_or(false) && plain) {
    return api_error(ApiCode::kUnsupportedOperation, "A copy's volumes are encrypted if those of {} are",
                     source.id);
  }
  ImagePlan plan;
  plan.image = source;
  plan.image.tags.clear();
  boot_like(source, plan.image);
  plan.image.id = new_id("ami");
  plan.image.region = caller.region;
  plan.image.name = request.name;
  plan.image.description = request.description.value_or(source.description);
  plan.image.state = "pending";
  plan.image.work = "copy";
  plan.image.created = now();
  plan.image.permissions = {};
  for (MappingRecord& mapping : plan.image.mappings) {
    if (mapping.snapshot_id.empty()) continue;
    SnapshotRecord copy = TRY(find_snapshot({.region = request.source_region}, mapping.snapshot_id));
    copy.source_region = copy.region;
    copy.source_snapshot = copy.id;
    copy.id = new_id("snap");
    copy.region = caller.region;
    copy.state = "pending";
    copy.progress = 0;
    copy.work = "copy";
    copy.for_image = plan.image.id;
    copy.group.clear();
    copy.started = now();
    copy.description = fmt::format("Copied for {} from {} of {}", plan.image.id, copy.source_snapshot,
                                   request.source_region);
    copy.permissions = {};
    copy.tags.clear();
    mapping.snapshot_id = copy.id;
    plan.snapshots.push_back(std::move(copy));
  }
  return plan;
}

Answer<CopyImageReply> Cloud::copy_image(const Caller& caller, const CopyImageRequest& request) {
  ImagePlan plan;
  {
    std::scoped_lock lock(model_.mutex());
    plan = TRY(image_copy(caller, request));
    TRY(check_room(0, plan.snapshots.size()));
    if (request.dry_run.value_or(false)) return dry_run_error();
    Update update(model_);
    update.put(plan.image);
    for (const SnapshotRecord& snapshot : plan.snapshots) update.put(snapshot);
    TRY(update.commit());
  }
  crash_point("copy-image.intended");
  TRY(archive_.take_kernel(plan.image.id));
  for (const SnapshotRecord& snapshot : plan.snapshots) archive_.finish(snapshot.id);
  return CopyImageReply{.image_id = plan.image.id};
}

// ---- of a file ----

Answer<ImportImageFileReply> Cloud::import_image_file(const Caller& caller,
                                                      const ImportImageFileRequest& request) {
  TRY(check_import(request.path, request.format));
  ImageRecord image;
  SnapshotRecord snapshot;
  {
    std::scoped_lock lock(model_.mutex());
    TRY(check_image_name(caller, request.name));
    TRY(check_room(0, 1));
    boot_like(TRY(find_image(caller, request.kernel_image)), image);
    auto image_tags = TRY(tags_for(request.tag_specifications, "image", {"image", "snapshot"}));
    image.tags.insert(image.tags.end(), image_tags.begin(), image_tags.end());
    image.id = new_id("ami");
    image.region = caller.region;
    image.name = request.name;
    image.description = request.description.value_or("");
    image.state = "pending";
    image.work = "import";
    image.location = request.path;
    image.created = now();
    snapshot.id = new_id("snap");
    snapshot.region = caller.region;
    snapshot.owner = kAccount;
    snapshot.volume_id = "vol-ffffffff";
    snapshot.state = "pending";
    snapshot.work = "import";
    snapshot.path = request.path;
    snapshot.format = request.format;
    snapshot.started = now();
    snapshot.description = fmt::format("Root of {} ({})", image.id, image.name);
    snapshot.encrypted = request.encrypted.value_or(false);
    snapshot.for_image = image.id;
    snapshot.image_id = image.id;
    snapshot.tags = TRY(tags_for(request.tag_specifications, "snapshot", {"image", "snapshot"}));
    MappingRecord root;
    root.device = image.root_device;
    root.snapshot_id = snapshot.id;
    root.iops = 3000;
    root.throughput = 125;
    image.mappings.push_back(std::move(root));
    if (request.dry_run.value_or(false)) return dry_run_error();
    TRY(Update(model_).put(image).put(snapshot).commit());
  }
  crash_point("import-image.intended");
  TRY(archive_.take_kernel(image.id));
  archive_.finish(snapshot.id);
  return ImportImageFileReply{.image_id = image.id, .snapshot_id = snapshot.id};
}

}  // namespace haneul::agent
