// SPDX-License-Identifier: Apache-2.0
// The part of Archive that runs at the daemon's start; images' kernels; exports and checks.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <set>

#include "agent/cloud/archive.h"
#include "agent/cloud/crash.h"
#include "base/file.h"

namespace haneul::agent {
namespace {

constexpr size_t kMaxFaults = 100;
constexpr auto kOrphanPause = std::chrono::seconds(10);

Status link_file(const std::filesystem::path& from, const std::filesystem::path& to) {
  if (::link(from.c_str(), to.c_str()) == 0 || errno == EEXIST) return {};
  return errno_error("cannot give {} the file {}", to.parent_path().string(), from.string());
}

}  // namespace

// ---- after a restart ----

void Archive::resume() {
  std::set<std::string> groups;
  std::vector<std::string> finishing;
  std::vector<std::string> removing;
  std::vector<std::string> images;
  std::vector<std::string> tasks;
  std::set<std::string> regions;
  {
    std::scoped_lock lock(model_.mutex());
    for (const auto& [id, snapshot] : model_.snapshots()) {
      regions.insert(snapshot.region);
      if (snapshot.state == "deleting") removing.push_back(id);
      if (snapshot.state != "pending") continue;
      bool fixed = snapshot.begun || snapshot.work != "snapshot";
      auto instance = model_.instances().find(snapshot.after_shutdown);
      bool waits = instance != model_.instances().end() && instance->second.rebooting;
      if (fixed) {
        finishing.push_back(id);
      } else if (!waits) {
        groups.insert(snapshot.group);
      }
    }
    for (const auto& [id, image] : model_.images()) {
      if (image.state == "pending" && image.work != "register") images.push_back(id);
    }
    for (const auto& [id, volume] : model_.volumes()) regions.insert(volume.region);
    for (const auto& [id, task] : model_.tasks()) {
      if (task.state == "pending") tasks.push_back(id);
    }
  }
  remove_unknown_folders();
  for (const std::string& id : images) {
    Status taken = take_kernel(id);
    if (!taken.ok()) LOG_ERROR("{}: {}", id, taken.error().message());
    finish_image(id);
  }
  for (const std::string& group : groups) {
    note_unanswered(group, true);
    background_.post(group, [this, group] { (void)begin(group).ok(); });
  }
  for (const std::string& id : finishing) finish(id);
  for (const std::string& id : removing) remove(id);
  for (const std::string& id : tasks) run(id);
  for (const std::string& region : regions) collect(region);
  look_for_orphans();
}

// What kept one ends in many places; most of them look themselves.
void Archive::look_for_orphans() {
  remove_orphans();
  supervisor_.after(kOrphanPause, [this] { background_.post("orphans", [this] { look_for_orphans(); }); });
}

// A folder is made after its image's record and removed before it; what is left over is a crash's.
void Archive::remove_unknown_folders() {
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(layout_.state / "images", error)) {
    std::string id = entry.path().filename().string();
    if (model_.image(id)) continue;
    std::error_code ignored;
    std::filesystem::remove_all(entry.path(), ignored);
  }
}

// ---- images ----

Status Archive::take_kernel(const std::string& image_id) {
  auto image = model_.image(image_id);
  if (!image || image->kernel_from.empty()) return {};
  std::filesystem::path from = layout_.image(image->kernel_from);
  std::filesystem::path to = layout_.image(image_id);
  if (::mkdir(to.c_str(), 0700) != 0 && errno != EEXIST)
    return errno_error("cannot make the folder {}", to.string());
  TRY(link_file(from / image->kernel, to / image->kernel));
  if (!image->initrd.empty()) TRY(link_file(from / image->initrd, to / image->initrd));
  TRY(sync_folder(to));
  crash_point("image.kernel-taken");
  {
    std::scoped_lock lock(model_.mutex());
    ImageRecord record = model_.images()[image_id];
    record.kernel_from.clear();
    TRY(Update(model_).put(record).commit());
  }
  finish_image(image_id);
  return {};
}

// ---- tasks ----

void Archive::run(const std::string& task_id) {
  background_.post(task_id, [this, task_id] { run_task(task_id); });
}

// Into a file beside it first: under its name the export is there whole, or not at all.
Status Archive::export_file(const TaskRecord& task, storage::Store& store) {
  std::filesystem::path temporary = task.path + ".part";
  auto keep_on = watch(task.id, [this, id = task.id] {
    auto record = model_.task(id);
    return record && record->state == "pending";
  });
  UniqueFd file = TRY(open_file(temporary, O_RDWR | O_CREAT | O_TRUNC | O_NOFOLLOW, 0644));
  Status exported = store.export_snapshot(task.resource, file.get(), *image_format(task.format), keep_on);
  if (exported.ok() && ::fsync(file.get()) != 0) exported = errno_error("fsync of {}", temporary.string());
  if (exported.ok() && ::rename(temporary.c_str(), task.path.c_str()) != 0)
    exported = errno_error("rename to {}", task.path);
  if (!exported.ok()) ::unlink(temporary.c_str());
  return exported;
}

Status Archive::check(TaskRecord& task, storage::Store& store) {
  auto keep_on = watch(task.id, [this, id = task.id] {
    auto record = model_.task(id);
    return record && record->state == "pending";
  });
  auto found = TRY(store.check(task.resource, {.data = !task.metadata_only}, keep_on));
  task.layers = static_cast<int64_t>(found.layers);
  task.blocks = static_cast<int64_t>(found.blocks);
  for (const storage::StoreCheck::Entry& entry : found.faults) {
    if (task.faults.size() == kMaxFaults) break;
    task.faults.push_back({.subject = entry.subject, .where = entry.fault.where, .what = entry.fault.what});
  }
  return {};
}

void Archive::run_task(const std::string& id) {
  auto task = model_.task(id);
  if (!task || task->state != "pending") return;
  crash_point("task.begun");
  auto store = stores_.of(task->region);
  Status done = !store.ok()              ? Status(store.error())
                : task->kind == "export" ? export_file(*task, **store)
                                         : check(*task, **store);
  crash_point("task.done");
  if (!done.ok() && done.error().code() == ErrorCode::kCancelled && stopping_) return;
  {
    std::scoped_lock lock(model_.mutex());
    auto found = model_.tasks().find(id);
    if (found == model_.tasks().end() || found->second.state != "pending") return;
    task->state = done.ok() ? "completed" : "failed";
    if (done.ok()) task->progress = 100;
    if (!done.ok()) task->message = done.error().message();
    Update(model_).put(*task).commit_result();
  }
  {
    std::scoped_lock lock(mutex_);
    progress_.erase(id);
  }
  remove_orphans();
}

}  // namespace haneul::agent
