// SPDX-License-Identifier: Apache-2.0
// Snapshots: their beginning, their completion, their end.
#include "agent/cloud/archive.h"

#include <fcntl.h>

#include <algorithm>
#include <array>
#include <set>
#include <thread>

#include "agent/cloud/crash.h"
#include "base/file.h"

namespace haneul::agent {
namespace {

constexpr auto kRetryPause = std::chrono::milliseconds(500);
constexpr auto kCloseTimeout = std::chrono::seconds(5);
constexpr auto kPushTimeout = std::chrono::seconds(30);
constexpr auto kPushPause = std::chrono::milliseconds(50);
constexpr auto kClosePause = std::chrono::milliseconds(5);

}  // namespace

std::optional<storage::ImageFormat> image_format(const std::string& name) {
  if (name == "raw") return storage::ImageFormat::kRaw;
  if (name == "qcow2") return storage::ImageFormat::kQcow2;
  return std::nullopt;
}

int64_t Archive::progress(const std::string& id, int64_t recorded) const {
  std::scoped_lock lock(mutex_);
  auto found = progress_.find(id);
  return found == progress_.end() ? recorded : static_cast<int64_t>(found->second);
}

storage::StoreProgress Archive::watch(const std::string& id, std::function<bool()> wanted) {
  return [this, id, wanted = std::move(wanted)](unsigned percent) {
    {
      std::scoped_lock lock(mutex_);
      progress_[id] = std::min(percent, 99U);
    }
    return !stopping_ && wanted();
  };
}

// ---- the beginning ----

// A disk takes one layer a request; the last layer of each goes in the last request, all at one moment.
Status Archive::push(const std::vector<storage::PreparedSnapshot>& prepared) {
  std::map<std::string, std::vector<const storage::PreparedSnapshot*>> by_volume;
  size_t rounds = 0;
  for (const storage::PreparedSnapshot& one : prepared) {
    by_volume[one.volume].push_back(&one);
    rounds = std::max(rounds, by_volume[one.volume].size());
  }
  for (size_t left = rounds; left > 0; --left) {
    std::map<std::string, std::vector<launch::VmmClient::PushLayer>> by_instance;
    for (const auto& [id, layers] : by_volume) {
      if (layers.size() < left) continue;
      const storage::PreparedSnapshot& one = *layers[layers.size() - left];
      auto volume = model_.volume(id);
      if (!volume) return make_error(ErrorCode::kNotFound, "the volume {} is gone", id);
      UniqueFd top(::fcntl(one.top.fd.get(), F_DUPFD_CLOEXEC, 3));
      if (!top) return errno_error("duplicating a descriptor");
      by_instance[volume->instance_id].push_back(
          {.disk = disk_serial(id), .layer = {.file = std::move(top), .key = one.top.key}});
    }
    for (auto& [instance, pushes] : by_instance) TRY(keeper_.push_layers(instance, std::move(pushes)));
  }
  return {};
}

// The volumes, and the instances that have them: a VMM takes the layers of one snapshot after those of another.
VolumeLocks::Held Archive::hold(const std::vector<std::string>& volumes) {
  std::set<std::string> ids(volumes.begin(), volumes.end());
  for (const std::string& id : volumes) {
    auto volume = model_.volume(id);
    if (volume && !volume->instance_id.empty()) ids.insert(volume->instance_id);
  }
  return keeper_.volume_locks().lock({ids.begin(), ids.end()});
}

// A VMM that just ends closes its volumes a moment later: what is in them then is what was in them at the call.
Result<std::vector<storage::PreparedSnapshot>> Archive::prepare(
    storage::Store& store, const std::vector<storage::Store::SnapshotOf>& wanted,
    const std::vector<std::string>& volumes) {
  auto deadline = std::chrono::steady_clock::now() + kCloseTimeout;
  for (;;) {
    auto open = TRY(keeper_.open_volumes(volumes));
    auto prepared =
        store.begin_snapshots(wanted, [&open](const std::string& volume) { return open.contains(volume); });
    bool wait = !prepared.ok() && prepared.error().code() == ErrorCode::kBusy &&
                std::chrono::steady_clock::now() < deadline;
    if (!wait) return prepared;
    std::this_thread::sleep_for(kClosePause);
  }
}

// Whether a push that failed is over. Without the VMM's own no, it may have taken the layers, or find the request when it
// wakes, however much later.
bool Archive::refused(const Error& error) {
  static constexpr std::array kNoWord = {ErrorCode::kBusy, ErrorCode::kTimeout, ErrorCode::kIo,
                                         ErrorCode::kCancelled};
  return error.number() == 0 && std::find(kNoWord.begin(), kNoWord.end(), error.code()) == kNoWord.end();
}

// A daemon before this one may have pushed what it has put in the catalog.
bool Archive::awaits_answer(storage::Store& store, const std::vector<SnapshotRecord>& snapshots) {
  {
    std::scoped_lock lock(mutex_);
    if (!unanswered_.contains(snapshots[0].group)) return false;
  }
  return std::any_of(snapshots.begin(), snapshots.end(),
                     [&](const SnapshotRecord& snapshot) { return store.snapshot(snapshot.id).ok(); });
}

void Archive::note_unanswered(const std::string& group, bool unanswered) {
  std::scoped_lock lock(mutex_);
  if (unanswered) {
    unanswered_.insert(group);
  } else {
    unanswered_.erase(group);
  }
}

// kBusy: it is not known whether the VMM has the layers; they are in the catalog, and it is tried again. Any other
// error: nothing of the snapshots is anywhere.
Status Archive::begin_once(const std::vector<SnapshotRecord>& snapshots) {
  std::vector<std::string> volumes;
  std::vector<storage::Store::SnapshotOf> wanted;
  for (const SnapshotRecord& snapshot : snapshots) {
    volumes.push_back(snapshot.volume_id);
    wanted.push_back({.volume = snapshot.volume_id, .snapshot = snapshot.id});
  }
  storage::Store* store = TRY(stores_.of(snapshots[0].region));
  auto held = hold(volumes);
  bool unanswered = awaits_answer(*store, snapshots);
  auto deadline = std::chrono::steady_clock::now() + kPushTimeout;
  for (;; std::this_thread::sleep_for(kPushPause)) {
    auto prepared = prepare(*store, wanted, volumes);
    Status begun;
    if (prepared.ok()) {
      crash_point("snapshot.begun");
      begun = push(*prepared);
      prepared->clear();
      crash_point("snapshot.pushed");
      // A VMM takes requests in their order: its no is one to those before it, too.
      unanswered = !begun.ok() && !refused(begun.error());
      note_unanswered(snapshots[0].group, unanswered);
    } else {
      begun = std::move(prepared).error();
    }
    if (begun.ok()) begun = all_pushed(*store, wanted);
    if (begun.ok()) return {};
    auto open = keeper_.open_volumes(volumes);
    const bool gone = open.ok() && open->empty();
    // The snapshots would be of a later time than the call: then there are none.
    if ((!unanswered || gone) && store->abandon_snapshots(wanted).ok()) {
      note_unanswered(snapshots[0].group, false);
      return make_error(ErrorCode::kInternal, "{}", begun.error().message());
    }
    if (stopping_ || std::chrono::steady_clock::now() > deadline)
      return make_error(ErrorCode::kBusy, "{}", begun.error().message());
  }
}

Status Archive::all_pushed(storage::Store& store, const std::vector<storage::Store::SnapshotOf>& wanted) {
  for (const auto& one : wanted) TRY(store.snapshot_pushed(one.snapshot));
  return {};
}

Status Archive::begin(const std::string& group) {
  std::vector<SnapshotRecord> snapshots;
  {
    std::scoped_lock lock(model_.mutex());
    for (const auto& [id, snapshot] : model_.snapshots()) {
      bool waits = snapshot.group == group && snapshot.state == "pending" && !snapshot.begun;
      if (waits) snapshots.push_back(snapshot);
    }
  }
  if (snapshots.empty()) return {};
  Status begun = begin_once(snapshots);
  if (!begun.ok() && begun.error().code() != ErrorCode::kBusy) {
    fail_group(group, begun.error().message());
    return begun;
  }
  if (!begun.ok()) {
    LOG_WARNING("{}: {}; it is tried again", snapshots[0].id, begun.error().message());
    begin_later(group);
    return {};
  }
  {
    std::scoped_lock lock(model_.mutex());
    Update update(model_);
    for (const SnapshotRecord& snapshot : snapshots) {
      SnapshotRecord record = model_.snapshots()[snapshot.id];
      record.begun = true;
      record.after_shutdown.clear();
      update.put(record);
    }
    update.commit_result();
  }
  crash_point("snapshot.recorded");
  for (const SnapshotRecord& snapshot : snapshots) finish(snapshot.id);
  return {};
}

void Archive::begin_later(const std::string& group) {
  supervisor_.after(kRetryPause,
                    [this, group] { background_.post(group, [this, group] { (void)begin(group).ok(); }); });
}

void Archive::fail_group(const std::string& group, const std::string& why) {
  std::set<std::string> images;
  {
    std::scoped_lock lock(model_.mutex());
    Update update(model_);
    for (const auto& [id, known] : model_.snapshots()) {
      if (known.group != group || known.begun || known.state != "pending") continue;
      SnapshotRecord snapshot = known;
      snapshot.state = "error";
      snapshot.message = why;
      if (!snapshot.for_image.empty()) images.insert(snapshot.for_image);
      update.put(snapshot);
    }
    update.commit_result();
  }
  for (const std::string& image : images) finish_image(image);
}

void Archive::begin_after_shutdown(const std::string& instance_id) {
  std::set<std::string> groups;
  {
    std::scoped_lock lock(model_.mutex());
    for (const auto& [id, snapshot] : model_.snapshots()) {
      bool waits = snapshot.state == "pending" && !snapshot.begun;
      if (waits && snapshot.after_shutdown == instance_id) groups.insert(snapshot.group);
    }
  }
  for (const std::string& group : groups) (void)begin(group).ok();
}

// ---- the completion ----

void Archive::finish(const std::string& id) {
  background_.post(id, [this, id] { run_finish(id); });
}

Status Archive::work(const SnapshotRecord& snapshot, storage::Store& store) {
  auto progress = watch(snapshot.id, [this, id = snapshot.id] {
    auto record = model_.snapshot(id);
    return record && record->state == "pending";
  });
  if (snapshot.work == "copy") {
    storage::Store* from = TRY(stores_.of(snapshot.source_region));
    return store.copy_snapshot(*from, snapshot.source_snapshot, snapshot.id, progress);
  }
  if (snapshot.work == "import") {
    UniqueFd file = TRY(open_file(snapshot.path, O_RDONLY | O_NONBLOCK));
    return store.import_snapshot(snapshot.id, file.get(), *image_format(snapshot.format),
                                 static_cast<uint64_t>(snapshot.bytes), snapshot.encrypted, progress);
  }
  return store.complete_snapshot(snapshot.id, progress);
}

void Archive::run_finish(const std::string& id) {
  auto snapshot = model_.snapshot(id);
  if (!snapshot || snapshot->state != "pending") return;
  crash_point("snapshot.finishing");
  auto store = stores_.of(snapshot->region);
  Status done = store.ok() ? work(*snapshot, **store) : Status(store.error());
  crash_point("snapshot.finished");
  record_finish(id, done);
}

void Archive::record_finish(const std::string& id, const Status& done) {
  std::string image;
  {
    std::scoped_lock lock(model_.mutex());
    auto found = model_.snapshots().find(id);
    if (found == model_.snapshots().end() || found->second.state != "pending") return;
    if (!done.ok() && done.error().code() == ErrorCode::kCancelled) return;
    SnapshotRecord snapshot = found->second;
    snapshot.state = done.ok() ? "completed" : "error";
    snapshot.progress = done.ok() ? 100 : snapshot.progress;
    if (!done.ok()) {
      snapshot.message = done.error().message();
      LOG_ERROR("{}: {}", id, snapshot.message);
    }
    auto store = stores_.of(snapshot.region);
    auto info = store.ok() ? (*store)->snapshot(id) : Result<storage::SnapshotInfo>(store.error());
    if (done.ok() && info.ok()) {
      snapshot.bytes = static_cast<int64_t>(info->size_bytes);
      snapshot.encrypted = info->encrypted;
    }
    image = snapshot.for_image;
    Update(model_).put(snapshot).commit_result();
  }
  {
    std::scoped_lock lock(mutex_);
    progress_.erase(id);
  }
  if (!image.empty()) finish_image(image);
  remove_orphans();
}

// An image is available when all its snapshots are completed, and failed when one of them is in error.
void Archive::finish_image(const std::string& image_id) {
  std::scoped_lock lock(model_.mutex());
  auto found = model_.images().find(image_id);
  if (found == model_.images().end() || found->second.state != "pending") return;
  ImageRecord image = found->second;
  bool complete = image.kernel_from.empty();
  for (MappingRecord& mapping : image.mappings) {
    if (mapping.snapshot_id.empty()) continue;
    auto snapshot = model_.snapshots().find(mapping.snapshot_id);
    bool known = snapshot != model_.snapshots().end();
    if (!known || snapshot->second.state == "error") {
      image.state = "failed";
      image.message = known ? snapshot->second.message : "its snapshot was deleted";
    } else if (snapshot->second.state == "completed") {
      mapping.bytes = std::max(mapping.bytes, snapshot->second.bytes);
      mapping.encrypted = mapping.encrypted || snapshot->second.encrypted;
      if (mapping.device == image.root_device) image.root_bytes = mapping.bytes;
    } else {
      complete = false;
    }
  }
  if (image.state == "pending" && !complete) return;
  if (image.state == "pending") image.state = "available";
  Update(model_).put(image).commit_result();
  LOG_INFO("{} ({}) is {}", image.id, image.name, image.state);
}

// ---- the end ----

void Archive::remove(const std::string& id) {
  background_.post(id, [this, id] { run_remove(id); });
}

void Archive::run_remove(const std::string& id) {
  auto snapshot = model_.snapshot(id);
  if (!snapshot || snapshot->state != "deleting") return;
  auto store = stores_.of(snapshot->region);
  Status deleted = store.ok() ? (*store)->delete_snapshot(id) : Status(store.error());
  crash_point("delete-snapshot.deleted");
  if (!deleted.ok() && deleted.error().code() != ErrorCode::kNotFound) {
    LOG_ERROR("{} cannot be deleted yet: {}", id, deleted.error().message());
    return supervisor_.after(kRetryPause, [this, id] { remove(id); });
  }
  {
    std::scoped_lock lock(model_.mutex());
    Update(model_).remove<SnapshotRecord>(id).commit_result();
  }
  std::string image = snapshot->for_image;
  if (!image.empty()) finish_image(image);
  collect(snapshot->region);
}

std::string snapshot_user(Model& model, const SnapshotRecord& snapshot) {
  for (const auto& [id, image] : model.images()) {
    if (image.state != "available" && image.state != "pending") continue;
    for (const MappingRecord& mapping : image.mappings) {
      if (mapping.snapshot_id == snapshot.id) return id;
    }
  }
  for (const auto& [id, copy] : model.snapshots()) {
    if (copy.state == "pending" && copy.source_snapshot == snapshot.id) return id;
  }
  for (const auto& [id, volume] : model.volumes()) {
    if (volume.state == "creating" && volume.snapshot_id == snapshot.id) return id;
  }
  for (const auto& [id, task] : model.tasks()) {
    if (task.state == "pending" && task.resource == snapshot.id) return id;
  }
  return "";
}

void Archive::remove_orphans() {
  std::vector<std::string> orphans;
  {
    std::scoped_lock lock(model_.mutex());
    for (const auto& [image_id, image] : model_.images()) {
      if (image.state != "deregistered" || image.work != "register") continue;
      for (const MappingRecord& mapping : image.mappings) {
        auto found = model_.snapshots().find(mapping.snapshot_id);
        bool whole = found != model_.snapshots().end() && found->second.state == "completed";
        if (whole && snapshot_user(model_, found->second).empty()) orphans.push_back(mapping.snapshot_id);
      }
    }
    if (orphans.empty()) return;
    Update update(model_);
    for (const std::string& id : orphans) {
      SnapshotRecord deleted = model_.snapshots()[id];
      deleted.state = "deleting";
      update.put(deleted);
    }
    Status recorded = update.commit();
    if (!recorded.ok()) {
      LOG_ERROR("{} cannot be deleted yet: {}", orphans[0], recorded.error().message());
      return;
    }
  }
  for (const std::string& id : orphans) remove(id);
}

void Archive::collect(const std::string& region) {
  background_.post("collect:" + region, [this, region] {
    auto store = stores_.of(region);
    if (!store.ok()) return;
    Status collected = (*store)->collect([this](unsigned) { return !stopping_.load(); });
    if (!collected.ok() && collected.error().code() != ErrorCode::kCancelled)
      LOG_ERROR("freeing space in {}: {}", region, collected.error().message());
  });
}

}  // namespace haneul::agent
