// SPDX-License-Identifier: Apache-2.0
#include "vmm/arch/x86_64/tables.h"

#include <gtest/gtest.h>

#include <cstring>
#include <map>

#include "base/endian.h"
#include "vmm/arch/x86_64/boot.h"
#include "vmm/arch/x86_64/layout.h"

namespace haneul::vmm::x86 {
namespace {

constexpr GenerationId kGeneration = {'t', 'h', 'e', ' ', 'g', 'e', 'n', 'e',
                                      'r', 'a', 't', 'i', 'o', 'n', ' ', '7'};

class TablesTest : public ::testing::Test {
 protected:
  template <typename T>
  T at(uint64_t gpa) {
    return load_le<T>(ram_.data() + gpa);
  }
  unsigned sum(uint64_t gpa, uint64_t size) {
    unsigned total = 0;
    for (uint64_t i = 0; i < size; ++i) total += std::to_integer<unsigned>(ram_[gpa + i]);
    return total & 0xff;
  }
  std::string text(uint64_t gpa, size_t size) {
    return std::string(reinterpret_cast<const char*>(ram_.data() + gpa), size);
  }
  std::vector<std::byte> ram_ = std::vector<std::byte>(4_MiB);
  devices::GuestMemory memory_{{{{0}, ram_.size(), ram_.data()}}};
};

TEST_F(TablesTest, AcpiTablesAreLinkedAndSumToZero) {
  ASSERT_TRUE(write_acpi_tables(memory_, 128_MiB, 4, kGeneration).ok());
  ASSERT_EQ(text(kAcpiGpa, 8), "RSD PTR ");
  EXPECT_EQ(sum(kAcpiGpa, 20), 0u);
  EXPECT_EQ(sum(kAcpiGpa, 36), 0u);
  uint64_t xsdt = at<uint64_t>(kAcpiGpa + 24);
  std::map<std::string, uint64_t> tables;
  for (uint64_t entry = xsdt + 36; entry < xsdt + at<uint32_t>(xsdt + 4); entry += 8) {
    uint64_t table = at<uint64_t>(entry);
    tables[text(table, 4)] = table;
    EXPECT_EQ(sum(table, at<uint32_t>(table + 4)), 0u) << text(table, 4);
  }
  ASSERT_TRUE(tables.contains("FACP") && tables.contains("APIC") && tables.contains("MCFG"));

  uint64_t fadt = tables["FACP"];
  EXPECT_EQ(at<uint32_t>(fadt + 4), 276u);
  EXPECT_TRUE(at<uint32_t>(fadt + 112) & (1u << 20)) << "hardware-reduced";
  EXPECT_EQ(at<uint16_t>(fadt + 109) & 2, 0) << "no 8042";
  EXPECT_EQ(at<uint64_t>(fadt + 120), kPowerGpa + 8) << "reset register";
  EXPECT_EQ(at<uint64_t>(fadt + 248), kPowerGpa) << "sleep control register";
  uint64_t dsdt = at<uint64_t>(fadt + 140);
  EXPECT_EQ(text(dsdt, 4), "DSDT");
  EXPECT_EQ(sum(dsdt, at<uint32_t>(dsdt + 4)), 0u);

  uint64_t madt = tables["APIC"];
  EXPECT_EQ(at<uint32_t>(madt + 4), 44u + 4 * 8 + 12);
}

TEST_F(TablesTest, TheGenerationIdIsWhereTheDsdtSays) {
  ASSERT_TRUE(write_acpi_tables(memory_, 128_MiB, 1, kGeneration).ok());
  EXPECT_EQ(text(kGenerationGpa, 16), std::string(kGeneration.begin(), kGeneration.end()));
  std::string area = text(kAcpiGpa, kAcpiBytes);
  for (std::string name : {"VM_Gen_Counter", "VMGENCTR"}) {
    EXPECT_NE(area.find("\x0d" + name + std::string(1, '\0')), std::string::npos) << name;
  }
  // Name (ADDR, Package of two: a 32-bit integer, and zero), section 20.2.
  std::string address(4, '\0');
  store_le<uint32_t>(address.data(), kGenerationGpa);
  EXPECT_NE(area.find(std::string("\x08") + "ADDR\x12\x08\x02\x0c" + address + std::string(1, '\0')),
            std::string::npos);
  // Aligned, and memory that no system uses: neither RAM nor ACPI's own in the map.
  EXPECT_EQ(kGenerationGpa % 8, 0u);
  EXPECT_TRUE(kGenerationGpa >= kLowRamEnd && kGenerationGpa + 16 <= kAcpiGpa);
}

TEST_F(TablesTest, TheHighWindowMovesAboveLargeMemory) {
  EXPECT_EQ(mmio64_gpa(1_GiB), 256_GiB);
  EXPECT_EQ(mmio64_gpa(255_GiB), 256_GiB);
  EXPECT_EQ(mmio64_gpa(384_GiB), 512_GiB);
  ASSERT_TRUE(write_acpi_tables(memory_, 384_GiB, 1, kGeneration).ok());
  std::string area = text(kAcpiGpa, kAcpiBytes);
  std::string window(8, '\0');
  store_le<uint64_t>(window.data(), 512_GiB);
  EXPECT_NE(area.find("M64B\x0e" + window), std::string::npos);
}

TEST_F(TablesTest, SmbiosSaysEc2) {
  ASSERT_TRUE(write_smbios(memory_, 128_MiB, 1, {"ec2a1b2c-3d4e-5f60-7182-93a4b5c6d7e8", "t2.micro"}).ok());
  ASSERT_EQ(text(kSmbiosGpa, 5), "_SM3_");
  EXPECT_EQ(sum(kSmbiosGpa, 24), 0u);
  uint64_t table = at<uint64_t>(kSmbiosGpa + 16);
  std::string all = text(table, at<uint32_t>(kSmbiosGpa + 12));
  EXPECT_NE(all.find("ec2a1b2c-3d4e-5f60-7182-93a4b5c6d7e8"), std::string::npos) << "the serial";
  EXPECT_NE(all.find(std::string("\x2c\x1b\x2a\xec\x4e\x3d\x60\x5f\x71\x82", 10)), std::string::npos)
      << "the UUID";
  EXPECT_NE(all.find("t2.micro"), std::string::npos);
  EXPECT_EQ(static_cast<uint8_t>(all[all.size() - 6]), 127) << "the end structure";
}

TEST_F(TablesTest, RefusesAUuidThatIsNone) {
  for (const char* bad :
       {"", "ec2", "ec2a1b2c-3d4e-5f60-7182-93a4b5c6d7eg", "ec2a1b2c-3d4e-5f60-7182-93a4b5c6d7e8a"}) {
    auto written = write_smbios(memory_, 128_MiB, 1, {bad, ""});
    ASSERT_FALSE(written.ok()) << bad;
    EXPECT_EQ(written.error().message(), fmt::format("'{}' is not a UUID", bad));
  }
}

TEST_F(TablesTest, RefusesALongCommandLine) {
  KernelImage kernel;
  kernel.max_command_line = 10;
  auto written = write_boot_data(memory_, ram_.size(), kernel, {}, "01234567890");
  ASSERT_FALSE(written.ok());
  EXPECT_EQ(written.error().message(), "the kernel's command line has 11 bytes, at most 10 are possible");
}

TEST_F(TablesTest, TheMemoryMapCoversAllRam) {
  ASSERT_TRUE(write_boot_data(memory_, 5_GiB, KernelImage{}, {}, "quiet").ok());
  uint64_t ram = 0;
  for (unsigned i = 0; i < at<uint8_t>(kZeroPageGpa + 0x1e8); ++i) {
    uint64_t entry = kZeroPageGpa + 0x2d0 + i * 20;
    if (at<uint32_t>(entry + 16) == 1) ram += at<uint64_t>(entry + 8);
  }
  EXPECT_EQ(ram, 5_GiB - (kHighRamGpa - kLowRamEnd));
  EXPECT_EQ(text(kCommandLineGpa, 6), std::string("quiet\0", 6));
}

}  // namespace
}  // namespace haneul::vmm::x86
