// SPDX-License-Identifier: Apache-2.0
// Giving back what nobody sees, and checking.
#include <fcntl.h>

#include <algorithm>

#include "base/file.h"
#include "storage/store/local_store.h"

namespace haneul::storage {

// Nobody can come to stand on a layer without users, but for copies that find it here: so it is marked, durably,
// before anything of it goes. One that came, and was done, while the children's maps were read is seen by then.
Status LocalStore::punch(const std::string& id, const Progress& progress) {
  auto held = TRY(guards_.lock(id, LayerGuards::Use::kAlone, [&] { return !progress || progress(0, 1); }));
  LayerRow layer;
  std::unique_ptr<AsyncFile> file;
  std::vector<std::unique_ptr<AsyncFile>> files;
  std::vector<AsyncFile*> children;
  std::vector<std::string> ids;
  {
    std::lock_guard lock(mutex_);
    auto row = TRY(catalog_->layer(id));
    if (!row || TRY(is_used(id))) return {};
    layer = std::move(*row);
    ids = TRY(catalog_->children(id));
    for (const std::string& child : ids) {
      files.push_back(TRY(layer_file(child, O_RDWR)));
      children.push_back(files.back().get());
    }
    // Left by a copy that was given up.
    if (children.empty()) return release(id);
    file = TRY(layer_file(id, O_RDWR));
  }
  if (!TRY(read_layer_info(*file)).frozen) return {};
  bool punching = layer.punched == LayerRow::Punched::kPunching;
  if (punching) TRY(punch_unused(*file, progress));
  auto mark = [&]() -> Status {
    std::lock_guard lock(mutex_);
    if (TRY(is_used(id)) || TRY(catalog_->children(id)) != ids)
      return Error(ErrorCode::kBusy, "the layer is wanted again");
    TRY(catalog_->set_punched(id, LayerRow::Punched::kPunching));
    changed_.erase(id);
    punching = true;
    step("a layer was marked");
    return {};
  };
  auto punched = punch_hidden(*file, children, mark, progress);
  step("a layer was punched");
  if (!punched.ok()) return punched.error().code() == ErrorCode::kBusy ? Status() : Status(punched.error());
  if (!punching) return {};
  std::lock_guard lock(mutex_);
  changed_.erase(id);
  return catalog_->set_punched(id, LayerRow::Punched::kYes);
}

Status LocalStore::collect(const StoreProgress& progress) {
  std::vector<LayerRow> layers;
  {
    std::lock_guard lock(mutex_);
    layers = TRY(catalog_->layers());
  }
  Progress note = paced(progress);
  Status first;  // of the layers that could not be looked at; the others are none the worse for it
  for (size_t i = 0; i < layers.size(); ++i) {
    auto part = [&](uint64_t done, uint64_t total) {
      return note(i * 1000 + done * 1000 / std::max<uint64_t>(1, total), layers.size() * 1000);
    };
    if (!part(0, 1)) return Error(ErrorCode::kCancelled, "the work was ended");
    {
      std::lock_guard lock(mutex_);
      if (TRY(is_used(layers[i].id))) continue;
    }
    Status done = punch(layers[i].id, part);
    if (done.ok()) continue;
    if (done.error().code() == ErrorCode::kCancelled) return done;
    if (first.ok()) first = std::move(done).context(fmt::format("layer {}", layers[i].id));
  }
  std::lock_guard lock(mutex_);
  TRY(catalog_->tidy());
  return first;
}

// ---- Checking ----

Status LocalStore::check_one(const LayerRow& layer, const std::string& subject, CheckOptions options,
                             const Progress& progress, StoreCheck& result) {
  auto held =
      TRY(guards_.lock(layer.id, LayerGuards::Use::kRead, [&] { return !progress || progress(0, 1); }));
  {
    std::lock_guard lock(mutex_);
    if (!TRY(catalog_->layer(layer.id))) return {};  // deleted meanwhile
  }
  ++result.layers;
  auto file = layer_file(layer.id, O_RDONLY);
  if (!file.ok()) {
    result.faults.push_back({subject, {"file", file.error().message()}});
    return {};
  }
  for (Fault& fault : TRY(check_layer(**file, options, progress)))
    result.faults.push_back({subject, std::move(fault)});
  auto info = read_layer_info(**file);
  if (!info.ok()) return {};
  if (to_string(info->id) != layer.id ||
      (info->parent == LayerId{} ? "" : to_string(info->parent)) != layer.parent) {
    result.faults.push_back({subject, {"header", "the file is another layer than the catalog says"}});
  }
  if (auto use = layer_use(**file); use.ok()) result.blocks += use->data_blocks;
  return {};
}

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
  Progress note = paced(progress);
  for (size_t i = 0; i < layers.size(); ++i) {
    auto part = [&](uint64_t done, uint64_t total) {
      return note(i * 1000 + done * 1000 / std::max<uint64_t>(1, total), layers.size() * 1000);
    };
    if (!part(0, 1)) return Error(ErrorCode::kCancelled, "the check was ended");
    auto named = subjects.find(layers[i].id);
    TRY(check_one(layers[i], named != subjects.end() ? named->second : "file " + layers[i].id, options, part,
                  result));
  }
  return result;
}

}  // namespace haneul::storage
