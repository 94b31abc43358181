// SPDX-License-Identifier: Apache-2.0
// TransportTest: a machine with an EchoDevice behind virtio-pci, and its driver, started: what tests of the transport begin with.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "devices/testing/echo_device.h"
#include "devices/testing/pci_machine.h"
#include "devices/virtio/pci_format.h"

namespace haneul::devices::virtio {

using testing::EchoDevice;
using testing::EchoLog;
using testing::PciMachine;
using testing::VirtioPci;

inline std::vector<std::byte> text(std::string_view from) {
  auto data = std::as_bytes(std::span(from));
  return {data.begin(), data.end()};
}

struct TransportTest : ::testing::Test {
  TransportTest() {
    auto made = std::make_unique<EchoDevice>(log);
    echo = made.get();
    slot = machine.add(std::move(made));
    driver = std::make_unique<VirtioPci>(machine, slot);
  }

  // One request that must be answered.
  void expect_echo(uint16_t index = 0) {
    auto request = driver->queue(index).chain().readable(text("hello")).writable(5).submit();
    driver->kick(index);
    auto used = driver->wait_used(index);
    ASSERT_TRUE(used.has_value());
    EXPECT_EQ(used->head, request.head);
    EXPECT_EQ(used->written, 5u);
    EXPECT_EQ(machine.ram.read(request.buffers[1].address, 5), text("hello"));
  }
  // The device asked for a reset and told the driver once, and works again after one.
  void expect_needs_reset() {
    ASSERT_TRUE(machine.msi.wait_for(driver->data_base(), 1));
    EXPECT_EQ(driver->status() & kNeedsReset, kNeedsReset);
    EXPECT_EQ(machine.mmio<uint8_t>(driver->isr_address()) & kIsrConfig, kIsrConfig);
    driver->reset();
    driver->start();
    expect_echo();
  }
  uint32_t data(uint32_t vector) const { return driver->data_base() + vector; }

  std::shared_ptr<EchoLog> log = std::make_shared<EchoLog>();
  PciMachine machine;
  EchoDevice* echo = nullptr;
  unsigned slot = 0;
  std::unique_ptr<VirtioPci> driver;
};

}  // namespace haneul::devices::virtio
