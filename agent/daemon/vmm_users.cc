// SPDX-License-Identifier: Apache-2.0
#include "agent/daemon/vmm_users.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <string>

#include "agent/keys/key_pair.h"
#include "base/file.h"

namespace haneul::agent {
namespace {

// From what systemd documents as unused by anyone (its UIDS-GIDS page): 2^28 ids.
constexpr uid_t kFirst = 0x70000000;
constexpr unsigned kClouds = (1u << 28) / kVmmUids;

// Inside a user namespace of its own, root may not become another user.
bool may_change_user() {
  auto map = read_file("/proc/self/uid_map", 4096);
  return ::geteuid() == 0 && map.ok() && map->find("4294967295") != std::string::npos;
}

// Whose the processes of this host are, as places among the clouds.
std::set<unsigned> taken_places(const std::set<pid_t>& own) {
  std::set<unsigned> taken;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator("/proc", error)) {
    std::string name = entry.path().filename().string();
    struct stat info {};
    if (name.find_first_not_of("0123456789") != std::string::npos || ::stat(entry.path().c_str(), &info) != 0)
      continue;
    bool vmms = info.st_uid >= kFirst && info.st_uid - kFirst < kClouds * kVmmUids;
    if (vmms && !own.contains(static_cast<pid_t>(std::stol(name))))
      taken.insert((info.st_uid - kFirst) / kVmmUids);
  }
  return taken;
}

}  // namespace

std::optional<uid_t> first_vmm_uid(const std::filesystem::path& state, const std::set<pid_t>& own) {
  if (!may_change_user()) return std::nullopt;
  std::set<unsigned> taken = taken_places(own);
  auto place = static_cast<unsigned>(
      std::strtoul(sha256_hex(state.string()).substr(0, 8).c_str(), nullptr, 16) % kClouds);
  for (unsigned i = 0; i < kClouds && taken.contains(place); ++i) place = (place + 1) % kClouds;
  return kFirst + place * kVmmUids;
}

}  // namespace haneul::agent
