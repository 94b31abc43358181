// SPDX-License-Identifier: Apache-2.0
// The operations on key pairs.
#include <algorithm>

#include "agent/cloud/cloud.h"
#include "agent/keys/key_pair.h"

namespace haneul::agent {
namespace {

Answer<void> check_key_name(const std::string& name) {
  bool printable = std::all_of(name.begin(), name.end(), [](char c) { return c >= ' ' && c <= '~'; });
  if (!name.empty() && name.size() <= 255 && printable && name.front() != ' ' && name.back() != ' ')
    return {};
  return ApiError(ApiCode::kInvalidParameterValue,
                  "Invalid value for parameter KeyName: 1 to 255 printable ASCII characters are expected");
}

KeyRecord record_of(const Caller& caller, const std::string& name, const KeyPair& pair,
                    std::vector<Tag> tags) {
  KeyRecord record;
  record.id = new_id("key");
  record.region = caller.region;
  record.name = name;
  record.type = pair.type;
  record.fingerprint = pair.fingerprint;
  record.public_key = pair.public_key;
  record.created = now();
  record.tags = std::move(tags);
  return record;
}

ApiError duplicate(const std::string& name) {
  return api_error(ApiCode::kInvalidKeyPairDuplicate, "The keypair '{}' already exists.", name);
}

}  // namespace

Answer<CreateKeyPairReply> Cloud::create_key_pair(const Caller& caller, const CreateKeyPairRequest& request) {
  TRY(check_key_name(request.key_name));
  std::string type = request.key_type.value_or("rsa");
  if (type != "rsa" && type != "ed25519") {
    return api_error(ApiCode::kInvalidParameterValue, "Value ({}) for parameter KeyType is invalid.", type);
  }
  if (request.key_format.value_or("pem") != "pem") {
    return api_error(ApiCode::kInvalidParameterValue,
                     "Value ({}) for parameter KeyFormat is not supported: pem is.", *request.key_format);
  }
  auto tags = TRY(tags_for(request.tag_specifications, "key-pair", {"key-pair"}));
  {
    std::scoped_lock lock(model_.mutex());
    if (find_key(caller, request.key_name) != nullptr) return duplicate(request.key_name);
  }
  if (request.dry_run.value_or(false)) return dry_run_error();
  // A tenth of a second of arithmetic, so not under the lock.
  KeyPair pair = TRY(agent::create_key_pair(type, request.key_name));
  KeyRecord record = record_of(caller, request.key_name, pair, tags);
  std::scoped_lock lock(model_.mutex());
  if (find_key(caller, request.key_name) != nullptr) return duplicate(request.key_name);
  TRY(Update(model_).put(record).commit());
  CreateKeyPairReply reply;
  reply.key_fingerprint = record.fingerprint;
  reply.key_material = pair.private_key;
  reply.key_name = record.name;
  reply.key_pair_id = record.id;
  reply.tags = record.tags;
  return reply;
}

Answer<ImportKeyPairReply> Cloud::import_key_pair(const Caller& caller, const ImportKeyPairRequest& request) {
  TRY(check_key_name(request.key_name));
  KeyPair pair = TRY(agent::import_key_pair(request.public_key_material.bytes, request.key_name));
  auto tags = TRY(tags_for(request.tag_specifications, "key-pair", {"key-pair"}));
  std::scoped_lock lock(model_.mutex());
  if (find_key(caller, request.key_name) != nullptr) return duplicate(request.key_name);
  if (request.dry_run.value_or(false)) return dry_run_error();
  KeyRecord record = record_of(caller, request.key_name, pair, tags);
  TRY(Update(model_).put(record).commit());
  ImportKeyPairReply reply;
  reply.key_fingerprint = record.fingerprint;
  reply.key_name = record.name;
  reply.key_pair_id = record.id;
  reply.tags = record.tags;
  return reply;
}

Answer<DescribeKeyPairsReply> Cloud::describe_key_pairs(const Caller& caller,
                                                        const DescribeKeyPairsRequest& request) {
  using V = std::vector<std::string>;
  static const FilterTable<KeyRecord> filters({
      {"key-pair-id", [](const KeyRecord& r) -> V { return {r.id}; }},
      {"key-name", [](const KeyRecord& r) -> V { return {r.name}; }},
      {"fingerprint", [](const KeyRecord& r) -> V { return {r.fingerprint}; }},
  });
  TRY(filters.check(request.filters));
  std::scoped_lock lock(model_.mutex());
  for (const std::string& name : request.key_names) {
    if (find_key(caller, name) == nullptr) {
      return api_error(ApiCode::kInvalidKeyPairNotFound, "The key pair '{}' does not exist", name);
    }
  }
  for (const std::string& id : request.key_pair_ids) {
    auto found = model_.keys().find(id);
    if (found == model_.keys().end() || found->second.region != caller.region) {
      return api_error(ApiCode::kInvalidKeyPairNotFound, "The key pair '{}' does not exist", id);
    }
  }
  if (request.dry_run.value_or(false)) return dry_run_error();
  auto listed = [](const V& list, const std::string& value) {
    return std::find(list.begin(), list.end(), value) != list.end();
  };
  bool all = request.key_names.empty() && request.key_pair_ids.empty();
  DescribeKeyPairsReply reply;
  for (const auto& [id, record] : model_.keys()) {
    bool named = all || listed(request.key_names, record.name) || listed(request.key_pair_ids, id);
    if (!named || record.region != caller.region || !filters.matches(record, record.tags, request.filters))
      continue;
    KeyPairInfo info;
    info.key_pair_id = record.id;
    info.key_fingerprint = record.fingerprint;
    info.key_name = record.name;
    info.key_type = record.type;
    info.tags = record.tags;
    if (request.include_public_key.value_or(false)) info.public_key = record.public_key;
    info.create_time = record.created;
    reply.key_pairs.push_back(std::move(info));
  }
  return reply;
}

Answer<Nothing> Cloud::delete_key_pair(const Caller& caller, const DeleteKeyPairRequest& request) {
  if (!request.key_name && !request.key_pair_id) {
    return ApiError(ApiCode::kMissingParameter,
                    "The request must contain the parameter KeyName or KeyPairId");
  }
  std::scoped_lock lock(model_.mutex());
  std::string id = request.key_pair_id.value_or("");
  if (request.key_name) {
    const KeyRecord* key = find_key(caller, *request.key_name);
    id = key == nullptr ? "" : key->id;
  }
  if (request.dry_run.value_or(false)) return dry_run_error();
  auto found = model_.keys().find(id);
  // Deleting what is not there succeeds, as in EC2.
  if (found == model_.keys().end() || found->second.region != caller.region) return Nothing{};
  TRY(Update(model_).remove<KeyRecord>(id).commit());
  return Nothing{};
}

}  // namespace haneul::agent
