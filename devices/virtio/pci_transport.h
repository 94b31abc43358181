// SPDX-License-Identifier: Apache-2.0
// virtio::PciTransport: a virtio::Device as a PCI function (VIRTIO 1.2, section 4.1, modern only).
//
// One 64-bit BAR holds a page each for the common configuration, ISR, device configuration, notification,
// and the MSI-X table and pending bits. A queue's doorbell is bound at its notification address while the
// driver runs and memory decoding is on, so that notifying takes no exit; a write that reaches us all the
// same signals the same event.
//
// The driver's registers count until the step that ends their use and are copied there: feature words at
// FEATURES_OK, a queue's place at queue_enable. Later writes change nothing.
//
// Threads: vCPU threads, several at once; the device's I/O threads call back through DeviceHost and the
// queues' interrupts, which take no lock of the transport's. The references outlive the transport.
#pragma once

#include <memory>

#include "base/result.h"
#include "base/thread.h"
#include "devices/guest_memory.h"
#include "devices/interrupt.h"
#include "devices/pci/device.h"
#include "devices/virtio/device.h"

namespace haneul::devices::virtio {

class PciTransport {
 public:
  /// kNoSpace if the controller has too few vectors: one for each queue and one for configuration changes.
  static Result<std::unique_ptr<pci::Device>> create(std::unique_ptr<Device> device,
                                                     const GuestMemory& memory, MsiController& controller,
                                                     DoorbellRegistrar& doorbells, ThreadStarter& io_threads);
};

}  // namespace haneul::devices::virtio
