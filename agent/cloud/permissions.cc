// SPDX-License-Identifier: Apache-2.0
// Sharing: who besides its owner may make volumes of a snapshot, or launch an image.
#include <algorithm>

#include "agent/cloud/cloud.h"

namespace haneul::agent {
namespace {

struct Change {
  std::string group;
  std::string account;
  bool add = false;
};

Answer<void> apply_change(const Change& change, PermissionRecord& permissions) {
  if (!change.group.empty()) {
    if (change.group != "all")
      return api_error(ApiCode::kInvalidParameterValue, "The group '{}' is not 'all', the only one",
                       change.group);
    permissions.everyone = change.add;
    return {};
  }
  bool digits =
      change.account.size() == 12 && change.account.find_first_not_of("0123456789") == std::string::npos;
  if (!digits) return api_error(ApiCode::kInvalidUserIdMalformed, "Invalid user id: \"{}\"", change.account);
  std::erase(permissions.accounts, change.account);
  if (change.add) permissions.accounts.push_back(change.account);
  return {};
}

// The structure, or OperationType with lists, as older clients send it.
template <typename Modifications>
Answer<std::vector<Change>> changes_of(const std::optional<Modifications>& modifications,
                                       const std::optional<std::string>& operation,
                                       const std::vector<std::string>& groups,
                                       const std::vector<std::string>& accounts) {
  std::vector<Change> changes;
  if (modifications) {
    for (const auto& one : modifications->add)
      changes.push_back({one.group.value_or(""), one.user_id.value_or(""), true});
    for (const auto& one : modifications->remove)
      changes.push_back({one.group.value_or(""), one.user_id.value_or(""), false});
  }
  if (operation && *operation != "add" && *operation != "remove") {
    return api_error(ApiCode::kInvalidParameterValue, "Value ({}) for parameter operationType is invalid.",
                     *operation);
  }
  bool add = operation == "add";
  for (const std::string& group : groups) changes.push_back({group, "", add});
  for (const std::string& account : accounts) changes.push_back({"", account, add});
  return changes;
}

Answer<void> check_attribute(const std::optional<std::string>& attribute, std::string_view wanted) {
  if (!attribute || *attribute == wanted) return {};
  return api_error(ApiCode::kInvalidParameterValue, "Value ({}) for parameter attribute is invalid.",
                   *attribute);
}

template <typename Permission>
std::vector<Permission> list_of(const PermissionRecord& permissions) {
  std::vector<Permission> list;
  if (permissions.everyone) list.push_back({.group = "all", .user_id = std::nullopt});
  for (const std::string& account : permissions.accounts)
    list.push_back({.group = std::nullopt, .user_id = account});
  return list;
}

}  // namespace

// ---- snapshots ----

Answer<Nothing> Cloud::modify_snapshot_attribute(const Caller& caller,
                                                 const ModifySnapshotAttributeRequest& request) {
  TRY(check_attribute(request.attribute, "createVolumePermission"));
  std::scoped_lock lock(model_.mutex());
  SnapshotRecord snapshot = TRY(find_snapshot(caller, request.snapshot_id));
  auto changes = TRY(changes_of(request.create_volume_permission, request.operation_type, request.group_names,
                                request.user_ids));
  if (changes.empty())
    return ApiError(ApiCode::kMissingParameter,
                    "The request must contain the parameter CreateVolumePermission");
  for (const Change& change : changes) TRY(apply_change(change, snapshot.permissions));
  if (snapshot.encrypted && snapshot.permissions.everyone) {
    return api_error(ApiCode::kOperationNotPermitted,
                     "Encrypted snapshots with EBS default key cannot be shared");
  }
  if (request.dry_run.value_or(false)) return dry_run_error();
  TRY(Update(model_).put(snapshot).commit());
  return Nothing{};
}

Answer<DescribeSnapshotAttributeReply> Cloud::describe_snapshot_attribute(
    const Caller& caller, const DescribeSnapshotAttributeRequest& request) {
  TRY(check_attribute(request.attribute, "createVolumePermission"));
  std::scoped_lock lock(model_.mutex());
  SnapshotRecord snapshot = TRY(find_snapshot(caller, request.snapshot_id));
  if (request.dry_run.value_or(false)) return dry_run_error();
  return DescribeSnapshotAttributeReply{
      .create_volume_permissions = list_of<CreateVolumePermission>(snapshot.permissions),
      .snapshot_id = snapshot.id};
}

Answer<Nothing> Cloud::reset_snapshot_attribute(const Caller& caller,
                                                const ResetSnapshotAttributeRequest& request) {
  TRY(check_attribute(request.attribute, "createVolumePermission"));
  std::scoped_lock lock(model_.mutex());
  SnapshotRecord snapshot = TRY(find_snapshot(caller, request.snapshot_id));
  if (request.dry_run.value_or(false)) return dry_run_error();
  snapshot.permissions = {};
  TRY(Update(model_).put(snapshot).commit());
  return Nothing{};
}

// ---- images ----

Answer<Nothing> Cloud::modify_image_attribute(const Caller& caller,
                                              const ModifyImageAttributeRequest& request) {
  std::scoped_lock lock(model_.mutex());
  ImageRecord image = TRY(find_image_record(caller, request.image_id));
  auto changes = TRY(
      changes_of(request.launch_permission, request.operation_type, request.user_groups, request.user_ids));
  std::optional<std::string> description;
  if (request.description) description = request.description->value.value_or("");
  if (request.attribute == "description") {
    description = request.value.value_or("");
  } else {
    TRY(check_attribute(request.attribute, "launchPermission"));
  }
  if (changes.empty() && !description) {
    return ApiError(ApiCode::kInvalidParameterCombination, "No attributes specified.");
  }
  for (const Change& change : changes) TRY(apply_change(change, image.permissions));
  if (description) image.description = *description;
  if (request.dry_run.value_or(false)) return dry_run_error();
  TRY(Update(model_).put(image).commit());
  return Nothing{};
}

Answer<DescribeImageAttributeReply> Cloud::describe_image_attribute(
    const Caller& caller, const DescribeImageAttributeRequest& request) {
  std::scoped_lock lock(model_.mutex());
  ImageRecord image = TRY(find_image_record(caller, request.image_id));
  DescribeImageAttributeReply reply;
  reply.image_id = image.id;
  if (request.attribute == "launchPermission") {
    reply.launch_permissions = list_of<LaunchPermission>(image.permissions);
  } else if (request.attribute == "description") {
    reply.description = AttributeValue{image.description};
  } else if (request.attribute == "blockDeviceMapping") {
    reply.block_device_mappings = describe_mappings(image);
  } else {
    return api_error(ApiCode::kInvalidParameterValue, "Value ({}) for parameter attribute is invalid.",
                     request.attribute);
  }
  if (request.dry_run.value_or(false)) return dry_run_error();
  return reply;
}

Answer<Nothing> Cloud::reset_image_attribute(const Caller& caller,
                                             const ResetImageAttributeRequest& request) {
  TRY(check_attribute(request.attribute, "launchPermission"));
  std::scoped_lock lock(model_.mutex());
  ImageRecord image = TRY(find_image_record(caller, request.image_id));
  if (request.dry_run.value_or(false)) return dry_run_error();
  image.permissions = {};
  TRY(Update(model_).put(image).commit());
  return Nothing{};
}

}  // namespace haneul::agent
