// SPDX-License-Identifier: Apache-2.0
// Whole reads and writes on file descriptors, and files replaced at one stroke.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

#include "base/result.h"
#include "base/unique_fd.h"

namespace haneul {

/// open(2) with O_CLOEXEC always added.
Result<UniqueFd> open_file(const std::filesystem::path& path, int flags, unsigned mode = 0600);

/// Exactly out.size() bytes at offset; the end of the file before that is kOutOfRange.
Status read_exact_at(int fd, uint64_t offset, std::span<std::byte> out);
Status write_all_at(int fd, uint64_t offset, std::span<const std::byte> data);
Status write_all(int fd, std::span<const std::byte> data);

/// The file's text; one larger than limit bytes is kOutOfRange.
Result<std::string> read_file(const std::filesystem::path& path, size_t limit = 16 << 20);
Result<uint64_t> file_size(int fd);

/// Writes a temporary file beside path, syncs it, renames it over path and syncs the folder:
/// after a crash either the old file or the new one is there, whole.
Status replace_file(const std::filesystem::path& path, std::string_view text, unsigned mode = 0600);
Status sync_folder(const std::filesystem::path& folder);

/// An anonymous file in memory, close-on-exec.
Result<UniqueFd> make_memfd(const char* name);

}  // namespace haneul
