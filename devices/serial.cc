// SPDX-License-Identifier: Apache-2.0
#include "devices/serial.h"

#include <algorithm>
#include <utility>

namespace haneul::devices {
namespace {

// Registers by offset; the first two mean something else while the divisor latch is open.
enum : uint64_t {
  kData = 0,
  kEnable = 1,
  kIdentityOrFifo = 2,
  kLine = 3,
  kModem = 4,
  kLineStatus = 5,
  kModemStatus = 6,
  kScratch = 7
};

constexpr uint8_t kEnableReceived = 0x01;
constexpr uint8_t kEnableTransmit = 0x02;
constexpr uint8_t kEnableLine = 0x04;
constexpr uint8_t kEnableModem = 0x08;

constexpr uint8_t kNoInterrupt = 0x01;
constexpr uint8_t kModemInterrupt = 0x00;
constexpr uint8_t kTransmitInterrupt = 0x02;
constexpr uint8_t kReceivedInterrupt = 0x04;
constexpr uint8_t kLineInterrupt = 0x06;
constexpr uint8_t kFifosOn = 0xc0;

constexpr uint8_t kFifoEnable = 0x01;
constexpr uint8_t kFifoClearReceiver = 0x02;

constexpr uint8_t kDivisorLatch = 0x80;

constexpr uint8_t kLoop = 0x10;

constexpr uint8_t kDataReady = 0x01;
constexpr uint8_t kOverrun = 0x02;
constexpr uint8_t kTransmitterEmpty = 0x60;

// A modem that is always there: carrier, data set ready, clear to send.
constexpr uint8_t kModemPresent = 0xb0;

// In loopback the modem control outputs are the modem status inputs: DTR to DSR, RTS to CTS, OUT1 to RI, OUT2
// to DCD (data sheet, section 8.7).
constexpr uint8_t loopback_status(uint8_t modem_control) {
  return static_cast<uint8_t>(((modem_control & 0x01) << 5) | ((modem_control & 0x02) << 3) |
                              ((modem_control & 0x04) << 4) | ((modem_control & 0x08) << 4));
}

// MSR bits 0 to 3 for a change of its bits 4 to 7; the ring indicator counts when it ends.
constexpr uint8_t changes_between(uint8_t before, uint8_t after) {
  auto changed = static_cast<uint8_t>((before ^ after) >> 4);
  if ((after & 0x40) != 0) changed = static_cast<uint8_t>(changed & ~0x04);
  return changed & 0x0f;
}

}  // namespace

void Serial::read(uint64_t offset, std::span<std::byte> data) {
  bool space = false;
  {
    std::lock_guard lock(mutex_);
    for (size_t i = 0; i < data.size(); ++i) data[i] = static_cast<std::byte>(read_register(offset + i));
    update_interrupt();
    space = feeder_waits_ && input_count_ <= kInputBytes / 2;
    if (space) feeder_waits_ = false;
  }
  if (space && on_space_) on_space_();
}

void Serial::write(uint64_t offset, std::span<const std::byte> data) {
  bool space = false;
  {
    std::lock_guard lock(mutex_);
    for (size_t i = 0; i < data.size(); ++i) write_register(offset + i, std::to_integer<uint8_t>(data[i]));
    update_interrupt();
    space = feeder_waits_ && input_count_ <= kInputBytes / 2;
    if (space) feeder_waits_ = false;
  }
  if (space && on_space_) on_space_();
}

size_t Serial::feed(std::span<const std::byte> data) {
  std::lock_guard lock(mutex_);
  size_t taken = std::min(data.size(), kInputBytes - input_count_);
  for (size_t i = 0; i < taken; ++i) {
    input_[(input_first_ + input_count_ + i) % kInputBytes] = std::to_integer<uint8_t>(data[i]);
  }
  input_count_ += taken;
  if (taken < data.size()) feeder_waits_ = true;
  refill();
  update_interrupt();
  return taken;
}

size_t Serial::free_space() const {
  std::lock_guard lock(mutex_);
  return kInputBytes - input_count_;
}

bool Serial::looped_back() const {
  return (modem_control_ & kLoop) != 0;
}

// In loopback the line is cut: what was typed waits.
void Serial::refill() {
  if (looped_back()) return;
  while (input_count_ > 0 && fifo_count_ < fifo_capacity()) {
    accept(input_[input_first_]);
    input_first_ = (input_first_ + 1) % kInputBytes;
    --input_count_;
  }
}

void Serial::accept(uint8_t byte) {
  if (fifo_count_ == fifo_capacity()) {
    overrun_ = true;
    // Without FIFOs the new byte replaces the old one; with them it is lost (section 8.4).
    if (!fifo_enabled_) fifo_[fifo_first_] = byte;
    return;
  }
  fifo_[(fifo_first_ + fifo_count_) % kFifoBytes] = byte;
  ++fifo_count_;
}

uint8_t Serial::receive() {
  if (fifo_count_ == 0) return 0;
  uint8_t byte = fifo_[fifo_first_];
  fifo_first_ = (fifo_first_ + 1) % kFifoBytes;
  --fifo_count_;
  refill();
  return byte;
}

void Serial::clear_receiver() {
  fifo_first_ = 0;
  fifo_count_ = 0;
}

// By priority (section 8.5, table IV).
uint8_t Serial::interrupt_identity() const {
  if ((interrupt_enable_ & kEnableLine) != 0 && overrun_) return kLineInterrupt;
  if ((interrupt_enable_ & kEnableReceived) != 0 && fifo_count_ > 0) return kReceivedInterrupt;
  if ((interrupt_enable_ & kEnableTransmit) != 0 && transmit_pending_) return kTransmitInterrupt;
  if ((interrupt_enable_ & kEnableModem) != 0 && modem_changes_ != 0) return kModemInterrupt;
  return kNoInterrupt;
}

// The machine's line is edge-triggered: a driver serves causes until the identity says there is none, and
// then the next cause makes the next edge. One more for each transmitted byte would be an interrupt for each.
void Serial::update_interrupt() {
  bool raised = interrupt_identity() != kNoInterrupt;
  if (raised && !line_raised_) interrupt_.trigger();
  line_raised_ = raised;
}

uint8_t Serial::read_register(uint64_t offset) {
  switch (offset) {
    case kData:
      if ((line_control_ & kDivisorLatch) != 0) return static_cast<uint8_t>(divisor_);
      return receive();
    case kEnable:
      if ((line_control_ & kDivisorLatch) != 0) return static_cast<uint8_t>(divisor_ >> 8);
      return interrupt_enable_;
    case kIdentityOrFifo: {
      uint8_t identity = interrupt_identity();
      // Reading this cause serves it.
      if (identity == kTransmitInterrupt) transmit_pending_ = false;
      return static_cast<uint8_t>(identity | (fifo_enabled_ ? kFifosOn : 0));
    }
    case kLine:
      return line_control_;
    case kModem:
      return modem_control_;
    case kLineStatus: {
      auto status = static_cast<uint8_t>(kTransmitterEmpty | (fifo_count_ > 0 ? kDataReady : 0) |
                                         (std::exchange(overrun_, false) ? kOverrun : 0));
      return status;
    }
    case kModemStatus: {
      uint8_t lines = looped_back() ? loopback_status(modem_control_) : kModemPresent;
      return static_cast<uint8_t>(lines | std::exchange(modem_changes_, uint8_t{0}));
    }
    case kScratch:
      return scratch_;
    default:
      return 0xff;
  }
}

void Serial::write_register(uint64_t offset, uint8_t value) {
  switch (offset) {
    case kData:
      if ((line_control_ & kDivisorLatch) != 0) {
        divisor_ = static_cast<uint16_t>((divisor_ & 0xff00) | value);
      } else {
        if (looped_back()) {
          accept(value);
        } else {
          auto byte = static_cast<std::byte>(value);
          output_(std::span(&byte, 1));
        }
        transmit_pending_ = true;
      }
      return;
    case kEnable:
      if ((line_control_ & kDivisorLatch) != 0) {
        divisor_ = static_cast<uint16_t>((divisor_ & 0x00ff) | (value << 8));
      } else {
        // Enabling the transmitter's interrupt while it is empty raises it at once.
        if ((value & ~interrupt_enable_ & kEnableTransmit) != 0) transmit_pending_ = true;
        interrupt_enable_ = value & 0x0f;
      }
      return;
    case kIdentityOrFifo: {
      bool enable = (value & kFifoEnable) != 0;
      // Switching the FIFOs clears them (section 8.6).
      if (enable != fifo_enabled_ || (enable && (value & kFifoClearReceiver) != 0)) clear_receiver();
      fifo_enabled_ = enable;
      refill();
      return;
    }
    case kLine:
      line_control_ = value;
      return;
    case kModem: {
      uint8_t before = looped_back() ? loopback_status(modem_control_) : kModemPresent;
      modem_control_ = value & 0x1f;
      uint8_t after = looped_back() ? loopback_status(modem_control_) : kModemPresent;
      modem_changes_ = static_cast<uint8_t>(modem_changes_ | changes_between(before, after));
      refill();
      return;
    }
    case kScratch:
      scratch_ = value;
      return;
    default:
      return;  // the status registers are read-only
  }
}

}  // namespace haneul::devices
