// SPDX-License-Identifier: Apache-2.0
#include "devices/virtio/pci_transport.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "base/checked.h"
#include "base/endian.h"
#include "devices/virtio/pci_function.h"

namespace haneul::devices::virtio {
namespace {

// Base class and sub-class as operating systems expect them (PCI Code and ID Assignment, appendix D).
uint32_t class_code(DeviceType type) {
  switch (type) {
    case DeviceType::kNet:
      return 0x020000;
    case DeviceType::kBlock:
      return 0x018000;
    case DeviceType::kConsole:
      return 0x078000;
    case DeviceType::kEntropy:
    case DeviceType::kBalloon:
    case DeviceType::kVsock:
      return 0xff0000;
  }
  return 0xff0000;
}

pci::Identity identity(DeviceType type) {
  auto id = static_cast<uint16_t>(type);
  return {.vendor = kPciVendor,
          .device = static_cast<uint16_t>(kPciDeviceBase + id),
          .subsystem_vendor = kPciVendor,
          .subsystem = static_cast<uint16_t>(kPciDeviceBase + id),
          .class_code = class_code(type),
          .revision = 1};
}

}  // namespace

Transport::Transport(std::unique_ptr<virtio::Device> device, std::unique_ptr<pci::Msix> msix,
                     const GuestMemory& memory, DoorbellRegistrar& doorbells, ThreadStarter& threads)
    : pci::Device(identity(device->type())),
      memory_(memory),
      doorbells_(doorbells),
      threads_(threads),
      msix_(std::move(msix)),
      device_(std::move(device)) {}

Status Transport::prepare() {
  auto sizes = device_->queue_sizes();
  CHECK(sizes.size() * kNotifyMultiplier <= kPage && device_->config_size() <= kPage);
  for (uint16_t max : sizes) {
    CHECK(std::has_single_bit(max) && max <= kMaxQueueSize);
    queues_.push_back(std::make_unique<QueueSlot>(*this, max, TRY(EventFd::create())));
  }
  add_memory_bar(kBar, kBarSize, true);
  add_msix(*msix_, kBar, kMsixTablePage, kMsixPendingPage);
  add_virtio_capability(kCapCommon, kCommonPage, common::kSize);
  add_virtio_capability(kCapIsr, kIsrPage, 1);
  if (device_->config_size() != 0) add_virtio_capability(kCapDevice, kDevicePage, device_->config_size());
  add_virtio_capability(kCapNotify, kNotifyPage, static_cast<uint32_t>(sizes.size()) * kNotifyMultiplier,
                        kNotifyMultiplier);
  // Section 4.1.4.9: bar, offset, length and the data are the driver's to write.
  std::array<std::byte, 18> body{};
  std::array<std::byte, 18> writable{};
  body[0] = std::byte{20};
  body[1] = std::byte{kCapPciAccess};
  writable[2] = std::byte{0xff};
  std::memset(&writable[6], 0xff, 12);
  access_capability_ = add_capability(0x09, body, writable);
  device_->attach(*this);
  return {};
}

// Section 4.1.4: cap_vndr, cap_next, cap_len, cfg_type, bar, id, padding, offset, length.
void Transport::add_virtio_capability(uint8_t type, uint32_t offset, uint32_t length,
                                      std::optional<uint32_t> multiplier) {
  std::array<std::byte, 18> body{};
  size_t size = multiplier ? 18 : 14;
  body[0] = static_cast<std::byte>(size + 2);
  body[1] = std::byte{type};
  body[2] = std::byte{kBar};
  store_le<uint32_t>(&body[6], offset);
  store_le<uint32_t>(&body[10], length);
  if (multiplier) store_le<uint32_t>(&body[14], *multiplier);
  add_capability(0x09, std::span(body).first(size));
}

Transport::~Transport() {
  std::lock_guard lock(mutex_);
  unbind_doorbells();
  device_->reset();
}

void Transport::warn(std::string_view what) {
  if (log_limit_.allow()) LOG_WARNING("{}: {}", device_->name(), what);
}

void Transport::interrupt(uint16_t vector, uint8_t isr_bit) {
  // Section 4.1.4.5: with MSI-X the driver does not look at ISR for queues.
  bool by_message = vector != kNoVector && msix_->enabled();
  if (!by_message || isr_bit != kIsrQueue) isr_.fetch_or(isr_bit, std::memory_order_acq_rel);
  if (by_message) msix_->trigger(vector);
}

void Transport::config_changed() {
  generation_.fetch_add(1, std::memory_order_acq_rel);
  if ((status_.load(std::memory_order_acquire) & kDriverOk) != 0) {
    interrupt(config_vector_.load(std::memory_order_relaxed), kIsrConfig);
  }
}

void Transport::needs_reset(std::string_view reason) {
  warn(reason);
  uint8_t before = status_.fetch_or(kNeedsReset, std::memory_order_acq_rel);
  // Section 2.1.2: tell a driver that runs.
  if ((before & kDriverOk) != 0 && (before & kNeedsReset) == 0) {
    interrupt(config_vector_.load(std::memory_order_relaxed), kIsrConfig);
  }
}

void Transport::bar_read(unsigned /*bar*/, uint64_t offset, std::span<std::byte> data) {
  store_bytes(data, 0);
  uint64_t at = offset % kPage;
  switch (offset - at) {
    case kCommonPage: {
      std::lock_guard lock(mutex_);
      common_read(at, data);
      break;
    }
    case kIsrPage:
      if (at == 0) store_bytes(data, isr_.exchange(0, std::memory_order_acq_rel));
      break;
    case kDevicePage: {
      std::lock_guard lock(mutex_);
      device_read(at, data);
      break;
    }
    case kMsixTablePage:
      msix_->table_read(at, data);
      break;
    case kMsixPendingPage:
      msix_->pending_read(at, data);
      break;
    default:
      break;
  }
}

void Transport::bar_write(unsigned /*bar*/, uint64_t offset, std::span<const std::byte> data) {
  uint64_t at = offset % kPage;
  switch (offset - at) {
    case kCommonPage: {
      std::lock_guard lock(mutex_);
      common_write(at, load_bytes(data), data.size());
      break;
    }
    case kDevicePage: {
      std::lock_guard lock(mutex_);
      device_write(at, data);
      break;
    }
    case kNotifyPage:
      notify_write(at);
      break;
    case kMsixTablePage:
      msix_->table_write(at, data);
      break;
    default:
      break;
  }
}

void Transport::device_read(uint64_t offset, std::span<std::byte> data) {
  uint32_t size = device_->config_size();
  if (offset >= size) return;
  auto length = std::min<uint64_t>(data.size(), size - offset);
  device_->read_config(static_cast<uint32_t>(offset), data.first(length));
}

void Transport::device_write(uint64_t offset, std::span<const std::byte> data) {
  if (!range_within(offset, data.size(), device_->config_size())) return;
  device_->write_config(static_cast<uint32_t>(offset), data);
}

// Where a doorbell is bound, the write does not come here. It does if it was made through the configuration
// space, or if the machine has no doorbell left.
void Transport::notify_write(uint64_t offset) {
  uint64_t index = offset / kNotifyMultiplier;
  if (offset % kNotifyMultiplier != 0 || index >= queues_.size()) return;
  if ((status_.load(std::memory_order_acquire) & kDriverOk) != 0) queues_[index]->doorbell.signal();
}

void Transport::on_bars_placed(const std::array<std::optional<uint64_t>, pci::kBars>& addresses) {
  std::lock_guard lock(mutex_);
  auto base = addresses[kBar];
  if (base) *base += kNotifyPage;
  if (base == notify_base_) return;
  unbind_doorbells();
  notify_base_ = base;
  if ((status_.load(std::memory_order_acquire) & kDriverOk) != 0) bind_doorbells();
}

void Transport::on_removed() {
  std::lock_guard lock(mutex_);
  unbind_doorbells();
  device_->let_go();
}

void Transport::bind_doorbells() {
  if (!notify_base_) return;
  for (size_t i = 0; i < queues_.size(); ++i) {
    QueueSlot& slot = *queues_[i];
    if (!slot.enabled) continue;
    GuestAddress address{*notify_base_ + i * kNotifyMultiplier};
    if (Status bound = doorbells_.bind(address, slot.doorbell); bound) {
      slot.bound = address;
    } else {
      warn(bound.error().message());
    }
  }
}

void Transport::unbind_doorbells() {
  for (auto& slot : queues_) {
    if (!slot->bound) continue;
    doorbells_.unbind(*slot->bound, slot->doorbell);
    slot->bound.reset();
  }
}

// Section 4.1.4.9: the data field of the capability is a window into the BAR. Whether an access touches it,
// and where it leads.
std::optional<Transport::PciAccess> Transport::pci_access(uint32_t offset, uint32_t length) const {
  uint32_t data_at = access_capability_ + 16u;
  if (offset >= data_at + 4 || offset + length <= data_at) return std::nullopt;
  std::array<std::byte, 16> fields;
  peek(access_capability_, fields);
  PciAccess access{load_le<uint32_t>(&fields[8]), load_le<uint32_t>(&fields[12])};
  bool sound =
      fields[4] == std::byte{kBar} && (access.length == 1 || access.length == 2 || access.length == 4) &&
      is_aligned(access.offset, access.length) && range_within(access.offset, access.length, kBarSize);
  if (!sound) return std::nullopt;
  return access;
}

void Transport::before_config_read(uint32_t offset, uint32_t length) {
  auto access = pci_access(offset, length);
  if (!access) return;
  std::array<std::byte, 4> data;
  auto used = std::span(data).first(access->length);
  bar_read(kBar, access->offset, used);
  poke(access_capability_ + 16u, used);
}

void Transport::after_config_write(uint32_t offset, uint32_t length) {
  auto access = pci_access(offset, length);
  if (!access) return;
  std::array<std::byte, 4> data;
  auto used = std::span(data).first(access->length);
  peek(access_capability_ + 16u, used);
  bar_write(kBar, access->offset, used);
}

Result<std::unique_ptr<pci::Device>> PciTransport::create(std::unique_ptr<Device> device,
                                                          const GuestMemory& memory,
                                                          MsiController& controller,
                                                          DoorbellRegistrar& doorbells,
                                                          ThreadStarter& io_threads) {
  auto vectors = std::min<size_t>(device->queue_sizes().size() + 1, pci::kMaxMsixVectors);
  auto msix = TRY(pci::Msix::create(static_cast<uint16_t>(vectors), controller));
  auto transport =
      std::make_unique<Transport>(std::move(device), std::move(msix), memory, doorbells, io_threads);
  TRY(transport->prepare());
  return std::unique_ptr<pci::Device>(std::move(transport));
}

}  // namespace haneul::devices::virtio
