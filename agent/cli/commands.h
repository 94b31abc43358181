// SPDX-License-Identifier: Apache-2.0
// The CLI's commands. Each prints its result to standard output and returns the program's exit status, or an
// error that main() prints as one sentence.
#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "agent/cli/api.h"

namespace haneul::agent {

struct Shared {
  bool json = false;
};

struct RunOptions {
  std::string image;
  std::string type = "t2.micro";
  std::string name;
  std::string key;
  std::string zone;
  std::filesystem::path user_data;
  std::vector<std::string> tags;
  std::vector<std::string> volumes;  ///< "20G:/dev/sdf:keep", "snap-…:/dev/sdg", "ephemeral0:4G"
  int count = 1;
  int root_gib = 0;
  bool protect = false;
  bool terminate_on_shutdown = false;
  bool wait = false;
  int timeout_s = 300;
};

struct ChangeOptions {
  std::vector<std::string> instances;
  bool wait = false;
  bool force = false;
  int timeout_s = 300;
};

struct VolumeOptions {
  std::string volume;
  std::string size;
  std::string zone;
  std::string from;
  std::string type;
  std::string name;
  std::string instance;
  std::string device;
  std::string task;
  std::vector<std::string> tags;
  int iops = 0;
  int throughput = 0;
  bool encrypted = false;
  bool force = false;
  bool quick = false;
  int timeout_s = 300;
};

struct SnapshotOptions {
  std::string one;
  std::string name;
  std::string description;
  std::string to_region;
  std::string format;
  std::filesystem::path file;
  std::vector<std::string> tags;
  std::vector<std::string> accounts;
  bool everyone = false;
  bool remove = false;
  bool encrypted = false;
  bool wait = false;
};

struct ImageOptions {
  std::string one;
  std::string name;
  std::string description;
  std::string snapshot;
  std::string kernel_of;
  std::string to_region;
  std::string format;
  std::filesystem::path file;
  bool no_reboot = false;
  bool encrypted = false;
  bool wait = false;
};

struct SshOptions {
  std::string instance;
  std::string user;
  std::filesystem::path identity;
  std::vector<std::string> command;
  int timeout_s = 180;
};

// instance_commands.cc
Result<int> run_command(Api& api, const Shared& shared, const RunOptions& options);
Result<int> list_command(Api& api, const Shared& shared, bool all);
Result<int> show_command(Api& api, const Shared& shared, const std::string& instance);
Result<int> start_command(Api& api, const Shared& shared, const ChangeOptions& options);
Result<int> stop_command(Api& api, const Shared& shared, const ChangeOptions& options);
Result<int> reboot_command(Api& api, const Shared& shared, const ChangeOptions& options);
Result<int> terminate_command(Api& api, const Shared& shared, const ChangeOptions& options);
Result<int> tag_command(Api& api, const Shared& shared, const std::string& resource,
                        const std::vector<std::string>& tags, bool remove);
Result<int> type_list_command(Api& api, const Shared& shared);
Result<int> zone_list_command(Api& api, const Shared& shared);

// connect_commands.cc
Result<int> console_command(Api& api, const Shared& shared, const std::string& instance, bool follow);
Result<int> ssh_command(Api& api, const SshOptions& options);
Result<int> proxy_command(Api& api, const std::string& instance, int port);

// image_commands.cc
Result<int> image_build_command(Api& api, const Shared& shared, const std::string& name,
                                const std::string& kernel);
Result<int> image_register_command(Api& api, const Shared& shared, const std::filesystem::path& folder,
                                   const std::string& name);
Result<int> image_list_command(Api& api, const Shared& shared);
Result<int> image_remove_command(Api& api, const Shared& shared, const std::vector<std::string>& images);

// image_make_commands.cc
Result<int> image_create_command(Api& api, const Shared& shared, const ImageOptions& options);
Result<int> image_of_snapshot_command(Api& api, const Shared& shared, const ImageOptions& options);
Result<int> image_import_command(Api& api, const Shared& shared, const ImageOptions& options);
Result<int> image_export_command(Api& api, const Shared& shared, const ImageOptions& options);
Result<int> image_copy_command(Api& api, const Shared& shared, const ImageOptions& options);
Result<int> image_show_command(Api& api, const Shared& shared, const std::string& image);

// volume_commands.cc
Result<int> volume_create_command(Api& api, const Shared& shared, const VolumeOptions& options);
Result<int> volume_list_command(Api& api, const Shared& shared);
Result<int> volume_show_command(Api& api, const Shared& shared, const std::string& volume);
Result<int> volume_attach_command(Api& api, const Shared& shared, const VolumeOptions& options);
Result<int> volume_detach_command(Api& api, const Shared& shared, const VolumeOptions& options);
Result<int> volume_resize_command(Api& api, const Shared& shared, const VolumeOptions& options);
Result<int> volume_remove_command(Api& api, const Shared& shared, const std::vector<std::string>& volumes);
Result<int> volume_check_command(Api& api, const Shared& shared, const std::string& volume,
                                 const std::string& task, bool quick);

// snapshot_commands.cc
Result<int> snapshot_create_command(Api& api, const Shared& shared, const SnapshotOptions& options);
Result<int> snapshot_list_command(Api& api, const Shared& shared);
Result<int> snapshot_show_command(Api& api, const Shared& shared, const std::string& snapshot);
Result<int> snapshot_copy_command(Api& api, const Shared& shared, const SnapshotOptions& options);
Result<int> snapshot_remove_command(Api& api, const Shared& shared,
                                    const std::vector<std::string>& snapshots);
Result<int> snapshot_share_command(Api& api, const Shared& shared, const SnapshotOptions& options);
Result<int> snapshot_export_command(Api& api, const Shared& shared, const SnapshotOptions& options);
Result<int> snapshot_import_command(Api& api, const Shared& shared, const SnapshotOptions& options);

// launch_volumes.cc
/// RunInstances' BlockDeviceMappings for --size and --volume.
Result<Json> launch_mappings(Api& api, const RunOptions& options);

// key_commands.cc
Result<int> key_create_command(Api& api, const Shared& shared, const std::string& name,
                               const std::string& type, const std::filesystem::path& file);
Result<int> key_import_command(Api& api, const Shared& shared, const std::string& name,
                               const std::filesystem::path& file);
Result<int> key_list_command(Api& api, const Shared& shared);
Result<int> key_remove_command(Api& api, const Shared& shared, const std::vector<std::string>& names);
/// The name of the user's default key pair, made on first use.
Result<std::string> default_key(Api& api);
/// The files of private keys that may open an instance with this key pair, best first.
std::vector<std::filesystem::path> private_key_files(Api& api, const std::string& key_name);

// doctor_command.cc
Result<int> doctor_command(Api& api, const Shared& shared);
Result<int> status_command(Api& api, const Shared& shared);

/// A program found beside this one, in PATH's usual places, or empty.
std::filesystem::path find_program(const std::string& name);
/// This program's own path.
std::filesystem::path own_path();
void print_json(const Json& value);
/// Deletes one after the other, each by a call that gives the id and the API's reply, and prints the ids. With --json
/// it is one object, which has what was deleted before another could not be, too.
struct Removed {
  std::string id;
  Json reply;
};
Result<int> remove_each(const Shared& shared, const std::vector<std::string>& names,
                        const std::string& member,
                        const std::function<Result<Removed>(const std::string&)>& remove);

}  // namespace haneul::agent
