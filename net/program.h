// SPDX-License-Identifier: Apache-2.0
// Running another program to its end, with its input given and its output kept.
#pragma once

#include <chrono>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace haneul::net {

struct ProgramOutcome {
  int exit_code = 0;  ///< 128 + the signal's number if a signal ended it
  std::string output;
  std::string errors;
};

/// Runs the program (a path) with the arguments; kTimeout if it had to be killed. It gets no descriptor but
/// 0 to 2, a short environment, and CAP_NET_ADMIN if this process has it: without root an exec would lose the
/// capability that the process has inside its own namespace. It dies with the calling thread, so that a
/// change of a dead daemon's never arrives after one of its successor's. Thread-safe.
Result<ProgramOutcome> run_program(const std::filesystem::path& program,
                                   const std::vector<std::string>& arguments, std::string_view input = {},
                                   std::chrono::milliseconds timeout = std::chrono::seconds(60));

/// Where an administrator's program is: in PATH, /usr/sbin or /sbin. kNotFound without it.
Result<std::filesystem::path> find_program(std::string_view name);

}  // namespace haneul::net
