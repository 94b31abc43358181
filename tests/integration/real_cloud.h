// SPDX-License-Identifier: Apache-2.0
// A cloud as users have it: haneuld with real VMMs in a private network, `haneul` on its socket, and the
// freestanding guest (tests/guests) as the instances' kernel. All in a folder that goes away; whatever processes
// are left then are told and ended.
#pragma once

#include <sys/types.h>

#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "agent/ops/shape.h"
#include "tests/support/files.h"
#include "tests/support/programs.h"

namespace haneul::testing {

using agent::Json;

/// Each process's number and start: the same one is the same process.
struct Machine {
  pid_t pid = 0;
  std::string started;
  bool operator==(const Machine&) const = default;
};

class RealCloud {
 public:
  /// Orphans become children of this process, so that it knows what was left.
  explicit RealCloud(Words daemon_options = {}, Setting setting = {});
  ~RealCloud();
  RealCloud(const RealCloud&) = delete;
  RealCloud& operator=(const RealCloud&) = delete;

  /// Everything in the folder, with copies of the programs, becomes another user's. Before start().
  void give_to(uid_t user);
  void serve_at(const std::filesystem::path& socket) { socket_ = socket; }
  std::string program(const std::string& name) const { return programs_ / name; }

  /// Starts the daemon and waits until it serves.
  void start();
  /// As start(), without waiting.
  void begin();
  void wait_until_served();
  /// Ends the daemon with a signal; its status.
  int end(int signal);
  pid_t daemon() const { return daemon_; }

  /// `haneul WORDS`, and the same with --json, which must succeed.
  Ended haneul(Words words);
  Json json(Words words);
  Words haneul_words(Words words) const;
  const Setting& setting() const { return setting_; }

  /// Registers the freestanding guest under that name, with its command and a root disk of 1 MiB.
  void add_image(const std::string& name, const std::string& command);
  /// Launches and waits; the new instances' ids.
  std::vector<std::string> run(const std::string& image, int count = 1, const std::string& name = "");
  /// start(), add_image() and run(): the id of the one instance.
  std::string start_one(const std::string& image, const std::string& command);
  std::string state_of(const std::string& id);
  std::string console_of(const std::string& id);
  /// Waits until the console shows it, and fails the test if it does not.
  void expect_console(const std::string& id, const std::string& text);
  void expect_state(const std::string& id, const std::string& state);

  /// The VMMs of this cloud by instance: whoever writes to an instance's log. More than one is a failure.
  std::map<std::string, Machine> machines();
  /// Names of the taps in the cloud's network; empty if there is no such network.
  std::set<std::string> taps();
  /// `nft list ruleset` there.
  std::string rules();
  std::optional<pid_t> network_holder();
  /// Files of the state folder below `folder`, as paths from there.
  std::set<std::string> files(const std::string& folder);
  /// Fails the test unless the world is what the API says: a VMM and a tap for each running instance, none for
  /// others, no volume but theirs.
  void expect_consistent();
  /// Terminates everything, ends the daemon, and fails the test if anything is left.
  void expect_nothing_left();
  std::string log() const;

  const std::filesystem::path& folder() const { return folder_.path(); }
  std::filesystem::path state() const { return folder_.path() / "state"; }
  const std::filesystem::path& socket() const { return socket_; }

 private:
  void own_files();
  void kill_leftovers();

  TempFolder folder_;
  std::filesystem::path programs_ = bin_folder();
  std::filesystem::path socket_ = folder_.path() / "sock";
  Words daemon_options_;
  Setting setting_;
  std::optional<uid_t> user_;
  pid_t daemon_ = 0;
};

/// Orphans that this process took over and that still run, "PID NAME".
std::vector<std::string> orphans();

}  // namespace haneul::testing
