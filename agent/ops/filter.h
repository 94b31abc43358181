// SPDX-License-Identifier: Apache-2.0
// Filters of the Describe operations: AND across names, OR within values, `*` and `?` as wildcards, `\`
// before a literal one; `tag:KEY` and `tag-key` everywhere. An unknown name is an error, not "no match".
#pragma once

#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "agent/ops/shapes.h"

namespace haneul::agent {

bool matches_pattern(std::string_view pattern, std::string_view text);

/// What a kind of resource can be filtered by: the values it has for each name.
template <typename T>
class FilterTable {
 public:
  using Values = std::function<std::vector<std::string>(const T&)>;
  explicit FilterTable(std::map<std::string, Values, std::less<>> names) : names_(std::move(names)) {}

  Answer<void> check(const std::vector<Filter>& filters) const {
    for (const Filter& filter : filters) {
      std::string name = filter.name.value_or("");
      if (name.empty() || filter.values.empty()) {
        return ApiError(ApiCode::kInvalidParameterValue, "A filter needs a Name and at least one of Values");
      }
      if (filter.values.size() > 200) {
        return ApiError(ApiCode::kInvalidParameterValue, "A filter takes at most 200 values");
      }
      if (name.starts_with("tag:") || name == "tag-key" || names_.contains(name)) continue;
      return api_error(ApiCode::kInvalidParameterValue, "The filter '{}' is invalid", name);
    }
    return {};
  }

  bool matches(const T& item, const std::vector<Tag>& tags, const std::vector<Filter>& filters) const {
    for (const Filter& filter : filters) {
      if (!any_matches(values_of(item, tags, filter.name.value_or("")), filter.values)) return false;
    }
    return true;
  }

 private:
  static bool any_matches(const std::vector<std::string>& values, const std::vector<std::string>& patterns) {
    for (const std::string& value : values) {
      for (const std::string& pattern : patterns) {
        if (matches_pattern(pattern, value)) return true;
      }
    }
    return false;
  }

  std::vector<std::string> values_of(const T& item, const std::vector<Tag>& tags,
                                     std::string_view name) const {
    std::vector<std::string> values;
    if (name.starts_with("tag:") || name == "tag-key") {
      for (const Tag& tag : tags) {
        if (name == "tag-key") values.push_back(tag.key);
        if (name.starts_with("tag:") && tag.key == name.substr(4)) values.push_back(tag.value);
      }
      return values;
    }
    auto found = names_.find(name);
    return found == names_.end() ? values : found->second(item);
  }

  std::map<std::string, Values, std::less<>> names_;
};

/// One page of a sorted list of `total` items: where it starts and ends, and the token of the next.
struct Page {
  size_t begin = 0;
  size_t end = 0;
  std::optional<std::string> next_token;
};
/// The token names the id after which to go on, so that pages stay right while items come and go.
Answer<Page> page_of(const std::vector<std::string>& sorted_ids, const std::optional<int64_t>& max_results,
                     const std::optional<std::string>& next_token, int64_t least = 5, int64_t most = 1000);

}  // namespace haneul::agent
