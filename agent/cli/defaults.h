// SPDX-License-Identifier: Apache-2.0
// Where daemon and CLI find each other and the user's things, unless told otherwise.
#pragma once

#include <filesystem>

namespace haneul::agent {

/// /var/lib/haneul for root; $XDG_STATE_HOME/haneul or ~/.local/state/haneul for others.
std::filesystem::path default_state();
/// /run/haneul/haneul.sock for root; $XDG_RUNTIME_DIR/haneul/haneul.sock for others, or in the state folder
/// where there is none. For root with another state folder, in that folder: a second cloud is beside the
/// first.
std::filesystem::path default_socket(const std::filesystem::path& state);
/// The socket that the CLI speaks to: the user's own, or the system's if only that is there.
std::filesystem::path find_socket();
/// $XDG_CONFIG_HOME/haneul or ~/.config/haneul
std::filesystem::path config_folder();
/// $XDG_CACHE_HOME/haneul or ~/.cache/haneul
std::filesystem::path cache_folder();

}  // namespace haneul::agent
