// SPDX-License-Identifier: Apache-2.0
#include "vmm/loader/kernel_image.h"

#include <elf.h>

#include <algorithm>
#include <cstring>

#include "base/checked.h"
#include "base/endian.h"
#include "base/file.h"

namespace haneul::vmm {
namespace {

using devices::GuestAddress;
using devices::GuestMemory;

constexpr uint64_t kFirstUsableGpa = 0x100000;
constexpr size_t kMaxSegments = 64;

Error not_a_kernel(std::string_view why) {
  return make_error(ErrorCode::kInvalidArgument, "the kernel cannot be used: {}", why);
}

Error too_big(uint64_t needed_end, uint64_t low_end) {
  return make_error(ErrorCode::kNoSpace,
                    "the kernel needs memory up to {} MiB, the instance has {} MiB below the hole",
                    (needed_end + 1_MiB - 1) >> 20, low_end >> 20);
}

Status read_into_guest(int fd, uint64_t offset, const GuestMemory& memory, uint64_t gpa, uint64_t size) {
  if (size == 0) return {};
  auto room = memory.slice(GuestAddress{gpa}, size);
  if (!room) return make_error(ErrorCode::kNoSpace, "no memory at {:#x} for {} bytes", gpa, size);
  return read_exact_at(fd, offset, *room);
}

Result<std::vector<Elf64_Phdr>> read_load_segments(int fd, const Elf64_Ehdr& header, uint64_t file_bytes) {
  if (header.e_phentsize != sizeof(Elf64_Phdr))
    return not_a_kernel("its ELF program headers have an odd size");
  if (header.e_phnum == 0 || header.e_phnum > kMaxSegments) {
    return not_a_kernel(
        fmt::format("it has {} ELF program headers, not 1 to {}", header.e_phnum, kMaxSegments));
  }
  std::vector<Elf64_Phdr> segments(header.e_phnum);
  if (!range_within(header.e_phoff, segments.size() * sizeof(Elf64_Phdr), file_bytes)) {
    return not_a_kernel("its ELF program headers lie outside the file");
  }
  TRY(read_exact_at(fd, header.e_phoff, std::as_writable_bytes(std::span(segments))));
  std::erase_if(segments, [](const Elf64_Phdr& s) { return s.p_type != PT_LOAD || s.p_memsz == 0; });
  if (segments.empty()) return not_a_kernel("its ELF file has nothing to load");
  return segments;
}

Status check_segments(std::vector<Elf64_Phdr>& segments, uint64_t file_bytes, uint64_t low_end) {
  std::sort(segments.begin(), segments.end(),
            [](const Elf64_Phdr& a, const Elf64_Phdr& b) { return a.p_paddr < b.p_paddr; });
  uint64_t previous_end = kFirstUsableGpa;
  for (const Elf64_Phdr& segment : segments) {
    if (segment.p_filesz > segment.p_memsz)
      return not_a_kernel("an ELF segment is larger in the file than in memory");
    if (!range_within(segment.p_offset, segment.p_filesz, file_bytes)) {
      return not_a_kernel("an ELF segment lies outside the file: is the file truncated?");
    }
    auto end = checked_add<uint64_t>(segment.p_paddr, segment.p_memsz);
    if (!end) return not_a_kernel("an ELF segment wraps around the address space");
    if (segment.p_paddr < kFirstUsableGpa) return not_a_kernel("an ELF segment lies below 1 MiB");
    if (segment.p_paddr < previous_end) return not_a_kernel("its ELF segments overlap");
    if (*end > low_end) return too_big(*end, low_end);
    previous_end = *end;
  }
  return {};
}

Result<KernelImage> load_elf(int fd, uint64_t file_bytes, const GuestMemory& memory, uint64_t low_end) {
  Elf64_Ehdr header;
  if (file_bytes < sizeof header) return not_a_kernel("the ELF file is truncated");
  TRY(read_exact_at(fd, 0, std::as_writable_bytes(std::span(&header, 1))));
  if (header.e_ident[EI_CLASS] != ELFCLASS64 || header.e_ident[EI_DATA] != ELFDATA2LSB ||
      header.e_machine != EM_X86_64) {
    return not_a_kernel("it is an ELF file, but not a 64-bit x86 one");
  }
  if (header.e_type != ET_EXEC && header.e_type != ET_DYN)
    return not_a_kernel("it is an ELF file, but not an executable");
  std::vector<Elf64_Phdr> segments = TRY(read_load_segments(fd, header, file_bytes));
  TRY(check_segments(segments, file_bytes, low_end));
  bool entry_loaded = std::any_of(segments.begin(), segments.end(), [&](const Elf64_Phdr& s) {
    return header.e_entry >= s.p_paddr && header.e_entry - s.p_paddr < s.p_memsz;
  });
  if (!entry_loaded) return not_a_kernel("its ELF entry point lies in no segment");
  for (const Elf64_Phdr& s : segments) TRY(read_into_guest(fd, s.p_offset, memory, s.p_paddr, s.p_filesz));
  KernelImage image;
  image.entry = header.e_entry;
  image.end = segments.back().p_paddr + segments.back().p_memsz;
  return image;
}

// Offsets in the file of the fields of the setup header.
constexpr size_t kSetupSects = 0x1f1;
constexpr size_t kSyssize = 0x1f4;
constexpr size_t kJump = 0x201;
constexpr size_t kVersion = 0x206;
constexpr size_t kLoadflags = 0x211;
constexpr size_t kInitrdAddrMax = 0x22c;
constexpr size_t kXloadflags = 0x236;
constexpr size_t kCmdlineSize = 0x238;
constexpr size_t kPrefAddress = 0x258;
constexpr size_t kInitSize = 0x260;
constexpr size_t kHeaderEnd = 0x264;

constexpr uint16_t kOldestVersion = 0x020c;
constexpr uint8_t kLoadedHigh = 1;
constexpr uint16_t kXlfKernel64 = 1;
constexpr uint64_t kEntry64 = 0x200;

Result<KernelImage> load_bzimage(int fd, uint64_t file_bytes, const GuestMemory& memory, uint64_t low_end) {
  std::array<std::byte, 0x290> head{};
  if (file_bytes < head.size()) return not_a_kernel("the bzImage is truncated in its header");
  TRY(read_exact_at(fd, 0, head));
  auto u8 = [&head](size_t at) { return load_le<uint8_t>(head.data() + at); };
  auto u16 = [&head](size_t at) { return load_le<uint16_t>(head.data() + at); };
  auto u32 = [&head](size_t at) { return load_le<uint32_t>(head.data() + at); };
  auto u64 = [&head](size_t at) { return load_le<uint64_t>(head.data() + at); };

  if (u16(kVersion) < kOldestVersion) {
    return not_a_kernel(fmt::format("its boot protocol is {}.{}, Haneul needs 2.12 (Linux 3.8) or newer",
                                    u16(kVersion) >> 8, u16(kVersion) & 0xff));
  }
  if ((u8(kLoadflags) & kLoadedHigh) == 0)
    return not_a_kernel("it is a zImage that loads low, not a bzImage");
  if ((u16(kXloadflags) & kXlfKernel64) == 0)
    return not_a_kernel("it has no 64-bit entry point: is it a 32-bit kernel?");

  uint64_t setup_bytes = (uint64_t{u8(kSetupSects) == 0 ? uint8_t{4} : u8(kSetupSects)} + 1) * 512;
  uint64_t stated = uint64_t{u32(kSyssize)} * 16;
  if (setup_bytes >= file_bytes) return not_a_kernel("the bzImage is truncated in its setup part");
  uint64_t payload = file_bytes - setup_bytes;
  if (payload < stated) {
    return not_a_kernel(fmt::format("the bzImage is truncated: {} of {} bytes are there", payload, stated));
  }
  if (stated <= kEntry64) return not_a_kernel("the bzImage has no code");

  uint64_t load = u64(kPrefAddress);
  uint64_t needs = std::max<uint64_t>(u32(kInitSize), payload);
  auto end = checked_add(load, needs);
  if (load < kFirstUsableGpa || !end)
    return not_a_kernel(fmt::format("it wants to be loaded at {:#x}", load));
  if (*end > low_end) return too_big(*end, low_end);
  TRY(read_into_guest(fd, setup_bytes, memory, load, payload));

  KernelImage image;
  image.entry = load + kEntry64;
  image.end = *end;
  image.initrd_max = u32(kInitrdAddrMax);
  image.max_command_line = u32(kCmdlineSize);
  // The header ends where the jump at its start leads (boot.rst, "The Real-Mode Kernel Header").
  size_t header_end = std::clamp<size_t>(0x202 + u8(kJump), kHeaderEnd, head.size());
  image.setup.size = header_end - SetupHeader::kFileOffset;
  std::memcpy(image.setup.bytes.data(), head.data() + SetupHeader::kFileOffset, image.setup.size);
  return image;
}

}  // namespace

Result<KernelImage> load_kernel(int fd, const GuestMemory& memory, uint64_t low_end) {
  uint64_t file_bytes = TRY(file_size(fd));
  std::array<std::byte, 0x206> head{};
  size_t got = std::min<uint64_t>(file_bytes, head.size());
  TRY(read_exact_at(fd, 0, std::span(head).first(got)));
  if (got >= SELFMAG && std::memcmp(head.data(), ELFMAG, SELFMAG) == 0)
    return load_elf(fd, file_bytes, memory, low_end);
  if (std::memcmp(head.data() + 0x202, "HdrS", 4) == 0 && load_le<uint16_t>(head.data() + 0x1fe) == 0xaa55) {
    return load_bzimage(fd, file_bytes, memory, low_end);
  }
  return not_a_kernel("it is neither an ELF vmlinux nor a bzImage");
}

Result<InitrdPlace> load_initrds(std::span<const UniqueFd> files, const KernelImage& kernel,
                                 const GuestMemory& memory, uint64_t low_end) {
  constexpr uint64_t kMaxInitrd = 1_GiB;
  std::vector<uint64_t> sizes;
  uint64_t total = 0;
  for (const UniqueFd& file : files) {
    sizes.push_back(TRY(file_size(file.get()).context("initrd")));
    // Both operands are bounded by kMaxInitrd, so the sum cannot wrap.
    if (sizes.back() > kMaxInitrd)
      return make_error(ErrorCode::kNoSpace, "the initrd has {} MiB", sizes.back() >> 20);
    total += align_up(sizes.back(), 4);
    if (total > kMaxInitrd) return make_error(ErrorCode::kNoSpace, "the initrds have more than 1 GiB");
  }
  if (total == 0) return InitrdPlace{};
  uint64_t top = std::min(low_end, kernel.initrd_max + 1);
  if (total > top || align_down(top - total, 4096) < kernel.end) {
    return make_error(
        ErrorCode::kNoSpace,
        "the initrd of {} KiB does not fit between the kernel, which ends at {} KiB, and {} KiB of memory",
        (total + 1023) >> 10, kernel.end >> 10, top >> 10);
  }
  InitrdPlace place{align_down(top - total, 4096), total};
  uint64_t at = place.gpa;
  for (size_t i = 0; i < files.size(); ++i) {
    TRY(read_into_guest(files[i].get(), 0, memory, at, sizes[i]).context("initrd"));
    at += align_up(sizes[i], 4);
  }
  return place;
}

}  // namespace haneul::vmm
