// SPDX-License-Identifier: Apache-2.0
// A network namespace that outlives the daemon: taps of running VMMs are in it, and the next daemon has to
// find them. A small process holds it; its number is in the state folder.
#pragma once

#include <filesystem>

#include "base/result.h"

namespace haneul::agent {

/// Moves this process into the state folder's own network: the one that is held, or a new one, and says
/// whether it is new. Before any thread.
Result<bool> enter_private_network(const std::filesystem::path& state);
/// Ends the holder, when no instance is left.
void leave_private_network(const std::filesystem::path& state);

}  // namespace haneul::agent
