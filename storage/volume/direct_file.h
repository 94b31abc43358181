// SPDX-License-Identifier: Apache-2.0
// DirectFile: an AsyncFile over a descriptor with O_DIRECT, for callers whose memory is aligned by chance.
// What is aligned to 512 bytes in memory, place and length goes straight; the rest through a buffer of a pool.
//
// Threads   as AsyncFile. Lifetime: goes when none of its operations is under way.
// Bounds    those of the pool; at most 256 KiB at once go through a buffer (the transfer is short then).
#pragma once

#include <memory>

#include "storage/async_file.h"
#include "storage/volume/bounce.h"

namespace haneul::storage {

/// Over a file made by make_async_file() from a descriptor with O_DIRECT.
std::unique_ptr<AsyncFile> make_direct_file(std::unique_ptr<AsyncFile> file,
                                            std::shared_ptr<BouncePool> pool);

/// Over any descriptor: as its flags say. Files of one disk share its pool, with its encryption too: what
/// that gives to a file is aligned, and needs no second buffer.
Result<std::unique_ptr<AsyncFile>> make_file(UniqueFd fd, std::shared_ptr<BouncePool> pool);

}  // namespace haneul::storage
