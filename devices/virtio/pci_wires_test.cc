// SPDX-License-Identifier: Apache-2.0
// What leads out of the transport and back in: doorbells, MSI-X messages, and the window in configuration space.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "devices/testing/echo_fixture.h"
#include "devices/virtio/pci_transport.h"
#include "devices/virtio/rng.h"

namespace haneul::devices::virtio {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

// ---- Doorbells ----

TEST_F(TransportTest, DoorbellsAreBoundWhileTheDriverRuns) {
  EXPECT_THAT(machine.doorbells.bound(), IsEmpty());
  driver->start();
  EXPECT_THAT(machine.doorbells.bound(), ElementsAre(GuestAddress{driver->doorbell_address(0)},
                                                     GuestAddress{driver->doorbell_address(1)}));
  driver->reset();
  EXPECT_THAT(machine.doorbells.bound(), IsEmpty());
}

TEST_F(TransportTest, DoorbellsFollowTheBar) {
  driver->start();
  uint64_t before = driver->doorbell_address(0);
  machine.set_config<uint32_t>(slot, 0x10, 0x00100000);
  EXPECT_EQ(driver->bar(), 0x4000100000u);
  EXPECT_THAT(machine.doorbells.bound(), ElementsAre(GuestAddress{0x4000103000}, GuestAddress{0x4000103004}));
  EXPECT_FALSE(machine.doorbells.ring(GuestAddress{before}));
  expect_echo();
}

TEST_F(TransportTest, DoorbellsGoWithMemoryDecoding) {
  driver->start();
  machine.set_config<uint16_t>(slot, 4, 4);
  EXPECT_THAT(machine.doorbells.bound(), IsEmpty());
  machine.set_config<uint16_t>(slot, 4, 6);
  EXPECT_EQ(machine.doorbells.bound().size(), 2u);
  expect_echo();
}

TEST_F(TransportTest, DoorbellsAreNotBoundOutsideTheWindows) {
  driver->start();
  machine.set_config<uint32_t>(slot, 0x14, 0);
  machine.set_config<uint32_t>(slot, 0x10, 0x00100000);  // over RAM
  EXPECT_THAT(machine.doorbells.bound(), IsEmpty());
}

// Whoever took it may keep it for a while; another device may be in its place then.
TEST_F(TransportTest, ARemovedDeviceHasNoDoorbellsWhileItIsKept) {
  driver->start();
  uint64_t doorbell = driver->doorbell_address(0);
  auto kept = machine.root.remove(slot).value();
  EXPECT_THAT(machine.doorbells.bound(), IsEmpty());
  EXPECT_FALSE(machine.doorbells.ring(GuestAddress{doorbell}));
  auto log_of_next = std::make_shared<EchoLog>();
  ASSERT_EQ(machine.plug(std::make_unique<EchoDevice>(log_of_next)), slot);
  VirtioPci next(machine, slot);
  next.start();
  EXPECT_EQ(next.doorbell_address(0), doorbell);
  next.queue(0).chain().readable(text("x")).writable(1).submit();
  ASSERT_TRUE(machine.doorbells.ring(GuestAddress{doorbell}));
  EXPECT_TRUE(next.wait_used(0).has_value());
  EXPECT_EQ(log_of_next->served, 1);
  EXPECT_EQ(log->served, 0);
}

TEST_F(TransportTest, WithoutDoorbellsNotifyingExits) {
  machine.doorbells.refuse(true);
  driver->start();
  EXPECT_THAT(machine.doorbells.bound(), IsEmpty());
  expect_echo();
}

// ---- MSI-X ----

TEST_F(TransportTest, MessagesAreTheGuests) {
  driver->start();
  expect_echo(1);
  EXPECT_EQ(machine.msi.last().address, 0xfee00000u);
  EXPECT_EQ(machine.msi.last().data, data(2));
}

TEST_F(TransportTest, MaskedVectorsWaitAndFireWhenUnmasked) {
  driver->start();
  uint64_t entry = driver->msix_table();
  machine.set_mmio<uint32_t>(entry + 12, 1);
  echo->change_config(0, std::byte{1});
  echo->change_config(0, std::byte{2});
  EXPECT_EQ(driver->config_interrupts(), 0);
  EXPECT_EQ(machine.mmio<uint64_t>(driver->msix_pending()), 1u);
  EXPECT_EQ(machine.mmio<uint32_t>(driver->msix_pending() + 4), 0u);
  machine.set_mmio<uint32_t>(entry + 12, 0);
  EXPECT_EQ(driver->config_interrupts(), 1) << "once, however often it waited";
  EXPECT_EQ(machine.mmio<uint64_t>(driver->msix_pending()), 0u);
}

TEST_F(TransportTest, FunctionMaskHoldsAllVectors) {
  driver->start();
  machine.set_config<uint16_t>(slot, driver->msix_capability() + 2, 0xc000);
  echo->change_config(0, std::byte{1});
  EXPECT_EQ(driver->config_interrupts(), 0);
  EXPECT_EQ(machine.mmio<uint64_t>(driver->msix_pending()), 1u);
  machine.set_config<uint16_t>(slot, driver->msix_capability() + 2, 0x8000);
  EXPECT_EQ(driver->config_interrupts(), 1);
}

TEST_F(TransportTest, AMaskedVectorWaitsForBothMasks) {
  driver->start();
  uint32_t control = driver->msix_capability() + 2;
  machine.set_mmio<uint32_t>(driver->msix_table() + 12, 1);
  machine.set_config<uint16_t>(slot, control, 0xc000);
  echo->change_config(0, std::byte{1});
  machine.set_config<uint16_t>(slot, control, 0x8000);
  EXPECT_EQ(driver->config_interrupts(), 0);
  machine.set_mmio<uint32_t>(driver->msix_table() + 12, 0);
  EXPECT_EQ(driver->config_interrupts(), 1);
}

TEST_F(TransportTest, AChangedMessageIsUsedAfterTheUnmask) {
  driver->start();
  echo->change_config(0, std::byte{1});
  uint64_t entry = driver->msix_table();
  machine.set_mmio<uint32_t>(entry + 12, 1);
  machine.set_mmio<uint32_t>(entry + 8, 0x4242);
  machine.set_mmio<uint64_t>(entry, 0x1fee01003);
  echo->change_config(0, std::byte{2});
  machine.set_mmio<uint32_t>(entry + 12, 0);
  EXPECT_EQ(machine.msi.fired(0x4242), 1);
  EXPECT_EQ(machine.msi.last().address, 0x1fee01000u) << "messages are dwords";
  EXPECT_EQ(machine.mmio<uint64_t>(entry + 8), 0x4242u);
}

TEST_F(TransportTest, WithMsixOffNothingFiresOrWaits) {
  driver->start();
  uint32_t control = driver->msix_capability() + 2;
  machine.set_config<uint16_t>(slot, control, 0);
  echo->change_config(0, std::byte{1});
  machine.set_config<uint16_t>(slot, control, 0x8000);
  EXPECT_EQ(driver->config_interrupts(), 0);
}

TEST_F(TransportTest, ResetForgetsPendingInterrupts) {
  driver->start();
  machine.set_mmio<uint32_t>(driver->msix_table() + 12, 1);
  echo->change_config(0, std::byte{1});
  driver->reset();
  machine.set_mmio<uint32_t>(driver->msix_table() + 12, 0);
  EXPECT_EQ(driver->config_interrupts(), 0);
}

TEST_F(TransportTest, MsixTableTakesWholeDwordsOnly) {
  uint64_t entry = driver->msix_table();
  machine.set_mmio<uint64_t>(entry, 0x1122334455667788);
  machine.set_mmio<uint64_t>(entry + 8, 0x00000000deadbeef);
  machine.set_mmio<uint8_t>(entry, 0xff);
  machine.set_mmio<uint16_t>(entry + 2, 0xffff);
  machine.set_mmio<uint32_t>(entry + 1, 0xffffffff);
  machine.set_mmio<uint64_t>(entry + 4, ~0ull);
  EXPECT_EQ(machine.mmio<uint64_t>(entry), 0x1122334455667788u);
  EXPECT_EQ(machine.mmio<uint64_t>(entry + 8), 0xdeadbeefu);
  EXPECT_EQ(machine.mmio<uint16_t>(entry), 0u);
  uint64_t beyond = driver->msix_table() + 3 * 16;
  machine.set_mmio<uint32_t>(beyond, 1);
  EXPECT_EQ(machine.mmio<uint32_t>(beyond), 0u);
  EXPECT_EQ(machine.mmio<uint64_t>(driver->msix_pending() + 8), 0u);
}

TEST_F(TransportTest, TableSizeIsWhatItSays) {
  EXPECT_EQ(machine.config<uint16_t>(slot, driver->msix_capability() + 2) & 0x7ff, 2u);
  machine.set_config<uint16_t>(slot, driver->msix_capability() + 2, 0x07ff);
  EXPECT_EQ(machine.config<uint16_t>(slot, driver->msix_capability() + 2), 2u);
}

TEST(TransportVectors, TooFewIsAnErrorAndGivesThemBack) {
  PciMachine machine(2);
  auto function = PciTransport::create(std::make_unique<EchoDevice>(), machine.ram.memory(), machine.msi,
                                       machine.doorbells, machine.threads);
  EXPECT_EQ(function.error().message(), "MSI-X vector: no vector is left");
  EXPECT_EQ(machine.msi.free_vectors(), 2u);
}

// ---- Access through the configuration space (section 4.1.4.9) ----

struct PciAccess : TransportTest {
  uint32_t at() const { return driver->access_capability(); }
  void aim(uint8_t bar, uint32_t offset, uint32_t length) {
    machine.set_config<uint8_t>(slot, at() + 4, bar);
    machine.set_config<uint32_t>(slot, at() + 8, offset);
    machine.set_config<uint32_t>(slot, at() + 12, length);
  }
};

TEST_F(PciAccess, ReadsAndWritesTheBar) {
  aim(0, common::kNumQueues, 2);
  EXPECT_EQ(machine.config<uint16_t>(slot, at() + 16), 2u);
  aim(0, common::kQueueSelect, 2);
  machine.set_config<uint16_t>(slot, at() + 16, 1);
  EXPECT_EQ(driver->common<uint16_t>(common::kQueueSelect), 1);
  aim(0, common::kStatus, 1);
  machine.set_config<uint8_t>(slot, at() + 16, kAcknowledge);
  EXPECT_EQ(driver->status(), kAcknowledge);
}

TEST_F(PciAccess, RingsADoorbell) {
  driver->start();
  driver->queue(1).chain().readable(text("x")).writable(1).submit();
  aim(0, kNotifyPage + 4, 2);
  machine.set_config<uint16_t>(slot, at() + 16, 1);
  EXPECT_TRUE(driver->wait_used(1).has_value());
}

TEST_F(PciAccess, BadWindowsLeadNowhere) {
  machine.set_config<uint32_t>(slot, at() + 16, 0x12345678);
  for (auto [bar, offset, length] : {std::tuple{1u, common::kStatus, 1u},
                                     {0u, common::kNumQueues, 0u},
                                     {0u, common::kNumQueues, 3u},
                                     {0u, common::kNumQueues + 1, 2u},
                                     {0u, 0u, 8u},
                                     {0u, kBarSize, 4u},
                                     {0u, 0xfffffffcu, 4u},
                                     {0u, kBarSize - 1, 4u},
                                     {0xffu, 0u, 0xffffffffu}}) {
    aim(static_cast<uint8_t>(bar), offset, length);
    EXPECT_EQ(machine.config<uint32_t>(slot, at() + 16), 0x12345678u);
  }
}

TEST_F(PciAccess, WorksWithMemoryDecodingOff) {
  machine.set_config<uint16_t>(slot, 4, 0);
  aim(0, common::kNumQueues, 2);
  EXPECT_EQ(machine.config<uint16_t>(slot, at() + 16), 2u);
}

}  // namespace
}  // namespace haneul::devices::virtio
