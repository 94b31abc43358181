// SPDX-License-Identifier: Apache-2.0
// Loading a kernel and its initial RAM disks into guest memory. The files are hostile input: every number in
// them is checked before it is used. ELF-64 (System V gABI, chapter 4 and 5) and bzImage (Linux
// Documentation/arch/x86/boot.rst).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "devices/guest_memory.h"

namespace haneul::vmm {

/// The setup header of the boot protocol, as it stood in a bzImage, from file offset 0x1f1.
struct SetupHeader {
  static constexpr size_t kFileOffset = 0x1f1;
  static constexpr size_t kMaxBytes = 0x290 - kFileOffset;
  std::array<std::byte, kMaxBytes> bytes{};
  size_t size = 0;
};

struct KernelImage {
  /// Where the first vCPU starts, in 64-bit mode.
  uint64_t entry = 0;
  /// The first byte after everything the kernel occupies before it has read the memory map.
  uint64_t end = 0;
  /// The highest address that an initrd's last byte may have.
  uint64_t initrd_max = 0x7fffffff;
  /// The longest command line that it takes, without the terminating zero.
  uint64_t max_command_line = 2047;
  /// From a bzImage; empty for ELF.
  SetupHeader setup;
};

/// Loads an ELF vmlinux or a bzImage, told apart by their magic numbers. RAM is usable from 1 MiB to low_end.
/// kInvalidArgument: not a kernel, or a damaged one; kNoSpace: it needs more memory (the message says how
/// much).
Result<KernelImage> load_kernel(int fd, const devices::GuestMemory& memory, uint64_t low_end);

struct InitrdPlace {
  uint64_t gpa = 0;
  uint64_t size = 0;
};

/// Loads the files one after the other, each padded to 4 bytes, as high as the kernel allows. kNoSpace if
/// they do not fit between the kernel and the end of memory.
Result<InitrdPlace> load_initrds(std::span<const UniqueFd> files, const KernelImage& kernel,
                                 const devices::GuestMemory& memory, uint64_t low_end);

}  // namespace haneul::vmm
