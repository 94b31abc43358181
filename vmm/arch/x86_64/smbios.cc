// SPDX-License-Identifier: Apache-2.0
#include <array>
#include <cstring>
#include <vector>

#include "base/endian.h"
#include "vmm/arch/x86_64/layout.h"
#include "vmm/arch/x86_64/tables.h"

namespace haneul::vmm::x86 {
namespace {

/// One structure: its formatted part, then its strings (SMBIOS 3.4, section 6.1).
class Structure {
 public:
  Structure(uint8_t type, uint16_t handle) {
    u8(type);
    u8(0);  // length of the formatted part
    u16(handle);
  }
  void u8(uint8_t v) { formatted_.push_back(std::byte{v}); }
  void u16(uint16_t v) { append(v); }
  void u32(uint32_t v) { append(v); }
  void u64(uint64_t v) { append(v); }
  void bytes(std::span<const std::byte> data) {
    formatted_.insert(formatted_.end(), data.begin(), data.end());
  }
  /// A reference to a string: its number, from 1.
  void string(std::string_view text) {
    strings_ += text;
    strings_ += '\0';
    u8(++string_count_);
  }
  void finish(std::vector<std::byte>& table) {
    formatted_[1] = static_cast<std::byte>(formatted_.size());
    table.insert(table.end(), formatted_.begin(), formatted_.end());
    if (strings_.empty()) strings_ += '\0';
    strings_ += '\0';
    auto text = std::as_bytes(std::span(strings_));
    table.insert(table.end(), text.begin(), text.end());
  }

 private:
  template <typename T>
  void append(T v) {
    size_t at = formatted_.size();
    formatted_.resize(at + sizeof v);
    store_le<T>(formatted_.data() + at, v);
  }
  std::vector<std::byte> formatted_;
  std::string strings_;
  uint8_t string_count_ = 0;
};

// Section 7.2.1: the first three fields are little-endian.
Result<std::array<std::byte, 16>> encode_uuid(std::string_view text) {
  std::array<std::byte, 16> raw{};
  size_t nibbles = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    if (i == 8 || i == 13 || i == 18 || i == 23) {
      if (text[i] != '-') return make_error(ErrorCode::kInvalidArgument, "'{}' is not a UUID", text);
      continue;
    }
    unsigned digit = 0;
    if (text[i] >= '0' && text[i] <= '9') {
      digit = static_cast<unsigned>(text[i] - '0');
    } else if (text[i] >= 'a' && text[i] <= 'f') {
      digit = static_cast<unsigned>(text[i] - 'a') + 10;
    } else {
      return make_error(ErrorCode::kInvalidArgument, "'{}' is not a UUID", text);
    }
    if (nibbles == 32) break;
    raw[nibbles / 2] |= static_cast<std::byte>(nibbles % 2 == 0 ? digit << 4 : digit);
    ++nibbles;
  }
  if (text.size() != 36 || nibbles != 32)
    return make_error(ErrorCode::kInvalidArgument, "'{}' is not a UUID", text);
  std::swap(raw[0], raw[3]);
  std::swap(raw[1], raw[2]);
  std::swap(raw[4], raw[5]);
  std::swap(raw[6], raw[7]);
  return raw;
}

void add_firmware(std::vector<std::byte>& table) {
  Structure s(0, 0x0000);  // section 7.1
  s.string("Haneul");
  s.string("1");
  s.u16(0);
  s.string("01/01/2026");
  s.u8(0);
  s.u64(1 << 3);  // characteristics: not supported
  s.u8(1);        // ACPI
  s.u8(0x1c);     // virtual machine, UEFI no, target content distribution
  s.u8(1);
  s.u8(0);
  s.u8(0xff);
  s.u8(0xff);
  s.u16(0);
  s.finish(table);
}

void add_processor(std::vector<std::byte>& table, unsigned vcpus) {
  Structure s(4, 0x0400);  // section 7.5
  s.string("CPU 0");
  s.u8(3);  // central processor
  s.u8(1);  // other family
  s.string("Haneul");
  s.u64(0);
  s.string("virtual");
  s.u8(0x80);
  s.u16(0);
  s.u16(0);
  s.u16(0);
  s.u8(0x41);  // populated, enabled
  s.u8(1);
  s.u16(0xffff);
  s.u16(0xffff);
  s.u16(0xffff);
  s.u8(0);
  s.u8(0);
  s.u8(0);
  s.u8(static_cast<uint8_t>(vcpus));
  s.u8(static_cast<uint8_t>(vcpus));
  s.u8(static_cast<uint8_t>(vcpus));
  s.u16(4);  // 64-bit
  s.u16(2);
  s.u16(static_cast<uint16_t>(vcpus));
  s.u16(static_cast<uint16_t>(vcpus));
  s.u16(static_cast<uint16_t>(vcpus));
  s.finish(table);
}

void add_memory(std::vector<std::byte>& table, uint64_t ram_bytes) {
  Structure array(16, 0x1000);  // section 7.17
  array.u8(1);
  array.u8(3);
  array.u8(3);
  array.u32(0x80000000);
  array.u16(0xfffe);
  array.u16(1);
  array.u64(ram_bytes);
  array.finish(table);

  Structure device(17, 0x1100);  // section 7.18
  device.u16(0x1000);
  device.u16(0xfffe);
  device.u16(0xffff);
  device.u16(0xffff);
  device.u16(0x7fff);  // the size is in the extended field
  device.u8(1);
  device.u8(0);
  device.string("DIMM 0");
  device.u8(0);
  device.u8(7);  // RAM
  device.u16(0);
  device.u16(0);
  device.string("Haneul");
  device.u8(0);
  device.u8(0);
  device.u8(0);
  device.u8(0);
  device.u32(static_cast<uint32_t>(ram_bytes >> 20));
  device.u16(0);
  device.u16(0);
  device.u16(0);
  device.u16(0);
  device.finish(table);
}

}  // namespace

Status write_smbios(const devices::GuestMemory& memory, uint64_t ram_bytes, unsigned vcpus,
                    const SystemIdentity& identity) {
  auto uuid = TRY(encode_uuid(identity.uuid));
  std::vector<std::byte> table;
  add_firmware(table);
  Structure system(1, 0x0100);  // section 7.2
  system.string("Haneul");
  system.string(identity.product.empty() ? "instance" : identity.product);
  system.u8(0);
  system.string(identity.uuid);
  system.bytes(uuid);
  system.u8(6);  // wake-up type: power switch
  system.u8(0);
  system.u8(0);
  system.finish(table);
  Structure chassis(3, 0x0300);  // section 7.4
  chassis.string("Haneul");
  chassis.u8(1);
  chassis.u8(0);
  chassis.u8(0);
  chassis.u8(0);
  chassis.u8(3);
  chassis.u8(3);
  chassis.u8(3);
  chassis.u8(2);
  chassis.u32(0);
  chassis.u8(0);
  chassis.u8(0);
  chassis.u8(0);
  chassis.u8(0);
  chassis.u8(0);
  chassis.finish(table);
  add_processor(table, vcpus);
  add_memory(table, ram_bytes);
  Structure boot(32, 0x2000);  // section 7.33
  for (int i = 0; i < 7; ++i) boot.u8(0);
  boot.finish(table);
  Structure end(127, 0x7f00);
  end.finish(table);

  // Section 5.2.2: the 64-bit entry point, found on a 16-byte boundary in 0xf0000-0xfffff.
  constexpr uint64_t kTableGpa = kSmbiosGpa + 0x20;
  std::array<std::byte, 24> entry{};
  std::memcpy(entry.data(), "_SM3_", 5);
  entry[6] = std::byte{24};
  entry[7] = std::byte{3};
  entry[8] = std::byte{4};
  entry[10] = std::byte{1};
  store_le<uint32_t>(entry.data() + 12, static_cast<uint32_t>(table.size()));
  store_le<uint64_t>(entry.data() + 16, kTableGpa);
  unsigned sum = 0;
  for (std::byte b : entry) sum += std::to_integer<unsigned>(b);
  entry[5] = static_cast<std::byte>(0U - sum);
  if (table.size() > kSmbiosBytes - 0x20 || !memory.write({kSmbiosGpa}, entry) ||
      !memory.write({kTableGpa}, table)) {
    return Error(ErrorCode::kNoSpace, "no memory for the SMBIOS tables");
  }
  return {};
}

}  // namespace haneul::vmm::x86
