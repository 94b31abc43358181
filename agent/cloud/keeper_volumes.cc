// SPDX-License-Identifier: Apache-2.0
// The part of Keeper that brings volumes to the state that was asked for: made, attached, detached, resized,
// deleted.
#include <algorithm>
#include <thread>

#include "agent/cloud/crash.h"
#include "agent/cloud/keeper.h"
#include "base/log.h"

namespace haneul::agent {
namespace {

// A VMM that let go of a disk closes it a moment later than it says so.
constexpr auto kCloseTimeout = std::chrono::seconds(5);
constexpr auto kFirstPoll = std::chrono::milliseconds(20);
constexpr auto kLastPoll = std::chrono::milliseconds(1000);
/// Of a VMM that does not answer, which takes a thread's time with every poll.
constexpr auto kLastPollOfTheDeaf = std::chrono::milliseconds(30'000);

struct PlannedDisk {
  std::string device;
  std::string volume;
  std::string serial;
  bool root = false;
};

bool gone(const InstanceRecord& instance) {
  return instance.state == name(State::kTerminated) || instance.state == name(State::kShuttingDown);
}

}  // namespace

std::string ephemeral_id(const std::string& instance_id, const std::string& virtual_name) {
  return fmt::format("{}-{}", virtual_name, instance_id.substr(2));
}

void clear_attachment(VolumeRecord& volume) {
  volume.instance_id.clear();
  volume.device.clear();
  volume.attachment.clear();
  volume.delete_on_termination = false;
  volume.force = false;
  if (volume.state == "in-use") volume.state = "available";
}

std::vector<std::string> Keeper::volume_ids_of(const std::string& instance_id) {
  std::scoped_lock lock(model_.mutex());
  std::vector<std::string> ids;
  for (const auto& [id, volume] : model_.volumes()) {
    if (volume.instance_id == instance_id) ids.push_back(id);
  }
  return ids;
}

Result<storage::OpenStack> Keeper::open_volume(storage::Store& store, const std::string& id) {
  auto deadline = std::chrono::steady_clock::now() + kCloseTimeout;
  for (;;) {
    auto opened = store.open_volume(id);
    bool wait = !opened.ok() && opened.error().code() == ErrorCode::kBusy &&
                std::chrono::steady_clock::now() < deadline;
    if (!wait) return std::move(opened).context(fmt::format("volume {}", id));
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
}

Status Keeper::make_volume(storage::Store& store, const VolumeRecord& volume) {
  return store
      .create_volume({.id = volume.id,
                      .size_bytes = static_cast<uint64_t>(volume.bytes),
                      .snapshot = volume.snapshot_id,
                      .encrypted = volume.encrypted})
      .context(fmt::format("volume {}", volume.id));
}

// The root first, the others in order of their device names, as the guest is to find them.
Result<std::vector<launch::Disk>> Keeper::disks_of(const InstanceRecord& instance) {
  storage::Store* store = TRY(stores_.of(instance.region));
  std::vector<VolumeRecord> volumes;
  {
    std::scoped_lock lock(model_.mutex());
    volumes = model_.volumes_of(instance);
  }
  bool rooted = !volumes.empty() && volumes[0].device == instance.root_device;
  if (!instance.root_volume.empty() && !rooted) {
    return make_error(ErrorCode::kNotFound, "no volume is attached at its root device {}",
                      instance.root_device);
  }
  std::vector<PlannedDisk> planned;
  for (const VolumeRecord& volume : volumes) {
    if (volume.attachment == "detaching") continue;
    if (volume.state == "creating") TRY(make_volume(*store, volume));
    crash_point("start.volume-made");
    bool root = volume.device == instance.root_device;
    planned.push_back({volume.device, volume.id, disk_serial(volume.id), root});
  }
  for (const EphemeralRecord& ephemeral : instance.ephemerals) {
    std::string id = ephemeral_id(instance.id, ephemeral.virtual_name);
    TRY(store->create_volume({.id = id,
                              .size_bytes = static_cast<uint64_t>(ephemeral.bytes),
                              .snapshot = "",
                              .encrypted = false}));
    planned.push_back({ephemeral.device, id, ephemeral.virtual_name, false});
  }
  std::sort(planned.begin(), planned.end(), [](const PlannedDisk& a, const PlannedDisk& b) {
    return a.root != b.root ? a.root : a.device < b.device;
  });
  std::vector<launch::Disk> disks;
  for (const PlannedDisk& disk : planned) {
    disks.push_back(make_disk(disk.serial, TRY(open_volume(*store, disk.volume))));
  }
  return disks;
}

// Under the lock: what a VMM that has just started has as disks.
void Keeper::put_attached(Update& update, const std::string& instance_id) {
  for (auto& [id, known] : model_.volumes()) {
    if (known.instance_id != instance_id) continue;
    VolumeRecord volume = known;
    if (volume.attachment == "detaching") {
      clear_attachment(volume);
    } else {
      volume.attachment = "attached";
      volume.state = "in-use";
    }
    update.put(volume);
  }
}

// ---- what a stop and a terminate let go of ----

void Keeper::drop_ephemerals(const InstanceRecord& instance) {
  if (instance.ephemerals.empty()) return;
  auto store = stores_.of(instance.region);
  for (const EphemeralRecord& ephemeral : instance.ephemerals) {
    Status dropped = store.ok() ? (*store)->delete_volume(ephemeral_id(instance.id, ephemeral.virtual_name))
                                : Status(store.error());
    if (!dropped.ok()) LOG_ERROR("{} {}: {}", instance.id, ephemeral.virtual_name, dropped.error().message());
  }
  hooks_.freed(instance.region);
}

// Repeated after a crash: until the end of it, the instance is still stopping or shutting-down.
void Keeper::release_volumes(const InstanceRecord& instance) {
  drop_ephemerals(instance);
  std::vector<std::string> deleted;
  {
    std::scoped_lock lock(model_.mutex());
    Update update(model_);
    for (VolumeRecord volume : model_.volumes_of(instance)) {
      bool never_was = volume.state == "creating";
      if (gone(instance) && (volume.delete_on_termination || never_was)) {
        clear_attachment(volume);
        volume.state = "deleting";
        deleted.push_back(volume.id);
      } else if (gone(instance) || volume.attachment == "detaching") {
        clear_attachment(volume);
      } else {
        volume.attachment = "attached";
      }
      update.put(volume);
    }
    update.commit_result();
  }
  crash_point("release.volumes");
  for (const std::string& id : deleted) run_delete(id);
}

// ---- making and deleting ----

void Keeper::create_volume(const std::string& id) {
  executor_.post(id, [this, id] { run_create(id); });
}

void Keeper::delete_volume(const std::string& id) {
  executor_.post(id, [this, id] { run_delete(id); });
}

void Keeper::run_create(const std::string& id) {
  auto volume = model_.volume(id);
  if (!volume || volume->state != "creating") return;
  crash_point("create-volume.begun");
  auto store = stores_.of(volume->region);
  Status made = store.ok() ? make_volume(**store, *volume) : Status(store.error());
  crash_point("create-volume.made");
  std::scoped_lock lock(model_.mutex());
  VolumeRecord record = model_.volumes()[id];
  record.state = made.ok() ? "available" : "error";
  if (!made.ok()) {
    record.message = made.error().message();
    LOG_ERROR("{}", record.message);
  }
  Update(model_).put(record).commit_result();
}

void Keeper::run_delete(const std::string& id) {
  auto volume = model_.volume(id);
  if (!volume || volume->state != "deleting") return;
  auto held = locks_.lock({id});
  auto store = stores_.of(volume->region);
  Status deleted = store.ok() ? (*store)->delete_volume(id) : Status(store.error());
  crash_point("delete-volume.deleted");
  if (!deleted.ok()) {
    LOG_ERROR("{} cannot be deleted yet: {}", id, deleted.error().message());
    return later(kLastPoll, id, [this, id] { run_delete(id); });
  }
  {
    std::scoped_lock lock(model_.mutex());
    Update update(model_);
    update.remove<VolumeRecord>(id);
    for (const auto& [token, given] : model_.tokens()) {
      if (given.reservation_id == id) update.remove<TokenRecord>(token);
    }
    update.commit_result();
  }
  hooks_.freed(volume->region);
}

// ---- attaching ----

void Keeper::attach(const VolumeRecord& volume) {
  executor_.post(volume.instance_id, [this, id = volume.id] { run_attach(id); });
}

Result<bool> Keeper::has_disk(const std::string& instance_id, const std::string& serial) {
  if (process_of(instance_id) == nullptr) return false;
  auto control = machines_.connect(options_.layout.control_socket(instance_id));
  auto ids = control.ok() ? (*control)->disk_ids() : Result<std::vector<std::string>>(control.error());
  if (!ids.ok()) return std::move(ids).error().context(fmt::format("{} does not answer", instance_id));
  return std::find(ids->begin(), ids->end(), serial) != ids->end();
}

Status Keeper::plug_volume(const VolumeRecord& volume) {
  std::string serial = disk_serial(volume.id);
  if (TRY(has_disk(volume.instance_id, serial))) return {};
  storage::Store* store = TRY(stores_.of(volume.region));
  auto control = TRY(machines_.connect(options_.layout.control_socket(volume.instance_id)));
  return control->attach_disk(make_disk(serial, TRY(open_volume(*store, volume.id))));
}

void Keeper::run_attach(const std::string& id) {
  auto held = locks_.lock({id});
  auto volume = model_.volume(id);
  if (!volume || volume->attachment != "attaching") return;
  auto instance = model_.instance(volume->instance_id);
  if (!instance) return;
  // A start that is yet to come takes it along.
  if (instance->state == name(State::kPending)) return;
  crash_point("attach.begun");
  bool runs = process_of(instance->id) != nullptr && instance->state == name(State::kRunning);
  Status plugged = runs ? plug_volume(*volume) : Status();
  crash_point("attach.plugged");
  std::scoped_lock lock(model_.mutex());
  VolumeRecord record = model_.volumes()[id];
  if (record.attachment != "attaching") return;
  if (plugged.ok()) {
    record.attachment = "attached";
    record.message.clear();
  } else {
    record.message =
        fmt::format("it could not be attached to {}: {}", record.instance_id, plugged.error().message());
    LOG_WARNING("{}: {}", id, record.message);
    clear_attachment(record);
  }
  Update(model_).put(record).commit_result();
}

// ---- detaching ----

void Keeper::detach(const VolumeRecord& volume) {
  executor_.post(volume.instance_id, [this, id = volume.id] { run_detach(id); });
}

void Keeper::run_detach(const std::string& id) {
  auto volume = model_.volume(id);
  if (!volume || volume->attachment != "detaching") return;
  crash_point("detach.begun");
  if (process_of(volume->instance_id) != nullptr) {
    auto control = machines_.connect(options_.layout.control_socket(volume->instance_id));
    Status asked =
        control.ok() ? (*control)->detach_disk(disk_serial(id), volume->force) : Status(control.error());
    if (!asked.ok() && asked.error().code() != ErrorCode::kNotFound)
      LOG_WARNING("{}: detaching: {}", id, asked.error().message());
  }
  crash_point("detach.asked");
  run_detach_poll(id, kFirstPoll);
}

// The guest takes its time, or never lets go: then the volume stays "detaching" until it is forced, or the
// instance stops.
void Keeper::run_detach_poll(const std::string& id, std::chrono::milliseconds pause) {
  auto volume = model_.volume(id);
  if (!volume || volume->attachment != "detaching") return;
  auto there = has_disk(volume->instance_id, disk_serial(id));
  if (!there.ok() || *there) {
    auto next = std::min(pause * 2, there.ok() ? kLastPoll : kLastPollOfTheDeaf);
    return later(pause, volume->instance_id, [this, id, next] { run_detach_poll(id, next); });
  }
  std::scoped_lock lock(model_.mutex());
  VolumeRecord record = model_.volumes()[id];
  if (record.attachment != "detaching") return;
  clear_attachment(record);
  Update(model_).put(record).commit_result();
}

// ---- growing ----

void Keeper::modify(const VolumeRecord& volume) {
  executor_.post(volume.instance_id.empty() ? volume.id : volume.instance_id,
                 [this, id = volume.id] { run_modify(id); });
}

Status Keeper::resize(const VolumeRecord& volume) {
  storage::Store* store = TRY(stores_.of(volume.region));
  auto bytes = static_cast<uint64_t>(volume.bytes);
  bool open = !TRY(open_volumes({volume.id})).empty();
  if (!open) return store->resize_volume(volume.id, bytes);
  auto control = TRY(machines_.connect(options_.layout.control_socket(volume.instance_id)));
  TRY(control->resize_disk(disk_serial(volume.id), bytes));
  crash_point("modify.resized");
  return store->note_size(volume.id, bytes);
}

bool Keeper::snapshot_begins(const std::string& volume_id) {
  std::scoped_lock lock(model_.mutex());
  return std::any_of(model_.snapshots().begin(), model_.snapshots().end(), [&](const auto& known) {
    const SnapshotRecord& snapshot = known.second;
    return snapshot.volume_id == volume_id && snapshot.work == "snapshot" && snapshot.state == "pending" &&
           !snapshot.begun;
  });
}

void Keeper::run_modify(const std::string& id) {
  auto held = locks_.lock({id});
  auto volume = model_.volume(id);
  if (!volume || volume->modification.state != "modifying") return;
  // Its new top has the size of now; it is pushed first.
  if (snapshot_begins(id)) return later(kLastPoll, id, [this, id] { run_modify(id); });
  crash_point("modify.begun");
  bool grows = volume->bytes != volume->modification.original_bytes;
  Status resized = grows ? resize(*volume) : Status();
  std::scoped_lock lock(model_.mutex());
  VolumeRecord record = model_.volumes()[id];
  ModificationRecord& modification = record.modification;
  modification.state = resized.ok() ? "completed" : "failed";
  modification.ended = now();
  if (!resized.ok()) {
    modification.message = resized.error().message();
    record.bytes = modification.original_bytes;
    record.type = modification.original_type;
    record.iops = modification.original_iops;
    record.throughput = modification.original_throughput;
    LOG_ERROR("{} keeps its size: {}", id, modification.message);
  }
  Update(model_).put(record).commit_result();
}

// ---- for snapshots ----

Result<std::set<std::string>> Keeper::open_volumes(const std::vector<std::string>& ids) {
  std::set<std::string> open;
  for (const std::string& id : ids) {
    auto volume = model_.volume(id);
    if (!volume || volume->instance_id.empty()) continue;
    if (TRY(has_disk(volume->instance_id, disk_serial(id)))) open.insert(id);
  }
  return open;
}

Status Keeper::push_layers(const std::string& instance_id, std::vector<launch::VmmClient::PushLayer> pushes) {
  auto control = TRY(machines_.connect(options_.layout.control_socket(instance_id)));
  return control->push_layers(std::move(pushes));
}

}  // namespace haneul::agent
