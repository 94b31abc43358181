// SPDX-License-Identifier: Apache-2.0
// Requests and replies of the operations on snapshots.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "agent/ops/shapes.h"

namespace haneul::agent {

struct Snapshot {
  std::string description;
  bool encrypted = false;
  std::string owner_id;
  std::string progress;
  std::string snapshot_id;
  Timestamp start_time;
  std::string state;
  std::optional<std::string> state_message;
  std::string volume_id;
  int64_t volume_size = 0;
  std::vector<Tag> tags;
  std::string storage_tier;
  std::optional<int64_t> changed_bytes;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    visit({.name = "Description"}, &Snapshot::description);
    visit({.name = "Encrypted"}, &Snapshot::encrypted);
    visit({.name = "OwnerId"}, &Snapshot::owner_id);
    visit({.name = "Progress"}, &Snapshot::progress);
    visit({.name = "SnapshotId"}, &Snapshot::snapshot_id);
    visit({.name = "StartTime"}, &Snapshot::start_time);
    visit({.name = "State", .wire = "status"}, &Snapshot::state);
    visit({.name = "StateMessage", .wire = "statusMessage"}, &Snapshot::state_message);
    visit({.name = "VolumeId"}, &Snapshot::volume_id);
    visit({.name = "VolumeSize"}, &Snapshot::volume_size);
    visit({.name = "Tags", .wire = "tagSet"}, &Snapshot::tags);
    visit({.name = "StorageTier"}, &Snapshot::storage_tier);
    visit({.name = "ChangedBytes", .own = true}, &Snapshot::changed_bytes);
  }
};

/// SnapshotInfo in EC2.
struct SnapshotSummary {
  std::string description;
  std::vector<Tag> tags;
  bool encrypted = false;
  std::string volume_id;
  std::string state;
  int64_t volume_size = 0;
  Timestamp start_time;
  std::string progress;
  std::string owner_id;
  std::string snapshot_id;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    visit({.name = "Description"}, &SnapshotSummary::description);
    visit({.name = "Tags", .wire = "tagSet"}, &SnapshotSummary::tags);
    visit({.name = "Encrypted"}, &SnapshotSummary::encrypted);
    visit({.name = "VolumeId"}, &SnapshotSummary::volume_id);
    visit({.name = "State"}, &SnapshotSummary::state);
    visit({.name = "VolumeSize"}, &SnapshotSummary::volume_size);
    visit({.name = "StartTime"}, &SnapshotSummary::start_time);
    visit({.name = "Progress"}, &SnapshotSummary::progress);
    visit({.name = "OwnerId"}, &SnapshotSummary::owner_id);
    visit({.name = "SnapshotId"}, &SnapshotSummary::snapshot_id);
  }
};

struct CreateVolumePermission {
  std::optional<std::string> group;
  std::optional<std::string> user_id;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    visit({.name = "Group"}, &CreateVolumePermission::group);
    visit({.name = "UserId"}, &CreateVolumePermission::user_id);
  }
};

struct CreateVolumePermissionModifications {
  std::vector<CreateVolumePermission> add;
  std::vector<CreateVolumePermission> remove;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    visit({.name = "Add", .wire = "Add"}, &CreateVolumePermissionModifications::add);
    visit({.name = "Remove", .wire = "Remove"}, &CreateVolumePermissionModifications::remove);
  }
};

struct InstanceSpecification {
  std::string instance_id;
  std::optional<bool> exclude_boot_volume;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    visit({.name = "InstanceId", .wire = "InstanceId"}, &InstanceSpecification::instance_id);
    visit({.name = "ExcludeBootVolume", .wire = "ExcludeBootVolume"},
          &InstanceSpecification::exclude_boot_volume);
  }
};

struct CreateSnapshotRequest {
  std::optional<std::string> description;
  std::string volume_id;
  std::vector<TagSpecification> tag_specifications;
  std::optional<bool> dry_run;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    visit({.name = "Description", .wire = "Description"}, &CreateSnapshotRequest::description);
    visit({.name = "VolumeId", .wire = "VolumeId", .required = true}, &CreateSnapshotRequest::volume_id);
    visit({.name = "TagSpecifications", .wire = "TagSpecification"},
          &CreateSnapshotRequest::tag_specifications);
    visit({.name = "DryRun"}, &CreateSnapshotRequest::dry_run);
  }
};

struct CreateSnapshotsRequest {
  std::optional<std::string> description;
  InstanceSpecification instance_specification;
  std::vector<TagSpecification> tag_specifications;
  std::optional<bool> dry_run;
  std::optional<std::string> copy_tags_from_source;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    visit({.name = "Description", .wire = "Description"}, &CreateSnapshotsRequest::description);
    visit({.name = "InstanceSpecification", .wire = "InstanceSpecification", .required = true},
          &CreateSnapshotsRequest::instance_specification);
    visit({.name = "TagSpecifications", .wire = "TagSpecification"},
          &CreateSnapshotsRequest::tag_specifications);
    visit({.name = "DryRun", .wire = "DryRun"}, &CreateSnapshotsRequest::dry_run);
    visit({.name = "CopyTagsFromSource", .wire = "CopyTagsFromSource"},
          &CreateSnapshotsRequest::copy_tags_from_source);
  }
};

struct CreateSnapshotsReply {
  std::vector<SnapshotSummary> snapshots;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    visit({.name = "Snapshots", .wire = "snapshotSet"}, &CreateSnapshotsReply::snapshots);
  }
};

struct DescribeSnapshotsRequest {
  std::vector<Filter> filters;
  std::optional<int64_t> max_results;
  std::optional<std::string> next_token;
  std::vector<std::string> owner_ids;
  std::vector<std::string> restorable_by_user_ids;
  std::vector<std::string> snapshot_ids;
  std::optional<bool> dry_run;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    visit({.name = "Filters", .wire = "Filter"}, &DescribeSnapshotsRequest::filters);
    visit({.name = "MaxResults", .wire = "MaxResults"}, &DescribeSnapshotsRequest::max_results);
    visit({.name = "NextToken", .wire = "NextToken"}, &DescribeSnapshotsRequest::next_token);
    visit({.name = "OwnerIds", .wire = "Owner"}, &DescribeSnapshotsRequest::owner_ids);
    visit({.name = "RestorableByUserIds", .wire = "RestorableBy"},
          &DescribeSnapshotsRequest::restorable_by_user_ids);
    visit({.name = "SnapshotIds", .wire = "SnapshotId"}, &DescribeSnapshotsRequest::snapshot_ids);
    visit({.name = "DryRun"}, &DescribeSnapshotsRequest::dry_run);
  }
};

struct DescribeSnapshotsReply {
  std::vector<Snapshot> snapshots;
  std::optional<std::string> next_token;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    visit({.name = "Snapshots", .wire = "snapshotSet"}, &DescribeSnapshotsReply::snapshots);
    visit({.name = "NextToken"}, &DescribeSnapshotsReply::next_token);
  }
};

struct DeleteSnapshotRequest {
  std::string snapshot_id;
  std::optional<bool> dry_run;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    visit({.name = "SnapshotId", .wire = "SnapshotId", .required = true},
          &DeleteSnapshotRequest::snapshot_id);
    visit({.name = "DryRun"}, &DeleteSnapshotRequest::dry_run);
  }
};

struct CopySnapshotRequest {
  std::optional<std::string> description;
  std::optional<std::string> destination_region;
  std::optional<bool> encrypted;
  std::optional<std::string> kms_key_id;
  std::optional<std::string> presigned_url;
  std::string source_region;
  std::string source_snapshot_id;
  std::vector<TagSpecification> tag_specifications;
  std::optional<bool> dry_run;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    visit({.name = "Description", .wire = "Description"}, &CopySnapshotRequest::description);
    visit({.name = "DestinationRegion"}, &CopySnapshotRequest::destination_region);
    visit({.name = "Encrypted"}, &CopySnapshotRequest::encrypted);
    visit({.name = "KmsKeyId"}, &CopySnapshotRequest::kms_key_id);
    visit({.name = "PresignedUrl"}, &CopySnapshotRequest::presigned_url);
    visit({.name = "SourceRegion", .wire = "SourceRegion", .required = true},
          &CopySnapshotRequest::source_region);
    visit({.name = "SourceSnapshotId", .wire = "SourceSnapshotId", .required = true},
          &CopySnapshotRequest::source_snapshot_id);
    visit({.name = "TagSpecifications", .wire = "TagSpecification"},
          &CopySnapshotRequest::tag_specifications);
    visit({.name = "DryRun"}, &CopySnapshotRequest::dry_run);
  }
};

struct CopySnapshotReply {
  std::string snapshot_id;
  std::vector<Tag> tags;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    visit({.name = "SnapshotId"}, &CopySnapshotReply::snapshot_id);
    visit({.name = "Tags", .wire = "tagSet"}, &CopySnapshotReply::tags);
  }
};

struct ModifySnapshotAttributeRequest {
  std::optional<std::string> attribute;
  std::optional<CreateVolumePermissionModifications> create_volume_permission;
  std::vector<std::string> group_names;
  std::optional<std::string> operation_type;
  std::string snapshot_id;
  std::vector<std::string> user_ids;
  std::optional<bool> dry_run;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    visit({.name = "Attribute", .wire = "Attribute"}, &ModifySnapshotAttributeRequest::attribute);
    visit({.name = "CreateVolumePermission", .wire = "CreateVolumePermission"},
          &ModifySnapshotAttributeRequest::create_volume_permission);
    visit({.name = "GroupNames", .wire = "UserGroup"}, &ModifySnapshotAttributeRequest::group_names);
    visit({.name = "OperationType", .wire = "OperationType"},
          &ModifySnapshotAttributeRequest::operation_type);
    visit({.name = "SnapshotId", .wire = "SnapshotId", .required = true},
          &ModifySnapshotAttributeRequest::snapshot_id);
    visit({.name = "UserIds", .wire = "UserId"}, &ModifySnapshotAttributeRequest::user_ids);
    visit({.name = "DryRun"}, &ModifySnapshotAttributeRequest::dry_run);
  }
};

struct DescribeSnapshotAttributeRequest {
  std::string attribute;
  std::string snapshot_id;
  std::optional<bool> dry_run;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    visit({.name = "Attribute", .wire = "Attribute", .required = true},
          &DescribeSnapshotAttributeRequest::attribute);
    visit({.name = "SnapshotId", .wire = "SnapshotId", .required = true},
          &DescribeSnapshotAttributeRequest::snapshot_id);
    visit({.name = "DryRun"}, &DescribeSnapshotAttributeRequest::dry_run);
  }
};

struct DescribeSnapshotAttributeReply {
  std::vector<CreateVolumePermission> create_volume_permissions;
  std::string snapshot_id;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    visit({.name = "CreateVolumePermissions", .wire = "createVolumePermission"},
          &DescribeSnapshotAttributeReply::create_volume_permissions);
    visit({.name = "SnapshotId"}, &DescribeSnapshotAttributeReply::snapshot_id);
  }
};

struct ResetSnapshotAttributeRequest {
  std::string attribute;
  std::string snapshot_id;
  std::optional<bool> dry_run;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    visit({.name = "Attribute", .wire = "Attribute", .required = true},
          &ResetSnapshotAttributeRequest::attribute);
    visit({.name = "SnapshotId", .wire = "SnapshotId", .required = true},
          &ResetSnapshotAttributeRequest::snapshot_id);
    visit({.name = "DryRun"}, &ResetSnapshotAttributeRequest::dry_run);
  }
};

}  // namespace haneul::agent
