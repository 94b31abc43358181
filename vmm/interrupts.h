// SPDX-License-Identifier: Apache-2.0
// Interrupts by KVM: lines of the IOAPIC and MSI vectors, each an irqfd, so that raising one is a write to an
// eventfd and its delivery takes no exit. Doorbells likewise are ioeventfds.
//
// KVM has one routing table a machine (GSI -> IOAPIC pin or MSI message), replaced whole at each change. It
// is written only when a guest programs a vector: replacing it waits for an RCU grace period, which a start
// must not pay.
#pragma once

#include <memory>
#include <mutex>
#include <vector>

#include "devices/interrupt.h"
#include "vmm/kvm.h"

namespace haneul::vmm {

/// Thread-safe. Outlives the vectors and lines it made; the KvmVm outlives it.
class KvmInterrupts final : public devices::MsiController, public devices::DoorbellRegistrar {
 public:
  explicit KvmInterrupts(const KvmVm& vm);
  ~KvmInterrupts() override;

  /// The IOAPIC's pin, edge-triggered. Each pin once.
  Result<std::unique_ptr<devices::Interrupt>> line(uint32_t pin);

  Result<std::unique_ptr<devices::MsiVector>> allocate() override;
  Status bind(devices::GuestAddress address, const EventFd& event) override;
  void unbind(devices::GuestAddress address, const EventFd& event) override;

 private:
  class Line;
  class Vector;

  Status route(uint32_t gsi, const devices::MsiMessage& message);
  void release(uint32_t gsi);
  Status write_table();

  const KvmVm& vm_;
  std::mutex mutex_;
  struct Slot {
    bool used = false;
    bool routed = false;
    devices::MsiMessage message;
  };
  std::vector<Slot> slots_;  // by gsi - kFirstMsiGsi
};

}  // namespace haneul::vmm
