// SPDX-License-Identifier: Apache-2.0
// ConsoleRing: the last 64 KiB that a guest wrote to its console, in a file of fixed size.
//
// The VMM writes it through a shared mapping, so it survives the death of the VMM and of the daemon, and
// costs no system call a byte. The reader trusts nothing in it: the writer's process may belong to the guest.
//
// Layout, little-endian: 0 magic "HNLCONS1", 8 capacity (u64), 16 total bytes ever written (u64), 64 data.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "base/result.h"
#include "base/unique_fd.h"

namespace haneul {

constexpr uint64_t kConsoleRingBytes = 64 << 10;

/// The writer. One thread at a time.
class ConsoleRing {
 public:
  /// Maps the file; one that is empty or not a ring is made one. A valid ring goes on where it ended.
  static Result<ConsoleRing> open(const UniqueFd& file);
  ConsoleRing(ConsoleRing&& other) noexcept;
  ConsoleRing& operator=(ConsoleRing&&) = delete;
  ~ConsoleRing();

  void append(std::span<const std::byte> data);
  /// What the ring holds, oldest first.
  std::string contents() const;
  /// Bytes ever written.
  uint64_t total() const;
  /// What the ring still holds of what was written after the first `position` bytes.
  std::string since(uint64_t position) const;

 private:
  explicit ConsoleRing(std::byte* map) : map_(map) {}
  std::byte* map_;
};

/// What a ring file holds, oldest first, read without trusting it: a file that is not a ring is kCorrupt.
Result<std::string> read_console_ring(int fd);

}  // namespace haneul
