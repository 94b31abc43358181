// SPDX-License-Identifier: Apache-2.0
#include "agent/cli/api.h"

#include <grp.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>

#include "agent/cli/wait.h"
#include "agent/ops/ids.h"

namespace haneul::agent {
namespace {

// A name is looked for as it is, not as a pattern.
std::string escaped(const std::string& text) {
  std::string out;
  for (char c : text) {
    if (c == '*' || c == '?' || c == '\\') out += '\\';
    out += c;
  }
  return out;
}

// Whose group may use it, besides root.
std::string group_of(const std::filesystem::path& file) {
  struct stat info {};
  if (::stat(file.c_str(), &info) != 0 || info.st_gid == 0) return "";
  group entry{};
  group* found = nullptr;
  std::string buffer(16 << 10, '\0');
  ::getgrgid_r(info.st_gid, &entry, buffer.data(), buffer.size(), &found);
  return found == nullptr ? std::to_string(info.st_gid) : found->gr_name;
}

Error unreachable(const std::filesystem::path& socket, const Error& error) {
  if (error.code() == ErrorCode::kPermission) {
    std::string group = group_of(socket);
    return make_error(ErrorCode::kPermission, "no permission to use {}: run haneul with sudo{}",
                      socket.string(), group.empty() ? "" : fmt::format(", or join the group {}", group));
  }
  return make_error(ErrorCode::kCancelled,
                    "no haneuld serves {}: start one, or choose with --socket or HANEUL_SOCKET",
                    socket.string());
}

// A reply that did not come is another thing than a daemon that is not there; one that was killed leaves its socket.
Error unanswered(const std::filesystem::path& socket, const Error& error) {
  bool lost = error.code() == ErrorCode::kTimeout || error.code() == ErrorCode::kIo;
  return lost && error.number() != ECONNREFUSED ? error : unreachable(socket, error);
}

}  // namespace

std::string text_of(const Json& object, std::string_view member) {
  auto found = object.find(std::string(member));
  if (found == object.end()) return "";
  return found->is_string() ? found->get<std::string>() : to_text(*found);
}

std::string tag_of(const Json& resource, std::string_view key) {
  auto tags = resource.find("Tags");
  if (tags == resource.end()) return "";
  for (const Json& tag : *tags) {
    if (text_of(tag, "Key") == key) return text_of(tag, "Value");
  }
  return "";
}

Result<Json> Api::parse_reply(const HttpReply& reply) {
  auto json = parse_json(reply.body);
  if (!json.ok()) return make_error(ErrorCode::kInternal, "haneuld answered something that is not JSON");
  if (reply.status == 200) return *json;
  Json error = json->value("Error", Json::object());
  std::string code = text_of(error, "Code");
  return make_error(kind_of(code), "{} ({})", text_of(error, "Message"), code);
}

Result<Json> Api::call(std::string_view operation, const Json& request) {
  auto reply = http_request(socket_,
                            {.method = "POST",
                             .target = fmt::format("/{}", operation),
                             .body = to_text(request),
                             .region = region_},
                            limit_, &interrupted());
  if (!reply.ok()) return unanswered(socket_, reply.error());
  return parse_reply(*reply);
}

Result<Json> Api::status() {
  auto reply = http_request(socket_, {.method = "GET", .target = "/status", .body = "", .region = region_},
                            std::chrono::seconds(10));
  if (!reply.ok()) return unanswered(socket_, reply.error());
  return parse_reply(*reply);
}

Result<std::string> Api::own_region() {
  if (!region_.empty()) return region_;
  Json regions = TRY(status()).value("regions", Json::array());
  if (regions.empty() || !regions[0].is_string())
    return make_error(ErrorCode::kInternal,
                      "haneuld does not say which regions it has: is it older than this haneul?");
  return regions[0].get<std::string>();
}

Result<Upgraded> Api::stream(const std::string& target) {
  auto upgraded = http_upgrade(socket_, {.method = "GET", .target = target, .body = "", .region = region_});
  if (!upgraded.ok()) return unanswered(socket_, upgraded.error());
  if (!upgraded->reply.stream) TRY(parse_reply(upgraded->reply));
  return upgraded;
}

Result<std::string> Api::instance_id(const std::string& id_or_name) {
  if (valid_id(id_or_name, "i")) return id_or_name;
  Json filters = Json::array({{{"Name", "tag:Name"}, {"Values", {escaped(id_or_name)}}},
                              {{"Name", "instance-state-name"},
                               {"Values", {"pending", "running", "stopping", "stopped", "shutting-down"}}}});
  Json reply = TRY(call("DescribeInstances", {{"Filters", filters}}));
  std::vector<std::string> found;
  for (const Json& reservation : reply["Reservations"]) {
    for (const Json& instance : reservation["Instances"]) found.push_back(text_of(instance, "InstanceId"));
  }
  if (found.size() == 1) return found[0];
  if (found.empty())
    return make_error(ErrorCode::kNotFound, "no instance has the id or name '{}'", id_or_name);
  return make_error(ErrorCode::kInvalidArgument, "the name '{}' is that of {} instances: {}", id_or_name,
                    found.size(), fmt::join(found, ", "));
}

Result<std::vector<std::string>> Api::instance_ids(const std::vector<std::string>& ids_or_names) {
  std::vector<std::string> ids;
  for (const std::string& one : ids_or_names) {
    std::string id = TRY(instance_id(one));
    if (std::find(ids.begin(), ids.end(), id) == ids.end()) ids.push_back(id);
  }
  return ids;
}

Result<std::vector<Json>> Api::instances(const std::vector<std::string>& ids) {
  Json request = Json::object();
  if (!ids.empty()) request["InstanceIds"] = ids;
  Json reply = TRY(call("DescribeInstances", request));
  std::vector<Json> instances;
  for (const Json& reservation : reply["Reservations"]) {
    for (const Json& instance : reservation["Instances"]) instances.push_back(instance);
  }
  std::stable_sort(instances.begin(), instances.end(), [](const Json& a, const Json& b) {
    return text_of(a, "LaunchTime") < text_of(b, "LaunchTime");
  });
  return instances;
}

Result<Json> Api::instance(const std::string& id) {
  return TRY(instances({id})).at(0);
}

Result<Json> Api::image(const std::string& id_or_name) {
  Json request = Json::object();
  if (valid_id(id_or_name, "ami")) {
    request["ImageIds"] = {id_or_name};
  } else {
    request["Filters"] = Json::array({{{"Name", "name"}, {"Values", {escaped(id_or_name)}}}});
  }
  Json reply = TRY(call("DescribeImages", request));
  // While an image replaces another of its name, there are two.
  for (const Json& image : reply["Images"]) {
    if (image["State"] == "available") return image;
  }
  if (!reply["Images"].empty()) return reply["Images"][0];
  return make_error(ErrorCode::kNotFound, "no image has the id or name '{}' (haneul image ls shows them)",
                    id_or_name);
}

// kind: "Volume" or "Snapshot", as in DescribeVolumes, Volumes and VolumeId.
Result<std::string> Api::id_by_name(const std::string& wanted, const std::string& kind) {
  Json filters = Json::array({{{"Name", "tag:Name"}, {"Values", {escaped(wanted)}}}});
  Json request{{"Filters", filters}};
  if (kind == "Snapshot") request["OwnerIds"] = {"self"};
  Json reply = TRY(call("Describe" + kind + "s", request));
  std::vector<std::string> found;
  for (const Json& one : reply[kind + "s"]) found.push_back(text_of(one, kind + "Id"));
  if (found.size() == 1) return found[0];
  std::string noun = kind == "Volume" ? "volume" : "snapshot";
  if (found.empty()) return make_error(ErrorCode::kNotFound, "no {} has the id or name '{}'", noun, wanted);
  return make_error(ErrorCode::kInvalidArgument, "the name '{}' is that of {} {}s: {}", wanted, found.size(),
                    noun, fmt::join(found, ", "));
}

Result<std::string> Api::volume_id(const std::string& id_or_name) {
  if (id_or_name.starts_with("vol-")) return id_or_name;
  return id_by_name(id_or_name, "Volume");
}

Result<std::string> Api::snapshot_id(const std::string& id_or_name) {
  if (id_or_name.starts_with("snap-")) return id_or_name;
  return id_by_name(id_or_name, "Snapshot");
}

Result<Json> Api::volume(const std::string& id) {
  Json reply = TRY(call("DescribeVolumes", {{"VolumeIds", {id}}}));
  return reply["Volumes"].at(0);
}

Result<Json> Api::snapshot(const std::string& id) {
  Json reply = TRY(call("DescribeSnapshots", {{"SnapshotIds", {id}}}));
  return reply["Snapshots"].at(0);
}

}  // namespace haneul::agent
