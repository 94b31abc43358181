// SPDX-License-Identifier: Apache-2.0
// The CLI's exit statuses, as haneul(1) documents them, and which one a refusal of the API's ends with.
#pragma once

#include <string_view>
#include <vector>

#include "agent/ops/answer.h"
#include "base/result.h"

namespace haneul::agent {

enum CliStatus : int {
  kCliOk = 0,
  kCliFailed = 1,
  kCliUsage = 2,
  kCliUnfit = 3,  ///< doctor found what keeps instances from running
  kCliNoDaemon = 4,
  kCliTimeout = 5,
  kCliNotFound = 6,
  kCliInvalid = 7,
  kCliState = 8,
  kCliConflict = 9,
  kCliLimit = 10,
  kCliNotPermitted = 11,
  kCliInternal = 12,
  kCliInterrupted = 130,
};

/// A row of the table: every code of the API's belongs to one kind of error, and every kind ends with one status.
struct StatusRow {
  CliStatus status;
  ErrorCode kind;
  std::vector<ApiCode> codes;
};
const std::vector<StatusRow>& status_table();

/// The kind of error that a code in EC2's spelling is; kIo, "it failed", for one that nobody knows.
ErrorCode kind_of(std::string_view api_code);
int status_of(const Error& error);

}  // namespace haneul::agent
