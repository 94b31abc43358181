// SPDX-License-Identifier: Apache-2.0
// The records of volumes, snapshots and tasks; records.h has the rules.
#pragma once

#include <string>
#include <vector>

#include "agent/ops/files_api.h"
#include "agent/ops/shapes.h"

namespace haneul::agent {

/// An instance store volume: in the block store it is "eph-…", there is no EBS volume for it.
struct EphemeralRecord {
  std::string device;
  /// "ephemeral0", which is also the disk's serial
  std::string virtual_name;
  int64_t bytes = 0;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    using R = EphemeralRecord;
    visit({.name = "device"}, &R::device);
    visit({.name = "virtual_name"}, &R::virtual_name);
    visit({.name = "bytes"}, &R::bytes);
  }
};

/// Who may use a thing, besides its owner.
struct PermissionRecord {
  bool everyone = false;
  std::vector<std::string> accounts;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    using R = PermissionRecord;
    visit({.name = "everyone"}, &R::everyone);
    visit({.name = "accounts"}, &R::accounts);
  }
};

/// The last ModifyVolume. The target is what the volume says, from the start on.
struct ModificationRecord {
  /// EC2's; empty: there was none
  std::string state;
  std::string message;
  int64_t original_bytes = 0;
  std::string original_type;
  int64_t original_iops = 0;
  int64_t original_throughput = 0;
  Timestamp started;
  Timestamp ended;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    using R = ModificationRecord;
    visit({.name = "state"}, &R::state);
    visit({.name = "message"}, &R::message);
    visit({.name = "original_bytes"}, &R::original_bytes);
    visit({.name = "original_type"}, &R::original_type);
    visit({.name = "original_iops"}, &R::original_iops);
    visit({.name = "original_throughput"}, &R::original_throughput);
    visit({.name = "started"}, &R::started);
    visit({.name = "ended"}, &R::ended);
  }
};

struct VolumeRecord {
  static constexpr const char* kKind = "volume";
  std::string id;
  std::string region;
  std::string zone;
  int64_t bytes = 0;
  std::string snapshot_id;
  bool encrypted = false;
  std::string type = "gp3";
  int64_t iops = 0;
  int64_t throughput = 0;
  /// EC2's: creating, available, in-use, deleting, error
  std::string state;
  /// why it is in error, or why the last attachment failed
  std::string message;
  Timestamp created;
  /// that it is attached to; empty: none
  std::string instance_id;
  std::string device;
  /// EC2's: attaching, attached, detaching
  std::string attachment;
  bool delete_on_termination = false;
  /// the detaching does not wait for the guest
  bool force = false;
  Timestamp attached;
  /// the image from which it came: whose kernel boots it
  std::string image_id;
  ModificationRecord modification;
  std::vector<Tag> tags;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    using R = VolumeRecord;
    visit({.name = "id"}, &R::id);
    visit({.name = "region"}, &R::region);
    visit({.name = "zone"}, &R::zone);
    visit({.name = "bytes"}, &R::bytes);
    visit({.name = "snapshot_id"}, &R::snapshot_id);
    visit({.name = "encrypted"}, &R::encrypted);
    visit({.name = "type"}, &R::type);
    visit({.name = "iops"}, &R::iops);
    visit({.name = "throughput"}, &R::throughput);
    visit({.name = "state"}, &R::state);
    visit({.name = "message"}, &R::message);
    visit({.name = "created"}, &R::created);
    visit({.name = "instance_id"}, &R::instance_id);
    visit({.name = "device"}, &R::device);
    visit({.name = "attachment"}, &R::attachment);
    visit({.name = "delete_on_termination"}, &R::delete_on_termination);
    visit({.name = "force"}, &R::force);
    visit({.name = "attached"}, &R::attached);
    visit({.name = "image_id"}, &R::image_id);
    visit({.name = "modification"}, &R::modification);
    visit({.name = "tags"}, &R::tags);
  }
};

struct SnapshotRecord {
  static constexpr const char* kKind = "snapshot";
  std::string id;
  std::string region;
  std::string owner;
  std::string volume_id;
  int64_t bytes = 0;
  /// EC2's: pending, completed, error; or "deleting", which no client sees
  std::string state;
  std::string message;
  int64_t progress = 0;
  /// what makes it: "snapshot", "copy" or "import"
  std::string work;
  /// those with the same one are one point in time
  std::string group;
  /// the point in time is fixed
  bool begun = false;
  /// the instance whose shutdown is awaited before it begins
  std::string after_shutdown;
  std::string source_region;
  std::string source_snapshot;
  /// of the imported file
  std::string path;
  std::string format;
  /// the image that waits for it
  std::string for_image;
  Timestamp started;
  std::string description;
  bool encrypted = false;
  /// as VolumeRecord's
  std::string image_id;
  PermissionRecord permissions;
  std::vector<Tag> tags;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    using R = SnapshotRecord;
    visit({.name = "id"}, &R::id);
    visit({.name = "region"}, &R::region);
    visit({.name = "owner"}, &R::owner);
    visit({.name = "volume_id"}, &R::volume_id);
    visit({.name = "bytes"}, &R::bytes);
    visit({.name = "state"}, &R::state);
    visit({.name = "message"}, &R::message);
    visit({.name = "progress"}, &R::progress);
    visit({.name = "work"}, &R::work);
    visit({.name = "group"}, &R::group);
    visit({.name = "begun"}, &R::begun);
    visit({.name = "after_shutdown"}, &R::after_shutdown);
    visit({.name = "source_region"}, &R::source_region);
    visit({.name = "source_snapshot"}, &R::source_snapshot);
    visit({.name = "path"}, &R::path);
    visit({.name = "format"}, &R::format);
    visit({.name = "for_image"}, &R::for_image);
    visit({.name = "started"}, &R::started);
    visit({.name = "description"}, &R::description);
    visit({.name = "encrypted"}, &R::encrypted);
    visit({.name = "image_id"}, &R::image_id);
    visit({.name = "permissions"}, &R::permissions);
    visit({.name = "tags"}, &R::tags);
  }
};

/// One of an image's block devices.
struct MappingRecord {
  std::string device;
  std::string snapshot_id;
  std::string virtual_name;
  int64_t bytes = 0;
  std::string type = "gp3";
  int64_t iops = 0;
  int64_t throughput = 0;
  bool encrypted = false;
  bool delete_on_termination = true;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    using R = MappingRecord;
    visit({.name = "device"}, &R::device);
    visit({.name = "snapshot_id"}, &R::snapshot_id);
    visit({.name = "virtual_name"}, &R::virtual_name);
    visit({.name = "bytes"}, &R::bytes);
    visit({.name = "type"}, &R::type);
    visit({.name = "iops"}, &R::iops);
    visit({.name = "throughput"}, &R::throughput);
    visit({.name = "encrypted"}, &R::encrypted);
    visit({.name = "delete_on_termination"}, &R::delete_on_termination);
  }
};

/// Long work that a client asked for and may look at.
struct TaskRecord {
  static constexpr const char* kKind = "task";
  std::string id;
  std::string region;
  /// "export" or "check"
  std::string kind;
  std::string resource;
  std::string path;
  std::string format;
  bool metadata_only = false;
  std::string state = "pending";
  int64_t progress = 0;
  std::string message;
  Timestamp started;
  int64_t layers = 0;
  int64_t blocks = 0;
  std::vector<Fault> faults;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    using R = TaskRecord;
    visit({.name = "id"}, &R::id);
    visit({.name = "region"}, &R::region);
    visit({.name = "kind"}, &R::kind);
    visit({.name = "resource"}, &R::resource);
    visit({.name = "path"}, &R::path);
    visit({.name = "format"}, &R::format);
    visit({.name = "metadata_only"}, &R::metadata_only);
    visit({.name = "state"}, &R::state);
    visit({.name = "progress"}, &R::progress);
    visit({.name = "message"}, &R::message);
    visit({.name = "started"}, &R::started);
    visit({.name = "layers"}, &R::layers);
    visit({.name = "blocks"}, &R::blocks);
    visit({.name = "faults"}, &R::faults);
  }
};

}  // namespace haneul::agent
