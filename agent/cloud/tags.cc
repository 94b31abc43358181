// SPDX-License-Identifier: Apache-2.0
// The operations on tags, and the rules that every tag has to obey.
#include <algorithm>
#include <set>

#include "agent/cloud/cloud.h"

namespace haneul::agent {
namespace {

constexpr size_t kMaxTags = 50;

void merge(std::vector<Tag>& into, const std::vector<Tag>& tags) {
  for (const Tag& tag : tags) {
    auto same =
        std::find_if(into.begin(), into.end(), [&](const Tag& other) { return other.key == tag.key; });
    if (same == into.end()) {
      into.push_back(tag);
    } else {
      same->value = tag.value;
    }
  }
}

}  // namespace

ApiError malformed_id(ApiCode code, const std::string& id, std::string_view prefix) {
  return api_error(code, "Invalid id: \"{}\" (expecting \"{}-...\")", id, prefix);
}

ApiError unknown_id(const std::string& id) {
  std::string_view prefix = id_prefix(id);
  if (prefix == "i")
    return api_error(ApiCode::kInvalidInstanceIdNotFound, "The instance ID '{}' does not exist", id);
  if (prefix == "ami")
    return api_error(ApiCode::kInvalidAmiIdNotFound, "The image id '[{}]' does not exist", id);
  if (prefix == "key")
    return api_error(ApiCode::kInvalidKeyPairNotFound, "The key pair '{}' does not exist", id);
  if (prefix == "vol")
    return api_error(ApiCode::kInvalidVolumeNotFound, "The volume '{}' does not exist.", id);
  if (prefix == "snap")
    return api_error(ApiCode::kInvalidSnapshotNotFound, "The snapshot '{}' does not exist.", id);
  return api_error(ApiCode::kInvalidId, "The ID '{}' is not valid", id);
}

Answer<void> check_tags(const std::vector<Tag>& tags) {
  std::set<std::string> keys;
  for (const Tag& tag : tags) {
    if (tag.key.empty() || tag.key.size() > 128 || tag.value.size() > 256) {
      return ApiError(ApiCode::kInvalidParameterValue,
                      "A tag's key must have 1 to 128 characters and its value at most 256");
    }
    if (tag.key.starts_with("aws:")) {
      return api_error(ApiCode::kInvalidParameterValue,
                       "Tag keys starting with 'aws:' are reserved for internal use");
    }
    if (!keys.insert(tag.key).second) {
      return api_error(ApiCode::kInvalidParameterValue, "Duplicate tag key '{}' specified.", tag.key);
    }
  }
  if (tags.size() <= kMaxTags) return {};
  return api_error(ApiCode::kTagLimitExceeded, "More than {} tags specified", kMaxTags);
}

Answer<std::vector<Tag>> tags_for(const std::vector<TagSpecification>& specifications, std::string_view type,
                                  const std::vector<std::string_view>& allowed) {
  std::vector<Tag> tags;
  for (const TagSpecification& specification : specifications) {
    std::string resource = specification.resource_type.value_or("");
    if (std::find(allowed.begin(), allowed.end(), resource) == allowed.end()) {
      return api_error(ApiCode::kInvalidParameterValue,
                       "'{}' is not a valid taggable resource type for this operation.", resource);
    }
    TRY(check_tags(specification.tags));
    if (resource == type) tags.insert(tags.end(), specification.tags.begin(), specification.tags.end());
  }
  TRY(check_tags(tags));
  return tags;
}

Answer<void> Cloud::tag_resource(Update& update, const Caller& caller, const std::string& id,
                                 const std::function<Answer<void>(std::vector<Tag>&)>& change) {
  auto change_in = [&](auto& table) -> Answer<bool> {
    auto found = table.find(id);
    if (found == table.end() || found->second.region != caller.region) return false;
    auto record = found->second;
    TRY(change(record.tags));
    update.put(record);
    return true;
  };
  bool found = TRY(change_in(model_.instances()));
  if (!found) found = TRY(change_in(model_.images()));
  if (!found) found = TRY(change_in(model_.keys()));
  if (!found) found = TRY(change_in(model_.volumes()));
  if (!found) found = TRY(change_in(model_.snapshots()));
  if (!found) return unknown_id(id);
  return {};
}

Answer<Nothing> Cloud::create_tags(const Caller& caller, const CreateTagsRequest& request) {
  TRY(check_tags(request.tags));
  std::scoped_lock lock(model_.mutex());
  Update update(model_);
  for (const std::string& id : request.resources) {
    TRY(tag_resource(update, caller, id, [&](std::vector<Tag>& tags) {
      merge(tags, request.tags);
      return check_tags(tags);
    }));
  }
  if (request.dry_run.value_or(false)) return dry_run_error();
  TRY(update.commit());
  return Nothing{};
}

Answer<Nothing> Cloud::delete_tags(const Caller& caller, const DeleteTagsRequest& request) {
  std::scoped_lock lock(model_.mutex());
  Update update(model_);
  for (const std::string& id : request.resources) {
    TRY(tag_resource(update, caller, id, [&](std::vector<Tag>& tags) {
      // A value that is given must match; with no tags at all, every tag goes.
      std::erase_if(tags, [&](const Tag& tag) {
        return request.tags.empty() ||
               std::any_of(request.tags.begin(), request.tags.end(), [&](const Tag& wanted) {
                 return wanted.key == tag.key && (wanted.value.empty() || wanted.value == tag.value);
               });
      });
      return Answer<void>();
    }));
  }
  if (request.dry_run.value_or(false)) return dry_run_error();
  TRY(update.commit());
  return Nothing{};
}

Answer<DescribeTagsReply> Cloud::describe_tags(const Caller& caller, const DescribeTagsRequest& request) {
  using V = std::vector<std::string>;
  static const FilterTable<TagDescription> filters({
      {"key", [](const TagDescription& t) -> V { return {t.key}; }},
      {"value", [](const TagDescription& t) -> V { return {t.value}; }},
      {"resource-id", [](const TagDescription& t) -> V { return {t.resource_id}; }},
      {"resource-type", [](const TagDescription& t) -> V { return {t.resource_type}; }},
  });
  TRY(filters.check(request.filters));
  if (request.dry_run.value_or(false)) return dry_run_error();
  std::map<std::string, TagDescription> all;
  {
    std::scoped_lock lock(model_.mutex());
    auto collect = [&](const auto& table) {
      for (const auto& [id, record] : table) {
        if (record.region != caller.region) continue;
        for (const Tag& tag : record.tags) {
          TagDescription described{.key = tag.key,
                                   .resource_id = id,
                                   .resource_type = std::string(resource_type(id_prefix(id))),
                                   .value = tag.value};
          if (filters.matches(described, {tag}, request.filters)) all[id + "/" + tag.key] = described;
        }
      }
    };
    collect(model_.instances());
    collect(model_.images());
    collect(model_.keys());
    collect(model_.volumes());
    collect(model_.snapshots());
  }
  V ids;
  for (const auto& [id, tag] : all) ids.push_back(id);
  Page page = TRY(page_of(ids, request.max_results, request.next_token));
  DescribeTagsReply reply;
  for (size_t i = page.begin; i < page.end; ++i) reply.tags.push_back(all[ids[i]]);
  reply.next_token = page.next_token;
  return reply;
}

}  // namespace haneul::agent
