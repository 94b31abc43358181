// SPDX-License-Identifier: Apache-2.0
// StackReader: all that a snapshot holds, in order, from the files of its stack; every block is compared with its
// sum and decrypted. For exports: a volume's reads compare nothing.
//
// Threads   blocks the caller's. The layers are frozen; the blocks that this stack sees in them do not change.
// Memory    a map page of each block's owner, and 256 KiB.
// Errors    kCorrupt names layer and block; kCancelled; those of the files and of `each`.
#pragma once

#include <span>
#include <string>

#include "storage/volume/layer.h"

namespace haneul::storage {

struct ReadLayer {
  std::string name;  ///< in messages
  std::unique_ptr<AsyncFile> file;
  std::optional<LayerKey> key;
};

/// Of the stack's data, at byte `at` of the volume, at most 256 KiB of whole blocks; what is not spoken of is
/// zeroes. The last block may end behind the volume's end.
using EachStretch = std::function<Status(uint64_t at, std::span<std::byte> data)>;

/// `layers`: lowest first, all frozen and with sums. Progress is in blocks of the volume.
Status read_stack(std::span<const ReadLayer> layers, const EachStretch& each, const Progress& progress);

}  // namespace haneul::storage
