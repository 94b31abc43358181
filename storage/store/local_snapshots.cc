// SPDX-License-Identifier: Apache-2.0
// Snapshots: taking, completing, deleting.
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>

#include "base/file.h"
#include "storage/store/local_store.h"

namespace haneul::storage {

Progress paced(StoreProgress progress) {
  static constexpr auto kTell = std::chrono::milliseconds(200);
  struct Told {
    unsigned percent = 101;
    std::chrono::steady_clock::time_point when;
  };
  return [told = std::make_shared<Told>(), progress = std::move(progress)](uint64_t done, uint64_t total) {
    auto percent = static_cast<unsigned>(total == 0 ? 100 : done * 100 / total);
    auto now = std::chrono::steady_clock::now();
    if (!progress || (percent == told->percent && now - told->when < kTell)) return true;
    *told = {percent, now};
    return progress(percent);
  };
}

Progress LocalStore::noting(const std::string& snapshot, const StoreProgress& progress) {
  return paced([this, snapshot, progress](unsigned percent) {
    {
      std::lock_guard lock(mutex_);
      percent_[snapshot] = percent;
    }
    return !progress || progress(percent);
  });
}

void LocalStore::forget_progress(const std::string& snapshot) {
  std::lock_guard lock(mutex_);
  percent_.erase(snapshot);
}

// ---- Taking ----

// With the lock.
Result<std::vector<LocalStore::Begun>> LocalStore::plan_snapshots(
    const std::vector<SnapshotOf>& wanted, const std::function<bool(const std::string& volume)>& is_open) {
  std::vector<Begun> made;
  for (const SnapshotOf& each : wanted) {
    if (TRY(catalog_->snapshot(each.snapshot))) continue;  // told again
    VolumeRow volume = TRY(need_volume(each.volume));
    if (!is_open(each.volume)) TRY(expect_closed(volume));
    LayerInfo old = TRY(read_layer_info(TRY(open_layer(volume.layer, O_RDONLY)).get()));
    Begun one;
    one.size_bytes = old.size_bytes;
    one.top = TRY(new_layer(volume.layer, old.encrypted));
    one.snapshot = {each.snapshot, volume.layer, each.volume, old.size_bytes, false, 0, ""};
    volume.layer = one.top.id;
    volume.size_bytes = old.size_bytes;
    one.volume = std::move(volume);
    made.push_back(std::move(one));
  }
  return made;
}

// False: a volume is not any more what it was when the plan was made.
Result<bool> LocalStore::record_snapshots(const std::vector<Begun>& made) {
  std::lock_guard lock(mutex_);
  for (const Begun& each : made) {
    if (TRY(need_volume(each.volume.id)).layer != each.snapshot.layer) return false;
    if (TRY(catalog_->snapshot(each.snapshot.id))) return false;
  }
  TRY(catalog_->transaction([&]() -> Status {
    for (const Begun& each : made) {
      TRY(catalog_->add_layer(each.top));
      TRY(catalog_->put_volume(each.volume));
      TRY(catalog_->put_snapshot(each.snapshot));
    }
    return {};
  }));
  step("snapshots were recorded");
  return true;
}

// The volume's user has the lowest layer that is not frozen on top, or one above it that it is still freezing
// beneath: it wants those above, in order, and does not mind any that it has.
Status LocalStore::layers_to_push(const std::string& id, std::vector<PreparedSnapshot>& prepared) {
  std::lock_guard lock(mutex_);
  std::vector<LayerRow> stack = TRY(stack_of(TRY(need_volume(id)).layer));
  size_t lowest = stack.size() - 1;
  while (lowest > 0) {
    UniqueFd beneath = TRY(open_layer(stack[lowest - 1].id, O_RDONLY));
    if (TRY(read_layer_info(beneath.get())).frozen) break;
    --lowest;
  }
  std::vector<SnapshotRow> snapshots = TRY(catalog_->snapshots());
  for (size_t i = lowest + 1; i < stack.size(); ++i) {
    auto snapshot = std::find_if(snapshots.begin(), snapshots.end(), [&](const SnapshotRow& row) {
      return row.layer == stack[i].parent && row.volume == id;
    });
    PreparedSnapshot one;
    one.volume = id;
    if (snapshot != snapshots.end()) one.snapshot = snapshot->id;
    one.layer = TRY(parse_layer_id(stack[i].id));
    one.top = {TRY(open_layer(stack[i].id, O_RDWR | (options_.direct ? O_DIRECT : 0))),
               TRY(key_of(stack[i]))};
    prepared.push_back(std::move(one));
  }
  return {};
}

Result<std::vector<PreparedSnapshot>> LocalStore::begin_snapshots(
    const std::vector<SnapshotOf>& wanted, const std::function<bool(const std::string& volume)>& is_open) {
  for (bool recorded = false; !recorded;) {
    std::vector<Begun> made;
    {
      std::lock_guard lock(mutex_);
      made = TRY(plan_snapshots(wanted, is_open));
    }
    auto attempt = [&]() -> Result<bool> {
      for (const Begun& each : made) TRY(make_layer(each.top, each.size_bytes));
      return record_snapshots(made);
    }();
    if (!attempt.ok() || !*attempt) {
      for (const Begun& each : made) drop_file(each.top.id);
    }
    recorded = TRY(std::move(attempt));
  }
  std::vector<PreparedSnapshot> prepared;
  for (const SnapshotOf& each : wanted) {
    SnapshotRow snapshot;
    bool open = false;
    {
      std::lock_guard lock(mutex_);
      snapshot = TRY(need_snapshot(each.snapshot));
      open = TRY(catalog_->volume(each.volume)) && is_open(each.volume);
    }
    if (!open) {
      TRY(freeze(snapshot.layer));
    } else {
      TRY(layers_to_push(each.volume, prepared));
    }
  }
  return prepared;
}

Status LocalStore::expect_untaken(const VolumeRow& volume, const SnapshotRow& snapshot,
                                  const std::optional<LayerRow>& top) {
  const bool above = top && top->parent == snapshot.layer;
  const bool frozen = TRY(read_layer_info(TRY(open_layer(snapshot.layer, O_RDONLY)).get())).frozen;
  if (above && !frozen && expect_closed(volume).ok()) {
    // What was written to it would be lost, though its writer is gone.
    LayerUse use = TRY(layer_use(*TRY(layer_file(volume.layer, O_RDONLY))));
    if (use.data_blocks + use.zero_blocks == 0) return {};
  }
  return make_error(ErrorCode::kBusy, "the volume {} is on the layer above snapshot {} already", volume.id,
                    snapshot.id);
}

// Their layers become the volumes' tops again: nobody freezes one meanwhile.
Result<std::vector<LayerGuards::Held>> LocalStore::hold_layers(const std::vector<SnapshotOf>& wanted) {
  std::set<std::string> layers;
  {
    std::lock_guard lock(mutex_);
    for (const SnapshotOf& each : wanted) {
      if (auto snapshot = TRY(catalog_->snapshot(each.snapshot))) layers.insert(snapshot->layer);
    }
  }
  std::vector<LayerGuards::Held> held;
  // Not for as long as a check reads one: whoever wants it taken back holds locks of its own, and tries again.
  auto at_once = [] { return false; };
  for (const std::string& layer : layers)
    held.push_back(TRY(guards_.lock(layer, LayerGuards::Use::kAlone, at_once)));
  return held;
}

Status LocalStore::abandon_snapshots(const std::vector<SnapshotOf>& wanted) {
  auto held = TRY(hold_layers(wanted));
  std::lock_guard lock(mutex_);
  std::vector<std::string> tops;
  std::vector<VolumeRow> volumes;
  std::vector<std::string> snapshots;
  for (const SnapshotOf& each : wanted) {
    auto snapshot = TRY(catalog_->snapshot(each.snapshot));
    if (!snapshot) continue;
    VolumeRow volume = TRY(need_volume(each.volume));
    auto top = TRY(catalog_->layer(volume.layer));
    TRY(expect_untaken(volume, *snapshot, top));
    tops.push_back(top->id);
    volume.layer = snapshot->layer;
    volumes.push_back(std::move(volume));
    snapshots.push_back(each.snapshot);
  }
  TRY(catalog_->transaction([&]() -> Status {
    for (const std::string& id : snapshots) TRY(catalog_->remove_snapshot(id));
    for (const VolumeRow& volume : volumes) TRY(catalog_->put_volume(volume));
    for (const std::string& top : tops) TRY(catalog_->remove_layer(top));
    return {};
  }));
  step("snapshots were taken back");
  for (const std::string& top : tops) drop_file(top);
  return {};
}

Status LocalStore::snapshot_pushed(const std::string& id) {
  std::lock_guard lock(mutex_);
  SnapshotRow row = TRY(need_snapshot(id));
  LayerInfo info = TRY(read_layer_info(TRY(open_layer(row.layer, O_RDONLY)).get()));
  if (info.frozen) return {};
  return make_error(ErrorCode::kBusy, "the layer of snapshot {} is not frozen yet", id);
}

// ---- Completing ----

Status LocalStore::need_sums(const std::string& layer, const Progress& progress) {
  auto file = TRY(layer_file(layer, O_RDWR));
  if (TRY(read_layer_info(*file).context(fmt::format("layer {}", layer))).sums_complete) return {};
  auto held = TRY(guards_.lock(layer, LayerGuards::Use::kAlone, [&] { return !progress || progress(0, 1); }));
  return write_sums(*file, progress).context(fmt::format("layer {}", layer));
}

Status LocalStore::complete_snapshot(const std::string& id, const StoreProgress& progress) {
  Pinned pin;
  std::string layer;
  {
    std::lock_guard lock(mutex_);
    SnapshotRow row = TRY(need_snapshot(id));
    if (row.completed) return {};
    layer = row.layer;
    pin = Pinned(*this, layer);
  }
  TRY(freeze(layer));
  TRY(need_sums(layer, noting(id, progress)));
  step("sums were computed");
  std::lock_guard lock(mutex_);
  percent_.erase(id);
  SnapshotRow row = TRY(need_snapshot(id));
  row.completed = true;
  row.percent = 100;
  return catalog_->put_snapshot(row);
}

// ---- Deleting ----

Status LocalStore::delete_snapshot(const std::string& id) {
  std::lock_guard lock(mutex_);
  percent_.erase(id);
  TRY(give_up_copy(id));
  auto row = TRY(catalog_->snapshot(id));
  if (!row) return {};
  TRY(catalog_->remove_snapshot(id));
  step("a snapshot was forgotten");
  return release(row->layer);
}

// ---- Looking ----

uint64_t LocalStore::changed_bytes(const std::string& layer) {
  {
    std::lock_guard lock(mutex_);
    auto known = changed_.find(layer);
    if (known != changed_.end()) return known->second;
  }
  auto file = layer_file(layer, O_RDONLY);
  if (!file.ok()) return 0;
  auto info = read_layer_info(**file);
  auto use = layer_use(**file);
  if (!info.ok() || !use.ok()) return 0;
  const uint64_t bytes = use->data_blocks * 4096;
  std::lock_guard lock(mutex_);
  auto row = catalog_->layer(layer);
  // While blocks are given back, what was counted is not what is left.
  bool stays = info->frozen && row.ok() && *row && (*row)->punched != LayerRow::Punched::kPunching;
  if (stays) changed_[layer] = bytes;
  return bytes;
}

SnapshotInfo LocalStore::info_of(const SnapshotRow& row) {
  SnapshotInfo info;
  info.id = row.id;
  info.volume = row.volume;
  info.size_bytes = row.size_bytes;
  info.completed = row.completed;
  info.error = row.error;
  info.changed_bytes = changed_bytes(row.layer);
  std::lock_guard lock(mutex_);
  auto working = percent_.find(row.id);
  info.progress_percent = working != percent_.end() ? working->second : row.percent;
  auto layer = catalog_->layer(row.layer);
  if (layer.ok() && *layer) info.encrypted = (*layer)->encrypted;
  return info;
}

Result<SnapshotInfo> LocalStore::snapshot(const std::string& id) {
  SnapshotRow row;
  {
    std::lock_guard lock(mutex_);
    row = TRY(need_snapshot(id));
  }
  return info_of(row);
}

std::vector<SnapshotInfo> LocalStore::snapshots() {
  auto rows = [&] {
    std::lock_guard lock(mutex_);
    return catalog_->snapshots();
  }();
  std::vector<SnapshotInfo> infos;
  if (!rows.ok()) return infos;
  for (const SnapshotRow& row : *rows) infos.push_back(info_of(row));
  return infos;
}

}  // namespace haneul::storage
