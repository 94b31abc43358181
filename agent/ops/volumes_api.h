// SPDX-License-Identifier: Apache-2.0
// Requests and replies of the operations on volumes.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "agent/ops/shapes.h"

namespace haneul::agent {

struct VolumeAttachment {
  Timestamp attach_time;
  std::string device;
  std::string instance_id;
  std::string state;
  std::string volume_id;
  bool delete_on_termination = false;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    visit({.name = "AttachTime"}, &VolumeAttachment::attach_time);
    visit({.name = "Device"}, &VolumeAttachment::device);
    visit({.name = "InstanceId"}, &VolumeAttachment::instance_id);
    visit({.name = "State", .wire = "status"}, &VolumeAttachment::state);
    visit({.name = "VolumeId"}, &VolumeAttachment::volume_id);
    visit({.name = "DeleteOnTermination"}, &VolumeAttachment::delete_on_termination);
  }
};

struct Volume {
  std::vector<VolumeAttachment> attachments;
  std::string availability_zone;
  Timestamp create_time;
  bool encrypted = false;
  int64_t size = 0;
  std::string snapshot_id;
  std::string state;
  std::string volume_id;
  std::optional<int64_t> iops;
  std::vector<Tag> tags;
  std::string volume_type;
  bool multi_attach_enabled = false;
  std::optional<int64_t> throughput;
  std::optional<std::string> state_message;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    visit({.name = "Attachments", .wire = "attachmentSet"}, &Volume::attachments);
    visit({.name = "AvailabilityZone"}, &Volume::availability_zone);
    visit({.name = "CreateTime"}, &Volume::create_time);
    visit({.name = "Encrypted"}, &Volume::encrypted);
    visit({.name = "Size"}, &Volume::size);
    visit({.name = "SnapshotId"}, &Volume::snapshot_id);
    visit({.name = "State", .wire = "status"}, &Volume::state);
    visit({.name = "VolumeId"}, &Volume::volume_id);
    visit({.name = "Iops"}, &Volume::iops);
    visit({.name = "Tags", .wire = "tagSet"}, &Volume::tags);
    visit({.name = "VolumeType"}, &Volume::volume_type);
    visit({.name = "MultiAttachEnabled"}, &Volume::multi_attach_enabled);
    visit({.name = "Throughput"}, &Volume::throughput);
    visit({.name = "StateMessage", .own = true}, &Volume::state_message);
  }
};

struct VolumeModification {
  std::string volume_id;
  std::string modification_state;
  std::optional<std::string> status_message;
  int64_t target_size = 0;
  std::optional<int64_t> target_iops;
  std::string target_volume_type;
  std::optional<int64_t> target_throughput;
  int64_t original_size = 0;
  std::optional<int64_t> original_iops;
  std::string original_volume_type;
  std::optional<int64_t> original_throughput;
  int64_t progress = 0;
  Timestamp start_time;
  std::optional<Timestamp> end_time;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    visit({.name = "VolumeId"}, &VolumeModification::volume_id);
    visit({.name = "ModificationState"}, &VolumeModification::modification_state);
    visit({.name = "StatusMessage"}, &VolumeModification::status_message);
    visit({.name = "TargetSize"}, &VolumeModification::target_size);
    visit({.name = "TargetIops"}, &VolumeModification::target_iops);
    visit({.name = "TargetVolumeType"}, &VolumeModification::target_volume_type);
    visit({.name = "TargetThroughput"}, &VolumeModification::target_throughput);
    visit({.name = "OriginalSize"}, &VolumeModification::original_size);
    visit({.name = "OriginalIops"}, &VolumeModification::original_iops);
    visit({.name = "OriginalVolumeType"}, &VolumeModification::original_volume_type);
    visit({.name = "OriginalThroughput"}, &VolumeModification::original_throughput);
    visit({.name = "Progress"}, &VolumeModification::progress);
    visit({.name = "StartTime"}, &VolumeModification::start_time);
    visit({.name = "EndTime"}, &VolumeModification::end_time);
  }
};

struct CreateVolumeRequest {
  std::string availability_zone;
  std::optional<bool> encrypted;
  std::optional<int64_t> iops;
  std::optional<std::string> kms_key_id;
  std::optional<int64_t> size;
  std::optional<std::string> snapshot_id;
  std::optional<std::string> volume_type;
  std::optional<bool> dry_run;
  std::vector<TagSpecification> tag_specifications;
  std::optional<bool> multi_attach_enabled;
  std::optional<int64_t> throughput;
  std::optional<std::string> client_token;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    visit({.name = "AvailabilityZone", .wire = "AvailabilityZone", .required = true},
          &CreateVolumeRequest::availability_zone);
    visit({.name = "Encrypted"}, &CreateVolumeRequest::encrypted);
    visit({.name = "Iops", .wire = "Iops"}, &CreateVolumeRequest::iops);
    visit({.name = "KmsKeyId", .wire = "KmsKeyId"}, &CreateVolumeRequest::kms_key_id);
    visit({.name = "Size", .wire = "Size"}, &CreateVolumeRequest::size);
    visit({.name = "SnapshotId", .wire = "SnapshotId"}, &CreateVolumeRequest::snapshot_id);
    visit({.name = "VolumeType", .wire = "VolumeType"}, &CreateVolumeRequest::volume_type);
    visit({.name = "DryRun"}, &CreateVolumeRequest::dry_run);
    visit({.name = "TagSpecifications", .wire = "TagSpecification"},
          &CreateVolumeRequest::tag_specifications);
    visit({.name = "MultiAttachEnabled", .wire = "MultiAttachEnabled"},
          &CreateVolumeRequest::multi_attach_enabled);
    visit({.name = "Throughput", .wire = "Throughput"}, &CreateVolumeRequest::throughput);
    visit({.name = "ClientToken", .wire = "ClientToken"}, &CreateVolumeRequest::client_token);
  }
};

struct DescribeVolumesRequest {
  std::vector<Filter> filters;
  std::vector<std::string> volume_ids;
  std::optional<bool> dry_run;
  std::optional<int64_t> max_results;
  std::optional<std::string> next_token;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    visit({.name = "Filters", .wire = "Filter"}, &DescribeVolumesRequest::filters);
    visit({.name = "VolumeIds", .wire = "VolumeId"}, &DescribeVolumesRequest::volume_ids);
    visit({.name = "DryRun"}, &DescribeVolumesRequest::dry_run);
    visit({.name = "MaxResults"}, &DescribeVolumesRequest::max_results);
    visit({.name = "NextToken"}, &DescribeVolumesRequest::next_token);
  }
};

struct DescribeVolumesReply {
  std::vector<Volume> volumes;
  std::optional<std::string> next_token;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    visit({.name = "Volumes", .wire = "volumeSet"}, &DescribeVolumesReply::volumes);
    visit({.name = "NextToken"}, &DescribeVolumesReply::next_token);
  }
};

struct DeleteVolumeRequest {
  std::string volume_id;
  std::optional<bool> dry_run;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    visit({.name = "VolumeId", .wire = "VolumeId", .required = true}, &DeleteVolumeRequest::volume_id);
    visit({.name = "DryRun"}, &DeleteVolumeRequest::dry_run);
  }
};

struct AttachVolumeRequest {
  std::string device;
  std::string instance_id;
  std::string volume_id;
  std::optional<bool> dry_run;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    visit({.name = "Device", .wire = "Device", .required = true}, &AttachVolumeRequest::device);
    visit({.name = "InstanceId", .wire = "InstanceId", .required = true}, &AttachVolumeRequest::instance_id);
    visit({.name = "VolumeId", .wire = "VolumeId", .required = true}, &AttachVolumeRequest::volume_id);
    visit({.name = "DryRun"}, &AttachVolumeRequest::dry_run);
  }
};

struct DetachVolumeRequest {
  std::optional<std::string> device;
  std::optional<bool> force;
  std::optional<std::string> instance_id;
  std::string volume_id;
  std::optional<bool> dry_run;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    visit({.name = "Device", .wire = "Device"}, &DetachVolumeRequest::device);
    visit({.name = "Force", .wire = "Force"}, &DetachVolumeRequest::force);
    visit({.name = "InstanceId", .wire = "InstanceId"}, &DetachVolumeRequest::instance_id);
    visit({.name = "VolumeId", .wire = "VolumeId", .required = true}, &DetachVolumeRequest::volume_id);
    visit({.name = "DryRun"}, &DetachVolumeRequest::dry_run);
  }
};

struct ModifyVolumeRequest {
  std::optional<bool> dry_run;
  std::string volume_id;
  std::optional<int64_t> size;
  std::optional<std::string> volume_type;
  std::optional<int64_t> iops;
  std::optional<int64_t> throughput;
  std::optional<bool> multi_attach_enabled;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    visit({.name = "DryRun", .wire = "DryRun"}, &ModifyVolumeRequest::dry_run);
    visit({.name = "VolumeId", .wire = "VolumeId", .required = true}, &ModifyVolumeRequest::volume_id);
    visit({.name = "Size", .wire = "Size"}, &ModifyVolumeRequest::size);
    visit({.name = "VolumeType", .wire = "VolumeType"}, &ModifyVolumeRequest::volume_type);
    visit({.name = "Iops", .wire = "Iops"}, &ModifyVolumeRequest::iops);
    visit({.name = "Throughput", .wire = "Throughput"}, &ModifyVolumeRequest::throughput);
    visit({.name = "MultiAttachEnabled", .wire = "MultiAttachEnabled"},
          &ModifyVolumeRequest::multi_attach_enabled);
  }
};

struct ModifyVolumeReply {
  VolumeModification volume_modification;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    visit({.name = "VolumeModification"}, &ModifyVolumeReply::volume_modification);
  }
};

struct DescribeVolumesModificationsRequest {
  std::optional<bool> dry_run;
  std::vector<std::string> volume_ids;
  std::vector<Filter> filters;
  std::optional<std::string> next_token;
  std::optional<int64_t> max_results;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    visit({.name = "DryRun", .wire = "DryRun"}, &DescribeVolumesModificationsRequest::dry_run);
    visit({.name = "VolumeIds", .wire = "VolumeId"}, &DescribeVolumesModificationsRequest::volume_ids);
    visit({.name = "Filters", .wire = "Filter"}, &DescribeVolumesModificationsRequest::filters);
    visit({.name = "NextToken", .wire = "NextToken"}, &DescribeVolumesModificationsRequest::next_token);
    visit({.name = "MaxResults", .wire = "MaxResults"}, &DescribeVolumesModificationsRequest::max_results);
  }
};

struct DescribeVolumesModificationsReply {
  std::vector<VolumeModification> volumes_modifications;
  std::optional<std::string> next_token;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    visit({.name = "VolumesModifications", .wire = "volumeModificationSet"},
          &DescribeVolumesModificationsReply::volumes_modifications);
    visit({.name = "NextToken"}, &DescribeVolumesModificationsReply::next_token);
  }
};

}  // namespace haneul::agent
