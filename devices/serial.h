// SPDX-License-Identifier: Apache-2.0
// Serial: a 16550A UART, as far as the drivers of guests can tell (eight byte-wide registers; National
// Semiconductor PC16550D data sheet, sections 8.1 to 8.7).
//
// Purpose   the guest's console. A transmitted byte is handed to `output` at once, so the transmitter is always
//           empty; the line never has errors, and its speed is whatever the guest set.
// Threads   read() and write() from vCPU threads, feed() and free_space() from any: one lock. `output` is called
//           with the lock held (so that bytes keep their order), and must neither block nor call back.
//           `on_space` is called without it, by the vCPU thread that made the space.
// Bounds    16 bytes of FIFO and kInputBytes behind it; feed() takes what fits and the caller keeps the rest.
//           Output is not stored at all: a guest that floods it costs only its own time.
// Accesses  of more than one byte act on consecutive registers; offsets past 7 read as all ones.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <mutex>
#include <span>

#include "devices/bus.h"
#include "devices/interrupt.h"

namespace haneul::devices {

class Serial final : public BusDevice {
 public:
  static constexpr uint64_t kRegisters = 8;
  static constexpr size_t kInputBytes = 4096;
  using Output = std::function<void(std::span<const std::byte>)>;

  /// The interrupt outlives the device.
  Serial(Interrupt& interrupt, Output output) : interrupt_(interrupt), output_(std::move(output)) {}

  void read(uint64_t offset, std::span<std::byte> data) override;
  void write(uint64_t offset, std::span<const std::byte> data) override;

  /// Types bytes; returns how many were taken. After fewer than all, on_space is called once there is room.
  size_t feed(std::span<const std::byte> data);
  size_t free_space() const;
  /// Before the guest runs.
  void set_on_space(std::function<void()> on_space) { on_space_ = std::move(on_space); }

 private:
  static constexpr size_t kFifoBytes = 16;

  uint8_t read_register(uint64_t offset);
  void write_register(uint64_t offset, uint8_t value);
  uint8_t receive();
  void accept(uint8_t byte);
  void refill();
  void clear_receiver();
  bool looped_back() const;
  uint8_t interrupt_identity() const;
  void update_interrupt();
  size_t fifo_capacity() const { return fifo_enabled_ ? kFifoBytes : 1; }

  Interrupt& interrupt_;
  const Output output_;
  std::function<void()> on_space_;

  mutable std::mutex mutex_;
  uint8_t interrupt_enable_ = 0;
  uint8_t line_control_ = 0;
  uint8_t modem_control_ = 0;
  uint8_t scratch_ = 0;
  uint16_t divisor_ = 12;
  bool fifo_enabled_ = false;
  bool overrun_ = false;
  bool transmit_pending_ = false;  // the THRE interrupt's condition
  uint8_t modem_changes_ = 0;      // MSR bits 0 to 3
  bool line_raised_ = false;

  std::array<uint8_t, kFifoBytes> fifo_{};
  size_t fifo_first_ = 0;
  size_t fifo_count_ = 0;
  std::array<uint8_t, kInputBytes> input_{};
  size_t input_first_ = 0;
  size_t input_count_ = 0;
  bool feeder_waits_ = false;
};

}  // namespace haneul::devices
