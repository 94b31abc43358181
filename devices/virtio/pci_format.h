// SPDX-License-Identifier: Apache-2.0
// What the virtio-pci transport shows a driver (VIRTIO 1.2, section 4.1.4): capabilities and the common
// configuration's offsets, shared with the tests that play a driver.
#pragma once

#include <cstdint>

namespace haneul::devices::virtio {

inline constexpr uint16_t kPciVendor = 0x1af4;
inline constexpr uint16_t kPciDeviceBase = 0x1040;

// Section 4.1.4: cfg_type.
inline constexpr uint8_t kCapCommon = 1;
inline constexpr uint8_t kCapNotify = 2;
inline constexpr uint8_t kCapIsr = 3;
inline constexpr uint8_t kCapDevice = 4;
inline constexpr uint8_t kCapPciAccess = 5;

// Our BAR: one page for each structure.
inline constexpr unsigned kBar = 0;
inline constexpr uint32_t kPage = 0x1000;
inline constexpr uint32_t kCommonPage = 0x0000;
inline constexpr uint32_t kIsrPage = 0x1000;
inline constexpr uint32_t kDevicePage = 0x2000;
inline constexpr uint32_t kNotifyPage = 0x3000;
inline constexpr uint32_t kMsixTablePage = 0x4000;
inline constexpr uint32_t kMsixPendingPage = 0x5000;
inline constexpr uint32_t kBarSize = 0x8000;
inline constexpr uint32_t kNotifyMultiplier = 4;

// Section 4.1.4.3: the common configuration.
namespace common {
inline constexpr uint32_t kDeviceFeatureSelect = 0x00;
inline constexpr uint32_t kDeviceFeature = 0x04;
inline constexpr uint32_t kDriverFeatureSelect = 0x08;
inline constexpr uint32_t kDriverFeature = 0x0c;
inline constexpr uint32_t kConfigVector = 0x10;
inline constexpr uint32_t kNumQueues = 0x12;
inline constexpr uint32_t kStatus = 0x14;
inline constexpr uint32_t kGeneration = 0x15;
inline constexpr uint32_t kQueueSelect = 0x16;
inline constexpr uint32_t kQueueSize = 0x18;
inline constexpr uint32_t kQueueVector = 0x1a;
inline constexpr uint32_t kQueueEnable = 0x1c;
inline constexpr uint32_t kQueueNotifyOff = 0x1e;
inline constexpr uint32_t kQueueDescriptors = 0x20;
inline constexpr uint32_t kQueueAvailable = 0x28;
inline constexpr uint32_t kQueueUsed = 0x30;
inline constexpr uint32_t kSize = 0x38;
}  // namespace common

inline constexpr uint16_t kNoVector = 0xffff;

// Section 2.1: device status.
inline constexpr uint8_t kAcknowledge = 1;
inline constexpr uint8_t kDriver = 2;
inline constexpr uint8_t kDriverOk = 4;
inline constexpr uint8_t kFeaturesOk = 8;
inline constexpr uint8_t kNeedsReset = 64;
inline constexpr uint8_t kFailed = 128;

// Section 4.1.4.5: ISR status.
inline constexpr uint8_t kIsrQueue = 1;
inline constexpr uint8_t kIsrConfig = 2;

}  // namespace haneul::devices::virtio
