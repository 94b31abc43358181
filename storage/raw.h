// SPDX-License-Identifier: Apache-2.0
// The raw backend: the file's bytes are the disk's bytes. A regular file or a block device; raw because the
// caller says so, whatever the content looks like.
//
// DISCARD punches holes where the file system can, and is a no-op where it cannot. WRITE_ZEROES punches (if
// the request allows it), zeroes the range in place, or writes zeroes, whichever works first. FLUSH is
// fdatasync. Reads and writes are buffered by the host. A regular file whose size is not whole sectors ends
// at its last whole sector.
#pragma once

#include "storage/async_file.h"
#include "storage/block_backend.h"

namespace haneul::storage {

struct RawOptions {
  bool read_only = false;
  /// O_DIRECT. Not offered: kUnsupported.
  bool direct = false;
};

/// Locks the file: kBusy while a writable disk uses it elsewhere, or, for a writable one, while anyone does.
/// kPermission if the descriptor cannot be written and read_only was not asked for.
Result<std::unique_ptr<BlockBackend>> open_raw(UniqueFd file, RawOptions options);

/// The same over any file, without a lock.
Result<std::unique_ptr<BlockBackend>> open_raw_file(std::unique_ptr<AsyncFile> file, bool read_only);

}  // namespace haneul::storage
