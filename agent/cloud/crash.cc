// SPDX-License-Identifier: Apache-2.0
#include "agent/cloud/crash.h"

#include <csignal>
#include <cstdlib>

namespace haneul::agent {

void crash_point(std::string_view name) {
  const char* wanted = std::getenv("HANEULD_CRASH_AT");  // NOLINT(concurrency-mt-unsafe)
  if (wanted != nullptr && name == wanted) std::raise(SIGKILL);
}

}  // namespace haneul::agent
