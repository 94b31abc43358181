// SPDX-License-Identifier: Apache-2.0
// What the daemon keeps of each resource, as stored by StateStore in JSON. A field added later must be
// optional or have a default that is right for objects written before it.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "agent/ops/shapes.h"
#include "agent/state/volume_records.h"

namespace haneul::agent {

struct InstanceRecord {
  static constexpr const char* kKind = "instance";
  std::string id;
  std::string reservation_id;
  std::string region;
  std::string zone;
  std::string image_id;
  std::string type;
  std::optional<std::string> key_name;
  /// The public key itself: deleting the key pair later changes nothing for the instance.
  std::string authorized_key;
  Blob user_data;
  std::string client_token;
  int64_t launch_index = 0;
  Timestamp launch_time;
  /// EC2's name of the state.
  std::string state;
  std::string transition_reason;
  std::optional<StateReason> reason;
  std::string address;
  std::string mac;
  std::string uuid;
  /// That it was launched with; empty if its image has none. Which volume is the root now, the volumes know.
  std::string root_volume;
  std::string root_device = "/dev/xvda";
  int64_t root_bytes = 0;
  std::vector<EphemeralRecord> ephemerals;
  bool disable_api_termination = false;
  /// "stop" or "terminate": what happens when the guest powers itself off.
  std::string shutdown_behavior = "stop";
  bool has_run = false;
  bool rebooting = false;
  /// The stop that is under way does not wait for the guest.
  bool forced = false;
  /// The VMM's process while there is one; 0 otherwise.
  int64_t pid = 0;
  int64_t start_ticks = 0;
  Timestamp terminated_at;
  std::vector<Tag> tags;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    using R = InstanceRecord;
    visit({.name = "id"}, &R::id);
    visit({.name = "reservation_id"}, &R::reservation_id);
    visit({.name = "region"}, &R::region);
    visit({.name = "zone"}, &R::zone);
    visit({.name = "image_id"}, &R::image_id);
    visit({.name = "type"}, &R::type);
    visit({.name = "key_name"}, &R::key_name);
    visit({.name = "authorized_key"}, &R::authorized_key);
    visit({.name = "user_data"}, &R::user_data);
    visit({.name = "client_token"}, &R::client_token);
    visit({.name = "launch_index"}, &R::launch_index);
    visit({.name = "launch_time"}, &R::launch_time);
    visit({.name = "state"}, &R::state);
    visit({.name = "transition_reason"}, &R::transition_reason);
    visit({.name = "reason"}, &R::reason);
    visit({.name = "address"}, &R::address);
    visit({.name = "mac"}, &R::mac);
    visit({.name = "uuid"}, &R::uuid);
    visit({.name = "root_volume"}, &R::root_volume);
    visit({.name = "root_device"}, &R::root_device);
    visit({.name = "ephemerals"}, &R::ephemerals);
    visit({.name = "root_bytes"}, &R::root_bytes);
    visit({.name = "disable_api_termination"}, &R::disable_api_termination);
    visit({.name = "shutdown_behavior"}, &R::shutdown_behavior);
    visit({.name = "has_run"}, &R::has_run);
    visit({.name = "rebooting"}, &R::rebooting);
    visit({.name = "forced"}, &R::forced);
    visit({.name = "pid"}, &R::pid);
    visit({.name = "start_ticks"}, &R::start_ticks);
    visit({.name = "terminated_at"}, &R::terminated_at);
    visit({.name = "tags"}, &R::tags);
  }
};

struct ImageRecord {
  static constexpr const char* kKind = "image";
  std::string id;
  std::string region;
  std::string name;
  std::string description;
  /// "pending", "available", "failed", or "deregistered" while something still boots from its files.
  std::string state;
  std::string message;
  /// What makes it: "register", "create", "copy" or "import".
  std::string work = "register";
  std::string source_instance;
  /// The image (of any region) whose kernel becomes this one's; empty once it has.
  std::string kernel_from;
  std::string root_device = "/dev/xvda";
  std::vector<MappingRecord> mappings;
  PermissionRecord permissions;
  std::string architecture;
  std::string location;
  Timestamp created;
  /// Files in the image's folder; no initrd and no root are fine.
  std::string kernel;
  std::string initrd;
  std::string root;
  int64_t root_bytes = 0;
  std::string command_line;
  /// Who logs in over ssh.
  std::string user;
  std::string kernel_version;
  std::vector<Tag> tags;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    using R = ImageRecord;
    visit({.name = "id"}, &R::id);
    visit({.name = "region"}, &R::region);
    visit({.name = "name"}, &R::name);
    visit({.name = "description"}, &R::description);
    visit({.name = "state"}, &R::state);
    visit({.name = "message"}, &R::message);
    visit({.name = "work"}, &R::work);
    visit({.name = "source_instance"}, &R::source_instance);
    visit({.name = "kernel_from"}, &R::kernel_from);
    visit({.name = "root_device"}, &R::root_device);
    visit({.name = "mappings"}, &R::mappings);
    visit({.name = "permissions"}, &R::permissions);
    visit({.name = "architecture"}, &R::architecture);
    visit({.name = "location"}, &R::location);
    visit({.name = "created"}, &R::created);
    visit({.name = "kernel"}, &R::kernel);
    visit({.name = "initrd"}, &R::initrd);
    visit({.name = "root"}, &R::root);
    visit({.name = "root_bytes"}, &R::root_bytes);
    visit({.name = "command_line"}, &R::command_line);
    visit({.name = "user"}, &R::user);
    visit({.name = "kernel_version"}, &R::kernel_version);
    visit({.name = "tags"}, &R::tags);
  }
};

struct KeyRecord {
  static constexpr const char* kKind = "key";
  std::string id;
  std::string region;
  std::string name;
  std::string type;  ///< "rsa" or "ed25519"
  std::string fingerprint;
  std::string public_key;  ///< one line as in authorized_keys
  Timestamp created;
  std::vector<Tag> tags;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    using R = KeyRecord;
    visit({.name = "id"}, &R::id);
    visit({.name = "region"}, &R::region);
    visit({.name = "name"}, &R::name);
    visit({.name = "type"}, &R::type);
    visit({.name = "fingerprint"}, &R::fingerprint);
    visit({.name = "public_key"}, &R::public_key);
    visit({.name = "created"}, &R::created);
    visit({.name = "tags"}, &R::tags);
  }
};

/// A client's token, and what it gave: a reservation, or a volume.
struct TokenRecord {
  static constexpr const char* kKind = "token";
  std::string id;       ///< "REGION:TOKEN"
  std::string request;  ///< SHA-256 of the request's JSON
  std::string reservation_id;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    using R = TokenRecord;
    visit({.name = "id"}, &R::id);
    visit({.name = "request"}, &R::request);
    visit({.name = "reservation_id"}, &R::reservation_id);
  }
};

}  // namespace haneul::agent
