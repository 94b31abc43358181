// SPDX-License-Identifier: Apache-2.0
#include "vmm/arch/x86_64/boot.h"

#include <sys/ioctl.h>

#include <array>
#include <cstring>

#include "base/endian.h"
#include "vmm/arch/x86_64/layout.h"
#include "vmm/arch/x86_64/reset_port.h"
#include "vmm/kvm_uapi.h"

namespace haneul::vmm::x86 {
namespace {

using devices::GuestAddress;
using devices::GuestMemory;

// Offsets in struct boot_params (Documentation/arch/x86/zero-page.rst).
constexpr size_t kAcpiRsdpAddr = 0x070;
constexpr size_t kExtRamdiskImage = 0x0c0;
constexpr size_t kExtRamdiskSize = 0x0c4;
constexpr size_t kExtCmdLinePtr = 0x0c8;
constexpr size_t kE820Entries = 0x1e8;
constexpr size_t kHdr = 0x1f1;
constexpr size_t kBootFlag = 0x1fe;
constexpr size_t kHeaderMagic = 0x202;
constexpr size_t kTypeOfLoader = 0x210;
constexpr size_t kLoadflags = 0x211;
constexpr size_t kRamdiskImage = 0x218;
constexpr size_t kRamdiskSize = 0x21c;
constexpr size_t kCmdLinePtr = 0x228;
constexpr size_t kE820Table = 0x2d0;

constexpr uint32_t kE820Ram = 1;
constexpr uint32_t kE820Reserved = 2;

class ZeroPage {
 public:
  template <typename T>
  void set(size_t offset, T value) {
    store_le<T>(bytes_.data() + offset, value);
  }
  void copy(size_t offset, std::span<const std::byte> data) {
    std::memcpy(bytes_.data() + offset, data.data(), data.size());
  }
  void add_memory(uint64_t start, uint64_t end, uint32_t type) {
    if (end <= start) return;
    size_t at = kE820Table + size_t{entries_} * 20;
    set<uint64_t>(at, start);
    set<uint64_t>(at + 8, end - start);
    set<uint32_t>(at + 16, type);
    set<uint8_t>(kE820Entries, ++entries_);
  }
  std::span<const std::byte> bytes() const { return bytes_; }

 private:
  std::array<std::byte, 4096> bytes_{};
  uint8_t entries_ = 0;
};

Status put(const GuestMemory& memory, uint64_t gpa, std::span<const std::byte> data) {
  if (memory.write(GuestAddress{gpa}, data)) return {};
  return make_error(ErrorCode::kNoSpace, "the instance has no memory at {:#x}", gpa);
}

// Identity map of the first 4 GiB with 2 MiB pages: one PML4, one PDPT, four page directories.
Status write_page_tables(const GuestMemory& memory) {
  constexpr uint64_t kPresentWritable = 0x3;
  constexpr uint64_t kLargePage = 0x80;
  std::vector<uint64_t> tables(6 * 512, 0);
  tables[0] = (kPageTablesGpa + 0x1000) | kPresentWritable;
  for (uint64_t i = 0; i < 4; ++i)
    tables[512 + i] = (kPageTablesGpa + 0x2000 + i * 0x1000) | kPresentWritable;
  for (uint64_t i = 0; i < 4 * 512; ++i) tables[1024 + i] = (i << 21) | kPresentWritable | kLargePage;
  return put(memory, kPageTablesGpa, std::as_bytes(std::span(tables)));
}

constexpr uint16_t kCodeSelector = 0x10;
constexpr uint16_t kDataSelector = 0x18;
// __BOOT_CS and __BOOT_DS of the protocol: flat, 64-bit code and data.
constexpr std::array<uint64_t, 4> kGdt = {0, 0, 0x00af9b000000ffff, 0x00cf93000000ffff};

}  // namespace

Status write_boot_data(const GuestMemory& memory, uint64_t ram_bytes, const KernelImage& kernel,
                       const InitrdPlace& initrd, std::string_view command_line) {
  uint64_t limit = std::min<uint64_t>(kernel.max_command_line, kMaxCommandLine);
  if (command_line.size() > limit) {
    return make_error(ErrorCode::kInvalidArgument,
                      "the kernel's command line has {} bytes, at most {} are possible", command_line.size(),
                      limit);
  }
  if (command_line.find('\0') != std::string_view::npos) {
    return Error(ErrorCode::kInvalidArgument, "the kernel's command line has a zero byte in it");
  }
  std::string text(command_line);
  TRY(put(memory, kCommandLineGpa, std::as_bytes(std::span(text.c_str(), text.size() + 1))));

  ZeroPage page;
  page.copy(kHdr, std::span(kernel.setup.bytes).first(kernel.setup.size));
  page.set<uint16_t>(kBootFlag, 0xaa55);
  page.set<uint32_t>(kHeaderMagic, 0x53726448);  // "HdrS"
  page.set<uint8_t>(kTypeOfLoader, 0xff);
  page.set<uint8_t>(kLoadflags, 1);
  page.set<uint32_t>(kCmdLinePtr, static_cast<uint32_t>(kCommandLineGpa));
  page.set<uint32_t>(kExtCmdLinePtr, 0);
  page.set<uint32_t>(kRamdiskImage, static_cast<uint32_t>(initrd.gpa));
  page.set<uint32_t>(kRamdiskSize, static_cast<uint32_t>(initrd.size));
  page.set<uint32_t>(kExtRamdiskImage, static_cast<uint32_t>(initrd.gpa >> 32));
  page.set<uint32_t>(kExtRamdiskSize, 0);
  page.set<uint64_t>(kAcpiRsdpAddr, kAcpiGpa);

  page.add_memory(0, kLowRamEnd, kE820Ram);
  page.add_memory(kLowRamEnd, kHighRamGpa, kE820Reserved);
  page.add_memory(kHighRamGpa, std::min(ram_bytes, kHoleGpa), kE820Ram);
  // Linux uses ECAM only where the memory map or ACPI reserves it.
  page.add_memory(kEcamGpa, kEcamGpa + kEcamBytes, kE820Reserved);
  if (ram_bytes > kHoleGpa) page.add_memory(kHoleEnd, kHoleEnd + (ram_bytes - kHoleGpa), kE820Ram);
  TRY(put(memory, kZeroPageGpa, page.bytes()));

  TRY(put(memory, kResetVectorGpa, std::as_bytes(std::span(kResetVector))));
  TRY(put(memory, kGdtGpa, std::as_bytes(std::span(kGdt))));
  return write_page_tables(memory);
}

Status set_boot_registers(const UniqueFd& vcpu, uint64_t entry) {
  kvm_sregs sregs{};
  if (::ioctl(vcpu.get(), KVM_GET_SREGS, &sregs) != 0) return errno_error("KVM_GET_SREGS");
  kvm_segment code{};
  code.base = 0;
  code.limit = 0xffffffff;
  code.selector = kCodeSelector;
  code.type = 11;  // execute, read, accessed
  code.present = 1;
  code.l = 1;
  code.s = 1;
  code.g = 1;
  kvm_segment data = code;
  data.selector = kDataSelector;
  data.type = 3;  // read, write, accessed
  data.l = 0;
  data.db = 1;
  sregs.cs = code;
  sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = data;
  sregs.gdt.base = kGdtGpa;
  sregs.gdt.limit = sizeof(kGdt) - 1;
  sregs.idt.base = 0;
  sregs.idt.limit = 0;
  sregs.cr0 = 0x80000033;  // PG, NE, ET, MP, PE
  sregs.cr3 = kPageTablesGpa;
  sregs.cr4 = 0x20;    // PAE
  sregs.efer = 0x500;  // LME, LMA
  if (::ioctl(vcpu.get(), KVM_SET_SREGS, &sregs) != 0) return errno_error("KVM_SET_SREGS");

  kvm_regs regs{};
  regs.rip = entry;
  regs.rsi = kZeroPageGpa;
  regs.rsp = kLowRamEnd;
  regs.rflags = 2;
  if (::ioctl(vcpu.get(), KVM_SET_REGS, &regs) != 0) return errno_error("KVM_SET_REGS");
  return {};
}

Status set_msrs(const UniqueFd& vcpu, std::span<const kvm_msr_entry> entries) {
  std::vector<std::byte> raw(sizeof(kvm_msrs) + entries.size_bytes());
  auto* msrs = reinterpret_cast<kvm_msrs*>(raw.data());
  msrs->nmsrs = static_cast<uint32_t>(entries.size());
  std::memcpy(msrs->entries, entries.data(), entries.size_bytes());
  int set = ::ioctl(vcpu.get(), KVM_SET_MSRS, msrs);
  if (set < 0) return errno_error("KVM_SET_MSRS");
  // KVM stops at the first that it refuses, and does not call that an error.
  if (static_cast<size_t>(set) != entries.size()) {
    return make_error(ErrorCode::kUnsupported, "this KVM refuses the model-specific register {:#x}",
                      uint32_t{entries[static_cast<size_t>(set)].index});
  }
  return {};
}

Status set_common_registers(const UniqueFd& vcpu) {
  constexpr uint32_t kMiscEnable = 0x1a0;
  constexpr uint32_t kMtrrDefType = 0x2ff;
  std::array<kvm_msr_entry, 2> entries{};
  entries[0].index = kMiscEnable;
  entries[0].data = 1;  // fast string operations
  entries[1].index = kMtrrDefType;
  entries[1].data = (1 << 11) | 6;  // MTRRs on, everything write-back
  return set_msrs(vcpu, entries);
}

}  // namespace haneul::vmm::x86
