// SPDX-License-Identifier: Apache-2.0
#include "vmm/loader/kernel_image.h"

#include <elf.h>
#include <gtest/gtest.h>

#include <cstring>
#include <random>

#include "base/checked.h"
#include "base/endian.h"
#include "base/file.h"

namespace haneul::vmm {
namespace {

UniqueFd file_with(std::span<const std::byte> bytes) {
  UniqueFd file = make_memfd("kernel").value();
  write_all_at(file.get(), 0, bytes).value();
  return file;
}

class KernelImageTest : public ::testing::Test {
 protected:
  Result<KernelImage> load(std::span<const std::byte> bytes) {
    UniqueFd file = file_with(bytes);
    return load_kernel(file.get(), memory_, ram_.size());
  }
  std::string error_of(std::span<const std::byte> bytes) {
    auto image = load(bytes);
    return image.ok() ? "loaded" : image.error().message();
  }

  std::vector<std::byte> ram_ = std::vector<std::byte>(16_MiB);
  devices::GuestMemory memory_{{{{0}, ram_.size(), ram_.data()}}};
};

struct ElfFile {
  Elf64_Ehdr header{};
  std::vector<Elf64_Phdr> segments;
  std::vector<std::byte> content = std::vector<std::byte>(4096, std::byte{0x90});

  ElfFile() {
    std::memcpy(header.e_ident, ELFMAG, SELFMAG);
    header.e_ident[EI_CLASS] = ELFCLASS64;
    header.e_ident[EI_DATA] = ELFDATA2LSB;
    header.e_type = ET_EXEC;
    header.e_machine = EM_X86_64;
    header.e_entry = 1_MiB + 16;
    header.e_phoff = sizeof header;
    header.e_phentsize = sizeof(Elf64_Phdr);
    add(1_MiB, 4096, 8192);
  }
  void add(uint64_t gpa, uint64_t file_bytes, uint64_t memory_bytes) {
    Elf64_Phdr segment{};
    segment.p_type = PT_LOAD;
    segment.p_offset = 1024;
    segment.p_paddr = gpa;
    segment.p_filesz = file_bytes;
    segment.p_memsz = memory_bytes;
    segments.push_back(segment);
  }
  std::vector<std::byte> bytes() const {
    Elf64_Ehdr head = header;
    if (head.e_phnum == 0) head.e_phnum = static_cast<Elf64_Half>(segments.size());
    std::vector<std::byte> out(1024 + content.size());
    std::memcpy(out.data(), &head, sizeof head);
    std::memcpy(out.data() + sizeof head, segments.data(), segments.size() * sizeof(Elf64_Phdr));
    std::memcpy(out.data() + 1024, content.data(), content.size());
    return out;
  }
};

TEST_F(KernelImageTest, LoadsElfSegments) {
  KernelImage image = load(ElfFile().bytes()).value();
  EXPECT_EQ(image.entry, 1_MiB + 16);
  EXPECT_EQ(image.end, 1_MiB + 8192);
  EXPECT_EQ(ram_[1_MiB], std::byte{0x90});
  EXPECT_EQ(ram_[1_MiB + 4095], std::byte{0x90});
  EXPECT_EQ(ram_[1_MiB + 4096], std::byte{0});
}

TEST_F(KernelImageTest, RefusesWhatIsNoKernel) {
  EXPECT_EQ(error_of({}), "the kernel cannot be used: it is neither an ELF vmlinux nor a bzImage");
  std::vector<std::byte> text(100000, std::byte{'x'});
  EXPECT_EQ(error_of(text), "the kernel cannot be used: it is neither an ELF vmlinux nor a bzImage");
}

TEST_F(KernelImageTest, RefusesElfOfAnotherMachine) {
  ElfFile file;
  file.header.e_machine = EM_AARCH64;
  EXPECT_EQ(error_of(file.bytes()), "the kernel cannot be used: it is an ELF file, but not a 64-bit x86 one");
}

TEST_F(KernelImageTest, RefusesTruncatedElf) {
  auto bytes = ElfFile().bytes();
  bytes.resize(2000);
  EXPECT_EQ(error_of(bytes),
            "the kernel cannot be used: an ELF segment lies outside the file: is the file truncated?");
  bytes.resize(40);
  EXPECT_EQ(error_of(bytes), "the kernel cannot be used: the ELF file is truncated");
}

TEST_F(KernelImageTest, RefusesOverlappingSegments) {
  ElfFile file;
  file.add(1_MiB + 4096, 100, 100);
  EXPECT_EQ(error_of(file.bytes()), "the kernel cannot be used: its ELF segments overlap");
}

TEST_F(KernelImageTest, RefusesSegmentsOutOfRange) {
  ElfFile low;
  low.add(0x1000, 100, 100);
  EXPECT_EQ(error_of(low.bytes()), "the kernel cannot be used: an ELF segment lies below 1 MiB");
  ElfFile wraps;
  wraps.add(~0ull - 100, 0, 4096);
  EXPECT_EQ(error_of(wraps.bytes()),
            "the kernel cannot be used: an ELF segment wraps around the address space");
  ElfFile high;
  high.add(64_MiB, 100, 100);
  EXPECT_EQ(error_of(high.bytes()),
            "the kernel needs memory up to 65 MiB, the instance has 16 MiB below the hole");
  ElfFile shrinks;
  shrinks.add(4_MiB, 4096, 100);
  EXPECT_EQ(error_of(shrinks.bytes()),
            "the kernel cannot be used: an ELF segment is larger in the file than in memory");
}

TEST_F(KernelImageTest, RefusesAnEntryPointThatIsNotLoaded) {
  ElfFile file;
  file.header.e_entry = 8_MiB;
  EXPECT_EQ(error_of(file.bytes()), "the kernel cannot be used: its ELF entry point lies in no segment");
}

TEST_F(KernelImageTest, RefusesAbsurdHeaderCounts) {
  ElfFile file;
  file.header.e_phnum = 65535;
  EXPECT_EQ(error_of(file.bytes()),
            "the kernel cannot be used: it has 65535 ELF program headers, not 1 to 64");
  file.header.e_phnum = 0;
  file.header.e_phoff = ~0ull - 8;
  EXPECT_EQ(error_of(file.bytes()),
            "the kernel cannot be used: its ELF program headers lie outside the file");
}

std::vector<std::byte> bzimage() {
  std::vector<std::byte> bytes(5 * 512 + 65536, std::byte{0});
  auto put = [&bytes](size_t at, auto value) { store_le(bytes.data() + at, value); };
  put(0x1f1, uint8_t{4});
  put(0x1f4, uint32_t{65536 / 16});
  put(0x1fe, uint16_t{0xaa55});
  put(0x200, uint16_t{0x66eb});
  std::memcpy(bytes.data() + 0x202, "HdrS", 4);
  put(0x206, uint16_t{0x020f});
  put(0x211, uint8_t{1});
  put(0x22c, uint32_t{0x7fffffff});
  put(0x236, uint16_t{1});
  put(0x238, uint32_t{2047});
  put(0x258, uint64_t{1_MiB});
  put(0x260, uint32_t{2 << 20});
  std::fill(bytes.begin() + 5 * 512, bytes.end(), std::byte{0xcc});
  return bytes;
}

TEST_F(KernelImageTest, LoadsBzImage) {
  KernelImage image = load(bzimage()).value();
  EXPECT_EQ(image.entry, 1_MiB + 0x200);
  EXPECT_EQ(image.end, 3_MiB);
  EXPECT_EQ(image.setup.size, 0x202u + 0x66 - 0x1f1);
  EXPECT_EQ(ram_[1_MiB + 65535], std::byte{0xcc});
}

TEST_F(KernelImageTest, RefusesTruncatedBzImage) {
  auto bytes = bzimage();
  bytes.resize(bytes.size() - 1000);
  EXPECT_EQ(error_of(bytes),
            "the kernel cannot be used: the bzImage is truncated: 64536 of 65536 bytes are there");
  bytes.resize(0x250);
  EXPECT_EQ(error_of(bytes), "the kernel cannot be used: the bzImage is truncated in its header");
}

TEST_F(KernelImageTest, RefusesOldOr32BitOrHugeBzImage) {
  auto old = bzimage();
  store_le<uint16_t>(old.data() + 0x206, 0x0204);
  EXPECT_EQ(error_of(old),
            "the kernel cannot be used: its boot protocol is 2.4, Haneul needs 2.12 (Linux 3.8) or newer");
  auto narrow = bzimage();
  store_le<uint16_t>(narrow.data() + 0x236, 0);
  EXPECT_EQ(error_of(narrow),
            "the kernel cannot be used: it has no 64-bit entry point: is it a 32-bit kernel?");
  auto huge = bzimage();
  store_le<uint32_t>(huge.data() + 0x260, 100 << 20);
  EXPECT_EQ(error_of(huge), "the kernel needs memory up to 101 MiB, the instance has 16 MiB below the hole");
}

TEST_F(KernelImageTest, ConcatenatesInitrdsAtFourBytes) {
  KernelImage kernel = load(bzimage()).value();
  std::vector<UniqueFd> files;
  files.push_back(file_with(std::as_bytes(std::span("first", 5))));
  files.push_back(file_with(std::as_bytes(std::span("second", 6))));
  InitrdPlace place = load_initrds(files, kernel, memory_, ram_.size()).value();
  EXPECT_EQ(place.size, 16u);
  EXPECT_EQ(place.gpa % 4096, 0u);
  EXPECT_EQ(std::memcmp(ram_.data() + place.gpa, "first\0\0\0second\0\0", 16), 0);
}

TEST_F(KernelImageTest, RefusesAnInitrdLargerThanMemory) {
  KernelImage kernel = load(bzimage()).value();
  std::vector<UniqueFd> files;
  files.push_back(make_memfd("initrd").value());
  ASSERT_EQ(::ftruncate(files[0].get(), 14 << 20), 0);
  auto place = load_initrds(files, kernel, memory_, ram_.size());
  ASSERT_FALSE(place.ok());
  EXPECT_EQ(place.error().code(), ErrorCode::kNoSpace);
  EXPECT_EQ(place.error().message(),
            "the initrd of 14336 KiB does not fit between the kernel, which ends at 3072 KiB, and 16384 KiB "
            "of memory");
}

TEST_F(KernelImageTest, NoDamageToAHeaderReachesOutsideMemory) {
  std::mt19937_64 random(20260101);
  for (int round = 0; round < 20000; ++round) {
    auto bytes = round % 2 == 0 ? ElfFile().bytes() : bzimage();
    size_t head = round % 2 == 0 ? 300 : 0x290;
    for (int i = 0; i < 4; ++i) bytes[random() % head] = static_cast<std::byte>(random());
    auto image = load(bytes);
    if (image.ok()) {
      EXPECT_LE(image->end, ram_.size());
    }
  }
}

}  // namespace
}  // namespace haneul::vmm
