// SPDX-License-Identifier: Apache-2.0
#include "agent/daemon/footprint.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "base/file.h"

namespace haneul::agent {
namespace {

constexpr const char* kLock = "lock";

// What a start makes in the state folder, by its name or how that begins. Whatever else appears there meanwhile is somebody
// else's. A database's journal belongs to it: it goes only with one that is new.
bool is_ours(const std::string& name, const std::set<std::string>& before) {
  for (const char* one : {"images", "instances", "regions"}) {
    if (name == one) return true;
  }
  if (name.starts_with("network-holder") || name.starts_with("network.json")) return true;
  return name.starts_with("state.db") && !before.contains("state.db");
}

bool is_file_at(int fd, const std::filesystem::path& path) {
  struct stat open {};
  struct stat there {};
  return ::fstat(fd, &open) == 0 && ::stat(path.c_str(), &there) == 0 && open.st_dev == there.st_dev &&
         open.st_ino == there.st_ino;
}

}  // namespace

Status Footprint::make_folder(const std::filesystem::path& path, mode_t mode) {
  std::vector<std::filesystem::path> missing;
  std::error_code error;
  for (auto folder = path; !folder.empty() && !std::filesystem::exists(folder, error);
       folder = folder.parent_path())
    missing.push_back(folder);
  for (auto folder = missing.rbegin(); folder != missing.rend(); ++folder) {
    if (::mkdir(folder->c_str(), *folder == path ? mode : 0755) != 0 && errno != EEXIST)
      return errno_error("cannot make the folder {}", folder->string());
    folders_.push_back(*folder);
    // Whatever the umask.
    if (*folder == path && ::chmod(path.c_str(), mode) != 0) return errno_error("chmod of {}", path.string());
  }
  if (!std::filesystem::is_directory(path, error))
    return make_error(ErrorCode::kInvalidArgument, "{} is not a folder", path.string());
  return {};
}

Result<UniqueFd> Footprint::lock(const std::filesystem::path& state) {
  std::filesystem::path path = state / kLock;
  std::error_code error;
  for (;;) {
    bool new_lock = !std::filesystem::exists(path, error);
    UniqueFd lock = TRY(open_file(path, O_RDWR | O_CREAT));
    // The process's own lock, not the open file's: a child that is about to become a VMM when the daemon is killed would hold
    // that for a while.
    struct flock whole {};
    whole.l_type = F_WRLCK;
    whole.l_whence = SEEK_SET;
    if (::fcntl(lock.get(), F_SETLK, &whole) != 0) {
      if (errno != EACCES && errno != EAGAIN) return errno_error("cannot lock {}", state.string());
      return make_error(ErrorCode::kBusy, "another haneuld has the state folder {}", state.string());
    }
    // One whose start failed may have removed the file between our opening and our locking it.
    if (!is_file_at(lock.get(), path)) continue;
    for (const auto& entry : std::filesystem::directory_iterator(state, error))
      before_.insert(entry.path().filename().string());
    if (error) return Error::from_errno(error.value(), fmt::format("cannot list {}", state.string()));
    if (new_lock) before_.erase(kLock);
    state_ = state;
    return lock;
  }
}

void Footprint::undo() const {
  std::error_code ignored;
  if (!state_.empty()) {
    std::vector<std::filesystem::path> added;
    for (const auto& entry : std::filesystem::directory_iterator(state_, ignored)) {
      std::string name = entry.path().filename().string();
      if (!before_.contains(name) && is_ours(name, before_)) added.push_back(entry.path());
    }
    for (const auto& path : added) std::filesystem::remove_all(path, ignored);
    // Last: it keeps another daemon away until the rest is gone.
    if (!before_.contains(kLock)) ::unlink((state_ / kLock).c_str());
  }
  for (auto folder = folders_.rbegin(); folder != folders_.rend(); ++folder) ::rmdir(folder->c_str());
}

}  // namespace haneul::agent
