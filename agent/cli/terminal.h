// SPDX-License-Identifier: Apache-2.0
// Terminal: a terminal in raw mode that is put back whatever happens, and a pipe between it and a stream.
#pragma once

#include <string>

#include "base/result.h"
#include "base/unique_fd.h"

namespace haneul::agent {

enum class PumpEnd { kStream, kEscape, kInput, kInterrupted };

struct PumpOptions {
  /// Standard input goes to the stream, key by key; Ctrl-] leaves.
  bool interactive = false;
  /// Standard input goes to the stream as it is, until its end.
  bool input = false;
};

/// Copies between a stream and standard input and output until one of them ends. `first` was read already.
Result<PumpEnd> pump(const UniqueFd& stream, const std::string& first, PumpOptions options);

}  // namespace haneul::agent
