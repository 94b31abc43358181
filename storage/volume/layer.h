// SPDX-License-Identifier: Apache-2.0
// Layer: one file of a volume's stack. ../FORMAT.md has every byte. Here: making one, looking at one, and the
// work on layers that no volume writes to (checking, sums, punching), which the store does.
//
// Threads   free functions over files that the caller owns; they block, and one file is changed by one caller
//           at a time. `Progress` is called on the caller's thread; returning false ends the work with
//           kCancelled, resumable.
// Units     bytes; blocks of 4096 bytes.
// Errors    kCorrupt with a sentence that names the place; kUnsupported for versions and features not known;
//           kInvalidArgument for sizes and keys that do not fit; kNoSpace and kIo from the file.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "storage/async_file.h"

namespace haneul::storage {

using LayerId = std::array<uint8_t, 16>;  ///< all zero: none

/// 32 hexadecimal digits.
std::string to_string(const LayerId& id);
Result<LayerId> parse_layer_id(std::string_view text);
LayerId random_layer_id();

/// The AES-256-XTS key of one layer (two AES keys), derived from a store's key and the layer's salt.
using LayerKey = std::array<uint8_t, 64>;
using StoreKey = std::array<uint8_t, 32>;
using LayerSalt = std::array<uint8_t, 32>;
LayerKey derive_layer_key(const StoreKey& store_key, const LayerSalt& salt);

struct LayerInfo {
  LayerId id{};
  LayerId parent{};
  uint64_t size_bytes = 0;      ///< of the volume, seen from this layer
  uint64_t raw_base_bytes = 0;  ///< of a raw file beneath; 0 for none
  bool frozen = false;
  bool sums_complete = false;
  bool encrypted = false;
  LayerSalt salt{};
};

struct NewLayer {
  LayerId id{};
  LayerId parent{};
  uint64_t size_bytes = 0;
  uint64_t raw_base_bytes = 0;
  /// Encrypted: the salt and the key derived from it.
  LayerSalt salt{};
  std::optional<LayerKey> key;
};

/// Makes an empty, writable file a layer that holds nothing. Durable on return (the folder's entry is the
/// caller's to sync). kExists if the file is not empty.
Status create_layer(AsyncFile& file, const NewLayer& layer);
Status create_layer(int fd, const NewLayer& layer);

/// Header and state.
Result<LayerInfo> read_layer_info(AsyncFile& file);
Result<LayerInfo> read_layer_info(int fd);

/// Recovers a layer that nobody has open, as a volume's opening would, and freezes it: from now on it never
/// changes for those above it. Nothing to do if it is frozen already. kBusy while a volume has it open; takes
/// the file's lock meanwhile, and leaves the file unlocked.
Status freeze_layer(AsyncFile& file);

struct LayerUse {
  uint64_t data_blocks = 0;
  uint64_t zero_blocks = 0;
};
/// What a layer holds, by its map (and journal).
Result<LayerUse> layer_use(AsyncFile& file);

using Progress = std::function<bool(uint64_t done_blocks, uint64_t total_blocks)>;

/// What a check found; empty if all is well. At most 100 of them.
struct Fault {
  std::string where;  ///< "map sector 12", "data of block 77"
  std::string what;   ///< one sentence
};
struct CheckOptions {
  bool data = true;  ///< compare the data with the sums where there are any
};
/// Verifies every structure and checksum of one layer. Reads only; a layer that is in use may be checked:
/// what its volume changes meanwhile is not a fault. Errors are those of the file, not of its content.
Result<std::vector<Fault>> check_layer(AsyncFile& file, CheckOptions options, const Progress& progress);

/// Computes the sums of a frozen layer and marks them complete. Goes on where an earlier call was cut off.
Status write_sums(AsyncFile& file, const Progress& progress);

/// Punches the blocks of `file` (frozen) that every one of the children holds durably. Children may be in
/// use. `before` is called once, before the file changes, if there is anything to punch; its error ends the work.
/// Returns how many blocks were given back. Cut off, it leaves a sound layer, and perhaps space for punch_unused().
Result<uint64_t> punch_hidden(AsyncFile& file, const std::vector<AsyncFile*>& children,
                              const std::function<Status()>& before, const Progress& progress);
/// Gives back what lies in a frozen layer's data and is no block of its map.
Status punch_unused(AsyncFile& file, const Progress& progress);

}  // namespace haneul::storage
