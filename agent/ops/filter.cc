// SPDX-License-Identifier: Apache-2.0
#include "agent/ops/filter.h"

#include <algorithm>

namespace haneul::agent {

bool matches_pattern(std::string_view pattern, std::string_view text) {
  size_t p = 0;
  size_t t = 0;
  size_t star = std::string_view::npos;
  size_t star_text = 0;
  while (t < text.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      star_text = t;
      continue;
    }
    bool escaped = p + 1 < pattern.size() && pattern[p] == '\\';
    char wanted = p < pattern.size() ? pattern[escaped ? p + 1 : p] : '\0';
    if (p < pattern.size() && (wanted == text[t] || (!escaped && wanted == '?'))) {
      p += escaped ? 2 : 1;
      ++t;
    } else if (star != std::string_view::npos) {
      p = star + 1;
      t = ++star_text;
    } else {
      return false;
    }
  }
  while (p < pattern.size() && pattern[p] == '*') ++p;
  return p == pattern.size();
}

Answer<Page> page_of(const std::vector<std::string>& sorted_ids, const std::optional<int64_t>& max_results,
                     const std::optional<std::string>& next_token, int64_t least, int64_t most) {
  if (max_results && (*max_results < least || *max_results > most)) {
    return api_error(ApiCode::kInvalidParameterValue,
                     "Value ( {} ) for parameter maxResults is invalid. Expecting a value from {} to {}.",
                     *max_results, least, most);
  }
  Page page{.begin = 0, .end = sorted_ids.size(), .next_token = std::nullopt};
  if (next_token) {
    auto last = from_base64(*next_token);
    if (!last || !last->starts_with("after:")) {
      return api_error(ApiCode::kInvalidNextToken, "The token '{}' is invalid", *next_token);
    }
    auto begin = std::upper_bound(sorted_ids.begin(), sorted_ids.end(), last->substr(6));
    page.begin = static_cast<size_t>(begin - sorted_ids.begin());
  }
  if (max_results && page.end - page.begin > static_cast<size_t>(*max_results)) {
    page.end = page.begin + static_cast<size_t>(*max_results);
    page.next_token = to_base64("after:" + sorted_ids[page.end - 1]);
  }
  return page;
}

}  // namespace haneul::agent
