// SPDX-License-Identifier: Apache-2.0
#include "net/names.h"

#include <algorithm>

#include "net/fabric.h"

namespace haneul::net {
namespace {

constexpr std::string_view kMark = "haneul:";
constexpr std::string_view kForwarding = " forwarding=";
constexpr std::string_view kOwner = " state=";
constexpr size_t kMaxAlias = 255;
constexpr size_t kMaxOwner = 120;

/// FNV-1a with a final mix, so that ids which differ in their last character differ everywhere.
uint64_t hash(std::string_view text) {
  uint64_t h = 0xcbf29ce484222325;
  for (char c : text) h = (h ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  h = (h ^ (h >> 33)) * 0xff51afd7ed558ccd;
  return h ^ (h >> 33);
}

std::string normal(const std::filesystem::path& folder) {
  std::string path = folder.lexically_normal().string();
  while (path.size() > 1 && path.ends_with('/')) path.pop_back();
  return path;
}

Mac local_mac(uint64_t h) {
  Mac mac{{0x02, 0, 0, 0, 0, 0}};
  for (size_t i = 1; i < 6; i++) mac.bytes[i] = static_cast<uint8_t>(h >> (8 * i));
  return mac;
}

}  // namespace

std::string tap_prefix(std::string_view tag) {
  return fmt::format("t-{}-", tag);
}

std::string tap_name(std::string_view tag, std::string_view id) {
  return fmt::format("{}{:08x}", tap_prefix(tag), static_cast<uint32_t>(hash(id)));
}

std::string tag_for(const std::filesystem::path& state_folder) {
  return fmt::format("{:04x}", hash(normal(state_folder)) & 0xffff);
}

std::string owner_of(const std::filesystem::path& state_folder) {
  std::string path = normal(state_folder);
  bool plain =
      std::all_of(path.begin(), path.end(), [](char c) { return static_cast<unsigned char>(c) >= ' '; });
  return plain && path.size() <= kMaxOwner ? path : fmt::format("#{:016x}", hash(path));
}

Mac mac_for(std::string_view id) {
  return local_mac(hash(id));
}

std::string bridge_name(std::string_view tag, std::string_view label) {
  return fmt::format("hnl-{}-{}", tag, label);
}

Mac bridge_mac(std::string_view bridge, std::string_view owner) {
  return local_mac(hash(fmt::format("bridge {}{}", bridge, owner)));
}

std::string Mark::text() const {
  std::string all = fmt::format("{}{}", kMark, tag);
  std::string end = owner.empty() ? "" : fmt::format("{}{}", kOwner, owner);
  std::string_view separator = kForwarding;
  for (const std::string& interface : forwarding) {
    if (all.size() + separator.size() + interface.size() + end.size() > kMaxAlias) break;
    all += fmt::format("{}{}", separator, interface);
    separator = ",";
  }
  return all + end;
}

std::optional<Mark> Mark::parse(std::string_view alias) {
  if (!alias.starts_with(kMark)) return std::nullopt;
  alias.remove_prefix(kMark.size());
  Mark mark;
  // Neither a tag nor an interface has a space in its name.
  if (size_t at = alias.find(kOwner); at != std::string_view::npos) {
    mark.owner = alias.substr(at + kOwner.size());
    alias = alias.substr(0, at);
  }
  size_t end = alias.find(kForwarding);
  mark.tag = alias.substr(0, end);
  if (end == std::string_view::npos) return mark;
  alias.remove_prefix(end + kForwarding.size());
  while (!alias.empty()) {
    size_t comma = std::min(alias.find(','), alias.size());
    if (comma > 0) mark.forwarding.emplace_back(alias.substr(0, comma));
    alias.remove_prefix(std::min(comma + 1, alias.size()));
  }
  return mark;
}

}  // namespace haneul::net
