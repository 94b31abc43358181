// SPDX-License-Identifier: Apache-2.0
#include "net/sysctl.h"

#include <fcntl.h>

#include <charconv>

#include "base/file.h"

namespace haneul::net {
namespace {

std::string path_of(const char* family, const std::string& interface, const std::string& key) {
  return fmt::format("/proc/sys/net/{}/conf/{}/{}", family, interface, key);
}

Status write_setting(const std::string& path, int value) {
  UniqueFd file = TRY(open_file(path, O_WRONLY));
  std::string text = std::to_string(value);
  return write_all(file.get(), std::as_bytes(std::span(text))).context(path);
}

}  // namespace

Result<int> read_ipv4_setting(const std::string& interface, const std::string& key) {
  std::string path = path_of("ipv4", interface, key);
  UniqueFd file = TRY(open_file(path, O_RDONLY));
  char text[16] = {};
  ssize_t got = ::read(file.get(), text, sizeof text - 1);
  if (got < 0) return errno_error("reading {}", path);
  int value = 0;
  if (std::from_chars(text, text + got, value).ec != std::errc()) {
    return make_error(ErrorCode::kCorrupt, "{} holds no number", path);
  }
  return value;
}

Status write_ipv4_setting(const std::string& interface, const std::string& key, int value) {
  return write_setting(path_of("ipv4", interface, key), value);
}

Status disable_ipv6(const std::string& interface) {
  Status done = write_setting(path_of("ipv6", interface, "disable_ipv6"), 1);
  if (!done.ok() && done.error().code() == ErrorCode::kNotFound) return {};
  return done;
}

}  // namespace haneul::net
