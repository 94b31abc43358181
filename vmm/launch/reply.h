// SPDX-License-Identifier: Apache-2.0
// What a VMM says of itself, read with care: it may belong to its guest by now, and nothing in it is taken to
// be of the right type.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace haneul::launch {

/// Empty if there is no such text.
inline std::string text_of(const nlohmann::json& reply, const char* key) {
  auto found = reply.find(key);
  return found != reply.end() && found->is_string() ? found->get<std::string>() : "";
}

}  // namespace haneul::launch
