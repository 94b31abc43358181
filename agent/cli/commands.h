// SPDX-License-Identifier: Apache-2.0
// The CLI's commands. Each prints its result to standard output and returns the program's exit status, or an
// error that main() prints as one sentence.
#pragma once

#include <filesystem>
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

// connect_commands.cc
Result<int> console_command(Api& api, const std::string& instance, bool follow);
Result<int> ssh_command(Api& api, const SshOptions& options);
Result<int> proxy_command(Api& api, const std::string& instance, int port);

// image_commands.cc
Result<int> image_build_command(Api& api, const Shared& shared, const std::string& name,
                                const std::string& kernel);
Result<int> image_register_command(Api& api, const Shared& shared, const std::filesystem::path& folder,
                                   const std::string& name);
Result<int> image_list_command(Api& api, const Shared& shared);
Result<int> image_remove_command(Api& api, const Shared& shared, const std::vector<std::string>& images);

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

}  // namespace haneul::agent
