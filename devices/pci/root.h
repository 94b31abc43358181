// SPDX-License-Identifier: Apache-2.0
// pci::Root: bus 0 with a host bridge in slot 0 and devices in slots 1 to 31: configuration space through
// ECAM (PCI Express 5.0, section 7.2.2), the windows where BARs live, hot-plug and unplug.
//
// The root claims its three ranges on the machine's bus once and finds the BAR by itself, so that a guest
// that moves a BAR changes nothing there.
//
// Threads: all methods are thread-safe. vCPU threads come through the bus; plugging comes from the control
// thread. An access takes the root's lock only to find the device, never while the device works; a device is
// handed out of the root only when no access to it is under way, with no lock held.
#pragma once

#include <array>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>

#include "base/log.h"
#include "base/result.h"
#include "devices/bus.h"
#include "devices/pci/device.h"

namespace haneul::devices::pci {

inline constexpr unsigned kSlots = 32;

/// Where the guest's firmware tables say that PCI lives. ECAM takes 1 MiB for each bus; buses other than 0
/// read as ones.
struct Layout {
  uint64_t ecam_base = 0;
  uint64_t ecam_size = 1u << 20;
  uint64_t mmio32_base = 0;
  uint64_t mmio32_size = 0;
  uint64_t mmio64_base = 0;
  uint64_t mmio64_size = 0;
};

class Root {
 public:
  explicit Root(const Layout& layout);
  ~Root();
  Root(const Root&) = delete;
  Root& operator=(const Root&) = delete;

  /// Claims ECAM and both windows. `mmio` outlives the root.
  Status attach_to(Bus& mmio);

  /// Called when the hot-plug registers have news: raise the ACPI event. Set before the guest runs.
  void set_hotplug_event(std::function<void()> raise) { raise_hotplug_ = std::move(raise); }
  /// Called on a vCPU thread with a device that the guest let go after request_unplug(). Destroying it there
  /// and then is safe; it may as well be moved to another thread. Set before the guest runs.
  void set_on_ejected(std::function<void(unsigned slot, std::unique_ptr<Device> device)> ejected) {
    on_ejected_ = std::move(ejected);
  }

  /// Before the guest runs: puts a device into a slot (the lowest free one by default) and places its BARs.
  /// kExists, kNoSpace.
  Result<unsigned> add(std::unique_ptr<Device> device, std::optional<unsigned> slot = std::nullopt);
  /// The same while the guest runs, and tells the guest.
  Result<unsigned> plug(std::unique_ptr<Device> device);
  /// Asks the guest to let go of a device. kNotFound. Asking again reminds the guest.
  Status request_unplug(unsigned slot);
  /// Takes a device away whatever the guest does with it; the guest reads ones from then on, and rings no doorbell of
  /// it. The caller destroys it, when it likes.
  Result<std::unique_ptr<Device>> remove(unsigned slot);
  /// Bit per slot that holds a device.
  uint32_t occupied() const;

  /// 1 to 8 bytes of configuration space, addressed as in ECAM: bus in bits 20 and up, device in 15 to 19,
  /// function in 12 to 14, register below.
  void config_read(uint64_t offset, std::span<std::byte> data);
  void config_write(uint64_t offset, std::span<const std::byte> data);

  // For HotplugRegisters.
  uint32_t take_plugged();
  uint32_t take_leaving();
  void eject(uint32_t slots);

 private:
  struct Range {
    unsigned bar = 0;
    uint64_t base = 0;
    uint64_t size = 0;
  };
  struct Slot {
    std::unique_ptr<Device> device;
    std::array<Range, kBars> ranges{};
    unsigned range_count = 0;
    unsigned users = 0;
    bool gone = false;  // being taken away: found by nobody
    bool unplug_requested = false;
    // Serialises place_bars(), which reads a device's BARs and tells it where they answer.
    std::mutex placing;
  };
  class Use;
  class Window;
  class Ecam;

  void window_read(uint64_t address, std::span<std::byte> data);
  void window_write(uint64_t address, std::span<const std::byte> data);

  Result<unsigned> insert(std::unique_ptr<Device> device, std::optional<unsigned> wanted);
  void tell_guest();
  Status assign_bars(Device& device);
  std::optional<uint64_t> find_space(uint64_t window, uint64_t window_size, uint64_t size,
                                     const Device& for_device) const;
  void place_bars(unsigned slot, Device& device);
  bool in_window(uint64_t base, uint64_t size) const;
  std::unique_ptr<Device> take(unsigned slot, bool only_if_requested);

  const Layout layout_;
  Bus* bus_ = nullptr;
  std::unique_ptr<Ecam> ecam_;
  std::unique_ptr<Window> window32_;
  std::unique_ptr<Window> window64_;
  std::function<void()> raise_hotplug_;
  std::function<void(unsigned, std::unique_ptr<Device>)> on_ejected_;
  LogLimiter log_limit_;

  mutable std::mutex mutex_;
  std::condition_variable idle_;
  std::array<Slot, kSlots> slots_;
  uint32_t plugged_ = 0;
  uint32_t leaving_ = 0;
};

/// The registers that the DSDT's methods use, 16 bytes of 32-bit registers with a bit per slot:
/// 0x0 RO newly plugged (read clears), 0x4 RO asked to leave (read clears), 0x8 WO eject, 0xc RO occupied.
/// Accesses other than aligned ones of 4 bytes read as zero and are swallowed.
class HotplugRegisters : public BusDevice {
 public:
  static constexpr uint64_t kSize = 16;
  explicit HotplugRegisters(Root& root) : root_(root) {}
  void read(uint64_t offset, std::span<std::byte> data) override;
  void write(uint64_t offset, std::span<const std::byte> data) override;

 private:
  Root& root_;
};

}  // namespace haneul::devices::pci
