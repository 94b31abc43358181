// SPDX-License-Identifier: Apache-2.0
// EC2's resource ids: a prefix, a dash and 17 hexadecimal digits. Malformed and unknown are different errors.
#pragma once

#include <string>
#include <string_view>

namespace haneul::agent {

/// "i-0123456789abcdef0" from the kernel's random numbers.
std::string new_id(std::string_view prefix);
/// Whether it is an id of that prefix with 17 (or, as old ones, 8) hexadecimal digits.
bool valid_id(std::string_view id, std::string_view prefix);
/// The prefix of a well-formed id, "i", "ami", "key"…; empty otherwise.
std::string_view id_prefix(std::string_view id);
/// The resource type that EC2 names for a prefix: "instance", "image", "key-pair"; empty if unknown.
std::string_view resource_type(std::string_view prefix);

}  // namespace haneul::agent
