// SPDX-License-Identifier: Apache-2.0
// GuestRam: the guest's memory, one memfd mapped shared, split around the hole below 4 GiB.
#pragma once

#include <cstdint>
#include <memory>

#include "base/result.h"
#include "base/unique_fd.h"
#include "devices/guest_memory.h"
#include "vmm/kvm.h"

namespace haneul::vmm {

class GuestRam {
 public:
  /// bytes: a multiple of 2 MiB, at least 2 MiB. The pages are allocated when touched.
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
  GuestRam(UniqueFd fd, std::byte* host, uint64_t bytes);
  UniqueFd fd_;
  std::byte* host_;
  uint64_t bytes_;
  std::unique_ptr<devices::GuestMemory> memory_;
};

}  // namespace haneul::vmm
