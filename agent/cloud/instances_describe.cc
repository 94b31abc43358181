// SPDX-License-Identifier: Apache-2.0
// The operations that look at instances and types.
#include <fcntl.h>

#include <algorithm>

#include "agent/cloud/cloud.h"
#include "base/console_ring.h"
#include "base/file.h"

namespace haneul::agent {
namespace {

std::vector<std::string> optional_value(const std::optional<std::string>& value) {
  return value ? std::vector<std::string>{*value} : std::vector<std::string>{};
}

FilterTable<InstanceRecord> instance_filters(const Places& places, const Model& model) {
  using R = const InstanceRecord&;
  using V = std::vector<std::string>;
  auto of_volumes = [&model](R r, std::string (*value)(const VolumeRecord&)) {
    V values;
    for (const VolumeRecord& volume : model.volumes_of(r)) values.push_back(value(volume));
    return values;
  };
  return FilterTable<InstanceRecord>({
      {"instance-id", [](R r) -> V { return {r.id}; }},
      {"instance-state-name", [](R r) -> V { return {r.state}; }},
      {"instance-state-code",
       [](R r) -> V { return {std::to_string(code(state_from(r.state).value_or(State::kTerminated)))}; }},
      {"instance-type", [](R r) -> V { return {r.type}; }},
      {"image-id", [](R r) -> V { return {r.image_id}; }},
      {"key-name", [](R r) -> V { return optional_value(r.key_name); }},
      {"availability-zone", [](R r) -> V { return {r.zone}; }},
      {"reservation-id", [](R r) -> V { return {r.reservation_id}; }},
      {"client-token", [](R r) -> V { return {r.client_token}; }},
      {"private-ip-address", [](R r) -> V { return {r.address}; }},
      {"network-interface.mac-address", [](R r) -> V { return {r.mac}; }},
      {"private-dns-name", [](R r) -> V { return {host_name(r.address) + "." + domain_name(r.region)}; }},
      {"launch-time", [](R r) -> V { return {to_text(r.launch_time)}; }},
      {"launch-index", [](R r) -> V { return {std::to_string(r.launch_index)}; }},
      {"architecture", [](R) -> V { return {"x86_64"}; }},
      {"hypervisor", [](R) -> V { return {"xen"}; }},
      {"virtualization-type", [](R) -> V { return {"hvm"}; }},
      {"root-device-type", [](R) -> V { return {"ebs"}; }},
      {"root-device-name", [](R r) -> V { return {r.root_device}; }},
      {"owner-id", [](R) -> V { return {kAccount}; }},
      {"tenancy", [](R) -> V { return {"default"}; }},
      {"block-device-mapping.volume-id",
       [=](R r) { return of_volumes(r, [](const VolumeRecord& v) { return v.id; }); }},
      {"block-device-mapping.device-name",
       [=](R r) { return of_volumes(r, [](const VolumeRecord& v) { return v.device; }); }},
      {"block-device-mapping.status",
       [=](R r) { return of_volumes(r, [](const VolumeRecord& v) { return v.attachment; }); }},
      {"block-device-mapping.delete-on-termination",
       [=](R r) {
         return of_volumes(r, [](const VolumeRecord& v) {
           return std::string(v.delete_on_termination ? "true" : "false");
         });
       }},
      {"state-reason-code", [](R r) -> V { return r.reason ? V{r.reason->code} : V{}; }},
      {"subnet-id", [&places](R r) -> V { return {places.zone(r.zone)->subnet_id}; }},
      {"vpc-id", [&places](R r) -> V { return {places.region(r.region)->vpc_id}; }},
  });
}

// Filters that work on the status's own values besides those of the instance.
const FilterTable<InstanceRecord>& status_filters() {
  using R = const InstanceRecord&;
  using V = std::vector<std::string>;
  static const FilterTable<InstanceRecord> table({
      {"availability-zone", [](R r) -> V { return {r.zone}; }},
      {"instance-state-name", [](R r) -> V { return {r.state}; }},
      {"instance-state-code",
       [](R r) -> V { return {std::to_string(code(state_from(r.state).value_or(State::kTerminated)))}; }},
      {"instance-status.status", [](R r) -> V { return {r.state == "running" ? "ok" : "not-applicable"}; }},
      {"system-status.status", [](R r) -> V { return {r.state == "running" ? "ok" : "not-applicable"}; }},
  });
  return table;
}

InstanceStatusSummary status_summary(bool running) {
  InstanceStatusSummary summary;
  summary.status = running ? "ok" : "not-applicable";
  if (running) summary.details.push_back({.name = "reachability", .status = "passed"});
  return summary;
}

}  // namespace

std::vector<InstanceBlockDeviceMapping> Cloud::mappings_of(const InstanceRecord& record) {
  std::vector<InstanceBlockDeviceMapping> mappings;
  for (const VolumeRecord& volume : model_.volumes_of(record)) {
    mappings.push_back({.device_name = volume.device,
                        .ebs = {.attach_time = volume.attached,
                                .delete_on_termination = volume.delete_on_termination,
                                .status = volume.attachment,
                                .volume_id = volume.id}});
  }
  return mappings;
}

Instance Cloud::describe(const InstanceRecord& record) {
  Instance instance;
  bool gone = record.state == name(State::kTerminated);
  const Zone* zone = places_.zone(record.zone);
  instance.ami_launch_index = record.launch_index;
  instance.image_id = record.image_id;
  instance.instance_id = record.id;
  instance.instance_type = record.type;
  instance.key_name = record.key_name;
  instance.launch_time = record.launch_time;
  instance.monitoring.state = "disabled";
  instance.placement = {.availability_zone = record.zone, .group_name = "", .tenancy = "default"};
  if (!gone) {
    instance.private_dns_name = host_name(record.address) + "." + domain_name(record.region);
    instance.private_ip_address = record.address;
    if (zone != nullptr) instance.subnet_id = zone->subnet_id;
    instance.vpc_id = places_.region(record.region)->vpc_id;
    instance.block_device_mappings = mappings_of(record);
  }
  instance.state = agent::describe(state_from(record.state).value_or(State::kTerminated));
  instance.state_transition_reason = record.transition_reason;
  instance.state_reason = record.reason;
  instance.architecture = "x86_64";
  instance.client_token = record.client_token;
  instance.hypervisor = "xen";
  instance.root_device_name = record.root_device;
  instance.root_device_type = "ebs";
  instance.tags = record.tags;
  instance.virtualization_type = "hvm";
  return instance;
}

Reservation Cloud::reservation(const std::vector<InstanceRecord>& instances) {
  Reservation reservation;
  reservation.owner_id = kAccount;
  if (!instances.empty()) reservation.reservation_id = instances.front().reservation_id;
  for (const InstanceRecord& record : instances) reservation.instances.push_back(describe(record));
  std::sort(reservation.instances.begin(), reservation.instances.end(),
            [](const Instance& a, const Instance& b) { return a.ami_launch_index < b.ami_launch_index; });
  return reservation;
}

Answer<DescribeInstancesReply> Cloud::describe_instances(const Caller& caller,
                                                         const DescribeInstancesRequest& request) {
  const auto filters = instance_filters(places_, model_);
  TRY(filters.check(request.filters));
  if (!request.instance_ids.empty() && request.max_results) {
    return ApiError(ApiCode::kInvalidParameterCombination,
                    "The parameter instancesSet cannot be used with the parameter maxResults");
  }
  std::scoped_lock lock(model_.mutex());
  auto named = TRY(find_instances(caller, request.instance_ids));
  if (request.dry_run.value_or(false)) return dry_run_error();
  std::map<std::string, std::vector<InstanceRecord>> reservations;
  auto consider = [&](const InstanceRecord& record) {
    bool here = record.region == caller.region;
    if (here && filters.matches(record, record.tags, request.filters))
      reservations[record.reservation_id].push_back(record);
  };
  if (request.instance_ids.empty()) {
    for (const auto& [id, record] : model_.instances()) consider(record);
  } else {
    for (const InstanceRecord& record : named) consider(record);
  }
  std::vector<std::string> ids;
  for (const auto& [id, records] : reservations) ids.push_back(id);
  Page page = TRY(page_of(ids, request.max_results, request.next_token));
  DescribeInstancesReply reply;
  for (size_t i = page.begin; i < page.end; ++i)
    reply.reservations.push_back(reservation(reservations[ids[i]]));
  reply.next_token = page.next_token;
  return reply;
}

Answer<DescribeInstanceStatusReply> Cloud::describe_instance_status(
    const Caller& caller, const DescribeInstanceStatusRequest& request) {
  TRY(status_filters().check(request.filters));
  if (!request.instance_ids.empty() && request.max_results) {
    return ApiError(ApiCode::kInvalidParameterCombination,
                    "The parameter instancesSet cannot be used with the parameter maxResults");
  }
  std::scoped_lock lock(model_.mutex());
  TRY(find_instances(caller, request.instance_ids));
  if (request.dry_run.value_or(false)) return dry_run_error();
  std::vector<std::string> ids;
  for (const auto& [id, record] : model_.instances()) {
    const auto& wanted = request.instance_ids;
    bool named = wanted.empty() || std::find(wanted.begin(), wanted.end(), id) != wanted.end();
    bool shown = record.state == name(State::kRunning) || request.include_all_instances.value_or(false);
    if (record.region == caller.region && named && shown &&
        status_filters().matches(record, record.tags, request.filters)) {
      ids.push_back(id);
    }
  }
  Page page = TRY(page_of(ids, request.max_results, request.next_token));
  DescribeInstanceStatusReply reply;
  for (size_t i = page.begin; i < page.end; ++i) {
    const InstanceRecord& record = model_.instances()[ids[i]];
    bool running = record.state == name(State::kRunning);
    InstanceStatus status;
    status.availability_zone = record.zone;
    status.instance_id = record.id;
    status.instance_state = agent::describe(state_from(record.state).value_or(State::kTerminated));
    status.instance_status = status_summary(running);
    status.system_status = status_summary(running);
    reply.instance_statuses.push_back(std::move(status));
  }
  reply.next_token = page.next_token;
  return reply;
}

Answer<GetConsoleOutputReply> Cloud::get_console_output(const Caller& caller,
                                                        const GetConsoleOutputRequest& request) {
  {
    std::scoped_lock lock(model_.mutex());
    TRY(find_instances(caller, {request.instance_id}));
  }
  if (request.dry_run.value_or(false)) return dry_run_error();
  GetConsoleOutputReply reply;
  reply.instance_id = request.instance_id;
  reply.timestamp = now();
  auto ring = open_file(options_.keeper.layout.console(request.instance_id), O_RDONLY | O_NOFOLLOW);
  if (!ring.ok()) return reply;
  auto text = read_console_ring(ring->get());
  // A ring that is not one yet: the instance has not written anything.
  if (text.ok()) reply.output = to_base64(*text);
  return reply;
}

Answer<DescribeInstanceTypesReply> Cloud::describe_instance_types(
    const Caller&, const DescribeInstanceTypesRequest& request) {
  using V = std::vector<std::string>;
  using R = const InstanceType&;
  static const FilterTable<InstanceType> filters({
      {"instance-type", [](R r) -> V { return {r.name}; }},
      {"hypervisor", [](R r) -> V { return r.hypervisor ? V{*r.hypervisor} : V{}; }},
      {"current-generation", [](R) -> V { return {"true"}; }},
      {"bare-metal", [](R r) -> V { return {r.hypervisor ? "false" : "true"}; }},
      {"free-tier-eligible", [](R r) -> V { return {r.free_tier ? "true" : "false"}; }},
      {"burstable-performance-supported", [](R r) -> V { return {r.burstable ? "true" : "false"}; }},
      {"memory-info.size-in-mib", [](R r) -> V { return {std::to_string(r.memory_mib)}; }},
      {"vcpu-info.default-vcpus", [](R r) -> V { return {std::to_string(r.vcpus)}; }},
      {"processor-info.supported-architecture", [](R) -> V { return {"x86_64"}; }},
  });
  TRY(filters.check(request.filters));
  std::map<std::string, const InstanceType*> found;
  for (const InstanceType& type : instance_types()) {
    const auto& wanted = request.instance_types;
    bool named = wanted.empty() || std::find(wanted.begin(), wanted.end(), type.name) != wanted.end();
    if (named && filters.matches(type, {}, request.filters)) found[type.name] = &type;
  }
  V unknown;
  for (const std::string& name : request.instance_types) {
    if (find_instance_type(name) == nullptr) unknown.push_back(name);
  }
  if (!unknown.empty()) {
    return api_error(ApiCode::kInvalidInstanceType,
                     "The following supplied instance types do not exist: [{}]", fmt::join(unknown, ", "));
  }
  if (request.dry_run.value_or(false)) return dry_run_error();
  V names;
  for (const auto& [name, type] : found) names.push_back(name);
  Page page = TRY(page_of(names, request.max_results, request.next_token, 5, 100));
  DescribeInstanceTypesReply reply;
  for (size_t i = page.begin; i < page.end; ++i)
    reply.instance_types.push_back(agent::describe(*found[names[i]]));
  reply.next_token = page.next_token;
  return reply;
}

}  // namespace haneul::agent
