// SPDX-License-Identifier: Apache-2.0
// A cpio archive in the "newc" format, as the kernel unpacks it (Documentation/driver-api/early-userspace/
// buffer-format.rst): what a test hands to a guest beside its initrd.
#pragma once

#include <fmt/format.h>

#include <string>
#include <string_view>

namespace haneul::testing {

class NewcArchive {
 public:
  void folder(std::string_view path) { entry(path, 0040755, ""); }
  void file(std::string_view path, std::string_view text, unsigned mode = 0644) {
    entry(path, 0100000 | mode, text);
  }
  /// The whole archive; nothing may be added afterwards.
  std::string finish() {
    entry("TRAILER!!!", 0, "");
    bytes_.resize((bytes_.size() + 511) / 512 * 512, '\0');
    return std::move(bytes_);
  }

 private:
  void entry(std::string_view path, unsigned mode, std::string_view text) {
    // Magic, ino, mode, uid, gid, nlink, mtime, filesize, device and rdevice numbers, namesize, check.
    bytes_ +=
        fmt::format("070701{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{:08x}",
                    ++inode_, mode, 0, 0, 1, 0, text.size(), 0, 0, 0, 0, path.size() + 1, 0);
    bytes_ += path;
    bytes_ += '\0';
    pad();
    bytes_ += text;
    pad();
  }
  void pad() { bytes_.resize((bytes_.size() + 3) / 4 * 4, '\0'); }

  std::string bytes_;
  unsigned inode_ = 0;
};

}  // namespace haneul::testing
