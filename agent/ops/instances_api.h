// SPDX-License-Identifier: Apache-2.0
// Requests and replies of the operations on instances.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "agent/ops/shapes.h"

namespace haneul::agent {

struct RunInstancesRequest {
  std::vector<BlockDeviceMapping> block_device_mappings;
  std::optional<std::string> image_id;
  std::optional<std::string> instance_type;
  std::optional<std::string> key_name;
  int64_t max_count = 0;
  int64_t min_count = 0;
  std::optional<MonitoringEnabled> monitoring;
  std::optional<Placement> placement;
  std::vector<std::string> security_group_ids;
  std::vector<std::string> security_groups;
  std::optional<std::string> subnet_id;
  std::optional<std::string> user_data;
  std::optional<std::string> client_token;
  std::optional<bool> disable_api_termination;
  std::optional<bool> dry_run;
  std::optional<bool> ebs_optimized;
  std::optional<std::string> instance_initiated_shutdown_behavior;
  std::optional<std::string> private_ip_address;
  std::vector<TagSpecification> tag_specifications;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    visit({.name = "BlockDeviceMappings", .wire = "BlockDeviceMapping"},
          &RunInstancesRequest::block_device_mappings);
    visit({.name = "ImageId", .wire = "ImageId"}, &RunInstancesRequest::image_id);
    visit({.name = "InstanceType", .wire = "InstanceType"}, &RunInstancesRequest::instance_type);
    visit({.name = "KeyName", .wire = "KeyName"}, &RunInstancesRequest::key_name);
    visit({.name = "MaxCount", .wire = "MaxCount", .required = true}, &RunInstancesRequest::max_count);
    visit({.name = "MinCount", .wire = "MinCount", .required = true}, &RunInstancesRequest::min_count);
    visit({.name = "Monitoring", .wire = "Monitoring"}, &RunInstancesRequest::monitoring);
    visit({.name = "Placement", .wire = "Placement"}, &RunInstancesRequest::placement);
    visit({.name = "SecurityGroupIds", .wire = "SecurityGroupId"}, &RunInstancesRequest::security_group_ids);
    visit({.name = "SecurityGroups", .wire = "SecurityGroup"}, &RunInstancesRequest::security_groups);
    visit({.name = "SubnetId", .wire = "SubnetId"}, &RunInstancesRequest::subnet_id);
    visit({.name = "UserData", .wire = "UserData"}, &RunInstancesRequest::user_data);
    visit({.name = "ClientToken"}, &RunInstancesRequest::client_token);
    visit({.name = "DisableApiTermination"}, &RunInstancesRequest::disable_api_termination);
    visit({.name = "DryRun"}, &RunInstancesRequest::dry_run);
    visit({.name = "EbsOptimized"}, &RunInstancesRequest::ebs_optimized);
    visit({.name = "InstanceInitiatedShutdownBehavior"},
          &RunInstancesRequest::instance_initiated_shutdown_behavior);
    visit({.name = "PrivateIpAddress"}, &RunInstancesRequest::private_ip_address);
    visit({.name = "TagSpecifications", .wire = "TagSpecification"},
          &RunInstancesRequest::tag_specifications);
  }
};

struct DescribeInstancesRequest {
  std::vector<Filter> filters;
  std::vector<std::string> instance_ids;
  std::optional<bool> dry_run;
  std::optional<int64_t> max_results;
  std::optional<std::string> next_token;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    visit({.name = "Filters", .wire = "Filter"}, &DescribeInstancesRequest::filters);
    visit({.name = "InstanceIds", .wire = "InstanceId"}, &DescribeInstancesRequest::instance_ids);
    visit({.name = "DryRun"}, &DescribeInstancesRequest::dry_run);
    visit({.name = "MaxResults"}, &DescribeInstancesRequest::max_results);
    visit({.name = "NextToken"}, &DescribeInstancesRequest::next_token);
  }
};

struct DescribeInstancesReply {
  std::vector<Reservation> reservations;
  std::optional<std::string> next_token;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    visit({.name = "Reservations", .wire = "reservationSet"}, &DescribeInstancesReply::reservations);
    visit({.name = "NextToken"}, &DescribeInstancesReply::next_token);
  }
};

struct DescribeInstanceStatusRequest {
  std::vector<Filter> filters;
  std::vector<std::string> instance_ids;
  std::optional<int64_t> max_results;
  std::optional<std::string> next_token;
  std::optional<bool> dry_run;
  std::optional<bool> include_all_instances;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    visit({.name = "Filters", .wire = "Filter"}, &DescribeInstanceStatusRequest::filters);
    visit({.name = "InstanceIds", .wire = "InstanceId"}, &DescribeInstanceStatusRequest::instance_ids);
    visit({.name = "MaxResults", .wire = "MaxResults"}, &DescribeInstanceStatusRequest::max_results);
    visit({.name = "NextToken", .wire = "NextToken"}, &DescribeInstanceStatusRequest::next_token);
    visit({.name = "DryRun"}, &DescribeInstanceStatusRequest::dry_run);
    visit({.name = "IncludeAllInstances"}, &DescribeInstanceStatusRequest::include_all_instances);
  }
};

struct DescribeInstanceStatusReply {
  std::vector<InstanceStatus> instance_statuses;
  std::optional<std::string> next_token;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    visit({.name = "InstanceStatuses", .wire = "instanceStatusSet"},
          &DescribeInstanceStatusReply::instance_statuses);
    visit({.name = "NextToken"}, &DescribeInstanceStatusReply::next_token);
  }
};

struct StartInstancesRequest {
  std::vector<std::string> instance_ids;
  std::optional<bool> dry_run;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    visit({.name = "InstanceIds", .wire = "InstanceId", .required = true},
          &StartInstancesRequest::instance_ids);
    visit({.name = "DryRun"}, &StartInstancesRequest::dry_run);
  }
};

struct StartInstancesReply {
  std::vector<InstanceStateChange> starting_instances;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    visit({.name = "StartingInstances", .wire = "instancesSet"}, &StartInstancesReply::starting_instances);
  }
};

struct StopInstancesRequest {
  std::vector<std::string> instance_ids;
  std::optional<bool> dry_run;
  std::optional<bool> force;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    visit({.name = "InstanceIds", .wire = "InstanceId", .required = true},
          &StopInstancesRequest::instance_ids);
    visit({.name = "DryRun"}, &StopInstancesRequest::dry_run);
    visit({.name = "Force"}, &StopInstancesRequest::force);
  }
};

struct StopInstancesReply {
  std::vector<InstanceStateChange> stopping_instances;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    visit({.name = "StoppingInstances", .wire = "instancesSet"}, &StopInstancesReply::stopping_instances);
  }
};

struct RebootInstancesRequest {
  std::vector<std::string> instance_ids;
  std::optional<bool> dry_run;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    visit({.name = "InstanceIds", .wire = "InstanceId", .required = true},
          &RebootInstancesRequest::instance_ids);
    visit({.name = "DryRun"}, &RebootInstancesRequest::dry_run);
  }
};

struct TerminateInstancesRequest {
  std::vector<std::string> instance_ids;
  std::optional<bool> dry_run;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    visit({.name = "InstanceIds", .wire = "InstanceId", .required = true},
          &TerminateInstancesRequest::instance_ids);
    visit({.name = "DryRun"}, &TerminateInstancesRequest::dry_run);
  }
};

struct TerminateInstancesReply {
  std::vector<InstanceStateChange> terminating_instances;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    visit({.name = "TerminatingInstances", .wire = "instancesSet"},
          &TerminateInstancesReply::terminating_instances);
  }
};

struct GetConsoleOutputRequest {
  std::string instance_id;
  std::optional<bool> dry_run;
  std::optional<bool> latest;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    visit({.name = "InstanceId", .wire = "InstanceId", .required = true},
          &GetConsoleOutputRequest::instance_id);
    visit({.name = "DryRun"}, &GetConsoleOutputRequest::dry_run);
    visit({.name = "Latest", .wire = "Latest"}, &GetConsoleOutputRequest::latest);
  }
};

struct GetConsoleOutputReply {
  std::string instance_id;
  std::string output;
  Timestamp timestamp;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    visit({.name = "InstanceId"}, &GetConsoleOutputReply::instance_id);
    visit({.name = "Output"}, &GetConsoleOutputReply::output);
    visit({.name = "Timestamp"}, &GetConsoleOutputReply::timestamp);
  }
};

struct EbsInstanceBlockDeviceSpecification {
  std::optional<bool> delete_on_termination;
  std::optional<std::string> volume_id;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    visit({.name = "DeleteOnTermination"}, &EbsInstanceBlockDeviceSpecification::delete_on_termination);
    visit({.name = "VolumeId"}, &EbsInstanceBlockDeviceSpecification::volume_id);
  }
};

struct InstanceBlockDeviceMappingSpecification {
  std::optional<std::string> device_name;
  std::optional<EbsInstanceBlockDeviceSpecification> ebs;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    visit({.name = "DeviceName"}, &InstanceBlockDeviceMappingSpecification::device_name);
    visit({.name = "Ebs"}, &InstanceBlockDeviceMappingSpecification::ebs);
  }
};

struct ModifyInstanceAttributeRequest {
  std::optional<std::string> attribute;
  std::vector<InstanceBlockDeviceMappingSpecification> block_device_mappings;
  std::optional<AttributeBooleanValue> disable_api_termination;
  std::optional<bool> dry_run;
  std::string instance_id;
  std::optional<AttributeValue> instance_initiated_shutdown_behavior;
  std::optional<AttributeValue> instance_type;
  std::optional<BlobAttributeValue> user_data;
  std::optional<std::string> value;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    visit({.name = "Attribute"}, &ModifyInstanceAttributeRequest::attribute);
    visit({.name = "BlockDeviceMappings", .wire = "blockDeviceMapping"},
          &ModifyInstanceAttributeRequest::block_device_mappings);
    visit({.name = "DisableApiTermination"}, &ModifyInstanceAttributeRequest::disable_api_termination);
    visit({.name = "DryRun"}, &ModifyInstanceAttributeRequest::dry_run);
    visit({.name = "InstanceId", .required = true}, &ModifyInstanceAttributeRequest::instance_id);
    visit({.name = "InstanceInitiatedShutdownBehavior"},
          &ModifyInstanceAttributeRequest::instance_initiated_shutdown_behavior);
    visit({.name = "InstanceType"}, &ModifyInstanceAttributeRequest::instance_type);
    visit({.name = "UserData"}, &ModifyInstanceAttributeRequest::user_data);
    visit({.name = "Value"}, &ModifyInstanceAttributeRequest::value);
  }
};

struct DescribeInstanceAttributeRequest {
  std::string attribute;
  std::optional<bool> dry_run;
  std::string instance_id;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    visit({.name = "Attribute", .required = true}, &DescribeInstanceAttributeRequest::attribute);
    visit({.name = "DryRun"}, &DescribeInstanceAttributeRequest::dry_run);
    visit({.name = "InstanceId", .required = true}, &DescribeInstanceAttributeRequest::instance_id);
  }
};

struct DescribeInstanceAttributeReply {
  std::optional<AttributeBooleanValue> disable_api_termination;
  std::string instance_id;
  std::optional<AttributeValue> instance_initiated_shutdown_behavior;
  std::optional<AttributeValue> instance_type;
  std::optional<AttributeValue> root_device_name;
  std::optional<AttributeValue> user_data;
  std::vector<InstanceBlockDeviceMapping> block_device_mappings;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    visit({.name = "DisableApiTermination"}, &DescribeInstanceAttributeReply::disable_api_termination);
    visit({.name = "InstanceId"}, &DescribeInstanceAttributeReply::instance_id);
    visit({.name = "InstanceInitiatedShutdownBehavior"},
          &DescribeInstanceAttributeReply::instance_initiated_shutdown_behavior);
    visit({.name = "InstanceType"}, &DescribeInstanceAttributeReply::instance_type);
    visit({.name = "RootDeviceName"}, &DescribeInstanceAttributeReply::root_device_name);
    visit({.name = "UserData"}, &DescribeInstanceAttributeReply::user_data);
    visit({.name = "BlockDeviceMappings", .wire = "blockDeviceMapping"},
          &DescribeInstanceAttributeReply::block_device_mappings);
  }
};

struct DescribeInstanceTypesRequest {
  std::optional<bool> dry_run;
  std::vector<std::string> instance_types;
  std::vector<Filter> filters;
  std::optional<int64_t> max_results;
  std::optional<std::string> next_token;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    visit({.name = "DryRun", .wire = "DryRun"}, &DescribeInstanceTypesRequest::dry_run);
    visit({.name = "InstanceTypes", .wire = "InstanceType"}, &DescribeInstanceTypesRequest::instance_types);
    visit({.name = "Filters", .wire = "Filter"}, &DescribeInstanceTypesRequest::filters);
    visit({.name = "MaxResults", .wire = "MaxResults"}, &DescribeInstanceTypesRequest::max_results);
    visit({.name = "NextToken", .wire = "NextToken"}, &DescribeInstanceTypesRequest::next_token);
  }
};

struct DescribeInstanceTypesReply {
  std::vector<InstanceTypeInfo> instance_types;
  std::optional<std::string> next_token;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    visit({.name = "InstanceTypes", .wire = "instanceTypeSet"}, &DescribeInstanceTypesReply::instance_types);
    visit({.name = "NextToken"}, &DescribeInstanceTypesReply::next_token);
  }
};

}  // namespace haneul::agent
