// SPDX-License-Identifier: Apache-2.0
// The jail that a VMM builds around itself before it touches anything of the guest's: namespaces of its own
// (mount, network, IPC, UTS, cgroup, and user where it is not root), an empty read-only root, its own user
// without capabilities, and no way to gain privileges. What it may still ask of the kernel is filters.h's
// matter.
#pragma once

#include <sys/types.h>

#include <optional>

#include "base/result.h"

namespace haneul::vmm {

struct JailOptions {
  std::optional<uid_t> uid;
  std::optional<gid_t> gid;
};

/// Single-threaded callers only. Afterwards the process sees no file, no network and no other user's
/// processes.
Status enter_jail(const JailOptions& options);

}  // namespace haneul::vmm
