// SPDX-License-Identifier: Apache-2.0
// Model: everything the daemon knows, in memory, with one lock; and Update, which changes it. An update is on
// the disk before it is in memory, so that no client ever sees what a crash could take back.
#pragma once

#include <functional>
#include <map>
#include <mutex>
#include <string>

#include "agent/state/records.h"
#include "agent/state/store.h"

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

  /// A copy, taking the lock; nullopt if it is unknown.
  std::optional<InstanceRecord> instance(const std::string& id);
  std::optional<ImageRecord> image(const std::string& id);

  template <typename Record>
  std::map<std::string, Record>& table() {
    if constexpr (std::is_same_v<Record, InstanceRecord>) return instances_;
    if constexpr (std::is_same_v<Record, ImageRecord>) return images_;
    if constexpr (std::is_same_v<Record, KeyRecord>) return keys_;
    if constexpr (std::is_same_v<Record, TokenRecord>) return tokens_;
  }
  StateStore& store() { return store_; }

 private:
  template <typename Record>
  Status load_table();

  StateStore& store_;
  std::mutex mutex_;
  std::map<std::string, InstanceRecord> instances_;
  std::map<std::string, ImageRecord> images_;
  std::map<std::string, KeyRecord> keys_;
  std::map<std::string, TokenRecord> tokens_;
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
    Status written = model_.store().commit(batch_);
    if (!written.ok()) return written;
    for (const auto& change : apply_) change();
    return {};
  }

 private:
  Model& model_;
  Batch batch_;
  std::vector<std::function<void()>> apply_;
};

}  // namespace haneul::agent
