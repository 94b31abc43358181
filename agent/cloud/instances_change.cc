// SPDX-License-Identifier: Apache-2.0
// The operations that change instances: start, stop, reboot, terminate, attributes.
#include <algorithm>

#include "agent/cloud/cloud.h"
#include "agent/cloud/crash.h"

namespace haneul::agent {
namespace {

std::string_view verb(Event event) {
  switch (event) {
    case Event::kStart:
      return "started";
    case Event::kStop:
      return "stopped";
    default:
      return "terminated";
  }
}

Answer<void> require_ids(const std::vector<std::string>& ids) {
  if (!ids.empty()) return {};
  return ApiError(ApiCode::kMissingParameter, "The request must contain the parameter InstanceIds");
}

State state_of(const InstanceRecord& record) {
  return state_from(record.state).value_or(State::kTerminated);
}

// Either the member for one attribute, or Attribute and Value, as older clients send it.
struct Changes {
  std::optional<std::string> type;
  std::optional<bool> disable_api_termination;
  std::optional<std::string> shutdown_behavior;
  std::optional<std::string> user_data;  ///< bytes
};

Answer<Changes> changes_in(const ModifyInstanceAttributeRequest& request) {
  Changes changes;
  if (request.instance_type) changes.type = request.instance_type->value;
  if (request.disable_api_termination)
    changes.disable_api_termination = request.disable_api_termination->value;
  if (request.instance_initiated_shutdown_behavior) {
    changes.shutdown_behavior = request.instance_initiated_shutdown_behavior->value;
  }
  if (request.user_data && request.user_data->value) changes.user_data = request.user_data->value->bytes;
  if (request.attribute) {
    std::string value = request.value.value_or("");
    if (*request.attribute == "instanceType") {
      changes.type = value;
    } else if (*request.attribute == "disableApiTermination" && (value == "true" || value == "false")) {
      changes.disable_api_termination = value == "true";
    } else if (*request.attribute == "instanceInitiatedShutdownBehavior") {
      changes.shutdown_behavior = value;
    } else if (*request.attribute == "userData" && from_base64(value)) {
      changes.user_data = from_base64(value);
    } else {
      return api_error(ApiCode::kInvalidParameterValue, "Value ({}) for parameter {} is invalid.", value,
                       *request.attribute);
    }
  }
  int count = (changes.type ? 1 : 0) + (changes.disable_api_termination ? 1 : 0) +
              (changes.shutdown_behavior ? 1 : 0) + (changes.user_data ? 1 : 0);
  if (count == 1 || (count == 0 && !request.block_device_mappings.empty())) return changes;
  return ApiError(ApiCode::kInvalidParameterCombination,
                  count == 0 ? "No attributes specified." : "Fields for multiple attribute types specified");
}

}  // namespace

// Checks all, then changes all: one instance in a wrong state leaves every one as it was. `force` is a stop's.
Answer<std::vector<InstanceStateChange>> Cloud::change_state(const std::vector<InstanceRecord>& instances,
                                                             Event event, std::vector<std::string>& changed,
                                                             bool force) {
  Update update(model_);
  std::vector<InstanceStateChange> changes;
  for (InstanceRecord record : instances) {
    State before = state_of(record);
    auto after = next_state(before, event);
    if (!after) {
      return api_error(ApiCode::kIncorrectInstanceState,
                       "The instance '{}' is not in a state from which it can be {}.", record.id,
                       verb(event));
    }
    changes.push_back({.current_state = agent::describe(*after),
                       .instance_id = record.id,
                       .previous_state = agent::describe(before)});
    // A forced stop of one that is stopping already switches it off.
    bool hurries = force && *after == State::kStopping;
    if (*after == before && !hurries) continue;
    changed.push_back(record.id);
    record.forced = force;
    record.state = name(*after);
    record.rebooting = false;
    if (event == Event::kStart) {
      record.launch_time = now();
      record.transition_reason.clear();
      record.reason.reset();
    } else {
      record.transition_reason = user_initiated();
      record.reason = state_reason("Client.UserInitiatedShutdown", "User initiated shutdown");
    }
    update.put(record);
  }
  TRY(update.commit());
  return changes;
}

Answer<void> Cloud::check_root(const InstanceRecord& instance) {
  if (instance.root_volume.empty()) return {};
  auto volumes = model_.volumes_of(instance);
  if (!volumes.empty() && volumes[0].device == instance.root_device) return {};
  return api_error(ApiCode::kInvalidParameterValue,
                   "Invalid value '{}' for instanceId. Instance does not have a volume attached at root ({})",
                   instance.id, instance.root_device);
}

Answer<StartInstancesReply> Cloud::start_instances(const Caller& caller,
                                                   const StartInstancesRequest& request) {
  TRY(require_ids(request.instance_ids));
  StartInstancesReply reply;
  std::vector<std::string> changed;
  {
    std::scoped_lock lock(model_.mutex());
    auto instances = TRY(find_instances(caller, request.instance_ids));
    for (const InstanceRecord& record : instances) {
      if (state_of(record) == State::kStopped) TRY(check_size(record.type));
      if (state_of(record) == State::kStopped) TRY(check_root(record));
    }
    if (request.dry_run.value_or(false)) return dry_run_error();
    reply.starting_instances = TRY(change_state(instances, Event::kStart, changed));
  }
  crash_point("start-instances.intended");
  for (const std::string& id : changed) keeper_.start(id);
  return reply;
}

Answer<StopInstancesReply> Cloud::stop_instances(const Caller& caller, const StopInstancesRequest& request) {
  TRY(require_ids(request.instance_ids));
  StopInstancesReply reply;
  std::vector<std::string> changed;
  bool force = request.force.value_or(false);
  {
    std::scoped_lock lock(model_.mutex());
    auto instances = TRY(find_instances(caller, request.instance_ids));
    if (request.dry_run.value_or(false)) return dry_run_error();
    reply.stopping_instances = TRY(change_state(instances, Event::kStop, changed, force));
  }
  crash_point("stop-instances.intended");
  for (const std::string& id : changed) keeper_.stop(id, force);
  return reply;
}

Answer<TerminateInstancesReply> Cloud::terminate_instances(const Caller& caller,
                                                           const TerminateInstancesRequest& request) {
  TRY(require_ids(request.instance_ids));
  TerminateInstancesReply reply;
  std::vector<std::string> changed;
  {
    std::scoped_lock lock(model_.mutex());
    auto instances = TRY(find_instances(caller, request.instance_ids));
    for (const InstanceRecord& record : instances) {
      if (record.disable_api_termination && record.state != name(State::kTerminated)) {
        return api_error(
            ApiCode::kOperationNotPermitted,
            "The instance '{}' may not be terminated. Modify its 'disableApiTermination' instance "
            "attribute and try again.",
            record.id);
      }
    }
    if (request.dry_run.value_or(false)) return dry_run_error();
    reply.terminating_instances = TRY(change_state(instances, Event::kTerminate, changed));
  }
  crash_point("terminate-instances.intended");
  for (const std::string& id : changed) keeper_.stop(id, false);
  return reply;
}

Answer<Nothing> Cloud::reboot_instances(const Caller& caller, const RebootInstancesRequest& request) {
  TRY(require_ids(request.instance_ids));
  std::vector<std::string> changed;
  {
    std::scoped_lock lock(model_.mutex());
    auto instances = TRY(find_instances(caller, request.instance_ids));
    Update update(model_);
    for (InstanceRecord record : instances) {
      if (state_of(record) == State::kTerminated) continue;
      if (state_of(record) != State::kRunning) {
        return api_error(ApiCode::kIncorrectInstanceState, "The instance '{}' is not in the 'running' state.",
                         record.id);
      }
      if (record.rebooting) continue;
      record.rebooting = true;
      changed.push_back(record.id);
      update.put(record);
    }
    if (request.dry_run.value_or(false)) return dry_run_error();
    TRY(update.commit());
  }
  crash_point("reboot-instances.intended");
  for (const std::string& id : changed) keeper_.reboot(id);
  return Nothing{};
}

// Whether volumes go with the instance: changeable while it runs.
Answer<void> Cloud::change_mappings(const InstanceRecord& instance,
                                    const ModifyInstanceAttributeRequest& request, Update& update) {
  for (const InstanceBlockDeviceMappingSpecification& wanted : request.block_device_mappings) {
    bool changed = false;
    for (VolumeRecord volume : model_.volumes_of(instance)) {
      bool meant = wanted.device_name && volume.device == *wanted.device_name;
      if (!meant || !wanted.ebs || !wanted.ebs->delete_on_termination) continue;
      volume.delete_on_termination = *wanted.ebs->delete_on_termination;
      update.put(volume);
      changed = true;
    }
    if (!changed) {
      return api_error(ApiCode::kInvalidParameterValue, "No device is currently mapped at {}",
                       wanted.device_name.value_or(""));
    }
  }
  return {};
}

Answer<Nothing> Cloud::modify_instance_attribute(const Caller& caller,
                                                 const ModifyInstanceAttributeRequest& request) {
  Changes changes = TRY(changes_in(request));
  std::scoped_lock lock(model_.mutex());
  InstanceRecord record = TRY(find_instances(caller, {request.instance_id}))[0];
  bool stopped = state_of(record) == State::kStopped;
  if ((changes.type || changes.user_data) && !stopped) {
    return api_error(ApiCode::kIncorrectInstanceState, "The instance '{}' is not in the 'stopped' state.",
                     record.id);
  }
  if (state_of(record) == State::kTerminated) {
    return api_error(ApiCode::kIncorrectInstanceState, "The instance '{}' is terminated.", record.id);
  }
  if (changes.type) {
    TRY(check_size(*changes.type));
    record.type = *changes.type;
  }
  if (changes.user_data) {
    if (changes.user_data->size() > (16 << 10)) {
      return ApiError(ApiCode::kInvalidParameterValue, "User data is limited to 16384 bytes");
    }
    record.user_data.bytes = *changes.user_data;
  }
  if (changes.disable_api_termination) record.disable_api_termination = *changes.disable_api_termination;
  if (changes.shutdown_behavior) {
    if (*changes.shutdown_behavior != "stop" && *changes.shutdown_behavior != "terminate") {
      return api_error(ApiCode::kInvalidParameterValue,
                       "Value ({}) for parameter instanceInitiatedShutdownBehavior is invalid.",
                       *changes.shutdown_behavior);
    }
    record.shutdown_behavior = *changes.shutdown_behavior;
  }
  Update update(model_);
  TRY(change_mappings(record, request, update));
  if (request.dry_run.value_or(false)) return dry_run_error();
  TRY(update.put(record).commit());
  return Nothing{};
}

Answer<DescribeInstanceAttributeReply> Cloud::describe_instance_attribute(
    const Caller& caller, const DescribeInstanceAttributeRequest& request) {
  std::scoped_lock lock(model_.mutex());
  InstanceRecord record = TRY(find_instances(caller, {request.instance_id}))[0];
  DescribeInstanceAttributeReply reply;
  reply.instance_id = record.id;
  if (request.attribute == "instanceType") {
    reply.instance_type = AttributeValue{record.type};
  } else if (request.attribute == "disableApiTermination") {
    reply.disable_api_termination = AttributeBooleanValue{record.disable_api_termination};
  } else if (request.attribute == "instanceInitiatedShutdownBehavior") {
    reply.instance_initiated_shutdown_behavior = AttributeValue{record.shutdown_behavior};
  } else if (request.attribute == "userData") {
    reply.user_data = AttributeValue{};
    if (!record.user_data.bytes.empty()) reply.user_data->value = to_base64(record.user_data.bytes);
  } else if (request.attribute == "rootDeviceName") {
    reply.root_device_name = AttributeValue{record.root_device};
  } else if (request.attribute == "blockDeviceMapping") {
    reply.block_device_mappings = mappings_of(record);
  } else {
    return api_error(ApiCode::kInvalidParameterValue, "Value ({}) for parameter attribute is invalid.",
                     request.attribute);
  }
  if (request.dry_run.value_or(false)) return dry_run_error();
  return reply;
}

}  // namespace haneul::agent
