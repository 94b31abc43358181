// SPDX-License-Identifier: Apache-2.0
// Which system calls each kind of thread may make: an allow-list a kind, with argument checks on ioctl,
// prctl, tgkill and the like. Anything else kills the whole process at once (SECCOMP_RET_KILL_PROCESS), as an
// escape attempt.
//
// Filters are inherited, and only ever add up. So threads are started by one spawner thread, whose own filter
// allows the union of what its children need and cloning; each child then takes its own.
#pragma once

#include <linux/filter.h>

#include <array>
#include <vector>

#include "base/result.h"

namespace haneul::vmm {

enum class ThreadKind { kControl, kSpawner, kVcpu, kIo };

class Filters {
 public:
  /// Compiles all four, with libseccomp. Before the first thread starts: it also holds this process's memory
  /// allocator to the calls that the filters allow.
  static Result<Filters> compile();
  /// Binds the calling thread, for good. Needs PR_SET_NO_NEW_PRIVS.
  Status apply(ThreadKind kind) const;

 private:
  std::array<std::vector<sock_filter>, 4> programs_;
};

}  // namespace haneul::vmm
