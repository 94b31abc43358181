// SPDX-License-Identifier: Apache-2.0
// Crash points: named places between an intent and its act. With HANEULD_CRASH_AT=NAME in the environment the
// process dies there as by kill -9, so that tests can see what the next start makes of it. Inert otherwise.
#pragma once

#include <string_view>

namespace haneul::agent {

void crash_point(std::string_view name);

}  // namespace haneul::agent
