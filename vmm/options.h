// SPDX-License-Identifier: Apache-2.0
// The command line of haneul-vmm. Parsed by hand with getopt_long: the program is started for every instance,
// and its start is measured in milliseconds.
#pragma once

#include <sys/types.h>

#include <optional>

#include "base/result.h"
#include "base/unique_fd.h"
#include "vmm/runner.h"

namespace haneul::vmm {

struct Options {
  enum class Action { kRun, kProbe, kHelp, kVersion };
  Action action = Action::kRun;
  RunnerConfig runner;
  UniqueFd kvm;
  UniqueFd status;
  UniqueFd ready;
  std::optional<uid_t> uid;
  std::optional<gid_t> gid;
  bool jail = false;
  /// The system-call filter, where there is a jail.
  bool filter = true;
  bool console_to_stdout = false;
};

/// kInvalidArgument with a sentence that names the option.
Result<Options> parse_options(int argc, char** argv);
const char* help_text();

}  // namespace haneul::vmm
