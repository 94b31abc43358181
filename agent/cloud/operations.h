// SPDX-License-Identifier: Apache-2.0
// The table of operations: each of EC2's by name, with the shapes of its request and reply and the method of
// Cloud that does it. Encodings work on this table and on JSON values; methods work on structs.
#pragma once

#include <span>
#include <string_view>

#include "agent/cloud/cloud.h"
#include "agent/ops/shape.h"

namespace haneul::agent {

struct Operation {
  std::string_view name;
  const Type& (*request)();
  const Type& (*reply)();
  /// Haneul's, unknown to EC2.
  bool own = false;
  /// Copies files, or waits for a guest's data to become durable, before it replies.
  bool slow = false;
  /// Checks the request against its shape, does the operation, and gives the reply's members.
  Answer<Json> (*call)(Cloud& cloud, const Caller& caller, const Json& request);
};

std::span<const Operation> operations();
const Operation* find_operation(std::string_view name);

}  // namespace haneul::agent
