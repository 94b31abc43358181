// SPDX-License-Identifier: Apache-2.0
// virtio-rng: entropy from the host's kernel (VIRTIO 1.2, section 5.4).
#pragma once

#include <memory>

#include "base/result.h"
#include "devices/virtio/device.h"

namespace haneul::devices::virtio {

/// More is answered with this many bytes, as the specification allows.
inline constexpr uint32_t kMaxRngBytes = 64u << 10;

Result<std::unique_ptr<Device>> make_rng();

}  // namespace haneul::devices::virtio
