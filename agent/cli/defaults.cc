// SPDX-License-Identifier: Apache-2.0
#include "agent/cli/defaults.h"

#include <unistd.h>

#include <cstdlib>
#include <string>

namespace haneul::agent {
namespace {

constexpr const char* kSystemSocket = "/run/haneul/haneul.sock";

// Read before any thread starts, so that nobody changes the environment meanwhile.
std::filesystem::path from_environment(const char* variable, const char* below_home) {
  const char* value = std::getenv(variable);  // NOLINT(concurrency-mt-unsafe)
  if (value != nullptr && *value == '/') return std::filesystem::path(value) / "haneul";
  const char* home = std::getenv("HOME");  // NOLINT(concurrency-mt-unsafe)
  std::filesystem::path base = home != nullptr && *home == '/' ? home : "/";
  return base / below_home / "haneul";
}

}  // namespace

std::filesystem::path default_state() {
  if (::geteuid() == 0) return "/var/lib/haneul";
  return from_environment("XDG_STATE_HOME", ".local/state");
}

std::filesystem::path default_socket(const std::filesystem::path& state) {
  if (state != default_state()) return state / "haneul.sock";
  if (::geteuid() == 0) return kSystemSocket;
  const char* runtime = std::getenv("XDG_RUNTIME_DIR");  // NOLINT(concurrency-mt-unsafe)
  if (runtime != nullptr && *runtime == '/') return std::filesystem::path(runtime) / "haneul" / "haneul.sock";
  return state / "haneul.sock";
}

std::filesystem::path find_socket() {
  std::filesystem::path own = default_socket(default_state());
  std::error_code error;
  if (!std::filesystem::exists(own, error) && std::filesystem::exists(kSystemSocket, error))
    return kSystemSocket;
  return own;
}

std::filesystem::path config_folder() {
  return from_environment("XDG_CONFIG_HOME", ".config");
}

std::filesystem::path cache_folder() {
  return from_environment("XDG_CACHE_HOME", ".cache");
}

}  // namespace haneul::agent
