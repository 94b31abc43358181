// SPDX-License-Identifier: Apache-2.0
// Cgroups: a cgroup (version 2) for each instance's VMM, with the limits that its type implies, where this
// host offers them and the daemon is root. A VMM that its guest took over then takes no more memory, time and
// processes than the instance was given.
//
//   memory.max   the guest's memory, a quarter more and 128 MiB: the VMM itself, and the host's cache of its disks;
//                64 MiB for each of the 30 disks there may be: what an encrypted one takes for 256 requests at once
//   cpu.max      one processor for each vCPU, and one for the device threads
//   pids.max     64, 4 for each vCPU, and 16 for each disk: its thread, and the kernel's workers of its io_uring
//
// Threads   thread-safe; an instance's cgroup is made and dropped by one thread at a time.
// Lifetime  a cgroup stays until its last process has ended and it is dropped.
#pragma once

#include <filesystem>
#include <string>

#include "base/result.h"

namespace haneul::agent {

struct CgroupLimits {
  uint64_t memory_bytes = 0;
  unsigned cpus = 0;
  unsigned pids = 0;
};
CgroupLimits limits_for(uint64_t guest_memory_bytes, unsigned vcpus);

class Cgroups {
 public:
  /// The cgroups of a cloud, whose name no other has, made beneath the root of the hierarchy in `mounts`
  /// (/proc/self/mounts). What an earlier daemon left empty is removed. kUnsupported or kPermission with the
  /// reason why instances go without.
  static Result<Cgroups> create(const std::filesystem::path& mounts, const std::string& cloud);

  /// A cgroup for this instance, with its limits; one that is there already gets them anew.
  Result<std::filesystem::path> make(const std::string& instance_id, const CgroupLimits& limits) const;
  /// Removes this instance's, if no process is in it. Never another's: that may be in the middle of its launch.
  void drop(const std::string& instance_id) const;
  /// All of them, and the folder, if no instance runs. No launch is under way.
  void remove() const;
  const std::filesystem::path& folder() const { return folder_; }

 private:
  explicit Cgroups(std::filesystem::path folder) : folder_(std::move(folder)) {}
  void sweep() const;

  std::filesystem::path folder_;
};

}  // namespace haneul::agent
