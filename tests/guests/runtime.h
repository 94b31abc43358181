// SPDX-License-Identifier: Apache-2.0
// What a freestanding guest has: ports, the serial line, numbers in text, the command line, power, time,
// memory. Everything runs in ring 3, on the first vCPU unless start_vcpu() is called, without interrupts: devices are
// polled.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace guest {

inline void out8(uint16_t port, uint8_t value) {
  asm volatile("outb %0, %1" ::"a"(value), "Nd"(port));
}
inline uint8_t in8(uint16_t port) {
  uint8_t value;
  asm volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
  return value;
}
template <typename T>
T read_mmio(uint64_t address) {
  return *reinterpret_cast<volatile T*>(address);
}
template <typename T>
void write_mmio(uint64_t address, T value) {
  *reinterpret_cast<volatile T*>(address) = value;
}
inline uint64_t ticks() {
  uint32_t low, high;
  asm volatile("lfence; rdtsc" : "=a"(low), "=d"(high)::"memory");
  return (uint64_t{high} << 32) | low;
}
inline void pause() {
  asm volatile("pause" ::: "memory");
}

/// Starts vCPU `index` with INIT and SIPI; it calls `body` in ring 3, once, and then spins. Returns when it runs.
void start_vcpu(unsigned index, void (*body)(unsigned index));

void print(const char* text);
void print_number(uint64_t value);
void print_line(const char* name, uint64_t value);  // "name=123\n"
uint8_t read_serial();                              // waits for a byte
bool serial_has(uint8_t byte);                      // whether this byte has come; any other is thrown away

/// The value of "name=" on the command line, or the default.
uint64_t option(const char* name, uint64_t otherwise);
bool command_is(const char* name);  // the command line's first word

[[noreturn]] void power_off();
[[noreturn]] void reset();
[[noreturn]] void fail(const char* why);  // prints "FAIL why", powers off

/// Zeroed memory that is never freed, from 16 MiB on, or with high=1 from 4 GiB on; aligned to a page.
void* allocate(size_t bytes);

/// A small generator with a seed, so that both sides know the bytes.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed * 0x9e3779b97f4a7c15 + 1) {}
  uint64_t next() {
    state_ ^= state_ << 13;
    state_ ^= state_ >> 7;
    state_ ^= state_ << 17;
    return state_;
  }

 private:
  uint64_t state_;
};

}  // namespace guest
