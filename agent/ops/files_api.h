// SPDX-License-Identifier: Apache-2.0
// Requests and replies of operations that are Haneul's own: files of this host in and out, checks, and the
// tasks that they are.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "agent/ops/shapes.h"

namespace haneul::agent {

struct ImportSnapshotFileRequest {
  std::string path;
  std::string format;
  std::optional<int64_t> size;
  std::optional<bool> encrypted;
  std::optional<std::string> description;
  std::vector<TagSpecification> tag_specifications;
  std::optional<bool> dry_run;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    visit({.name = "Path", .required = true}, &ImportSnapshotFileRequest::path);
    visit({.name = "Format", .required = true}, &ImportSnapshotFileRequest::format);
    visit({.name = "Size"}, &ImportSnapshotFileRequest::size);
    visit({.name = "Encrypted"}, &ImportSnapshotFileRequest::encrypted);
    visit({.name = "Description"}, &ImportSnapshotFileRequest::description);
    visit({.name = "TagSpecifications"}, &ImportSnapshotFileRequest::tag_specifications);
    visit({.name = "DryRun"}, &ImportSnapshotFileRequest::dry_run);
  }
};

struct ImportSnapshotFileReply {
  std::string snapshot_id;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    visit({.name = "SnapshotId"}, &ImportSnapshotFileReply::snapshot_id);
  }
};

struct ImportImageFileRequest {
  std::string path;
  std::string format;
  std::string name;
  std::string kernel_image;
  std::optional<bool> encrypted;
  std::optional<std::string> description;
  std::vector<TagSpecification> tag_specifications;
  std::optional<bool> dry_run;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    visit({.name = "Path", .required = true}, &ImportImageFileRequest::path);
    visit({.name = "Format", .required = true}, &ImportImageFileRequest::format);
    visit({.name = "Name", .required = true}, &ImportImageFileRequest::name);
    visit({.name = "KernelImage", .required = true}, &ImportImageFileRequest::kernel_image);
    visit({.name = "Encrypted"}, &ImportImageFileRequest::encrypted);
    visit({.name = "Description"}, &ImportImageFileRequest::description);
    visit({.name = "TagSpecifications"}, &ImportImageFileRequest::tag_specifications);
    visit({.name = "DryRun"}, &ImportImageFileRequest::dry_run);
  }
};

struct ImportImageFileReply {
  std::string image_id;
  std::string snapshot_id;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    visit({.name = "ImageId"}, &ImportImageFileReply::image_id);
    visit({.name = "SnapshotId"}, &ImportImageFileReply::snapshot_id);
  }
};

struct ExportSnapshotFileRequest {
  std::string snapshot_id;
  std::string path;
  std::string format;
  std::optional<bool> dry_run;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    visit({.name = "SnapshotId", .required = true}, &ExportSnapshotFileRequest::snapshot_id);
    visit({.name = "Path", .required = true}, &ExportSnapshotFileRequest::path);
    visit({.name = "Format", .required = true}, &ExportSnapshotFileRequest::format);
    visit({.name = "DryRun"}, &ExportSnapshotFileRequest::dry_run);
  }
};

struct ExportImageFileRequest {
  std::string image_id;
  std::string path;
  std::string format;
  std::optional<bool> dry_run;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    visit({.name = "ImageId", .required = true}, &ExportImageFileRequest::image_id);
    visit({.name = "Path", .required = true}, &ExportImageFileRequest::path);
    visit({.name = "Format", .required = true}, &ExportImageFileRequest::format);
    visit({.name = "DryRun"}, &ExportImageFileRequest::dry_run);
  }
};

/// ResourceId: a volume or a snapshot; none: everything in the region.
struct CheckVolumeRequest {
  std::optional<std::string> resource_id;
  std::optional<bool> metadata_only;
  std::optional<bool> dry_run;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    visit({.name = "ResourceId"}, &CheckVolumeRequest::resource_id);
    visit({.name = "MetadataOnly"}, &CheckVolumeRequest::metadata_only);
    visit({.name = "DryRun"}, &CheckVolumeRequest::dry_run);
  }
};

struct Fault {
  std::string subject;
  std::string where;
  std::string what;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    visit({.name = "Subject"}, &Fault::subject);
    visit({.name = "Where"}, &Fault::where);
    visit({.name = "What"}, &Fault::what);
  }
};

/// State: pending, completed, failed or cancelled. An export or a check.
struct Task {
  std::string task_id;
  std::string kind;
  std::string resource_id;
  std::optional<std::string> path;
  std::optional<std::string> format;
  std::string state;
  int64_t progress = 0;
  std::optional<std::string> state_message;
  Timestamp start_time;
  std::optional<int64_t> checked_layers;
  std::optional<int64_t> checked_blocks;
  std::vector<Fault> faults;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    visit({.name = "TaskId"}, &Task::task_id);
    visit({.name = "Kind"}, &Task::kind);
    visit({.name = "ResourceId"}, &Task::resource_id);
    visit({.name = "Path"}, &Task::path);
    visit({.name = "Format"}, &Task::format);
    visit({.name = "State"}, &Task::state);
    visit({.name = "Progress"}, &Task::progress);
    visit({.name = "StateMessage"}, &Task::state_message);
    visit({.name = "StartTime"}, &Task::start_time);
    visit({.name = "CheckedLayers"}, &Task::checked_layers);
    visit({.name = "CheckedBlocks"}, &Task::checked_blocks);
    visit({.name = "Faults"}, &Task::faults);
  }
};

struct DescribeTasksRequest {
  std::vector<std::string> task_ids;
  std::optional<bool> dry_run;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    visit({.name = "TaskIds"}, &DescribeTasksRequest::task_ids);
    visit({.name = "DryRun"}, &DescribeTasksRequest::dry_run);
  }
};

struct DescribeTasksReply {
  std::vector<Task> tasks;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    visit({.name = "Tasks"}, &DescribeTasksReply::tasks);
  }
};

struct CancelTaskRequest {
  std::string task_id;
  std::optional<bool> dry_run;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    visit({.name = "TaskId", .required = true}, &CancelTaskRequest::task_id);
    visit({.name = "DryRun"}, &CancelTaskRequest::dry_run);
  }
};

}  // namespace haneul::agent
