// SPDX-License-Identifier: Apache-2.0
// Requests and replies of the operations on tags.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "agent/ops/shapes.h"

namespace haneul::agent {

struct CreateTagsRequest {
  std::optional<bool> dry_run;
  std::vector<std::string> resources;
  std::vector<Tag> tags;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    visit({.name = "DryRun"}, &CreateTagsRequest::dry_run);
    visit({.name = "Resources", .wire = "ResourceId", .required = true}, &CreateTagsRequest::resources);
    visit({.name = "Tags", .wire = "Tag", .required = true}, &CreateTagsRequest::tags);
  }
};

struct DeleteTagsRequest {
  std::optional<bool> dry_run;
  std::vector<std::string> resources;
  std::vector<Tag> tags;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    visit({.name = "DryRun"}, &DeleteTagsRequest::dry_run);
    visit({.name = "Resources", .wire = "resourceId", .required = true}, &DeleteTagsRequest::resources);
    visit({.name = "Tags", .wire = "tag"}, &DeleteTagsRequest::tags);
  }
};

struct DescribeTagsRequest {
  std::optional<bool> dry_run;
  std::vector<Filter> filters;
  std::optional<int64_t> max_results;
  std::optional<std::string> next_token;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    visit({.name = "DryRun"}, &DescribeTagsRequest::dry_run);
    visit({.name = "Filters", .wire = "Filter"}, &DescribeTagsRequest::filters);
    visit({.name = "MaxResults"}, &DescribeTagsRequest::max_results);
    visit({.name = "NextToken"}, &DescribeTagsRequest::next_token);
  }
};

struct DescribeTagsReply {
  std::optional<std::string> next_token;
  std::vector<TagDescription> tags;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    visit({.name = "NextToken"}, &DescribeTagsReply::next_token);
    visit({.name = "Tags", .wire = "tagSet"}, &DescribeTagsReply::tags);
  }
};

}  // namespace haneul::agent
