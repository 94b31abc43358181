// SPDX-License-Identifier: Apache-2.0
// haneul run --volume: what is to be attached, the device, and whether it stays behind, in any order.
#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "agent/cli/commands.h"
#include "agent/cli/wait.h"

namespace haneul::agent {
namespace {

struct Wanted {
  std::string device;
  std::string ephemeral;
  std::string snapshot;
  int gib = 0;
  std::optional<bool> delete_on_termination;
  bool encrypted = false;
};

bool is_size(const std::string& part) {
  return !part.empty() && part[0] >= '0' && part[0] <= '9';
}

Result<Wanted> parse(Api& api, const std::string& text) {
  Wanted wanted;
  std::string rest = text + ":";
  for (size_t colon = rest.find(':'); colon != std::string::npos; colon = rest.find(':')) {
    std::string part = rest.substr(0, colon);
    rest.erase(0, colon + 1);
    if (part == "keep" || part == "delete") {
      wanted.delete_on_termination = part == "delete";
    } else if (part == "encrypted") {
      wanted.encrypted = true;
    } else if (part.starts_with("/dev/")) {
      wanted.device = part;
    } else if (part.starts_with("ephemeral")) {
      wanted.ephemeral = part;
    } else if (is_size(part)) {
      wanted.gib = TRY(gib_from(part));
    } else if (!part.empty()) {
      wanted.snapshot = TRY(api.snapshot_id(part));
    }
  }
  if (wanted.gib > 0 || !wanted.snapshot.empty()) return wanted;
  return make_error(ErrorCode::kInvalidArgument,
                    "--volume '{}' names neither a size nor a snapshot: as 20G:/dev/sdf:keep, "
                    "snap-...:/dev/sdg or ephemeral0:4G",
                    text);
}

Json mapping_of(const Wanted& wanted) {
  Json mapping{{"DeviceName", wanted.device}};
  if (!wanted.ephemeral.empty()) {
    mapping["VirtualName"] = wanted.ephemeral;
    mapping["EphemeralSize"] = wanted.gib;
    return mapping;
  }
  Json ebs = Json::object();
  if (!wanted.snapshot.empty()) ebs["SnapshotId"] = wanted.snapshot;
  if (wanted.gib > 0) ebs["VolumeSize"] = wanted.gib;
  if (wanted.delete_on_termination) ebs["DeleteOnTermination"] = *wanted.delete_on_termination;
  if (wanted.encrypted) ebs["Encrypted"] = true;
  mapping["Ebs"] = ebs;
  return mapping;
}

}  // namespace

Result<Json> launch_mappings(Api& api, const RunOptions& options) {
  std::vector<Wanted> all;
  std::set<std::string> taken;
  for (const std::string& text : options.volumes) {
    all.push_back(TRY(parse(api, text)));
    taken.insert(all.back().device);
  }
  Json mappings = Json::array();
  if (options.root_gib > 0)
    mappings.push_back({{"DeviceName", "/dev/xvda"}, {"Ebs", {{"VolumeSize", options.root_gib}}}});
  char letter = 'f';
  for (Wanted& wanted : all) {
    while (wanted.device.empty()) {
      std::string device = fmt::format("/dev/sd{}", letter++);
      if (letter > 'z') return Error(ErrorCode::kInvalidArgument, "too many volumes");
      if (taken.insert(device).second) wanted.device = device;
    }
    mappings.push_back(mapping_of(wanted));
  }
  return mappings;
}

}  // namespace haneul::agent
