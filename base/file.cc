// SPDX-License-Identifier: Apache-2.0
#include "base/file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

namespace haneul {

Result<UniqueFd> open_file(const std::filesystem::path& path, int flags, unsigned mode) {
  UniqueFd fd(::open(path.c_str(), flags | O_CLOEXEC, mode));
  if (!fd) return errno_error("cannot open {}", path.string());
  return fd;
}

Status read_exact_at(int fd, uint64_t offset, std::span<std::byte> out) {
  while (!out.empty()) {
    ssize_t got = ::pread(fd, out.data(), out.size(), static_cast<off_t>(offset));
    if (got < 0) {
      if (errno == EINTR) continue;
      return errno_error("reading {} bytes at {}", out.size(), offset);
    }
    if (got == 0) {
      return make_error(ErrorCode::kOutOfRange, "the file ends {} bytes early at {}", out.size(), offset);
    }
    out = out.subspan(static_cast<size_t>(got));
    offset += static_cast<uint64_t>(got);
  }
  return {};
}

Status write_all_at(int fd, uint64_t offset, std::span<const std::byte> data) {
  while (!data.empty()) {
    ssize_t written = ::pwrite(fd, data.data(), data.size(), static_cast<off_t>(offset));
    if (written < 0) {
      if (errno == EINTR) continue;
      return errno_error("writing {} bytes at {}", data.size(), offset);
    }
    data = data.subspan(static_cast<size_t>(written));
    offset += static_cast<uint64_t>(written);
  }
  return {};
}

Status write_all(int fd, std::span<const std::byte> data) {
  while (!data.empty()) {
    ssize_t written = ::write(fd, data.data(), data.size());
    if (written < 0) {
      if (errno == EINTR) continue;
      return errno_error("writing {} bytes", data.size());
    }
    data = data.subspan(static_cast<size_t>(written));
  }
  return {};
}

Result<std::string> read_file(const std::filesystem::path& path, size_t limit) {
  UniqueFd fd = TRY(open_file(path, O_RDONLY));
  std::string text;
  std::string chunk(64 << 10, '\0');
  for (;;) {
    ssize_t got = ::read(fd.get(), chunk.data(), chunk.size());
    if (got < 0) {
      if (errno == EINTR) continue;
      return errno_error("reading {}", path.string());
    }
    if (got == 0) return text;
    if (text.size() + static_cast<size_t>(got) > limit) {
      return make_error(ErrorCode::kOutOfRange, "{} is larger than {} bytes", path.string(), limit);
    }
    text.append(chunk, 0, static_cast<size_t>(got));
  }
}

Result<uint64_t> file_size(int fd) {
  struct stat info {};
  if (::fstat(fd, &info) != 0) return errno_error("fstat");
  return static_cast<uint64_t>(info.st_size);
}

Status replace_file(const std::filesystem::path& path, std::string_view text, unsigned mode) {
  std::string temporary = path.string() + ".XXXXXX";
  UniqueFd fd(::mkostemp(temporary.data(), O_CLOEXEC));
  if (!fd) return errno_error("cannot make a file beside {}", path.string());
  Status status = write_all(fd.get(), std::as_bytes(std::span(text)));
  if (status.ok() && ::fchmod(fd.get(), mode) != 0) status = errno_error("fchmod");
  if (status.ok() && ::fsync(fd.get()) != 0) status = errno_error("fsync");
  if (status.ok() && ::rename(temporary.c_str(), path.c_str()) != 0) status = errno_error("rename");
  if (!status.ok()) {
    ::unlink(temporary.c_str());
    return std::move(status).context(fmt::format("replacing {}", path.string()));
  }
  return sync_folder(path.parent_path());
}

Status sync_folder(const std::filesystem::path& folder) {
  UniqueFd fd = TRY(open_file(folder.empty() ? "." : folder, O_RDONLY | O_DIRECTORY));
  if (::fsync(fd.get()) != 0) return errno_error("fsync of {}", folder.string());
  return {};
}

Result<UniqueFd> make_memfd(const char* name) {
  UniqueFd fd(::memfd_create(name, MFD_CLOEXEC));
  if (!fd) return errno_error("memfd_create");
  return fd;
}

}  // namespace haneul
