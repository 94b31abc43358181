// SPDX-License-Identifier: Apache-2.0
#include "agent/cloud/model.h"

#include <algorithm>

namespace haneul::agent {

template <typename Record>
Status Model::load_table() {
  auto objects = TRY(store_.list(Record::kKind));
  for (const StateStore::Object& object : objects) {
    Answer<Json> json = parse_json(object.value);
    Answer<Record> record = json.ok() ? decode_checked<Record>(*json) : Answer<Record>(json.error());
    if (!record.ok()) {
      return make_error(ErrorCode::kCorrupt, "the state of {} {} cannot be read: {}", Record::kKind,
                        object.id, record.error().message());
    }
    table<Record>()[object.id] = std::move(record).value();
  }
  return {};
}

Status Model::load() {
  TRY(load_table<InstanceRecord>());
  TRY(load_table<ImageRecord>());
  TRY(load_table<KeyRecord>());
  TRY(load_table<TokenRecord>());
  TRY(load_table<VolumeRecord>());
  TRY(load_table<SnapshotRecord>());
  return load_table<TaskRecord>();
}

Status Model::commit(const Batch& batch) {
  if (late_.empty()) return store_.commit(batch);
  Batch both;
  for (const auto& [key, change] : late_) both.add(change);
  for (const Batch::Change& change : batch.changes()) both.add(change);
  TRY(store_.commit(both));
  late_.clear();
  return {};
}

void Model::keep_for_later(const Batch& batch) {
  for (const Batch::Change& change : batch.changes()) late_[{change.kind, change.id}] = change;
}

void Model::save_late() {
  if (late_.empty()) return;
  if (commit({}).ok()) LOG_INFO("the state is saved again");
}

template <typename Record>
std::optional<Record> Model::copy_of(const std::string& id) {
  std::scoped_lock lock(mutex_);
  auto found = table<Record>().find(id);
  return found == table<Record>().end() ? std::nullopt : std::optional(found->second);
}

std::optional<InstanceRecord> Model::instance(const std::string& id) {
  return copy_of<InstanceRecord>(id);
}

std::optional<ImageRecord> Model::image(const std::string& id) {
  return copy_of<ImageRecord>(id);
}

std::optional<VolumeRecord> Model::volume(const std::string& id) {
  return copy_of<VolumeRecord>(id);
}

std::optional<SnapshotRecord> Model::snapshot(const std::string& id) {
  return copy_of<SnapshotRecord>(id);
}

std::optional<TaskRecord> Model::task(const std::string& id) {
  return copy_of<TaskRecord>(id);
}

std::vector<VolumeRecord> Model::volumes_of(const InstanceRecord& instance) const {
  std::vector<VolumeRecord> found;
  for (const auto& [id, volume] : volumes_) {
    if (volume.instance_id == instance.id) found.push_back(volume);
  }
  std::sort(found.begin(), found.end(), [&](const VolumeRecord& a, const VolumeRecord& b) {
    bool a_root = a.device == instance.root_device;
    bool b_root = b.device == instance.root_device;
    return a_root != b_root ? a_root : a.device < b.device;
  });
  return found;
}

}  // namespace haneul::agent
