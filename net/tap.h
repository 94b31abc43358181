// SPDX-License-Identifier: Apache-2.0
// Taps: the host's end of an instance's network card.
#pragma once

#include <string>

#include "base/result.h"
#include "base/unique_fd.h"

namespace haneul::net {

/// A new tap of this name, down, that vanishes when its last descriptor is closed: frames carry a
/// virtio_net_hdr and no other header; one queue. Non-blocking. kExists if the name is taken.
Result<UniqueFd> create_tap(const std::string& name);

/// Says in one sentence why no tap could be made here: kUnsupported without /dev/net/tun, kPermission.
Status check_taps();

}  // namespace haneul::net
