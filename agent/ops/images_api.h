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

struct RegisterImageRequest {
  std::optional<std::string> image_location;
  std::optional<std::string> architecture;
  std::vector<BlockDeviceMapping> block_device_mappings;
  std::optional<std::string> description;
  std::optional<bool> dry_run;
  std::string name;
  std::optional<std::string> root_device_name;
  std::optional<std::string> virtualization_type;

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
  }
};

struct RegisterImageReply {
  std::string image_id;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    visit({.name = "ImageId"}, &RegisterImageReply::image_id);
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

}  // namespace haneul::agent
