// SPDX-License-Identifier: Apache-2.0
// Requests and replies of the operations on images.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "agent/ops/shapes.h"

namespace haneul::agent {

struct DescribeImagesRequest {
  std::vector<Filter> filters;
  std::vector<std::string> image_ids;
  std::vector<std::string> owners;
  std::vector<std::string> executable_users;
  std::optional<bool> include_deprecated;
  std::optional<bool> dry_run;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    visit({.name = "Filters", .wire = "Filter"}, &DescribeImagesRequest::filters);
    visit({.name = "ImageIds", .wire = "ImageId"}, &DescribeImagesRequest::image_ids);
    visit({.name = "Owners", .wire = "Owner"}, &DescribeImagesRequest::owners);
    visit({.name = "ExecutableUsers", .wire = "ExecutableBy"}, &DescribeImagesRequest::executable_users);
    visit({.name = "IncludeDeprecated", .wire = "IncludeDeprecated"},
          &DescribeImagesRequest::include_deprecated);
    visit({.name = "DryRun"}, &DescribeImagesRequest::dry_run);
  }
};

struct DescribeImagesReply {
  std::vector<Image> images;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    visit({.name = "Images", .wire = "imagesSet"}, &DescribeImagesReply::images);
  }
};

struct LaunchPermission {
  std::optional<std::string> group;
  std::optional<std::string> user_id;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    visit({.name = "Group"}, &LaunchPermission::group);
    visit({.name = "UserId"}, &LaunchPermission::user_id);
  }
};

struct LaunchPermissionModifications {
  std::vector<LaunchPermission> add;
  std::vector<LaunchPermission> remove;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    visit({.name = "Add", .wire = "Add"}, &LaunchPermissionModifications::add);
    visit({.name = "Remove", .wire = "Remove"}, &LaunchPermissionModifications::remove);
  }
};

struct RegisterImageRequest {
  std::optional<std::string> image_location;
  std::optional<std::string> architecture;
  std::vector<BlockDeviceMapping> block_device_mappings;
  std::optional<std::string> description;
  std::optional<bool> dry_run;
  std::string name;
  std::optional<std::string> root_device_name;
  std::optional<std::string> virtualization_type;
  std::optional<std::string> kernel_image;
  std::optional<bool> replace;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    visit({.name = "ImageLocation", .wire = "ImageLocation"}, &RegisterImageRequest::image_location);
    visit({.name = "Architecture"}, &RegisterImageRequest::architecture);
    visit({.name = "BlockDeviceMappings", .wire = "BlockDeviceMapping"},
          &RegisterImageRequest::block_device_mappings);
    visit({.name = "Description"}, &RegisterImageRequest::description);
    visit({.name = "DryRun"}, &RegisterImageRequest::dry_run);
    visit({.name = "Name", .required = true}, &RegisterImageRequest::name);
    visit({.name = "RootDeviceName"}, &RegisterImageRequest::root_device_name);
    visit({.name = "VirtualizationType"}, &RegisterImageRequest::virtualization_type);
    visit({.name = "KernelImage", .own = true}, &RegisterImageRequest::kernel_image);
    visit({.name = "Replace", .own = true}, &RegisterImageRequest::replace);
  }
};

struct RegisterImageReply {
  std::string image_id;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    visit({.name = "ImageId"}, &RegisterImageReply::image_id);
  }
};

struct CreateImageRequest {
  std::vector<BlockDeviceMapping> block_device_mappings;
  std::optional<std::string> description;
  std::optional<bool> dry_run;
  std::string instance_id;
  std::string name;
  std::optional<bool> no_reboot;
  std::vector<TagSpecification> tag_specifications;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    visit({.name = "BlockDeviceMappings", .wire = "blockDeviceMapping"},
          &CreateImageRequest::block_device_mappings);
    visit({.name = "Description"}, &CreateImageRequest::description);
    visit({.name = "DryRun"}, &CreateImageRequest::dry_run);
    visit({.name = "InstanceId", .required = true}, &CreateImageRequest::instance_id);
    visit({.name = "Name", .required = true}, &CreateImageRequest::name);
    visit({.name = "NoReboot"}, &CreateImageRequest::no_reboot);
    visit({.name = "TagSpecifications", .wire = "TagSpecification"}, &CreateImageRequest::tag_specifications);
  }
};

struct CreateImageReply {
  std::string image_id;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    visit({.name = "ImageId"}, &CreateImageReply::image_id);
  }
};

struct CopyImageRequest {
  std::optional<std::string> client_token;
  std::optional<std::string> description;
  std::optional<bool> encrypted;
  std::string name;
  std::string source_image_id;
  std::string source_region;
  std::optional<bool> dry_run;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    visit({.name = "ClientToken", .wire = "ClientToken"}, &CopyImageRequest::client_token);
    visit({.name = "Description", .wire = "Description"}, &CopyImageRequest::description);
    visit({.name = "Encrypted"}, &CopyImageRequest::encrypted);
    visit({.name = "Name", .wire = "Name", .required = true}, &CopyImageRequest::name);
    visit({.name = "SourceImageId", .wire = "SourceImageId", .required = true},
          &CopyImageRequest::source_image_id);
    visit({.name = "SourceRegion", .wire = "SourceRegion", .required = true},
          &CopyImageRequest::source_region);
    visit({.name = "DryRun"}, &CopyImageRequest::dry_run);
  }
};

struct CopyImageReply {
  std::string image_id;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    visit({.name = "ImageId"}, &CopyImageReply::image_id);
  }
};

struct DeregisterImageRequest {
  std::string image_id;
  std::optional<bool> dry_run;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    visit({.name = "ImageId", .wire = "ImageId", .required = true}, &DeregisterImageRequest::image_id);
    visit({.name = "DryRun"}, &DeregisterImageRequest::dry_run);
  }
};

struct ModifyImageAttributeRequest {
  std::optional<std::string> attribute;
  std::optional<AttributeValue> description;
  std::string image_id;
  std::optional<LaunchPermissionModifications> launch_permission;
  std::optional<std::string> operation_type;
  std::vector<std::string> user_groups;
  std::vector<std::string> user_ids;
  std::optional<std::string> value;
  std::optional<bool> dry_run;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    visit({.name = "Attribute", .wire = "Attribute"}, &ModifyImageAttributeRequest::attribute);
    visit({.name = "Description", .wire = "Description"}, &ModifyImageAttributeRequest::description);
    visit({.name = "ImageId", .wire = "ImageId", .required = true}, &ModifyImageAttributeRequest::image_id);
    visit({.name = "LaunchPermission", .wire = "LaunchPermission"},
          &ModifyImageAttributeRequest::launch_permission);
    visit({.name = "OperationType", .wire = "OperationType"}, &ModifyImageAttributeRequest::operation_type);
    visit({.name = "UserGroups", .wire = "UserGroup"}, &ModifyImageAttributeRequest::user_groups);
    visit({.name = "UserIds", .wire = "UserId"}, &ModifyImageAttributeRequest::user_ids);
    visit({.name = "Value", .wire = "Value"}, &ModifyImageAttributeRequest::value);
    visit({.name = "DryRun"}, &ModifyImageAttributeRequest::dry_run);
  }
};

struct DescribeImageAttributeRequest {
  std::string attribute;
  std::string image_id;
  std::optional<bool> dry_run;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    visit({.name = "Attribute", .wire = "Attribute", .required = true},
          &DescribeImageAttributeRequest::attribute);
    visit({.name = "ImageId", .wire = "ImageId", .required = true}, &DescribeImageAttributeRequest::image_id);
    visit({.name = "DryRun"}, &DescribeImageAttributeRequest::dry_run);
  }
};

struct DescribeImageAttributeReply {
  std::vector<BlockDeviceMapping> block_device_mappings;
  std::string image_id;
  std::vector<LaunchPermission> launch_permissions;
  std::optional<AttributeValue> description;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    visit({.name = "BlockDeviceMappings", .wire = "blockDeviceMapping"},
          &DescribeImageAttributeReply::block_device_mappings);
    visit({.name = "ImageId"}, &DescribeImageAttributeReply::image_id);
    visit({.name = "LaunchPermissions", .wire = "launchPermission"},
          &DescribeImageAttributeReply::launch_permissions);
    visit({.name = "Description"}, &DescribeImageAttributeReply::description);
  }
};

struct ResetImageAttributeRequest {
  std::string attribute;
  std::string image_id;
  std::optional<bool> dry_run;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    visit({.name = "Attribute", .wire = "Attribute", .required = true},
          &ResetImageAttributeRequest::attribute);
    visit({.name = "ImageId", .wire = "ImageId", .required = true}, &ResetImageAttributeRequest::image_id);
    visit({.name = "DryRun"}, &ResetImageAttributeRequest::dry_run);
  }
};

}  // namespace haneul::agent
