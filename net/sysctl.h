// SPDX-License-Identifier: Apache-2.0
// The IPv4 and IPv6 settings of one interface, /proc/sys/net/{ipv4,ipv6}/conf/NAME/KEY, of the calling
// thread's network namespace.
#pragma once

#include <string>

#include "base/result.h"

namespace haneul::net {

Result<int> read_ipv4_setting(const std::string& interface, const std::string& key);
Status write_ipv4_setting(const std::string& interface, const std::string& key, int value);
/// Fine if the kernel has no IPv6.
Status disable_ipv6(const std::string& interface);

}  // namespace haneul::net
