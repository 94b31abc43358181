// SPDX-License-Identifier: Apache-2.0
#include "agent/ops/ids.h"

#include <fmt/format.h>
#include <sys/random.h>

#include <algorithm>
#include <array>
#include <cstdint>

#include "base/result.h"

namespace haneul::agent {
namespace {

bool all_hex(std::string_view text) {
  return std::all_of(text.begin(), text.end(),
                     [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
}

}  // namespace

std::string new_id(std::string_view prefix) {
  std::array<uint8_t, 8> bytes{};
  CHECK(::getrandom(bytes.data(), bytes.size(), 0) == static_cast<ssize_t>(bytes.size()));
  // As EC2's today: a zero, then 16 random digits.
  std::string id = fmt::format("{}-0", prefix);
  for (uint8_t byte : bytes) id += fmt::format("{:02x}", byte);
  return id;
}

bool valid_id(std::string_view id, std::string_view prefix) {
  if (!id.starts_with(prefix) || id.size() <= prefix.size() || id[prefix.size()] != '-') return false;
  std::string_view digits = id.substr(prefix.size() + 1);
  return (digits.size() == 17 || digits.size() == 8) && all_hex(digits);
}

std::string_view id_prefix(std::string_view id) {
  std::string_view prefix = id.substr(0, id.find('-'));
  return valid_id(id, prefix) ? prefix : std::string_view();
}

std::string_view resource_type(std::string_view prefix) {
  static constexpr std::array<std::pair<std::string_view, std::string_view>, 5> kTypes = {
      {{"i", "instance"}, {"ami", "image"}, {"key", "key-pair"}, {"vol", "volume"}, {"snap", "snapshot"}}};
  for (const auto& [known, type] : kTypes) {
    if (known == prefix) return type;
  }
  return {};
}

}  // namespace haneul::agent
