// SPDX-License-Identifier: Apache-2.0
#include "agent/daemon/cgroups.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <sstream>

#include "base/checked.h"
#include "base/file.h"

namespace haneul::agent {
namespace {

Result<std::filesystem::path> find_mount(const std::filesystem::path& mounts) {
  std::istringstream lines(TRY(read_file(mounts)));
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    std::string device;
    std::string place;
    std::string type;
    words >> device >> place >> type;
    if (type == "cgroup2") return std::filesystem::path(place);
  }
  return Error(ErrorCode::kUnsupported, "this host has no cgroup version 2");
}

Status write_to(const std::filesystem::path& file, const std::string& text) {
  UniqueFd fd = TRY(open_file(file, O_WRONLY));
  return write_all(fd.get(), std::as_bytes(std::span(text))).context(file.string());
}

Status make_group(const std::filesystem::path& group) {
  if (::mkdir(group.c_str(), 0755) == 0 || errno == EEXIST) return {};
  return errno_error("making the cgroup {}", group.string());
}

}  // namespace

CgroupLimits limits_for(uint64_t guest_memory_bytes, unsigned vcpus) {
  constexpr unsigned kMaxDisks = 30;
  constexpr uint64_t kBytesPerDisk = 64_MiB;
  constexpr unsigned kThreadsPerDisk = 16;
  return {.memory_bytes = guest_memory_bytes + guest_memory_bytes / 4 + 128_MiB + kMaxDisks * kBytesPerDisk,
          .cpus = vcpus + 1,
          .pids = 64 + 4 * vcpus + kMaxDisks * kThreadsPerDisk};
}

Result<Cgroups> Cgroups::create(const std::filesystem::path& mounts, const std::string& cloud) {
  std::filesystem::path root = TRY(find_mount(mounts));
  Cgroups groups(root / ("haneul-" + cloud));
  constexpr const char* kControllers = "+memory +cpu +pids";
  TRY(write_to(root / "cgroup.subtree_control", kControllers));
  TRY(make_group(groups.folder_));
  TRY(write_to(groups.folder_ / "cgroup.subtree_control", kControllers));
  groups.sweep();
  return groups;
}

Result<std::filesystem::path> Cgroups::make(const std::string& instance_id,
                                            const CgroupLimits& limits) const {
  constexpr unsigned kPeriodUs = 100'000;
  std::filesystem::path group = folder_ / instance_id;
  TRY(make_group(group));
  TRY(write_to(group / "memory.max", std::to_string(limits.memory_bytes)));
  TRY(write_to(group / "cpu.max", fmt::format("{} {}", limits.cpus * kPeriodUs, kPeriodUs)));
  TRY(write_to(group / "pids.max", std::to_string(limits.pids)));
  return group;
}

// One that has a process stays: EBUSY.
void Cgroups::drop(const std::string& instance_id) const {
  ::rmdir((folder_ / instance_id).c_str());
}

void Cgroups::sweep() const {
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(folder_, error)) {
    if (entry.is_directory(error)) drop(entry.path().filename().string());
  }
}

void Cgroups::remove() const {
  sweep();
  ::rmdir(folder_.c_str());
}

}  // namespace haneul::agent
