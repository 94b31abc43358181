// SPDX-License-Identifier: Apache-2.0
// The daemon's command line and exit statuses, as haneuld(8) documents them.
#pragma once

#include <chrono>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "agent/daemon/host_network.h"
#include "agent/daemon/regions_record.h"
#include "base/log.h"
#include "net/address.h"

namespace haneul::agent {

enum ExitStatus : int {
  kExitOk = 0,
  kExitFailed = 1,
  kExitUsage = 2,
  kExitNoKvm = 3,
  kExitInUse = 4,
  kExitCorrupt = 5,
  kExitNetwork = 6,
  kExitNoSpace = 7,
};

struct DaemonOptions {
  std::filesystem::path state;
  std::filesystem::path socket;
  std::filesystem::path vmm;
  NetworkChoice network = NetworkChoice::kHost;
  /// The range of the VPC; nullopt: the one it has, or one that is free.
  std::optional<net::Ipv4Prefix> vpc;
  /// nullopt: those it has.
  std::optional<std::vector<WantedRegion>> regions;
  LogLevel log_level = LogLevel::kInfo;
  bool without_kvm = false;
  std::chrono::seconds stop_timeout{60};
  std::chrono::seconds terminate_timeout{10};
  std::chrono::seconds reboot_timeout{30};
};

/// The options, or the exit status with which to end (after --help, or a usage error that was told).
struct ParsedOptions {
  std::optional<DaemonOptions> options;
  int status = kExitOk;
};
ParsedOptions parse_daemon_options(int argc, char** argv);

}  // namespace haneul::agent
