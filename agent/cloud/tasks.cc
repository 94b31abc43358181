// SPDX-License-Identifier: Apache-2.0
// Haneul's own operations on long work: exports to files of this host, and checks.
#include <algorithm>

#include "agent/cloud/cloud.h"
#include "agent/cloud/crash.h"

namespace haneul::agent {
namespace {

/// Of the tasks that have ended, the newest of a region are kept.
constexpr size_t kKeptTasks = 50;

Answer<void> check_target(const std::string& path, const std::string& format) {
  if (!image_format(format)) {
    return api_error(ApiCode::kInvalidParameterValue,
                     "Value ({}) for parameter format is invalid: it is raw or qcow2", format);
  }
  std::filesystem::path target = path;
  std::error_code error;
  if (!target.is_absolute() || !target.has_filename())
    return api_error(ApiCode::kInvalidParameterValue, "'{}' is not an absolute path of this host", path);
  if (!std::filesystem::is_directory(target.parent_path(), error))
    return api_error(ApiCode::kInvalidParameterValue, "There is no folder {}", target.parent_path().string());
  if (std::filesystem::exists(std::filesystem::symlink_status(target, error)))
    return api_error(ApiCode::kInvalidParameterValue, "{} is there already", path);
  return {};
}

}  // namespace

Task Cloud::describe(const TaskRecord& record) {
  Task task;
  task.task_id = record.id;
  task.kind = record.kind;
  task.resource_id = record.resource;
  if (!record.path.empty()) task.path = record.path;
  if (!record.format.empty()) task.format = record.format;
  task.state = record.state;
  task.progress = record.state == "pending" ? archive_.progress(record.id, record.progress) : record.progress;
  if (!record.message.empty()) task.state_message = record.message;
  task.start_time = record.started;
  if (record.kind == "check") {
    task.checked_layers = record.layers;
    task.checked_blocks = record.blocks;
  }
  task.faults = record.faults;
  return task;
}

// Under the lock.
Answer<Task> Cloud::start_task(TaskRecord task) {
  task.id = new_id(task.kind);
  task.started = now();
  std::vector<const TaskRecord*> ended;
  for (const auto& [id, other] : model_.tasks()) {
    if (other.region == task.region && other.state != "pending") ended.push_back(&other);
  }
  std::sort(ended.begin(), ended.end(),
            [](const TaskRecord* a, const TaskRecord* b) { return a->started > b->started; });
  Update update(model_);
  for (size_t i = kKeptTasks; i < ended.size(); ++i) update.remove<TaskRecord>(ended[i]->id);
  update.put(task);
  TRY(update.commit());
  archive_.run(task.id);
  return describe(task);
}

Answer<Task> Cloud::export_snapshot_file(const Caller& caller, const ExportSnapshotFileRequest& request) {
  TRY(check_target(request.path, request.format));
  std::scoped_lock lock(model_.mutex());
  SnapshotRecord snapshot = TRY(find_snapshot(caller, request.snapshot_id));
  if (snapshot.state != "completed") {
    return api_error(ApiCode::kIncorrectState, "The snapshot '{}' is not in the 'completed' state.",
                     snapshot.id);
  }
  if (request.dry_run.value_or(false)) return dry_run_error();
  TaskRecord task;
  task.region = caller.region;
  task.kind = "export";
  task.resource = snapshot.id;
  task.path = request.path;
  task.format = request.format;
  return start_task(std::move(task));
}

Answer<Task> Cloud::export_image_file(const Caller& caller, const ExportImageFileRequest& request) {
  ExportSnapshotFileRequest of_root;
  {
    std::scoped_lock lock(model_.mutex());
    ImageRecord image = TRY(find_image(caller, request.image_id));
    for (const MappingRecord& mapping : image.mappings) {
      if (mapping.device == image.root_device) of_root.snapshot_id = mapping.snapshot_id;
    }
    if (of_root.snapshot_id.empty())
      return api_error(ApiCode::kInvalidParameterValue, "The image {} has no root volume to export",
                       image.id);
  }
  of_root.path = request.path;
  of_root.format = request.format;
  of_root.dry_run = request.dry_run;
  return export_snapshot_file(caller, of_root);
}

Answer<Task> Cloud::check_volume(const Caller& caller, const CheckVolumeRequest& request) {
  std::scoped_lock lock(model_.mutex());
  std::string id = request.resource_id.value_or("");
  if (id_prefix(id) == "snap") {
    TRY(find_snapshot(caller, id));
  } else if (!id.empty()) {
    VolumeRecord volume = TRY(find_volume(caller, id));
    if (volume.state == "creating")
      return api_error(ApiCode::kIncorrectState, "Volume '{}' is in the 'creating' state.", id);
  }
  if (request.dry_run.value_or(false)) return dry_run_error();
  TaskRecord task;
  task.region = caller.region;
  task.kind = "check";
  task.resource = id;
  task.metadata_only = request.metadata_only.value_or(false);
  return start_task(std::move(task));
}

Answer<DescribeTasksReply> Cloud::describe_tasks(const Caller& caller, const DescribeTasksRequest& request) {
  std::scoped_lock lock(model_.mutex());
  for (const std::string& id : request.task_ids) {
    auto found = model_.tasks().find(id);
    if (found == model_.tasks().end() || found->second.region != caller.region)
      return api_error(ApiCode::kInvalidExportTaskIdNotFound, "The task '{}' does not exist", id);
  }
  if (request.dry_run.value_or(false)) return dry_run_error();
  DescribeTasksReply reply;
  for (const auto& [id, task] : model_.tasks()) {
    const auto& wanted = request.task_ids;
    bool named = wanted.empty() || std::find(wanted.begin(), wanted.end(), id) != wanted.end();
    if (named && task.region == caller.region) reply.tasks.push_back(describe(task));
  }
  return reply;
}

Answer<Nothing> Cloud::cancel_task(const Caller& caller, const CancelTaskRequest& request) {
  std::scoped_lock lock(model_.mutex());
  auto found = model_.tasks().find(request.task_id);
  if (found == model_.tasks().end() || found->second.region != caller.region)
    return api_error(ApiCode::kInvalidExportTaskIdNotFound, "The task '{}' does not exist", request.task_id);
  TaskRecord task = found->second;
  if (task.state != "pending")
    return api_error(ApiCode::kIncorrectState, "The task '{}' is {} already", task.id, task.state);
  if (request.dry_run.value_or(false)) return dry_run_error();
  task.state = "cancelled";
  TRY(Update(model_).put(task).commit());
  return Nothing{};
}

}  // namespace haneul::agent
