// SPDX-License-Identifier: Apache-2.0
#include <array>
#include <cstring>
#include <numeric>
#include <vector>

#include "base/endian.h"
#include "vmm/arch/x86_64/layout.h"
#include "vmm/arch/x86_64/tables.h"

// The DSDT as iasl compiled it, see dsdt_aml.S.
extern "C" const std::byte haneul_dsdt_aml[];
extern "C" const std::byte haneul_dsdt_aml_end[];

namespace haneul::vmm::x86 {
namespace {

uint8_t checksum(std::span<const std::byte> data) {
  unsigned sum = 0;
  for (std::byte b : data) sum += std::to_integer<unsigned>(b);
  return static_cast<uint8_t>(0U - sum);
}

/// A table under construction: little-endian fields appended or set at an offset; the header is
/// section 5.2.6's.
class Table {
 public:
  Table(std::string_view signature, uint8_t revision) {
    text(signature, 4);
    u32(0);  // length
    u8(revision);
    u8(0);  // checksum
    text("HANEUL", 6);
    text("HNLVM   ", 8);
    u32(1);
    text("HNL ", 4);
    u32(1);
  }
  void u8(uint8_t v) { bytes_.push_back(std::byte{v}); }
  void u16(uint16_t v) { append(v); }
  void u32(uint32_t v) { append(v); }
  void u64(uint64_t v) { append(v); }
  void zeros(size_t n) { bytes_.resize(bytes_.size() + n); }
  void text(std::string_view value, size_t width) {
    for (size_t i = 0; i < width; ++i) u8(i < value.size() ? static_cast<uint8_t>(value[i]) : uint8_t{' '});
  }
  /// Generic Address Structure (section 5.2.3.2): one byte of system memory, byte access.
  void register_at(uint64_t gpa) {
    u8(0);
    u8(8);
    u8(0);
    u8(1);
    u64(gpa);
  }
  size_t size() const { return bytes_.size(); }
  std::span<const std::byte> finish() {
    store_le<uint32_t>(bytes_.data() + 4, static_cast<uint32_t>(bytes_.size()));
    bytes_[9] = std::byte{checksum(bytes_)};
    return bytes_;
  }

 private:
  template <typename T>
  void append(T v) {
    size_t at = bytes_.size();
    bytes_.resize(at + sizeof v);
    store_le<T>(bytes_.data() + at, v);
  }
  std::vector<std::byte> bytes_;
};

/// Places tables one after the other in the area that layout.h gives them.
class Area {
 public:
  Area(const devices::GuestMemory& memory, uint64_t start) : memory_(memory), next_(start) {}
  Result<uint64_t> put(std::span<const std::byte> table) {
    uint64_t at = next_;
    if (at + table.size() > kAcpiGpa + kAcpiBytes || !memory_.write({at}, table)) {
      return Error(ErrorCode::kNoSpace, "the ACPI tables do not fit below 1 MiB");
    }
    next_ = align_up(at + table.size(), 64);
    return at;
  }

 private:
  const devices::GuestMemory& memory_;
  uint64_t next_;
};

// Replaces the value of `Name (NAME, <64-bit integer>)`: NameOp, the name, QWordPrefix, 8 bytes
// (section 20.2).
void patch_integer(std::vector<std::byte>& aml, std::string_view name, uint64_t value) {
  for (size_t i = 1; i + name.size() + 9 <= aml.size(); ++i) {
    if (aml[i - 1] == std::byte{0x08} && std::memcmp(aml.data() + i, name.data(), name.size()) == 0 &&
        aml[i + name.size()] == std::byte{0x0e}) {
      store_le<uint64_t>(aml.data() + i + name.size() + 1, value);
      return;
    }
  }
  check_failed(__FILE__, __LINE__, "the DSDT has the integer that is to be patched");
}

std::vector<std::byte> make_dsdt(uint64_t ram_bytes) {
  std::vector<std::byte> aml(haneul_dsdt_aml, haneul_dsdt_aml_end);
  uint64_t window = mmio64_gpa(ram_bytes);
  patch_integer(aml, "M64B", window);
  patch_integer(aml, "M64E", window + kMmio64Bytes - 1);
  aml[9] = std::byte{0};
  aml[9] = std::byte{checksum(aml)};
  return aml;
}

// Section 5.2.9.
Table make_fadt(uint64_t dsdt_gpa) {
  constexpr uint16_t kNo8042NoVgaMsiNoRtc = (1 << 2) | (1 << 5);  // "VGA not present", "CMOS RTC not present"
  constexpr uint32_t kWbinvd = 1 << 0;
  constexpr uint32_t kSlpButton = 1 << 5;  // no fixed-hardware sleep button
  constexpr uint32_t kPwrButton = 1 << 4;  // no fixed-hardware power button: it is a control-method device
  constexpr uint32_t kResetRegSup = 1 << 10;
  constexpr uint32_t kHwReduced = 1 << 20;
  Table fadt("FACP", 6);
  fadt.u32(0);                                // FACS: none
  fadt.u32(static_cast<uint32_t>(dsdt_gpa));  // DSDT, 32-bit
  fadt.zeros(109 - fadt.size());
  fadt.u16(kNo8042NoVgaMsiNoRtc);  // IAPC_BOOT_ARCH, offset 109
  fadt.u8(0);
  fadt.u32(kWbinvd | kPwrButton | kSlpButton | kResetRegSup | kHwReduced);
  fadt.register_at(kPowerGpa + 8);  // RESET_REG
  fadt.u8(1);                       // RESET_VALUE
  fadt.u16(0);                      // ARM_BOOT_ARCH
  fadt.u8(4);                       // minor version
  fadt.u64(0);                      // X_FIRMWARE_CTRL
  fadt.u64(dsdt_gpa);               // X_DSDT
  fadt.zeros(244 - fadt.size());    // fixed-hardware register blocks: none
  fadt.register_at(kPowerGpa);      // SLEEP_CONTROL_REG, offset 244
  fadt.register_at(kPowerGpa + 1);  // SLEEP_STATUS_REG
  fadt.u64(0x204c5545'4e4148);      // hypervisor vendor "HANEUL "
  return fadt;
}

// Section 5.2.12.
Table make_madt(unsigned vcpus) {
  Table madt("APIC", 5);
  madt.u32(static_cast<uint32_t>(kLocalApicGpa));
  madt.u32(0);  // no 8259s
  for (unsigned i = 0; i < vcpus; ++i) {
    madt.u8(0);  // processor local APIC
    madt.u8(8);
    madt.u8(static_cast<uint8_t>(i));
    madt.u8(static_cast<uint8_t>(i));
    madt.u32(1);  // enabled
  }
  madt.u8(1);  // I/O APIC
  madt.u8(12);
  madt.u8(0);
  madt.u8(0);
  madt.u32(static_cast<uint32_t>(kIoapicGpa));
  madt.u32(0);
  return madt;
}

// PCI Firmware Specification 3.2, section 4.1.2.
Table make_mcfg() {
  Table mcfg("MCFG", 1);
  mcfg.zeros(8);
  mcfg.u64(kEcamGpa);
  mcfg.u16(0);
  mcfg.u8(0);
  mcfg.u8(0);
  mcfg.zeros(4);
  return mcfg;
}

}  // namespace

Status write_acpi_tables(const devices::GuestMemory& memory, uint64_t ram_bytes, unsigned vcpus,
                         const GenerationId& generation) {
  constexpr size_t kRsdpBytes = 36;
  Area area(memory, kAcpiGpa + 64);
  uint64_t dsdt = TRY(area.put(make_dsdt(ram_bytes)));
  Table xsdt("XSDT", 1);
  xsdt.u64(TRY(area.put(make_fadt(dsdt).finish())));
  xsdt.u64(TRY(area.put(make_madt(vcpus).finish())));
  xsdt.u64(TRY(area.put(make_mcfg().finish())));
  uint64_t xsdt_gpa = TRY(area.put(xsdt.finish()));

  // Section 5.2.5.3: two checksums, over the first 20 bytes and over all.
  std::array<std::byte, kRsdpBytes> rsdp{};
  std::memcpy(rsdp.data(), "RSD PTR ", 8);
  std::memcpy(rsdp.data() + 9, "HANEUL", 6);
  rsdp[15] = std::byte{2};
  store_le<uint32_t>(rsdp.data() + 20, kRsdpBytes);
  store_le<uint64_t>(rsdp.data() + 24, xsdt_gpa);
  rsdp[8] = std::byte{checksum(std::span(rsdp).first(20))};
  rsdp[32] = std::byte{checksum(rsdp)};
  if (!memory.write({kAcpiGpa}, rsdp) ||
      !memory.write({kGenerationGpa}, std::as_bytes(std::span(generation))))
    return Error(ErrorCode::kNoSpace, "no memory for the ACPI tables");
  return {};
}

}  // namespace haneul::vmm::x86
