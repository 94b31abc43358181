// SPDX-License-Identifier: Apache-2.0
#include "tests/guests/runtime.h"

extern "C" void* memset(void* to, int value, size_t size) {
  auto* bytes = static_cast<volatile uint8_t*>(to);
  for (size_t i = 0; i < size; ++i) bytes[i] = static_cast<uint8_t>(value);
  return to;
}
extern "C" void* memcpy(void* to, const void* from, size_t size) {
  auto* target = static_cast<volatile uint8_t*>(to);
  const auto* source = static_cast<const uint8_t*>(from);
  for (size_t i = 0; i < size; ++i) target[i] = source[i];
  return to;
}

// start.S.
extern "C" const char ap_start[];
extern "C" const char ap_end[];
extern "C" void* volatile ap_stack;

namespace guest {
namespace {

constexpr uint16_t kSerial = 0x3f8;
// vmm/arch/x86_64/layout.h: acpi::PowerRegisters.
constexpr uint64_t kPower = 0xe8000020;

constexpr uint64_t kLocalApic = 0xfee00000;

const char* command_line = "";
void (*volatile ap_body)(unsigned) = nullptr;
volatile unsigned ap_index = 0;
volatile bool ap_runs = false;
uint64_t next_free = 16 << 20;
constexpr uint64_t kHighRam = 4ull << 30;

size_t length(const char* text) {
  size_t n = 0;
  while (text[n] != 0) ++n;
  return n;
}

bool starts_with(const char* text, const char* prefix) {
  for (; *prefix != 0; ++text, ++prefix) {
    if (*text != *prefix) return false;
  }
  return true;
}

}  // namespace

void set_command_line(const uint8_t* boot_params) {
  command_line =
      reinterpret_cast<const char*>(uint64_t{*reinterpret_cast<const uint32_t*>(boot_params + 0x228)});
  if (option("high", 0) != 0) next_free = kHighRam;
}

void start_vcpu(unsigned index, void (*body)(unsigned index)) {
  // A free page below 1 MiB (vmm/arch/x86_64/layout.h).
  constexpr uint64_t kPage = 0x8000;
  constexpr size_t kStack = 16384;
  constexpr uint64_t kCommandLow = kLocalApic + 0x300;
  constexpr uint64_t kCommandHigh = kLocalApic + 0x310;
  for (const char* at = ap_start; at != ap_end; ++at) {
    write_mmio<char>(kPage + static_cast<uint64_t>(at - ap_start), *at);
  }
  ap_stack = static_cast<char*>(allocate(kStack)) + kStack;
  ap_body = body;
  ap_index = index;
  ap_runs = false;
  write_mmio<uint32_t>(kCommandHigh, index << 24);
  write_mmio<uint32_t>(kCommandLow, 0x4500);  // INIT, assert
  write_mmio<uint32_t>(kCommandHigh, index << 24);
  write_mmio<uint32_t>(kCommandLow, 0x4600 | (kPage >> 12));  // start-up
  while (!ap_runs) pause();
}

void print(const char* text) {
  for (; *text != 0; ++text) out8(kSerial, static_cast<uint8_t>(*text));
}

void print_number(uint64_t value) {
  char digits[21];
  size_t at = sizeof digits;
  digits[--at] = 0;
  do {
    digits[--at] = static_cast<char>('0' + value % 10);
    value /= 10;
  } while (value != 0);
  print(digits + at);
}

void print_line(const char* name, uint64_t value) {
  print(name);
  print("=");
  print_number(value);
  print("\n");
}

uint8_t read_serial() {
  while ((in8(kSerial + 5) & 1) == 0) pause();
  return in8(kSerial);
}

bool serial_has(uint8_t byte) {
  return (in8(kSerial + 5) & 1) != 0 && in8(kSerial) == byte;
}

uint64_t option(const char* name, uint64_t otherwise) {
  size_t n = length(name);
  for (const char* at = command_line; *at != 0; ++at) {
    bool word_start = at == command_line || at[-1] == ' ';
    if (!word_start || !starts_with(at, name) || at[n] != '=') continue;
    uint64_t value = 0;
    for (at += n + 1; *at >= '0' && *at <= '9'; ++at) value = value * 10 + static_cast<uint64_t>(*at - '0');
    return value;
  }
  return otherwise;
}

bool command_is(const char* name) {
  size_t n = length(name);
  return starts_with(command_line, name) && (command_line[n] == 0 || command_line[n] == ' ');
}

void power_off() {
  write_mmio<uint8_t>(kPower, (1 << 5) | (5 << 2));
  for (;;) pause();
}

void reset() {
  write_mmio<uint8_t>(kPower + 8, 1);
  for (;;) pause();
}

void fail(const char* why) {
  print("FAIL ");
  print(why);
  print("\n");
  power_off();
}

void* allocate(size_t bytes) {
  void* memory = reinterpret_cast<void*>(next_free);
  next_free += (bytes + 4095) & ~uint64_t{4095};
  return memory;
}

}  // namespace guest

extern "C" void guest_ap() {
  auto body = guest::ap_body;
  unsigned index = guest::ap_index;
  guest::ap_runs = true;
  body(index);
}
