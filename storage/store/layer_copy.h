// SPDX-License-Identifier: Apache-2.0
// Copying one layer's content into another layer's file, with every block compared with its sum, and encrypted anew
// where the two have different keys.
//
// What was copied is in the target's map only when it is durable (data and sums, fdatasync, then the map), so a copy that
// was cut off anywhere goes on from there: what the map says is there is compared with its sums first, and what
// is not as it was is copied again.
//
// Threads   blocks the caller's; nobody else changes either file meanwhile.
// Errors    kCorrupt names the source's block; kCancelled: call again to go on; those of the files.
#pragma once

#include "storage/volume/layer.h"

namespace haneul::storage {

struct LayerKeys {
  LayerKey from;
  LayerKey to;
};

/// `from`: frozen, with sums. `to`: made by create_layer() with the same size, and perhaps copied to in part; at the
/// end it is frozen, with sums. `keys`: both are encrypted, and differently; otherwise bytes are copied.
Status copy_layer(AsyncFile& from, AsyncFile& to, const std::optional<LayerKeys>& keys,
                  const Progress& progress);

}  // namespace haneul::storage
