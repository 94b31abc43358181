// SPDX-License-Identifier: Apache-2.0
// The overlay backend: a disk that begins as an immutable base (or as zeroes) and keeps what is written to it
// in a file of its own. Made in constant time, whatever the size. OVERLAY.md describes the file and why a
// crash at any point is safe.
//
// Granularity is 4 KiB: the first write to a part of a block reads the rest of that block from the base, and
// nothing else is ever copied. Later writes go straight to the file. Reads cost one read, at any age of the
// file. The map of blocks is in memory: 64 KiB for each GiB with mixed states, less where large ranges agree.
//
// Closing (the destructor) blocks until what is left of the map is in the file: a clean close loses nothing,
// flushed or not. System calls: pwrite64, fdatasync.
//
// Many overlays may share a base; none of them writes to it, and it must not change.
#pragma once

#include "storage/async_file.h"
#include "storage/block_backend.h"

namespace haneul::storage {

/// Makes an empty, writable regular file an overlay. kExists if the file is not empty, kInvalidArgument for
/// sizes that are not multiples of 512, above 16 TiB, or a base larger than the overlay. Durable on return
/// (the folder's entry is the caller's to sync).
Status create_overlay(int file, uint64_t size_bytes, uint64_t base_size_bytes);

/// Opens an overlay for reading and writing, or only reading if the descriptor is. kBusy if it is open
/// elsewhere; kCorrupt or kUnsupported, with one sentence, if the file is not sound; kInvalidArgument if the
/// base is missing, not of the recorded size, or not expected.
Result<std::unique_ptr<BlockBackend>> open_overlay(UniqueFd file, UniqueFd base);

/// The same over any files, without locks. base may be null.
Status create_overlay_file(AsyncFile& file, uint64_t size_bytes, uint64_t base_size_bytes);
Result<std::unique_ptr<BlockBackend>> open_overlay_files(std::unique_ptr<AsyncFile> file,
                                                         std::unique_ptr<AsyncFile> base, bool read_only);

}  // namespace haneul::storage
