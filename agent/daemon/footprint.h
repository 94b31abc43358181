// SPDX-License-Identifier: Apache-2.0
// Footprint: what a start of the daemon adds to its folders, to take it away again if the start fails.
//
// Threads   one.
#pragma once

#include <filesystem>
#include <set>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"

namespace haneul::agent {

class Footprint {
 public:
  /// Makes the folder, with this mode, and those above it, if it is not there.
  Status make_folder(const std::filesystem::path& path, mode_t mode);
  /// The state folder's lock, this process's as long as the descriptor; what is in the folder now was there before.
  /// kBusy: another process has it, and everything in the folder is that one's.
  Result<UniqueFd> lock(const std::filesystem::path& state);
  /// Removes what was made: what a start makes in the locked folder and was not there before, and folders of
  /// make_folder() that are empty again.
  void undo() const;

 private:
  std::vector<std::filesystem::path> folders_;  ///< made here, the deepest last
  std::filesystem::path state_;                 ///< empty: not locked
  std::set<std::string> before_;                ///< the names in it
};

}  // namespace haneul::agent
