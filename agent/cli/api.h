// SPDX-License-Identifier: Apache-2.0
// Api: what the commands of the CLI use of the daemon: operations by name, streams, and names in place of
// ids.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "agent/cli/statuses.h"
#include "agent/http/http.h"
#include "agent/ops/shape.h"
#include "base/result.h"

namespace haneul::agent {

class Api {
 public:
  /// `limit`: how long a call may take.
  Api(std::filesystem::path socket, std::string region,
      std::chrono::milliseconds limit = std::chrono::minutes(10))
      : socket_(std::move(socket)), region_(std::move(region)), limit_(limit) {}

  /// The reply of POST /OPERATION. An API error's message has its code at the end, in parentheses.
  Result<Json> call(std::string_view operation, const Json& request);
  Result<Json> status();
  Result<Upgraded> stream(const std::string& target);

  /// An instance's id for an id or a name; names of terminated instances do not count.
  Result<std::string> instance_id(const std::string& id_or_name);
  /// Each once, also if it is named twice.
  Result<std::vector<std::string>> instance_ids(const std::vector<std::string>& ids_or_names);
  Result<Json> instance(const std::string& id);
  Result<std::vector<Json>> instances(const std::vector<std::string>& ids);
  Result<Json> image(const std::string& id_or_name);
  /// A volume's or snapshot's id for an id or a name (the tag Name).
  Result<std::string> volume_id(const std::string& id_or_name);
  Result<std::string> snapshot_id(const std::string& id_or_name);
  Result<Json> volume(const std::string& id);
  Result<Json> snapshot(const std::string& id);

  const std::filesystem::path& socket() const { return socket_; }
  const std::string& region() const { return region_; }
  /// The region in use: the one asked for, or the daemon's first.
  Result<std::string> own_region();

 private:
  Result<Json> parse_reply(const HttpReply& reply);
  Result<std::string> id_by_name(const std::string& name, const std::string& kind);

  std::filesystem::path socket_;
  std::string region_;
  std::chrono::milliseconds limit_;
};

/// The value of a tag of a described resource; empty if it has none.
std::string tag_of(const Json& resource, std::string_view key);
/// A member's text, "" if it is not there.
std::string text_of(const Json& object, std::string_view member);

}  // namespace haneul::agent
