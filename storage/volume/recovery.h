// SPDX-License-Identifier: Apache-2.0
// Recovery: what the file of one layer holds, by its map and its journal. ../FORMAT.md, "Opening after a
// crash". Shared by a volume's opening, by freezing, and by all that looks at a layer.
//
// Threads   free functions that block; one file is recovered by one caller at a time. Reading alone never writes.
// Lifetime  nothing is kept of the file.
// Units     blocks of 4096 bytes; memory is at most some megabytes, whatever the file says: the map is read page
//           by page.
// Errors    kCorrupt and kUnsupported with the place; those of the file.
#pragma once

#include <functional>
#include <vector>

#include "storage/async_file.h"
#include "storage/volume/format.h"

namespace haneul::storage::layer {

struct Start {
  Header header;
  State state;
};
/// Header and state, checked against each other and against the file's length.
Result<Start> read_start(AsyncFile& file);

/// What the journal says beyond the map.
struct Journal {
  struct Change {
    uint64_t sequence;
    uint32_t first;  ///< all blocks of a change are in one map page
    uint32_t count;
    BlockState state;
  };
  uint64_t last = 0;            ///< the last record's sequence; 0: the journal is empty
  std::vector<Change> changes;  ///< by map page, then by sequence
};
/// `file` is the layer's own, not decrypted: records have the CRCs of what is in the file. A frozen layer's
/// journal is empty.
Result<Journal> read_journal(AsyncFile& file, const State& state);

/// Called for each map page that says anything, in order, as recovery leaves it. `changed`: the journal has
/// something that this page of the file has not.
using VisitMapPage = std::function<Status(uint64_t index, const MapPage& page, bool changed)>;
/// One page, looked at again if it is not sound: whoever writes it at this moment (a volume, or punching) lets it be
/// read in halves.
Result<MapPage> read_map_page(AsyncFile& file, uint64_t index, uint64_t volume_blocks);
/// The greatest sequence in the map's sectors, as the file has them.
Result<uint64_t> read_map(AsyncFile& file, const State& state, const Journal& journal,
                          const VisitMapPage& visit);

/// Each run of blocks of one state but 0 in a map page; blocks are counted over the volume.
Status for_runs(uint64_t index, const MapPage& page,
                const std::function<Status(uint64_t first, uint64_t count, BlockState state)>& each);

/// Carries the journal into the map and makes `start.state` what the file has: durable, an empty journal and,
/// if asked for, frozen. Does nothing more than read if there is nothing to do. `visit` may be empty.
enum class Freeze { kNo, kYes };
Status recover(AsyncFile& file, Start& start, Freeze freeze, const VisitMapPage& visit);

/// The state with the next generation; it is the caller's to sync.
Status put_state(AsyncFile& file, State& state);
/// The same, durably.
Status write_state(AsyncFile& file, State& state);

}  // namespace haneul::storage::layer
