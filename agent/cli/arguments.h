// SPDX-License-Identifier: Apache-2.0
// What the command line was parsed into, and how a command is declared. Parsing is over before a command
// runs.
#pragma once

#include <CLI/CLI.hpp>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "agent/cli/commands.h"

namespace haneul::agent {

struct Arguments {
  std::string socket;
  std::string region;
  Shared shared;
  RunOptions run;
  ChangeOptions change;
  SshOptions ssh;
  VolumeOptions volume;
  SnapshotOptions snapshot;
  ImageOptions image;
  bool all = false;
  bool follow = false;
  bool remove = false;
  int port = 22;
  std::string one;
  std::string name;
  std::string kind = "ed25519";
  std::string kernel;
  std::filesystem::path file;
  std::vector<std::string> many;
};

using Action = std::function<Result<int>(Api&)>;

/// A command, its action, and --json.
CLI::App* add(CLI::App& parent, Arguments& args, Action& chosen, const std::string& name,
              const std::string& help, Action action);
/// One that has nothing to print as JSON, and says so.
CLI::App* add_without_json(CLI::App& parent, Action& chosen, const std::string& name, const std::string& help,
                           Action action);

// complete.cc
/// What may stand in place of the last of the words of a command line, one a line: for shells' completion. ":files" and
/// ":folders" are the shell's to complete.
Result<int> complete_command(const CLI::App& app, Api& api, const std::vector<std::string>& words);

// storage_arguments.cc
void add_images(CLI::App& app, Arguments& args, Action& chosen);
void add_volumes(CLI::App& app, Arguments& args, Action& chosen);
void add_snapshots(CLI::App& app, Arguments& args, Action& chosen);

}  // namespace haneul::agent
