// SPDX-License-Identifier: Apache-2.0
#include "devices/acpi_events.h"

#include <gtest/gtest.h>

#include <optional>
#include <vector>

#include "base/endian.h"
#include "devices/testing/fakes.h"

namespace haneul::devices::acpi {
namespace {

template <typename T>
T get(BusDevice& device, uint64_t offset) {
  std::byte bytes[sizeof(T)];
  device.read(offset, bytes);
  return load_le<T>(bytes);
}

template <typename T>
void put(BusDevice& device, uint64_t offset, T value) {
  std::byte bytes[sizeof(T)];
  store_le<T>(bytes, value);
  device.write(offset, bytes);
}

TEST(EventDevice, ReadingTakesTheEvents) {
  testing::CountingInterrupt interrupt;
  EventDevice device(interrupt);
  EXPECT_EQ(get<uint32_t>(device, 0), 0u);
  device.raise(kPowerButton);
  device.raise(kPciHotplug);
  EXPECT_EQ(interrupt.count(), 2);
  EXPECT_EQ(get<uint32_t>(device, 0), kPowerButton | kPciHotplug);
  EXPECT_EQ(get<uint32_t>(device, 0), 0u);
}

TEST(EventDevice, OddAccessesTakeNothing) {
  testing::CountingInterrupt interrupt;
  EventDevice device(interrupt);
  device.raise(kPowerButton);
  EXPECT_EQ(get<uint8_t>(device, 0), 0u);
  EXPECT_EQ(get<uint64_t>(device, 0), 0u);
  EXPECT_EQ(get<uint32_t>(device, 1), 0u);
  put<uint32_t>(device, 0, 0xffffffff);
  EXPECT_EQ(get<uint32_t>(device, 0), kPowerButton);
}

TEST(PowerRegisters, SoftOffAndReset) {
  std::vector<PowerAction> actions;
  PowerRegisters registers([&](PowerAction action) { actions.push_back(action); });
  EXPECT_EQ(get<uint8_t>(registers, PowerRegisters::kSleepStatus), 0u);
  put<uint8_t>(registers, PowerRegisters::kSleepControl, (5 << 2) | (1 << 5));
  ASSERT_EQ(actions.size(), 1u);
  EXPECT_EQ(actions[0], PowerAction::kPowerOff);
  put<uint8_t>(registers, PowerRegisters::kReset, 1);
  ASSERT_EQ(actions.size(), 2u);
  EXPECT_EQ(actions[1], PowerAction::kReset);
}

TEST(PowerRegisters, NothingElseActs) {
  PowerRegisters registers([&](PowerAction) { FAIL(); });
  put<uint8_t>(registers, PowerRegisters::kSleepControl, 5 << 2);               // not enabled
  put<uint8_t>(registers, PowerRegisters::kSleepControl, (3 << 2) | (1 << 5));  // another state
  put<uint8_t>(registers, PowerRegisters::kReset, 2);
  put<uint32_t>(registers, PowerRegisters::kReset, 1);
  put<uint16_t>(registers, PowerRegisters::kSleepControl, 0x34);
  put<uint8_t>(registers, 0xf, 1);
}

}  // namespace
}  // namespace haneul::devices::acpi
