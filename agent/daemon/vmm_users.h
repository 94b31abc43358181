// SPDX-License-Identifier: Apache-2.0
// The user ids that VMMs become: 2^16 for each cloud, so that no instance's process may touch another's, nor another
// cloud's.
#pragma once

#include <sys/types.h>

#include <filesystem>
#include <optional>
#include <set>

namespace haneul::agent {

inline constexpr uid_t kVmmUids = 1 << 16;

/// The first of this cloud's ids: by the state folder, or the next where processes other than `own` have them already.
/// nullopt: this process cannot become another user.
std::optional<uid_t> first_vmm_uid(const std::filesystem::path& state, const std::set<pid_t>& own);

}  // namespace haneul::agent
