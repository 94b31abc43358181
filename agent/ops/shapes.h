// SPDX-License-Identifier: Apache-2.0
// EC2's structures, as far as Haneul speaks them: names, types and order are those of EC2's API reference.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "agent/ops/shape.h"

namespace haneul::agent {

struct Tag {
  std::string key;
  std::string value;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    visit({.name = "Key"}, &Tag::key);
    visit({.name = "Value"}, &Tag::value);
  }
};

struct TagSpecification {
  std::optional<std::string> resource_type;
  std::vector<Tag> tags;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    visit({.name = "ResourceType"}, &TagSpecification::resource_type);
    visit({.name = "Tags", .wire = "Tag"}, &TagSpecification::tags);
  }
};

struct Filter {
  std::optional<std::string> name;
  std::vector<std::string> values;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    visit({.name = "Name", .wire = "Name"}, &Filter::name);
    visit({.name = "Values", .wire = "Value"}, &Filter::values);
  }
};

struct AttributeValue {
  std::optional<std::string> value;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    visit({.name = "Value"}, &AttributeValue::value);
  }
};

struct AttributeBooleanValue {
  std::optional<bool> value;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    visit({.name = "Value"}, &AttributeBooleanValue::value);
  }
};

struct StateReason {
  std::string code;
  std::string message;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    visit({.name = "Code"}, &StateReason::code);
    visit({.name = "Message"}, &StateReason::message);
  }
};

struct InstanceState {
  int64_t code = 0;
  std::string name;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    visit({.name = "Code"}, &InstanceState::code);
    visit({.name = "Name"}, &InstanceState::name);
  }
};

struct InstanceStateChange {
  InstanceState current_state;
  std::string instance_id;
  InstanceState previous_state;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    visit({.name = "CurrentState"}, &InstanceStateChange::current_state);
    visit({.name = "InstanceId"}, &InstanceStateChange::instance_id);
    visit({.name = "PreviousState"}, &InstanceStateChange::previous_state);
  }
};

struct Placement {
  std::optional<std::string> availability_zone;
  std::optional<std::string> group_name;
  std::optional<std::string> tenancy;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    visit({.name = "AvailabilityZone"}, &Placement::availability_zone);
    visit({.name = "GroupName"}, &Placement::group_name);
    visit({.name = "Tenancy"}, &Placement::tenancy);
  }
};

struct EbsBlockDevice {
  std::optional<bool> delete_on_termination;
  std::optional<int64_t> iops;
  std::optional<std::string> kms_key_id;
  std::optional<std::string> snapshot_id;
  std::optional<int64_t> throughput;
  std::optional<int64_t> volume_size;
  std::optional<std::string> volume_type;
  std::optional<bool> encrypted;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    visit({.name = "DeleteOnTermination"}, &EbsBlockDevice::delete_on_termination);
    visit({.name = "Iops"}, &EbsBlockDevice::iops);
    visit({.name = "KmsKeyId"}, &EbsBlockDevice::kms_key_id);
    visit({.name = "SnapshotId"}, &EbsBlockDevice::snapshot_id);
    visit({.name = "Throughput"}, &EbsBlockDevice::throughput);
    visit({.name = "VolumeSize"}, &EbsBlockDevice::volume_size);
    visit({.name = "VolumeType"}, &EbsBlockDevice::volume_type);
    visit({.name = "Encrypted"}, &EbsBlockDevice::encrypted);
  }
};

struct BlockDeviceMapping {
  std::optional<std::string> device_name;
  std::optional<std::string> virtual_name;
  std::optional<EbsBlockDevice> ebs;
  std::optional<std::string> no_device;
  /// GiB of an instance store volume (VirtualName "ephemeralN"), which EC2's instance types fix.
  std::optional<int64_t> ephemeral_size;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    visit({.name = "DeviceName"}, &BlockDeviceMapping::device_name);
    visit({.name = "VirtualName"}, &BlockDeviceMapping::virtual_name);
    visit({.name = "Ebs"}, &BlockDeviceMapping::ebs);
    visit({.name = "NoDevice"}, &BlockDeviceMapping::no_device);
    visit({.name = "EphemeralSize", .own = true}, &BlockDeviceMapping::ephemeral_size);
  }
};

struct EbsInstanceBlockDevice {
  Timestamp attach_time;
  bool delete_on_termination = false;
  std::string status;
  std::string volume_id;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    visit({.name = "AttachTime"}, &EbsInstanceBlockDevice::attach_time);
    visit({.name = "DeleteOnTermination"}, &EbsInstanceBlockDevice::delete_on_termination);
    visit({.name = "Status"}, &EbsInstanceBlockDevice::status);
    visit({.name = "VolumeId"}, &EbsInstanceBlockDevice::volume_id);
  }
};

struct InstanceBlockDeviceMapping {
  std::string device_name;
  EbsInstanceBlockDevice ebs;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    visit({.name = "DeviceName"}, &InstanceBlockDeviceMapping::device_name);
    visit({.name = "Ebs"}, &InstanceBlockDeviceMapping::ebs);
  }
};

struct Monitoring {
  std::string state;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    visit({.name = "State"}, &Monitoring::state);
  }
};

struct Instance {
  int64_t ami_launch_index = 0;
  std::string image_id;
  std::string instance_id;
  std::string instance_type;
  std::optional<std::string> key_name;
  Timestamp launch_time;
  Monitoring monitoring;
  Placement placement;
  std::string private_dns_name;
  std::optional<std::string> private_ip_address;
  std::string public_dns_name;
  std::optional<std::string> public_ip_address;
  InstanceState state;
  std::string state_transition_reason;
  std::optional<std::string> subnet_id;
  std::optional<std::string> vpc_id;
  std::string architecture;
  std::vector<InstanceBlockDeviceMapping> block_device_mappings;
  std::string client_token;
  bool ebs_optimized = false;
  std::string hypervisor;
  std::optional<std::string> root_device_name;
  std::string root_device_type;
  std::optional<StateReason> state_reason;
  std::vector<Tag> tags;
  std::string virtualization_type;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    visit({.name = "AmiLaunchIndex"}, &Instance::ami_launch_index);
    visit({.name = "ImageId"}, &Instance::image_id);
    visit({.name = "InstanceId"}, &Instance::instance_id);
    visit({.name = "InstanceType"}, &Instance::instance_type);
    visit({.name = "KeyName"}, &Instance::key_name);
    visit({.name = "LaunchTime"}, &Instance::launch_time);
    visit({.name = "Monitoring"}, &Instance::monitoring);
    visit({.name = "Placement"}, &Instance::placement);
    visit({.name = "PrivateDnsName"}, &Instance::private_dns_name);
    visit({.name = "PrivateIpAddress"}, &Instance::private_ip_address);
    visit({.name = "PublicDnsName", .wire = "dnsName"}, &Instance::public_dns_name);
    visit({.name = "PublicIpAddress", .wire = "ipAddress"}, &Instance::public_ip_address);
    visit({.name = "State", .wire = "instanceState"}, &Instance::state);
    visit({.name = "StateTransitionReason", .wire = "reason"}, &Instance::state_transition_reason);
    visit({.name = "SubnetId"}, &Instance::subnet_id);
    visit({.name = "VpcId"}, &Instance::vpc_id);
    visit({.name = "Architecture"}, &Instance::architecture);
    visit({.name = "BlockDeviceMappings", .wire = "blockDeviceMapping"}, &Instance::block_device_mappings);
    visit({.name = "ClientToken"}, &Instance::client_token);
    visit({.name = "EbsOptimized"}, &Instance::ebs_optimized);
    visit({.name = "Hypervisor"}, &Instance::hypervisor);
    visit({.name = "RootDeviceName"}, &Instance::root_device_name);
    visit({.name = "RootDeviceType"}, &Instance::root_device_type);
    visit({.name = "StateReason"}, &Instance::state_reason);
    visit({.name = "Tags", .wire = "tagSet"}, &Instance::tags);
    visit({.name = "VirtualizationType"}, &Instance::virtualization_type);
  }
};

struct Reservation {
  std::vector<Instance> instances;
  std::string owner_id;
  std::string reservation_id;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    visit({.name = "Instances", .wire = "instancesSet"}, &Reservation::instances);
    visit({.name = "OwnerId"}, &Reservation::owner_id);
    visit({.name = "ReservationId"}, &Reservation::reservation_id);
  }
};

struct InstanceStatusDetails {
  std::string name;
  std::string status;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    visit({.name = "Name"}, &InstanceStatusDetails::name);
    visit({.name = "Status"}, &InstanceStatusDetails::status);
  }
};

struct InstanceStatusSummary {
  std::vector<InstanceStatusDetails> details;
  std::string status;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    visit({.name = "Details"}, &InstanceStatusSummary::details);
    visit({.name = "Status"}, &InstanceStatusSummary::status);
  }
};

struct InstanceStatus {
  std::string availability_zone;
  std::string instance_id;
  InstanceState instance_state;
  InstanceStatusSummary instance_status;
  InstanceStatusSummary system_status;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    visit({.name = "AvailabilityZone"}, &InstanceStatus::availability_zone);
    visit({.name = "InstanceId"}, &InstanceStatus::instance_id);
    visit({.name = "InstanceState"}, &InstanceStatus::instance_state);
    visit({.name = "InstanceStatus"}, &InstanceStatus::instance_status);
    visit({.name = "SystemStatus"}, &InstanceStatus::system_status);
  }
};

struct ProcessorInfo {
  std::vector<std::string> supported_architectures;
  std::optional<double> sustained_clock_speed_in_ghz;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    visit({.name = "SupportedArchitectures"}, &ProcessorInfo::supported_architectures);
    visit({.name = "SustainedClockSpeedInGhz"}, &ProcessorInfo::sustained_clock_speed_in_ghz);
  }
};

struct VcpuInfo {
  int64_t default_vcpus = 0;
  std::optional<int64_t> default_cores;
  std::optional<int64_t> default_threads_per_core;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    visit({.name = "DefaultVCpus"}, &VcpuInfo::default_vcpus);
    visit({.name = "DefaultCores"}, &VcpuInfo::default_cores);
    visit({.name = "DefaultThreadsPerCore"}, &VcpuInfo::default_threads_per_core);
  }
};

struct MemoryInfo {
  int64_t size_in_mib = 0;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    visit({.name = "SizeInMiB"}, &MemoryInfo::size_in_mib);
  }
};

struct NetworkInfo {
  std::string network_performance;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    visit({.name = "NetworkPerformance"}, &NetworkInfo::network_performance);
  }
};

struct EbsInfo {
  std::string ebs_optimized_support;
  std::string encryption_support;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    visit({.name = "EbsOptimizedSupport"}, &EbsInfo::ebs_optimized_support);
    visit({.name = "EncryptionSupport"}, &EbsInfo::encryption_support);
  }
};

struct InstanceTypeInfo {
  std::string instance_type;
  bool current_generation = false;
  bool free_tier_eligible = false;
  std::vector<std::string> supported_usage_classes;
  std::vector<std::string> supported_root_device_types;
  std::vector<std::string> supported_virtualization_types;
  bool bare_metal = false;
  std::optional<std::string> hypervisor;  ///< metal has none
  ProcessorInfo processor_info;
  VcpuInfo vcpu_info;
  MemoryInfo memory_info;
  bool instance_storage_supported = false;
  std::optional<EbsInfo> ebs_info;
  NetworkInfo network_info;
  bool hibernation_supported = false;
  bool burstable_performance_supported = false;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    visit({.name = "InstanceType"}, &InstanceTypeInfo::instance_type);
    visit({.name = "CurrentGeneration"}, &InstanceTypeInfo::current_generation);
    visit({.name = "FreeTierEligible"}, &InstanceTypeInfo::free_tier_eligible);
    visit({.name = "SupportedUsageClasses"}, &InstanceTypeInfo::supported_usage_classes);
    visit({.name = "SupportedRootDeviceTypes"}, &InstanceTypeInfo::supported_root_device_types);
    visit({.name = "SupportedVirtualizationTypes"}, &InstanceTypeInfo::supported_virtualization_types);
    visit({.name = "BareMetal"}, &InstanceTypeInfo::bare_metal);
    visit({.name = "Hypervisor"}, &InstanceTypeInfo::hypervisor);
    visit({.name = "ProcessorInfo"}, &InstanceTypeInfo::processor_info);
    visit({.name = "VCpuInfo"}, &InstanceTypeInfo::vcpu_info);
    visit({.name = "MemoryInfo"}, &InstanceTypeInfo::memory_info);
    visit({.name = "InstanceStorageSupported"}, &InstanceTypeInfo::instance_storage_supported);
    visit({.name = "EbsInfo"}, &InstanceTypeInfo::ebs_info);
    visit({.name = "NetworkInfo"}, &InstanceTypeInfo::network_info);
    visit({.name = "HibernationSupported"}, &InstanceTypeInfo::hibernation_supported);
    visit({.name = "BurstablePerformanceSupported"}, &InstanceTypeInfo::burstable_performance_supported);
  }
};

struct Image {
  std::string architecture;
  std::string creation_date;
  std::string image_id;
  std::string image_location;
  std::string image_type;
  bool is_public = false;
  std::string owner_id;
  std::string platform_details;
  std::string state;
  std::vector<BlockDeviceMapping> block_device_mappings;
  std::optional<std::string> description;
  std::string hypervisor;
  std::string name;
  std::optional<std::string> root_device_name;
  std::string root_device_type;
  std::optional<StateReason> state_reason;
  std::vector<Tag> tags;
  std::string virtualization_type;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    visit({.name = "Architecture"}, &Image::architecture);
    visit({.name = "CreationDate"}, &Image::creation_date);
    visit({.name = "ImageId"}, &Image::image_id);
    visit({.name = "ImageLocation"}, &Image::image_location);
    visit({.name = "ImageType"}, &Image::image_type);
    visit({.name = "Public", .wire = "isPublic"}, &Image::is_public);
    visit({.name = "OwnerId", .wire = "imageOwnerId"}, &Image::owner_id);
    visit({.name = "PlatformDetails"}, &Image::platform_details);
    visit({.name = "State", .wire = "imageState"}, &Image::state);
    visit({.name = "BlockDeviceMappings", .wire = "blockDeviceMapping"}, &Image::block_device_mappings);
    visit({.name = "Description"}, &Image::description);
    visit({.name = "Hypervisor"}, &Image::hypervisor);
    visit({.name = "Name"}, &Image::name);
    visit({.name = "RootDeviceName"}, &Image::root_device_name);
    visit({.name = "RootDeviceType"}, &Image::root_device_type);
    visit({.name = "StateReason"}, &Image::state_reason);
    visit({.name = "Tags", .wire = "tagSet"}, &Image::tags);
    visit({.name = "VirtualizationType"}, &Image::virtualization_type);
  }
};

struct KeyPairInfo {
  std::string key_pair_id;
  std::string key_fingerprint;
  std::string key_name;
  std::string key_type;
  std::vector<Tag> tags;
  std::optional<std::string> public_key;
  Timestamp create_time;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    visit({.name = "KeyPairId"}, &KeyPairInfo::key_pair_id);
    visit({.name = "KeyFingerprint"}, &KeyPairInfo::key_fingerprint);
    visit({.name = "KeyName"}, &KeyPairInfo::key_name);
    visit({.name = "KeyType"}, &KeyPairInfo::key_type);
    visit({.name = "Tags", .wire = "tagSet"}, &KeyPairInfo::tags);
    visit({.name = "PublicKey"}, &KeyPairInfo::public_key);
    visit({.name = "CreateTime"}, &KeyPairInfo::create_time);
  }
};

struct Region {
  std::string endpoint;
  std::string region_name;
  std::string opt_in_status;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    visit({.name = "Endpoint", .wire = "regionEndpoint"}, &Region::endpoint);
    visit({.name = "RegionName"}, &Region::region_name);
    visit({.name = "OptInStatus"}, &Region::opt_in_status);
  }
};

struct AvailabilityZoneMessage {
  std::optional<std::string> message;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    visit({.name = "Message"}, &AvailabilityZoneMessage::message);
  }
};

struct AvailabilityZone {
  std::string state;
  std::string opt_in_status;
  std::vector<AvailabilityZoneMessage> messages;
  std::string region_name;
  std::string zone_name;
  std::string zone_id;
  std::string group_name;
  std::string network_border_group;
  std::string zone_type;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    visit({.name = "State", .wire = "zoneState"}, &AvailabilityZone::state);
    visit({.name = "OptInStatus"}, &AvailabilityZone::opt_in_status);
    visit({.name = "Messages", .wire = "messageSet"}, &AvailabilityZone::messages);
    visit({.name = "RegionName"}, &AvailabilityZone::region_name);
    visit({.name = "ZoneName"}, &AvailabilityZone::zone_name);
    visit({.name = "ZoneId"}, &AvailabilityZone::zone_id);
    visit({.name = "GroupName"}, &AvailabilityZone::group_name);
    visit({.name = "NetworkBorderGroup"}, &AvailabilityZone::network_border_group);
    visit({.name = "ZoneType"}, &AvailabilityZone::zone_type);
  }
};

struct TagDescription {
  std::string key;
  std::string resource_id;
  std::string resource_type;
  std::string value;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    visit({.name = "Key"}, &TagDescription::key);
    visit({.name = "ResourceId"}, &TagDescription::resource_id);
    visit({.name = "ResourceType"}, &TagDescription::resource_type);
    visit({.name = "Value"}, &TagDescription::value);
  }
};

struct BlobAttributeValue {
  std::optional<Blob> value;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    visit({.name = "Value"}, &BlobAttributeValue::value);
  }
};

struct MonitoringEnabled {
  bool enabled = false;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    visit({.name = "Enabled", .required = true}, &MonitoringEnabled::enabled);
  }
};

}  // namespace haneul::agent
