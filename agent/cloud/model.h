// SPDX-License-Identifier: Apache-2.0
// Model: everything the daemon knows, in memory, with one lock; and Update, which changes it. An update is on
// the disk before it is in memory, so that no client ever sees what a crash could take back. Results that a full disk
// refuses are the exception.
#pragma once

#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <utility>

#include "agent/state/records.h"
#include "agent/state/store.h"
#include "base/log.h"

namespace haneul::agent {

class Model {
 public:
  explicit Model(StateStore& store) : store_(store) {}

  /// Reads everything. An object that does not read back is kCorrupt.
  Status load();

  /// Held by whoever reads or updates.
  std::mutex& mutex() { return mutex_; }

  std::map<std::string, InstanceRecord>& instances() { return instances_; }
  std::map<std::string, ImageRecord>& images() { return images_; }
  std::map<std::string, KeyRecord>& keys() { return keys_; }
  std::map<std::string, TokenRecord>& tokens() { return tokens_; }
  std::map<std::string, VolumeRecord>& volumes() { return volumes_; }
  std::map<std::string, SnapshotRecord>& snapshots() { return snapshots_; }
  std::map<std::string, TaskRecord>& tasks() { return tasks_; }

  /// A copy, taking the lock; nullopt if it is unknown.
  std::optional<InstanceRecord> instance(const std::string& id);
  std::optional<ImageRecord> image(const std::string& id);
  std::optional<VolumeRecord> volume(const std::string& id);
  std::optional<SnapshotRecord> snapshot(const std::string& id);
  std::optional<TaskRecord> task(const std::string& id);
  /// Under the lock: the volumes that are attached to an instance (or being so), the root first, the others
  /// in order of their device names.
  std::vector<VolumeRecord> volumes_of(const InstanceRecord& instance) const;

  template <typename Record>
  std::map<std::string, Record>& table() {
    if constexpr (std::is_same_v<Record, InstanceRecord>) return instances_;
    if constexpr (std::is_same_v<Record, ImageRecord>) return images_;
    if constexpr (std::is_same_v<Record, KeyRecord>) return keys_;
    if constexpr (std::is_same_v<Record, TokenRecord>) return tokens_;
    if constexpr (std::is_same_v<Record, VolumeRecord>) return volumes_;
    if constexpr (std::is_same_v<Record, SnapshotRecord>) return snapshots_;
    if constexpr (std::is_same_v<Record, TaskRecord>) return tasks_;
  }
  StateStore& store() { return store_; }
  /// Under the lock: commits a change, together with what could not be saved before.
  Status commit(const Batch& batch);
  /// Under the lock: what could not be saved, and is true all the same, goes with the next change.
  void keep_for_later(const Batch& batch);
  /// Under the lock: tries again to save it.
  void save_late();

 private:
  template <typename Record>
  Status load_table();
  template <typename Record>
  std::optional<Record> copy_of(const std::string& id);

  StateStore& store_;
  std::mutex mutex_;
  std::map<std::string, InstanceRecord> instances_;
  std::map<std::string, ImageRecord> images_;
  std::map<std::string, KeyRecord> keys_;
  std::map<std::string, TokenRecord> tokens_;
  std::map<std::string, VolumeRecord> volumes_;
  std::map<std::string, SnapshotRecord> snapshots_;
  std::map<std::string, TaskRecord> tasks_;
  std::map<std::pair<std::string, std::string>, Batch::Change> late_;  ///< by kind and id
};

/// Changes that happen together. The lock is held from the first put() to commit().
class Update {
 public:
  explicit Update(Model& model) : model_(model) {}

  template <typename Record>
  Update& put(Record record) {
    batch_.put(Record::kKind, record.id, to_text(encode(record)));
    apply_.push_back([this, record = std::move(record)] { model_.table<Record>()[record.id] = record; });
    return *this;
  }
  template <typename Record>
  Update& remove(const std::string& id) {
    batch_.remove(Record::kKind, id);
    apply_.push_back([this, id] { model_.table<Record>().erase(id); });
    return *this;
  }
  Status commit() {
    Status written = model_.commit(batch_);
    if (!written.ok()) return written;
    apply();
    return {};
  }
  /// For what has happened already: it is true whether or not it can be written down now. It is tried again with
  /// every later change; a daemon that dies before finds out by itself what became of its instances.
  void commit_result() {
    Status written = commit();
    if (written.ok()) return;
    LOG_ERROR("the state cannot be saved now: {}", written.error().message());
    model_.keep_for_later(batch_);
    apply();
  }

 private:
  void apply() {
    for (const auto& change : apply_) change();
  }

  Model& model_;
  Batch batch_;
  std::vector<std::function<void()>> apply_;
};

}  // namespace haneul::agent
