// SPDX-License-Identifier: Apache-2.0
// Snapshots: taking, completing, deleting, giving back what they held, and checking.
#include <fcntl.h>

#include <algorithm>

#include "base/file.h"
#include "storage/store/local_store.h"

namespace haneul::storage {

Result<std::vector<PreparedSnapshot>> LocalStore::begin_snapshots(
    const std::vector<SnapshotOf>& wanted, const std::function<bool(const std::string& volume)>& is_open) {
  std::lock_guard lock(mutex_);
  struct Made {
    VolumeRow volume;  // with its new top
    SnapshotRow snapshot;
    LayerRow top;
  };
  std::vector<Made> made;
  for (const SnapshotOf& each : wanted) {
    if (TRY(catalog_->snapshot(each.snapshot))) continue;  // told again
    VolumeRow volume = TRY(need_volume(each.volume));
    LayerInfo old = TRY(read_layer_info(TRY(open_layer(volume.layer, O_RDONLY)).get()));
    LayerRow top = TRY(new_layer(volume.layer, old.encrypted));
    TRY(make_layer(top, old.size_bytes));
    SnapshotRow snapshot{each.snapshot, volume.layer, each.volume, old.size_bytes, false, 0, ""};
    volume.layer = top.id;
    volume.size_bytes = old.size_bytes;
    made.push_back({std::move(volume), std::move(snapshot), std::move(top)});
  }
  TRY(catalog_->transaction([&]() -> Status {
    for (const Made& each : made) {
      TRY(catalog_->add_layer(each.top));
      TRY(catalog_->put_volume(each.volume));
      TRY(catalog_->put_snapshot(each.snapshot));
    }
    return {};
  }));
  std::vector<PreparedSnapshot> prepared;
  for (const SnapshotOf& each : wanted) {
    SnapshotRow snapshot = TRY(need_snapshot(each.snapshot));
    auto volume = TRY(catalog_->volume(each.volume));
    if (!volume || !is_open(each.volume)) {
      TRY(freeze(snapshot.layer));
      continue;
    }
    // The layer that was made for this snapshot: on its own, and the volume's top or beneath it by now.
    auto stack = TRY(stack_of(volume->layer));
    auto above = std::find_if(stack.begin(), stack.end(),
                              [&](const LayerRow& l) { return l.parent == snapshot.layer; });
    if (above == stack.end())
      return make_error(ErrorCode::kInternal, "the volume {} is not on {}", each.volume, each.snapshot);
    if (above->id != volume->layer) continue;  // a later snapshot was pushed over it
    PreparedSnapshot one{each.volume, each.snapshot, TRY(parse_layer_id(above->id)), {}};
    one.top = {TRY(open_layer(above->id, O_RDWR | (options_.direct ? O_DIRECT : 0))), TRY(key_of(*above))};
    prepared.push_back(std::move(one));
  }
  return prepared;
}

Status LocalStore::snapshot_pushed(const std::string& id) {
  std::lock_guard lock(mutex_);
  SnapshotRow row = TRY(need_snapshot(id));
  LayerInfo info = TRY(read_layer_info(TRY(open_layer(row.layer, O_RDONLY)).get()));
  if (info.frozen) return {};
  return make_error(ErrorCode::kBusy, "the layer of snapshot {} is not frozen yet", id);
}

Progress LocalStore::noting(const std::string& snapshot, const StoreProgress& progress) {
  return [this, snapshot, progress](uint64_t done, uint64_t total) {
    auto percent = static_cast<unsigned>(total == 0 ? 100 : done * 100 / total);
    bool news = false;
    {
      std::lock_guard lock(mutex_);
      news = percent_[snapshot] != percent;
      percent_[snapshot] = percent;
    }
    return !news || !progress || progress(percent);
  };
}

Status LocalStore::complete_snapshot(const std::string& id, const StoreProgress& progress) {
  std::unique_ptr<AsyncFile> file;
  {
    std::lock_guard lock(mutex_);
    SnapshotRow row = TRY(need_snapshot(id));
    if (row.completed) return {};
    TRY(freeze(row.layer));
    file = TRY(layer_file(row.layer, O_RDWR));
  }
  TRY(write_sums(*file, noting(id, progress)));
  std::lock_guard lock(mutex_);
  percent_.erase(id);
  SnapshotRow row = TRY(need_snapshot(id));
  row.completed = true;
  row.percent = 100;
  return catalog_->put_snapshot(row);
}

Status LocalStore::delete_snapshot(const std::string& id) {
  std::lock_guard lock(mutex_);
  auto row = TRY(catalog_->snapshot(id));
  if (!row) return {};
  percent_.erase(id);
  TRY(catalog_->remove_snapshot(id));
  return release(row->layer);
}

SnapshotInfo LocalStore::info_of(const SnapshotRow& row) {
  SnapshotInfo info;
  info.id = row.id;
  info.volume = row.volume;
  info.size_bytes = row.size_bytes;
  info.completed = row.completed;
  auto working = percent_.find(row.id);
  info.progress_percent = working != percent_.end() ? working->second : row.percent;
  info.error = row.error;
  auto layer = catalog_->layer(row.layer);
  if (layer.ok() && *layer) info.encrypted = (*layer)->encrypted;
  auto file = layer_file(row.layer, O_RDONLY);
  if (!file.ok()) return info;
  if (auto use = layer_use(**file); use.ok()) info.changed_bytes = use->data_blocks * 4096;
  return info;
}

Result<SnapshotInfo> LocalStore::snapshot(const std::string& id) {
  std::lock_guard lock(mutex_);
  return info_of(TRY(need_snapshot(id)));
}

std::vector<SnapshotInfo> LocalStore::snapshots() {
  std::lock_guard lock(mutex_);
  std::vector<SnapshotInfo> infos;
  auto rows = catalog_->snapshots();
  if (!rows.ok()) return infos;
  for (const SnapshotRow& row : *rows) infos.push_back(info_of(row));
  return infos;
}

// ---- Giving back ----

Status LocalStore::punch(const LayerRow& layer) {
  std::vector<std::unique_ptr<AsyncFile>> files;
  std::vector<AsyncFile*> children;
  for (const std::string& child : TRY(catalog_->children(layer.id))) {
    files.push_back(TRY(layer_file(child, O_RDWR)));
    children.push_back(files.back().get());
  }
  auto file = TRY(layer_file(layer.id, O_RDWR));
  if (children.empty() || !TRY(read_layer_info(*file)).frozen) return {};
  TRY(punch_hidden(*file, children, {}));
  return {};
}

// One layer at a time with the lock: whoever wants to stand on it waits that long.
Status LocalStore::collect(const StoreProgress& progress) {
  std::vector<LayerRow> layers;
  {
    std::lock_guard lock(mutex_);
    layers = TRY(catalog_->layers());
  }
  for (size_t i = 0; i < layers.size(); ++i) {
    if (progress && !progress(static_cast<unsigned>(i * 100 / layers.size()))) {
      return Error(ErrorCode::kCancelled, "the work was ended");
    }
    std::lock_guard lock(mutex_);
    if (!TRY(catalog_->layer(layers[i].id)) || !TRY(catalog_->users(layers[i].id)).empty()) continue;
    if (TRY(catalog_->children(layers[i].id)).empty()) {
      // Left by a copy that was given up; one that goes on stands on it later.
      if (copies_ == 0) TRY(release(layers[i].id));
      continue;
    }
    TRY(punch(layers[i]));
  }
  std::lock_guard lock(mutex_);
  return catalog_->tidy();
}

// ---- Checking ----

Result<StoreCheck> LocalStore::check(const std::string& id, CheckOptions options,
                                     const StoreProgress& progress) {
  std::vector<LayerRow> layers;
  std::map<std::string, std::string> subjects;
  {
    std::lock_guard lock(mutex_);
    if (id.empty()) {
      layers = TRY(catalog_->layers());
    } else if (auto volume = TRY(catalog_->volume(id))) {
      layers = TRY(stack_of(volume->layer));
    } else {
      layers = TRY(stack_of(TRY(need_snapshot(id)).layer));
    }
    for (const VolumeRow& row : TRY(catalog_->volumes())) subjects[row.layer] = "volume " + row.id;
    for (const SnapshotRow& row : TRY(catalog_->snapshots())) subjects[row.layer] = "snapshot " + row.id;
  }
  StoreCheck result;
  for (const LayerRow& layer : layers) {
    if (progress && !progress(static_cast<unsigned>(result.layers * 100 / layers.size()))) {
      return Error(ErrorCode::kCancelled, "the check was ended");
    }
    std::string subject = subjects.contains(layer.id) ? subjects[layer.id] : "file " + layer.id;
    ++result.layers;
    auto file = layer_file(layer.id, O_RDONLY);
    if (!file.ok()) {
      result.faults.push_back({subject, {"file", file.error().message()}});
      continue;
    }
    for (Fault& fault : TRY(check_layer(**file, options, {})))
      result.faults.push_back({subject, std::move(fault)});
    auto info = read_layer_info(**file);
    if (!info.ok()) continue;
    if (to_string(info->id) != layer.id ||
        (info->parent == LayerId{} ? "" : to_string(info->parent)) != layer.parent) {
      result.faults.push_back({subject, {"header", "the file is another layer than the catalog says"}});
    }
    if (auto use = layer_use(**file); use.ok()) result.blocks += use->data_blocks;
  }
  return result;
}

}  // namespace haneul::storage
