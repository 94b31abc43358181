// SPDX-License-Identifier: Apache-2.0
// The operations that look at images, and the end of one.
#include <algorithm>

#include "agent/cloud/cloud.h"
#include "agent/cloud/crash.h"

namespace haneul::agent {
namespace {

Image describe_image(const ImageRecord& record) {
  Image image;
  image.architecture = record.architecture;
  image.creation_date = to_text(record.created);
  image.image_id = record.id;
  image.image_location = record.location;
  image.image_type = "machine";
  image.owner_id = kAccount;
  image.platform_details = "Linux/UNIX";
  image.state = record.state;
  image.description = record.description;
  image.hypervisor = "xen";
  image.name = record.name;
  image.root_device_name = record.root_device;
  image.is_public = record.permissions.everyone;
  image.root_device_type = "ebs";
  image.tags = record.tags;
  image.virtualization_type = "hvm";
  image.block_device_mappings = describe_mappings(record);
  if (record.state == "failed") image.state_reason = StateReason{"Server.InternalError", record.message};
  return image;
}

std::vector<std::string> of_mappings(const ImageRecord& image, std::string MappingRecord::*member) {
  std::vector<std::string> values;
  for (const MappingRecord& mapping : image.mappings) values.push_back(mapping.*member);
  return values;
}

// "self": everything here is the account's own; "all": public; another account: shared with it.
bool launchable(const ImageRecord& image, const std::vector<std::string>& users) {
  const PermissionRecord& permissions = image.permissions;
  const auto& accounts = permissions.accounts;
  return users.empty() || std::any_of(users.begin(), users.end(), [&](const std::string& user) {
           if (user == "all") return permissions.everyone;
           return user == "self" || user == kAccount || permissions.everyone ||
                  std::find(accounts.begin(), accounts.end(), user) != accounts.end();
         });
}

const FilterTable<ImageRecord>& image_filters() {
  using R = const ImageRecord&;
  using V = std::vector<std::string>;
  static const FilterTable<ImageRecord> table({
      {"image-id", [](R r) -> V { return {r.id}; }},
      {"name", [](R r) -> V { return {r.name}; }},
      {"description", [](R r) -> V { return {r.description}; }},
      {"state", [](R r) -> V { return {r.state}; }},
      {"architecture", [](R r) -> V { return {r.architecture}; }},
      {"owner-id", [](R) -> V { return {kAccount}; }},
      {"owner-alias", [](R) -> V { return {"self"}; }},
      {"image-type", [](R) -> V { return {"machine"}; }},
      {"is-public", [](R r) -> V { return {r.permissions.everyone ? "true" : "false"}; }},
      {"creation-date", [](R r) -> V { return {to_text(r.created)}; }},
      {"manifest-location", [](R r) -> V { return {r.location}; }},
      {"root-device-name", [](R r) -> V { return {r.root_device}; }},
      {"block-device-mapping.device-name", [](R r) { return of_mappings(r, &MappingRecord::device); }},
      {"block-device-mapping.snapshot-id", [](R r) { return of_mappings(r, &MappingRecord::snapshot_id); }},
      {"root-device-type", [](R) -> V { return {"ebs"}; }},
      {"virtualization-type", [](R) -> V { return {"hvm"}; }},
      {"hypervisor", [](R) -> V { return {"xen"}; }},
  });
  return table;
}

}  // namespace

// Under the lock. An image's name serves as its id: the newest of that name is meant.
Answer<ImageRecord> Cloud::find_image(const Caller& caller, const std::string& id_or_name) {
  const ImageRecord* found = nullptr;
  for (const auto& [id, image] : model_.images()) {
    bool matches = image.region == caller.region && (id == id_or_name || image.name == id_or_name);
    if (!matches || image.state == "deregistered") continue;
    // One that is being registered in another's place does not count yet.
    auto rank = [](const ImageRecord& one) { return std::pair(one.state == "available", one.created.ms); };
    if (found == nullptr || rank(*found) < rank(image)) found = &image;
  }
  if (found == nullptr) {
    if (!valid_id(id_or_name, "ami")) {
      return api_error(ApiCode::kInvalidAmiIdMalformed, "Invalid id: \"{}\" (expecting \"ami-...\")",
                       id_or_name);
    }
    return api_error(ApiCode::kInvalidAmiIdNotFound, "The image id '[{}]' does not exist", id_or_name);
  }
  if (found->state != "available") {
    return api_error(ApiCode::kInvalidAmiIdUnavailable, "The image id '[{}]' is {}", id_or_name,
                     found->state);
  }
  return *found;
}

Answer<ImageRecord> Cloud::find_image_record(const Caller& caller, const std::string& id) {
  if (!valid_id(id, "ami")) return malformed_id(ApiCode::kInvalidAmiIdMalformed, id, "ami");
  auto found = model_.images().find(id);
  bool here = found != model_.images().end() && found->second.region == caller.region;
  if (!here || found->second.state == "deregistered") return unknown_id(id);
  return found->second;
}

Answer<Nothing> Cloud::deregister_image(const Caller& caller, const DeregisterImageRequest& request) {
  {
    std::scoped_lock lock(model_.mutex());
    ImageRecord record = TRY(find_image_record(caller, request.image_id));
    if (record.state == "pending" && record.work == "register")
      return api_error(ApiCode::kInvalidAmiIdUnavailable, "The image id '[{}]' is pending", record.id);
    if (request.dry_run.value_or(false)) return dry_run_error();
    Update update(model_);
    deregister(update, std::move(record));
    TRY(update.commit());
  }
  clear_deregistered();
  return Nothing{};
}

// Under the lock. The snapshot that registering a folder made goes as it came, with its last user. Others are the
// user's, as in EC2.
void Cloud::deregister(Update& update, ImageRecord record) {
  record.state = "deregistered";
  update.put(std::move(record));
}

void Cloud::clear_deregistered() {
  crash_point("deregister.recorded");
  archive_.remove_orphans();
  // The files go when no instance stands on them any more.
  executor_.post("tidy", [this] { keeper_.tidy(); });
}

Answer<DescribeImagesReply> Cloud::describe_images(const Caller& caller,
                                                   const DescribeImagesRequest& request) {
  TRY(image_filters().check(request.filters));
  std::scoped_lock lock(model_.mutex());
  for (const std::string& id : request.image_ids) TRY(find_image_record(caller, id));
  if (request.dry_run.value_or(false)) return dry_run_error();
  const auto& owners = request.owners;
  bool ours = owners.empty() || std::any_of(owners.begin(), owners.end(), [](const std::string& owner) {
                return owner == "self" || owner == kAccount;
              });
  DescribeImagesReply reply;
  for (const auto& [id, record] : model_.images()) {
    const auto& wanted = request.image_ids;
    bool named = wanted.empty() || std::find(wanted.begin(), wanted.end(), id) != wanted.end();
    if (!ours || !named || record.region != caller.region || record.state == "deregistered") continue;
    if (launchable(record, request.executable_users) &&
        image_filters().matches(record, record.tags, request.filters))
      reply.images.push_back(describe_image(record));
  }
  return reply;
}

}  // namespace haneul::agent
