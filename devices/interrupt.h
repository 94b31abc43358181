// SPDX-License-Identifier: Apache-2.0
// What a device needs from the machine around it: interrupts to raise and doorbells to hear. devices/
// declares them, vmm/ supplies them with KVM, tests supply them with plain objects.
#pragma once

#include <cstdint>
#include <memory>

#include "base/event_fd.h"
#include "base/result.h"
#include "devices/guest_memory.h"

namespace haneul::devices {

/// An interrupt line, edge-triggered. Thread-safe.
class Interrupt {
 public:
  virtual ~Interrupt() = default;
  virtual void trigger() = 0;
};

/// Where a message-signalled interrupt goes (PCI 3.0, section 6.8.1).
struct MsiMessage {
  uint64_t address = 0;
  uint32_t data = 0;
};

/// One MSI-X vector. trigger() is thread-safe and may run beside route(). Before the first route() a trigger
/// is lost.
class MsiVector : public Interrupt {
 public:
  virtual Status route(const MsiMessage& message) = 0;
};

/// Gives out vectors; kNoSpace when the machine has no more. Thread-safe. Outlives its vectors.
class MsiController {
 public:
  virtual ~MsiController() = default;
  virtual Result<std::unique_ptr<MsiVector>> allocate() = 0;
};

/// Makes a guest's write to an address signal an event without an exit to user space (ioeventfd).
/// Thread-safe.
class DoorbellRegistrar {
 public:
  virtual ~DoorbellRegistrar() = default;
  /// A write of any width at `address` signals `event`, which stays open until unbind.
  virtual Status bind(GuestAddress address, const EventFd& event) = 0;
  virtual void unbind(GuestAddress address, const EventFd& event) = 0;
};

}  // namespace haneul::devices
