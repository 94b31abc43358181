// SPDX-License-Identifier: Apache-2.0
// Waiting for the daemon's long work, with its percentage. Ctrl-C ends the waiting, not the work.
#pragma once

#include <csignal>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "agent/cli/api.h"

namespace haneul::agent {

/// What a poll found.
struct Polled {
  bool done = false;
  int percent = -1;
  /// Why it never will be done; empty for none.
  std::string failure;
};

struct Waiting {
  std::string what;         ///< "snapshot snap-…"
  std::string look_with;    ///< the command that shows it later
  int timeout_s = 0;        ///< 0: none
  std::string work = "it";  ///< what goes on after Ctrl-C: "the launch"
};

/// Set when Ctrl-C is pressed during a wait: a call under way then ends.
volatile std::sig_atomic_t& interrupted();

/// kCliOk when it is done, kCliInterrupted after Ctrl-C (which is told), kTimeout as an error.
Result<int> wait_until(const Waiting& waiting, const std::function<Result<Polled>()>& poll);

/// A request whose work is done before its reply comes. Ctrl-C ends the program; the work goes on.
Result<Json> call_with_progress(Api& api, std::string_view operation, const Json& request,
                                const std::string& what);

/// Until every instance is in the state. One that goes elsewhere for good is an error with its reason.
Result<int> wait_for_instances(Api& api, const std::vector<std::string>& ids, const std::string& state,
                               int timeout_s, const std::string& work);
Result<int> wait_for_snapshot(Api& api, const std::string& id);
Result<int> wait_for_image(Api& api, const std::string& id);
/// An export or a check; the task as it ended.
struct EndedTask {
  int status = kCliOk;
  Json task;
};
Result<EndedTask> wait_for_task(Api& api, const std::string& id);

/// "20G", "1T" or "20": GiB.
Result<int> gib_from(const std::string& text);
/// "a" is that zone of the region in use, "" its first.
Result<std::string> zone_name(Api& api, const std::string& zone);
/// --name and --tag as a TagSpecification for a resource type, in an array; empty if there are none.
Result<Json> tag_specifications(const std::string& type, const std::string& name,
                                const std::vector<std::string>& tags);
/// An absolute path that the caller may read, or (for writing) whose folder it may write to: the daemon opens
/// it with its own rights, which are to lend nobody more than they have.
Result<std::string> readable_path(const std::filesystem::path& path);
Result<std::string> writable_path(const std::filesystem::path& path);

}  // namespace haneul::agent
