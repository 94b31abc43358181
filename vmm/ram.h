// SPDX-License-Identifier: Apache-2.0
// GuestRam: the guest's memory, split around the hole below 4 GiB. Anonymous, because the kernel backs that
// with transparent huge pages wherever it has them; shared memory, a memfd, gets none by default, and copying
// 1 MiB between the page cache and the guest then takes a quarter longer (tests/bench, "sequential").
#pragma once

#include <cstdint>
#include <memory>

#include "base/result.h"
#include "devices/guest_memory.h"
#include "vmm/kvm.h"

namespace haneul::vmm {

class GuestRam {
 public:
  /// bytes: a multiple of 2 MiB, at least 2 MiB. The pages are allocated when touched; with huge_pages they are
  /// reserved now, out of those of 2 MiB that the host keeps for that.
  static Result<std::unique_ptr<GuestRam>> create(uint64_t bytes, bool huge_pages);
  ~GuestRam();
  GuestRam(const GuestRam&) = delete;
  GuestRam& operator=(const GuestRam&) = delete;

  /// Gives the memory to the virtual machine.
  Status map_into(const KvmVm& vm) const;
  const devices::GuestMemory& memory() const { return *memory_; }
  uint64_t bytes() const { return bytes_; }
  /// The end of RAM below the hole.
  uint64_t low_end() const;

 private:
  GuestRam(std::byte* host, uint64_t bytes);
  std::byte* host_;
  uint64_t bytes_;
  std::unique_ptr<devices::GuestMemory> memory_;
};

}  // namespace haneul::vmm
