// SPDX-License-Identifier: Apache-2.0
// What tests with machines share: a folder that goes away, files to boot and to write, and the process's own
// descriptors and threads, counted.
#pragma once

#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <thread>

#include "base/file.h"

namespace haneul::testing {

/// Long enough for a loaded machine: only a hang takes it.
inline constexpr std::chrono::seconds kPatience{60};

/// A folder in memory or on disk that the test leaves no trace of.
class TempFolder {
 public:
  /// Without a parent where temporary files are kept.
  explicit TempFolder(std::filesystem::path parent = {}) {
    if (parent.empty()) parent = std::filesystem::temp_directory_path();
    std::string name = (parent / "haneul-XXXXXX").string();
    CHECK(::mkdtemp(name.data()) != nullptr);
    path_ = name;
  }
  ~TempFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TempFolder(const TempFolder&) = delete;
  TempFolder& operator=(const TempFolder&) = delete;

  const std::filesystem::path& path() const { return path_; }
  std::string operator/(std::string_view name) const { return (path_ / name).string(); }

  /// A file with this text; its path.
  std::string file(std::string_view name, std::string_view text) const {
    UniqueFd fd = open_file(path_ / name, O_RDWR | O_CREAT | O_TRUNC).value();
    write_all(fd.get(), std::as_bytes(std::span(text))).value();
    return *this / name;
  }
  /// A sparse file of zeroes; its path.
  std::string disk(std::string_view name, uint64_t bytes) const {
    UniqueFd fd = open_file(path_ / name, O_RDWR | O_CREAT | O_TRUNC).value();
    CHECK(::ftruncate(fd.get(), static_cast<off_t>(bytes)) == 0);
    return *this / name;
  }

 private:
  std::filesystem::path path_;
};

inline std::filesystem::path bin_folder() {
  const char* folder = std::getenv("HANEUL_BIN");
  return folder != nullptr ? folder : "bin";
}
/// The freestanding guest, see tests/guests/guest.cc.
inline std::string guest_kernel() {
  return (bin_folder() / "guests/guest").string();
}
inline std::string vmm_program() {
  return (bin_folder() / "haneul-vmm").string();
}

inline size_t entries_of(const char* folder) {
  size_t count = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    (void)entry;
    ++count;
  }
  return count;
}
inline size_t open_descriptors() {
  return entries_of("/proc/self/fd");
}
inline size_t running_threads() {
  return entries_of("/proc/self/task");
}

/// Polls until the condition holds; false after kPatience.
inline bool eventually(const std::function<bool()>& condition) {
  auto deadline = std::chrono::steady_clock::now() + kPatience;
  while (!condition()) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  return true;
}

}  // namespace haneul::testing
