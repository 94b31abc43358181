// SPDX-License-Identifier: Apache-2.0
#include "agent/cloud/model.h"

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
  return load_table<TokenRecord>();
}

std::optional<InstanceRecord> Model::instance(const std::string& id) {
  std::scoped_lock lock(mutex_);
  auto found = instances_.find(id);
  return found == instances_.end() ? std::nullopt : std::optional(found->second);
}

std::optional<ImageRecord> Model::image(const std::string& id) {
  std::scoped_lock lock(mutex_);
  auto found = images_.find(id);
  return found == images_.end() ? std::nullopt : std::optional(found->second);
}

}  // namespace haneul::agent
