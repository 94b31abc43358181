// SPDX-License-Identifier: Apache-2.0
#include "devices/virtio/pci_transport.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sys/socket.h>

#include <thread>

#include "base/socket.h"
#include "devices/testing/echo_fixture.h"
#include "devices/virtio/block.h"
#include "devices/virtio/net.h"
#include "devices/virtio/pci_format.h"
#include "devices/virtio/rng.h"
#include "storage/testing/held_backend.h"

namespace haneul::devices::virtio {
namespace {

using testing::DriverQueue;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

TEST_F(TransportTest, IdentityIsAModernDevice) {
  EXPECT_EQ(machine.config<uint32_t>(slot, 0), 0x10441af4u);
  EXPECT_EQ(machine.config<uint32_t>(slot, 8), 0xff000001u);
  EXPECT_EQ(machine.config<uint32_t>(slot, 0x10) & 0xf, 0x4u) << "a 64-bit memory BAR";
  EXPECT_EQ(driver->queue_count(), 2u);
}

TEST_F(TransportTest, CarriesRequestsOnAllQueues) {
  driver->start();
  EXPECT_EQ(driver->status(), kAcknowledge | kDriver | kFeaturesOk | kDriverOk);
  for (int i = 0; i < 100; ++i) {
    expect_echo(0);
    expect_echo(1);
  }
  EXPECT_EQ(machine.msi.fired(data(0)), 0);
  EXPECT_EQ(log->served, 200);
}

TEST_F(TransportTest, FeaturesAreNegotiated) {
  uint64_t offered = driver->device_features();
  EXPECT_EQ(offered, EchoDevice::kFeatureA | EchoDevice::kFeatureB | EchoDevice::kFeatureHigh |
                         kFeatureVersion1 | kFeatureEventIdx | kFeatureIndirectDesc);
  driver->set_common<uint32_t>(common::kDeviceFeatureSelect, 2);
  EXPECT_EQ(driver->common<uint32_t>(common::kDeviceFeature), 0u);
  driver->set_common<uint32_t>(common::kDeviceFeatureSelect, 0xffffffff);
  EXPECT_EQ(driver->common<uint32_t>(common::kDeviceFeature), 0u);
  driver->start(kFeatureVersion1 | EchoDevice::kFeatureA | EchoDevice::kFeatureHigh);
  EXPECT_EQ(log->features, kFeatureVersion1 | EchoDevice::kFeatureA | EchoDevice::kFeatureHigh);
}

TEST_F(TransportTest, FeaturesOkIsRefused) {
  EXPECT_FALSE(driver->negotiate(EchoDevice::kFeatureA)) << "without VERSION_1";
  driver->reset();
  EXPECT_FALSE(driver->negotiate(kFeatureVersion1 | EchoDevice::kFeatureB)) << "the device refuses";
  driver->reset();
  driver->set_common<uint32_t>(common::kDriverFeatureSelect, 0);
  driver->set_common<uint32_t>(common::kDriverFeature, 1u << 5);
  driver->set_common<uint32_t>(common::kDriverFeatureSelect, 1);
  driver->set_common<uint32_t>(common::kDriverFeature, 1u);
  driver->set_common<uint8_t>(common::kStatus, kAcknowledge | kDriver | kFeaturesOk);
  EXPECT_EQ(driver->status(), kAcknowledge | kDriver) << "a feature that was not offered";
}

TEST_F(TransportTest, FeaturesCannotChangeAfterFeaturesOk) {
  ASSERT_TRUE(driver->negotiate());
  driver->set_common<uint32_t>(common::kDriverFeatureSelect, 1);
  uint32_t before = driver->common<uint32_t>(common::kDriverFeature);
  driver->set_common<uint32_t>(common::kDriverFeature, 0xffffffff);
  EXPECT_EQ(driver->common<uint32_t>(common::kDriverFeature), before);
}

TEST_F(TransportTest, StatusBitsAreOnlyClearedAllAtOnce) {
  ASSERT_TRUE(driver->negotiate());
  driver->set_common<uint8_t>(common::kStatus, kAcknowledge);
  EXPECT_EQ(driver->status(), kAcknowledge | kDriver | kFeaturesOk);
  driver->set_common<uint8_t>(common::kStatus, kFailed);
  EXPECT_EQ(driver->status(), kAcknowledge | kDriver | kFeaturesOk | kFailed);
  driver->set_common<uint8_t>(common::kStatus, kNeedsReset);
  EXPECT_EQ(driver->status() & kNeedsReset, 0) << "not the driver's to set";
  driver->reset();
}

TEST_F(TransportTest, DriverOkBeforeFeaturesOkNeedsAReset) {
  driver->set_common<uint8_t>(common::kStatus, kAcknowledge | kDriver | kDriverOk);
  EXPECT_EQ(driver->status(), kAcknowledge | kDriver | kNeedsReset);
  EXPECT_EQ(log->activations, 0);
}

TEST_F(TransportTest, ADeviceWithoutAThreadNeedsAReset) {
  auto [backend, control] = storage::testing::make_held_backend(1 << 20);
  std::vector<std::unique_ptr<Device>> devices;
  devices.push_back(make_rng().value());
  devices.push_back(make_block({.id = "vol-1", .queues = 1, .read_only = false}, std::move(backend)).value());
  auto wire = socket_pair(SOCK_DGRAM).value();
  NetOptions options;
  options.mac = {2, 0, 0, 0, 0, 1};
  options.is_tap = false;
  devices.push_back(make_net(options, std::move(wire.first)).value());
  for (auto& device : devices) {
    std::string name(device->name());
    VirtioPci of_device(machine, machine.add(std::move(device)));
    machine.threads.refuse = true;
    ::testing::internal::CaptureStderr();
    of_device.start();
    EXPECT_THAT(::testing::internal::GetCapturedStderr(),
                ::testing::MatchesRegex(".* warn " + name + ": no thread is left for '.*'\n"));
    EXPECT_EQ(of_device.status() & kNeedsReset, kNeedsReset) << name;
    EXPECT_EQ(of_device.config_interrupts(), 1) << name;
    EXPECT_FALSE(machine.doorbells.ring({of_device.doorbell_address(0)})) << name;
    machine.threads.refuse = false;
    of_device.reset();
    of_device.start();
    EXPECT_EQ(of_device.status() & (kNeedsReset | kDriverOk), kDriverOk) << name;
    of_device.reset();
  }
}

TEST_F(TransportTest, DriverOkTwiceActivatesOnce) {
  driver->start();
  driver->set_common<uint8_t>(common::kStatus, 0xff & ~kNeedsReset);
  EXPECT_EQ(log->activations, 1);
  expect_echo();
}

TEST_F(TransportTest, ADeviceThatCannotStartNeedsAReset) {
  echo->refuse = true;
  driver->start();
  EXPECT_EQ(driver->status() & kNeedsReset, kNeedsReset);
  EXPECT_THAT(machine.doorbells.bound(), IsEmpty());
  echo->refuse = false;
  driver->reset();
  driver->start();
  expect_echo();
}

TEST_F(TransportTest, ResetForgetsEverything) {
  driver->start();
  expect_echo();
  driver->reset();
  EXPECT_FALSE(log->running);
  EXPECT_THAT(machine.doorbells.bound(), IsEmpty());
  EXPECT_EQ(driver->common<uint16_t>(common::kQueueEnable), 0);
  EXPECT_EQ(driver->common<uint16_t>(common::kQueueSize), 64);
  EXPECT_EQ(driver->common<uint64_t>(common::kQueueDescriptors), 0u);
  EXPECT_EQ(driver->common<uint16_t>(common::kQueueVector), kNoVector);
  EXPECT_EQ(driver->common<uint16_t>(common::kConfigVector), kNoVector);
  driver->start();
  expect_echo();
}

TEST_F(TransportTest, ResetDuringIo) {
  uint64_t mark = machine.ram.mark();
  const std::vector<std::byte> pattern(64, std::byte{0x5a});
  for (int i = 0; i < 50; ++i) {
    driver->start();
    std::vector<testing::Request> requests;
    for (int n = 0; n < 8; ++n) {
      requests.push_back(driver->queue(0).chain().readable(text("ping")).writable(64).submit());
    }
    driver->kick(0);
    driver->reset();
    // The guest's kernel has its memory back: nothing of ours writes to it any more.
    uint16_t used = driver->queue(0).used_index();
    for (auto& request : requests) machine.ram.write(request.buffers[1].address, pattern);
    driver->kick(0);
    for (auto& request : requests) EXPECT_EQ(machine.ram.read(request.buffers[1].address, 64), pattern);
    EXPECT_EQ(driver->queue(0).used_index(), used);
    machine.ram.rewind(mark);
  }
  driver->start();
  expect_echo();
}

TEST_F(TransportTest, ResetWithRequestsHeldByTheDevice) {
  driver->start();
  log->hold = true;
  driver->queue(0).chain().writable(8).submit();
  driver->kick(0);
  driver->reset();
  log->hold = false;
  driver->start();
  expect_echo();
}

TEST_F(TransportTest, QueuesNotEnabledAreLeftOut) {
  ASSERT_TRUE(driver->negotiate());
  driver->enable_msix();
  driver->make_queue(1);
  driver->driver_ok();
  EXPECT_EQ(machine.doorbells.bound().size(), 1u);
  driver->kick(0);
  expect_echo(1);
}

// ---- Registers ----

TEST_F(TransportTest, QueueSelectOutOfRangeShowsNoQueue) {
  for (auto select : std::to_array<uint16_t>({2, 0x7fff, 0xffff})) {
    driver->set_common<uint16_t>(common::kQueueSelect, select);
    EXPECT_EQ(driver->common<uint16_t>(common::kQueueSelect), select);
    EXPECT_EQ(driver->common<uint16_t>(common::kQueueSize), 0);
    driver->set_common<uint16_t>(common::kQueueSize, 8);
    driver->set_common<uint16_t>(common::kQueueEnable, 1);
    driver->set_common<uint64_t>(common::kQueueUsed, 8);
    driver->set_common<uint16_t>(common::kQueueVector, 0);
    EXPECT_EQ(driver->common<uint16_t>(common::kQueueEnable), 0);
    EXPECT_EQ(driver->common<uint64_t>(common::kQueueUsed), 0u);
  }
}

TEST_F(TransportTest, VectorsOutOfRangeReadBackAsNone) {
  driver->set_common<uint16_t>(common::kConfigVector, 2);
  EXPECT_EQ(driver->common<uint16_t>(common::kConfigVector), 2);
  driver->set_common<uint16_t>(common::kConfigVector, 3);
  EXPECT_EQ(driver->common<uint16_t>(common::kConfigVector), kNoVector);
  driver->set_common<uint16_t>(common::kQueueVector, 0xfffe);
  EXPECT_EQ(driver->common<uint16_t>(common::kQueueVector), kNoVector);
}

TEST_F(TransportTest, AddressesAreWrittenInHalvesOrWhole) {
  driver->set_common<uint64_t>(common::kQueueDescriptors, 0x1122334455667788);
  EXPECT_EQ(driver->common<uint32_t>(common::kQueueDescriptors), 0x55667788u);
  EXPECT_EQ(driver->common<uint32_t>(common::kQueueDescriptors + 4), 0x11223344u);
  driver->set_common<uint32_t>(common::kQueueDescriptors + 4, 0xaabbccdd);
  driver->set_common<uint32_t>(common::kQueueDescriptors, 0x01020304);
  EXPECT_EQ(driver->common<uint64_t>(common::kQueueDescriptors), 0xaabbccdd01020304u);
}

TEST_F(TransportTest, OddAccessWidthsAndOffsets) {
  driver->start();
  uint64_t bar = driver->bar();
  // Writes that match no field change nothing; reads of any shape show the bytes that are there.
  for (uint64_t offset = 0; offset < 0x80; ++offset) {
    if (offset == common::kStatus) continue;  // one byte is its width
    machine.set_mmio<uint8_t>(bar + offset, 0xff);
  }
  machine.set_mmio<uint64_t>(bar + common::kStatus, 0);
  machine.set_mmio<uint32_t>(bar + common::kStatus, 0);
  machine.set_mmio<uint16_t>(bar + common::kStatus, 0);
  machine.set_mmio<uint32_t>(bar + common::kStatus - 1, 0);
  EXPECT_EQ(driver->status(), kAcknowledge | kDriver | kFeaturesOk | kDriverOk);
  EXPECT_EQ(machine.mmio<uint8_t>(bar + common::kNumQueues + 1), 0);
  EXPECT_EQ(machine.mmio<uint32_t>(bar + common::kNumQueues) & 0xffffff, 0x0f0002u);
  EXPECT_EQ(machine.mmio<uint64_t>(bar + common::kSize - 4), 0u) << "over the end";
  EXPECT_EQ(machine.mmio<uint64_t>(bar + 0xffc), 0u) << "over the page";
  EXPECT_EQ(machine.mmio<uint64_t>(bar + kNotifyPage), 0u);
  EXPECT_EQ(machine.mmio<uint32_t>(bar + 0x7ffc), 0u) << "a page with nothing in it";
  machine.set_mmio<uint32_t>(bar + 0x6000, 1);
  machine.set_mmio<uint8_t>(bar + kIsrPage, 1);
  machine.set_mmio<uint64_t>(bar + kMsixPendingPage, ~0ull);
  EXPECT_EQ(machine.mmio<uint64_t>(driver->msix_pending()), 0u) << "the pending bits are read-only";
  expect_echo();
}

TEST_F(TransportTest, DeviceConfigurationIsBounded) {
  uint64_t config = driver->device_address();
  machine.set_mmio<uint64_t>(config, 0x0807060504030201);
  machine.set_mmio<uint16_t>(config + 8, 0x0a09);
  EXPECT_EQ(machine.mmio<uint64_t>(config + 1), 0x0908070605040302u);
  EXPECT_EQ(machine.mmio<uint64_t>(config + 4), 0x00000a0908070605u) << "zero beyond its 10 bytes";
  EXPECT_EQ(machine.mmio<uint32_t>(config + 10), 0u);
  machine.set_mmio<uint32_t>(config + 8, 0xffffffff);
  machine.set_mmio<uint32_t>(config + 10, 0xffffffff);
  EXPECT_EQ(machine.mmio<uint16_t>(config + 8), 0x0a09) << "a write over the end is swallowed";
}

TEST_F(TransportTest, ConfigChangesHaveAGenerationAndAnInterrupt) {
  uint8_t before = driver->common<uint8_t>(common::kGeneration);
  echo->change_config(0, std::byte{1});
  EXPECT_EQ(driver->common<uint8_t>(common::kGeneration), static_cast<uint8_t>(before + 1));
  EXPECT_EQ(driver->config_interrupts(), 0) << "no driver yet";
  driver->start();
  echo->change_config(0, std::byte{2});
  EXPECT_EQ(driver->common<uint8_t>(common::kGeneration), static_cast<uint8_t>(before + 2));
  EXPECT_EQ(driver->config_interrupts(), 1);
  EXPECT_EQ(machine.mmio<uint8_t>(driver->isr_address()), kIsrConfig);
  EXPECT_EQ(machine.mmio<uint8_t>(driver->isr_address()), 0) << "reading clears";
}

TEST_F(TransportTest, WithoutMsixTheIsrTells) {
  ASSERT_TRUE(driver->negotiate());
  for (uint16_t i = 0; i < 2; ++i) driver->make_queue(i);
  driver->driver_ok();
  driver->queue(0).chain().writable(1).submit();
  driver->kick(0);
  for (int i = 0; i < 10000 && log->served == 0; ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  driver->reset();  // ends the thread, and clears the ISR
  EXPECT_EQ(machine.mmio<uint8_t>(driver->isr_address()), 0);
}

// ---- Hostile drivers ----

TEST_F(TransportTest, QueueRegistersRewrittenAfterEnableAndDriverOkAreIgnored) {
  driver->start();
  const QueueLayout& layout = driver->queue(0).layout();
  QueueLayout other = layout;
  other.size = 4;
  other.descriptors.value = other.available.value = other.used.value = 0xfee00000;
  driver->place_queue(other);
  driver->set_common<uint16_t>(common::kQueueEnable, 1);
  driver->set_common<uint16_t>(common::kQueueEnable, 0);
  EXPECT_EQ(driver->common<uint64_t>(common::kQueueDescriptors), layout.descriptors.value);
  EXPECT_EQ(driver->common<uint64_t>(common::kQueueAvailable), layout.available.value);
  EXPECT_EQ(driver->common<uint64_t>(common::kQueueUsed), layout.used.value);
  EXPECT_EQ(driver->common<uint16_t>(common::kQueueSize), layout.size);
  EXPECT_EQ(driver->common<uint16_t>(common::kQueueEnable), 1);
  expect_echo();
}

TEST_F(TransportTest, QueueEnabledAtTheWrongTimeIsIgnored) {
  DriverQueue early(machine.ram, {});
  driver->place_queue(early.layout());
  driver->set_common<uint16_t>(common::kQueueEnable, 1);
  EXPECT_EQ(driver->common<uint16_t>(common::kQueueEnable), 0) << "before FEATURES_OK";
  ASSERT_TRUE(driver->negotiate());
  driver->enable_msix();
  driver->make_queue(0);
  driver->driver_ok();
  driver->make_queue(1);
  EXPECT_EQ(driver->common<uint16_t>(common::kQueueEnable), 0) << "after DRIVER_OK";
  expect_echo();
}

struct BadQueue {
  const char* name;
  void (*spoil)(QueueLayout&);
};

struct BadQueues : TransportTest, ::testing::WithParamInterface<BadQueue> {};

TEST_P(BadQueues, NeedsAReset) {
  ASSERT_TRUE(driver->negotiate());
  QueueLayout layout = DriverQueue(machine.ram, {}).layout();
  GetParam().spoil(layout);
  driver->place_queue(layout);
  driver->set_common<uint16_t>(common::kQueueEnable, 1);
  EXPECT_EQ(driver->common<uint16_t>(common::kQueueEnable), 0);
  EXPECT_EQ(driver->status() & kNeedsReset, kNeedsReset);
  driver->driver_ok();
  EXPECT_EQ(log->activations, 0);
  driver->reset();
  driver->start();
  expect_echo();
}

INSTANTIATE_TEST_SUITE_P(
    All, BadQueues,
    ::testing::Values(BadQueue{"SizeZero", [](QueueLayout& q) { q.size = 0; }},
                      BadQueue{"SizeNotAPowerOfTwo", [](QueueLayout& q) { q.size = 12; }},
                      BadQueue{"SizeAboveTheMaximum", [](QueueLayout& q) { q.size = 128; }},
                      BadQueue{"SizeHuge", [](QueueLayout& q) { q.size = 0x8000; }},
                      BadQueue{"DescriptorsMisaligned", [](QueueLayout& q) { q.descriptors.value += 4; }},
                      BadQueue{"AvailableMisaligned", [](QueueLayout& q) { q.available.value += 1; }},
                      BadQueue{"UsedMisaligned", [](QueueLayout& q) { q.used.value += 2; }},
                      BadQueue{"DescriptorsNowhere", [](QueueLayout& q) { q.descriptors.value = 0; }},
                      BadQueue{"UsedAtDeviceRegisters", [](QueueLayout& q) { q.used.value = 0x4000000000; }},
                      BadQueue{"UsedAtEcam", [](QueueLayout& q) { q.used.value = 0xe0000000; }},
                      BadQueue{"AvailableOverTheEnd", [](QueueLayout& q) { q.available.value = 17_MiB - 4; }},
                      BadQueue{"DescriptorsWrap", [](QueueLayout& q) { q.descriptors.value = ~15ull; }}),
    [](const auto& param) { return param.param.name; });

TEST_F(TransportTest, NotifyOutOfRangeRingsNothing) {
  driver->start();
  uint64_t notify = driver->bar() + kNotifyPage;
  for (uint64_t offset : {8u, 0x100u, 0xffcu, 2u, 1u}) machine.set_mmio<uint16_t>(notify + offset, 0xffff);
  machine.set_mmio<uint64_t>(notify, ~0ull);
  expect_echo();
}

TEST_F(TransportTest, NotifyBeforeDriverOkRingsNothing) {
  ASSERT_TRUE(driver->negotiate());
  driver->make_queue(0);
  driver->kick(0);
  EXPECT_EQ(log->activations, 0);
}

TEST_F(TransportTest, AViolationIsLatchedAndAResetHeals) {
  driver->start();
  driver->queue(0).offer(0xffff);
  driver->kick(0);
  expect_needs_reset();
}

TEST_F(TransportTest, ManyViolationsInterruptOnce) {
  driver->start();
  driver->queue(0).offer(0xffff);
  driver->queue(1).set_available_index(0x4000);
  driver->kick(0);
  driver->kick(1);
  ASSERT_TRUE(machine.msi.wait_for(data(0), 1));
  for (int i = 0; i < 100; ++i) driver->kick(0);
  driver->reset();
  EXPECT_EQ(driver->config_interrupts(), 1);
}

TEST_F(TransportTest, ManyViolationsLogOneLine) {
  ::testing::internal::CaptureStderr();
  for (int i = 0; i < 20; ++i) {
    driver->start();
    driver->queue(0).offer(0xffff);
    driver->kick(0);
    ASSERT_TRUE(machine.msi.wait_for(data(0), i + 1));
    driver->reset();
  }
  EXPECT_THAT(::testing::internal::GetCapturedStderr(),
              ::testing::MatchesRegex("[^\n]* warn echo: queue 0: [^\n]*65535[^\n]*\n"));
}

TEST_F(TransportTest, OtherDevicesRunOnBesideABrokenOne) {
  unsigned second = machine.add(std::make_unique<EchoDevice>());
  VirtioPci other(machine, second);
  other.start();
  driver->start();
  driver->queue(0).chain().readable_at(GuestAddress{0xfee00000}, 4).submit();
  driver->kick(0);
  ASSERT_TRUE(machine.msi.wait_for(data(0), 1));
  other.queue(0).chain().readable(text("x")).writable(1).submit();
  other.kick(0);
  EXPECT_TRUE(other.wait_used(0).has_value());
  EXPECT_EQ(other.status() & kNeedsReset, 0);
}

TEST_F(TransportTest, DmaAimedAtDeviceRegistersIsAViolation) {
  driver->start();
  // The device's own notification page: a write there would ring its doorbell from its own thread.
  driver->queue(0).chain().writable_at(GuestAddress{driver->bar() + kNotifyPage}, 4).submit();
  driver->kick(0);
  expect_needs_reset();
}

// ---- Hot-unplug ----

TEST_F(TransportTest, ForcedRemovalWhileTheGuestUsesTheDevice) {
  driver->start();
  std::atomic<bool> stop = false;
  uint64_t bar = driver->bar();
  std::thread vcpu([&] {
    while (!stop) {
      machine.set_mmio<uint16_t>(bar + kNotifyPage, 0);
      machine.mmio<uint8_t>(bar + common::kStatus);
      machine.mmio<uint32_t>(PciMachine::config_address(slot, 0));
    }
  });
  for (int i = 0; i < 16; ++i) driver->queue(0).chain().writable(4096).submit();
  driver->kick(0);
  auto device = machine.root.remove(slot).value();
  device.reset();
  EXPECT_TRUE(log->destroyed);
  EXPECT_FALSE(log->running);
  EXPECT_THAT(machine.doorbells.bound(), IsEmpty());
  EXPECT_EQ(machine.msi.free_vectors(), 1024u);
  stop = true;
  vcpu.join();
}

TEST_F(TransportTest, EjectFromAVcpuWhileAnotherResetsTheDevice) {
  for (int i = 0; i < 30; ++i) {
    unsigned hot = machine.plug(std::make_unique<EchoDevice>());
    VirtioPci plugged(machine, hot);
    plugged.start();
    std::thread vcpu(
        [&, address = plugged.bar() + common::kStatus] { machine.set_mmio<uint8_t>(address, 0); });
    machine.root.request_unplug(hot).value();
    machine.set_mmio<uint32_t>(PciMachine::kHotplugBase + 8, 1u << hot);
    EXPECT_EQ(machine.config<uint16_t>(hot, 0), 0xffff);
    vcpu.join();
  }
  EXPECT_THAT(machine.doorbells.bound(), IsEmpty());
}

// ---- Several vCPUs ----

TEST_F(TransportTest, EverybodyAtOnce) {
  driver->start();
  std::atomic<bool> stop = false;
  std::vector<std::thread> vcpus;
  uint64_t bar = driver->bar();
  vcpus.emplace_back([&] {
    for (uint32_t i = 0; !stop; ++i) {
      machine.set_config<uint16_t>(slot, 4, i % 2 != 0 ? 6 : 4);
      machine.set_config<uint16_t>(slot, driver->msix_capability() + 2, i % 3 != 0 ? 0x8000 : 0xc000);
    }
  });
  vcpus.emplace_back([&] {
    for (uint32_t i = 0; !stop; ++i) {
      machine.set_mmio<uint32_t>(bar + kMsixTablePage + 16 + 12, i & 1);
      machine.set_mmio<uint16_t>(bar + common::kQueueVector, static_cast<uint16_t>(i % 4));
      machine.mmio<uint8_t>(bar + kIsrPage);
      machine.mmio<uint64_t>(bar + kMsixPendingPage);
    }
  });
  vcpus.emplace_back([&] {
    while (!stop) echo->change_config(1, std::byte{3});
  });
  for (int i = 0; i < 300; ++i) {
    if (driver->queue(0).free_descriptors() >= 2)
      driver->queue(0).chain().readable(text("a")).writable(1).submit();
    machine.set_mmio<uint16_t>(bar + kNotifyPage, 0);
    while (driver->queue(0).take_used()) {
    }
    if (i % 100 == 50) machine.set_mmio<uint8_t>(bar + common::kStatus, 0);
  }
  stop = true;
  for (auto& vcpu : vcpus) vcpu.join();
  machine.set_config<uint16_t>(slot, 4, 6);
  driver->reset();
  driver->start();
  expect_echo();
}

}  // namespace
}  // namespace haneul::devices::virtio
