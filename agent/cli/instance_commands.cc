// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <tuple>

#include "agent/cli/commands.h"
#include "agent/cli/progress.h"
#include "agent/cli/wait.h"
#include "agent/ops/ids.h"
#include "base/file.h"

namespace haneul::agent {
namespace {

Result<Json> tag_from(const std::string& text) {
  size_t equals = text.find('=');
  if (equals == 0 || equals == std::string::npos) {
    return make_error(ErrorCode::kInvalidArgument, "a tag is KEY=VALUE, not '{}'", text);
  }
  return Json{{"Key", text.substr(0, equals)}, {"Value", text.substr(equals + 1)}};
}

std::string age_of(const Json& instance) {
  auto launched = timestamp_from(text_of(instance, "LaunchTime"));
  if (!launched) return "";
  int64_t s = std::max<int64_t>(0, (now().ms - launched->ms) / 1000);
  if (s < 120) return fmt::format("{}s", s);
  if (s < 7200) return fmt::format("{}m", s / 60);
  if (s < 172800) return fmt::format("{}h", s / 3600);
  return fmt::format("{}d", s / 86400);
}

std::string state_name(const Json& instance) {
  return text_of(instance.value("State", Json::object()), "Name");
}

void print_instances(const std::vector<Json>& instances) {
  Table table({"ID", "NAME", "STATE", "TYPE", "IMAGE", "ADDRESS", "ZONE", "AGE"});
  for (const Json& instance : instances) {
    table.add({text_of(instance, "InstanceId"), tag_of(instance, "Name"), state_name(instance),
               text_of(instance, "InstanceType"), text_of(instance, "ImageId"),
               text_of(instance, "PrivateIpAddress"),
               text_of(instance.value("Placement", Json::object()), "AvailabilityZone"), age_of(instance)});
  }
  table.print();
}

Result<Json> run_request(Api& api, const RunOptions& options) {
  // First of all, so that an unknown image does not make a key pair.
  std::string image = text_of(TRY(api.image(options.image)), "ImageId");
  Json request{{"ImageId", image},
               {"InstanceType", options.type},
               {"MinCount", options.count},
               {"MaxCount", options.count},
               {"ClientToken", new_id("cli")}};
  request["KeyName"] = options.key.empty() ? TRY(default_key(api)) : options.key;
  if (!options.zone.empty()) request["Placement"] = {{"AvailabilityZone", TRY(zone_name(api, options.zone))}};
  if (!options.user_data.empty()) {
    request["UserData"] = to_base64(TRY(read_file(options.user_data, 1 << 20)));
  }
  Json mappings = TRY(launch_mappings(api, options));
  if (!mappings.empty()) request["BlockDeviceMappings"] = mappings;
  if (options.protect) request["DisableApiTermination"] = true;
  if (options.terminate_on_shutdown) request["InstanceInitiatedShutdownBehavior"] = "terminate";
  Json tags = TRY(tag_specifications("instance", options.name, options.tags));
  if (!tags.empty()) request["TagSpecifications"] = tags;
  return request;
}

std::vector<std::string> ids_in(const Json& reservation) {
  std::vector<std::string> ids;
  for (const Json& instance : reservation["Instances"]) ids.push_back(text_of(instance, "InstanceId"));
  return ids;
}

struct Change {
  const char* operation;
  const char* member;  ///< of the reply: the list of changes
  const char* target;  ///< the state to wait for
  const char* work;    ///< what goes on when nobody waits
};

// As they are by now, after the waiting.
Status update_states(Api& api, const std::vector<std::string>& ids, Json& changes) {
  for (const Json& instance : TRY(api.instances(ids))) {
    for (Json& item : changes) {
      if (item["InstanceId"] == instance["InstanceId"]) item["CurrentState"] = instance["State"];
    }
  }
  return {};
}

Result<int> change(Api& api, const Shared& shared, const ChangeOptions& options, const Change& change) {
  std::vector<std::string> ids = TRY(api.instance_ids(options.instances));
  Json request{{"InstanceIds", ids}};
  if (options.force) request["Force"] = true;
  Json reply = TRY(api.call(change.operation, request));
  Result<int> waited = kCliOk;
  if (options.wait) {
    waited = wait_for_instances(api, ids, change.target, options.timeout_s, change.work);
    // Whatever came of it, the reply says what has become of each.
    Status updated = update_states(api, ids, reply[change.member]);
    if (waited.ok() && !updated.ok()) return std::move(updated).error();
  }
  if (shared.json) print_json(reply);
  if (shared.json || !waited.ok()) return waited;
  for (const Json& item : reply.value(change.member, Json::array()))
    fmt::print("{} {}\n", text_of(item, "InstanceId"), text_of(item["CurrentState"], "Name"));
  return waited;
}

void print_member(std::string_view label, const std::string& value) {
  if (!value.empty()) fmt::print("{:<18}{}\n", label, value);
}

}  // namespace

void print_json(const Json& value) {
  fmt::print("{}\n", to_text(value, 2));
}

Result<int> remove_each(const Shared& shared, const std::vector<std::string>& names,
                        const std::string& member,
                        const std::function<Result<Removed>(const std::string&)>& remove) {
  Json list = Json::array();
  Result<int> status = kCliOk;
  for (const std::string& name : names) {
    Result<Removed> removed = remove(name);
    if (!removed.ok()) {
      status = std::move(removed).error();
      break;
    }
    if (!shared.json) fmt::print("{}\n", removed->id);
    removed->reply[member] = removed->id;
    list.push_back(removed->reply);
  }
  if (shared.json) print_json(Json{{"Removed", list}});
  return status;
}

Result<int> run_command(Api& api, const Shared& shared, const RunOptions& options) {
  Json reservation = TRY(api.call("RunInstances", TRY(run_request(api, options))));
  std::vector<std::string> ids = ids_in(reservation);
  Result<int> waited = kCliOk;
  if (options.wait) {
    // Before the waiting, so that they are known whatever comes of it.
    for (const std::string& id : ids) {
      if (!shared.json) fmt::print("{}\n", id);
    }
    std::fflush(stdout);
    waited = wait_for_instances(api, ids, "running", options.timeout_s, "the launch");
  }
  if (!shared.json && options.wait) return waited;
  auto instances = api.instances(ids);
  if (instances.ok()) reservation["Instances"] = *instances;
  if (shared.json) {
    print_json(reservation);
    return waited;
  }
  for (const Json& instance : reservation["Instances"])
    fmt::print("{} {}\n", text_of(instance, "InstanceId"), state_name(instance));
  return kCliOk;
}

Result<int> list_command(Api& api, const Shared& shared, bool all) {
  std::vector<Json> shown;
  for (const Json& instance : TRY(api.instances({}))) {
    if (all || state_name(instance) != "terminated") shown.push_back(instance);
  }
  if (shared.json) {
    print_json(Json{{"Instances", shown}});
  } else if (shown.empty()) {
    fmt::print(stderr, "no instances (haneul run tiny starts one)\n");
  } else {
    print_instances(shown);
  }
  return kCliOk;
}

Result<int> show_command(Api& api, const Shared& shared, const std::string& name) {
  Json instance = TRY(api.instance(TRY(api.instance_id(name))));
  if (shared.json) {
    print_json(instance);
    return kCliOk;
  }
  print_member("Id", text_of(instance, "InstanceId"));
  print_member("Name", tag_of(instance, "Name"));
  print_member("State", state_name(instance));
  print_member("Reason", text_of(instance.value("StateReason", Json::object()), "Message"));
  print_member("Changed", text_of(instance, "StateTransitionReason"));
  print_member("Type", text_of(instance, "InstanceType"));
  print_member("Image", text_of(instance, "ImageId"));
  print_member("Key pair", text_of(instance, "KeyName"));
  print_member("Launched", text_of(instance, "LaunchTime"));
  print_member("Zone", text_of(instance["Placement"], "AvailabilityZone"));
  print_member("Private address", text_of(instance, "PrivateIpAddress"));
  print_member("Private name", text_of(instance, "PrivateDnsName"));
  print_member("Public address", text_of(instance, "PublicIpAddress"));
  print_member("Subnet", text_of(instance, "SubnetId"));
  for (const Json& mapping : instance.value("BlockDeviceMappings", Json::array())) {
    print_member("Volume",
                 fmt::format("{} {}", text_of(mapping, "DeviceName"), text_of(mapping["Ebs"], "VolumeId")));
  }
  for (const Json& tag : instance.value("Tags", Json::array())) {
    print_member("Tag", fmt::format("{}={}", text_of(tag, "Key"), text_of(tag, "Value")));
  }
  return kCliOk;
}

Result<int> start_command(Api& api, const Shared& shared, const ChangeOptions& options) {
  return change(api, shared, options, {"StartInstances", "StartingInstances", "running", "the start"});
}

Result<int> stop_command(Api& api, const Shared& shared, const ChangeOptions& options) {
  return change(api, shared, options, {"StopInstances", "StoppingInstances", "stopped", "the stop"});
}

Result<int> terminate_command(Api& api, const Shared& shared, const ChangeOptions& options) {
  return change(api, shared, options,
                {"TerminateInstances", "TerminatingInstances", "terminated", "the termination"});
}

Result<int> reboot_command(Api& api, const Shared& shared, const ChangeOptions& options) {
  Json reply = TRY(api.call("RebootInstances", {{"InstanceIds", TRY(api.instance_ids(options.instances))}}));
  if (shared.json) print_json(reply);
  return kCliOk;
}

Result<int> tag_command(Api& api, const Shared& shared, const std::string& resource,
                        const std::vector<std::string>& tags, bool remove) {
  std::string id = resource;
  if (id_prefix(id).empty()) id = TRY(api.instance_id(resource));
  Json list = Json::array();
  for (const std::string& tag : tags) {
    if (remove && tag.find('=') == std::string::npos) {
      list.push_back({{"Key", tag}, {"Value", ""}});
    } else {
      list.push_back(TRY(tag_from(tag)));
    }
  }
  Json reply = TRY(api.call(remove ? "DeleteTags" : "CreateTags", {{"Resources", {id}}, {"Tags", list}}));
  if (shared.json) print_json(reply);
  return kCliOk;
}

Result<int> type_list_command(Api& api, const Shared& shared) {
  Json reply = TRY(api.call("DescribeInstanceTypes", Json::object()));
  if (shared.json) {
    print_json(reply);
    return kCliOk;
  }
  auto types = reply["InstanceTypes"].get<std::vector<Json>>();
  std::stable_sort(types.begin(), types.end(), [](const Json& a, const Json& b) {
    auto key = [](const Json& type) {
      std::string name = text_of(type, "InstanceType");
      return std::tuple(name.substr(0, 2), type["MemoryInfo"]["SizeInMiB"].get<int64_t>());
    };
    return key(a) < key(b);
  });
  Table table({"TYPE", "VCPUS", "MEMORY", "NETWORK"});
  for (const Json& type : types) {
    table.add({text_of(type, "InstanceType"), text_of(type["VCpuInfo"], "DefaultVCpus"),
               text_of(type["MemoryInfo"], "SizeInMiB") + " MiB",
               text_of(type["NetworkInfo"], "NetworkPerformance")});
  }
  table.print();
  return kCliOk;
}

// EC2's operation tells of one region.
Result<int> zone_list_command(Api& api, const Shared& shared) {
  Json regions = TRY(api.call("DescribeRegions", Json::object()))["Regions"];
  Json zones = Json::array();
  for (const Json& region : regions) {
    Api there(api.socket(), text_of(region, "RegionName"));
    Json reply = TRY(there.call("DescribeAvailabilityZones", Json::object()));
    for (const Json& zone : reply["AvailabilityZones"]) zones.push_back(zone);
  }
  if (shared.json) {
    print_json(Json{{"AvailabilityZones", zones}});
    return kCliOk;
  }
  Table table({"REGION", "ZONE", "ID", "STATE"});
  for (const Json& zone : zones) {
    table.add({text_of(zone, "RegionName"), text_of(zone, "ZoneName"), text_of(zone, "ZoneId"),
               text_of(zone, "State")});
  }
  table.print();
  return kCliOk;
}

}  // namespace haneul::agent
