// SPDX-License-Identifier: Apache-2.0
#include "devices/pci/root.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "base/checked.h"
#include "base/endian.h"

namespace haneul::devices::pci {
namespace {

class HostBridge : public Device {
 public:
  HostBridge() : Device({.vendor = 0x1b36, .device = 0x0008, .class_code = 0x060000}) {}
  void bar_read(unsigned, uint64_t, std::span<std::byte> data) override { store_bytes(data, 0); }
  void bar_write(unsigned, uint64_t, std::span<const std::byte>) override {}
};

constexpr uint32_t bit_of(unsigned slot) {
  return uint32_t{1} << slot;
}

void read_ones(std::span<std::byte> data) {
  std::memset(data.data(), 0xff, data.size());
}

// The registers whose change can move a BAR: command, and the BARs themselves.
bool touches_bars(uint32_t offset, size_t length) {
  return offset < 0x28 && offset + length > 0x04;
}

}  // namespace

// Keeps a device in its slot while an access to it is under way.
class Root::Use {
 public:
  Use(Root& root, unsigned slot) : root_(root), slot_(slot) {
    std::lock_guard lock(root.mutex_);
    enter();
  }
  // The device whose BAR holds [address, address + length).
  Use(Root& root, uint64_t address, size_t length) : root_(root) {
    std::lock_guard lock(root.mutex_);
    for (slot_ = 0; slot_ < kSlots; ++slot_) {
      const Slot& slot = root.slots_[slot_];
      for (unsigned i = 0; i < slot.range_count; ++i) {
        const Range& range = slot.ranges[i];
        if (address < range.base || !range_within(address - range.base, length, range.size)) continue;
        bar_ = range.bar;
        offset_ = address - range.base;
        enter();
        if (device_ != nullptr) return;
      }
    }
  }
  ~Use() {
    if (device_ == nullptr) return;
    std::lock_guard lock(root_.mutex_);
    Slot& slot = root_.slots_[slot_];
    if (--slot.users == 0 && slot.gone) root_.idle_.notify_all();
  }
  Use(const Use&) = delete;
  Use& operator=(const Use&) = delete;

  explicit operator bool() const { return device_ != nullptr; }
  Device& device() const { return *device_; }
  unsigned bar() const { return bar_; }
  uint64_t offset() const { return offset_; }

 private:
  void enter() {
    Slot& slot = root_.slots_[slot_];
    if (slot.device == nullptr || slot.gone) return;
    device_ = slot.device.get();
    ++slot.users;
  }

  Root& root_;
  unsigned slot_ = 0;
  Device* device_ = nullptr;
  unsigned bar_ = 0;
  uint64_t offset_ = 0;
};

class Root::Ecam : public BusDevice {
 public:
  explicit Ecam(Root& root) : root_(root) {}
  void read(uint64_t offset, std::span<std::byte> data) override { root_.config_read(offset, data); }
  void write(uint64_t offset, std::span<const std::byte> data) override { root_.config_write(offset, data); }

 private:
  Root& root_;
};

class Root::Window : public BusDevice {
 public:
  Window(Root& root, uint64_t base) : root_(root), base_(base) {}
  void read(uint64_t offset, std::span<std::byte> data) override { root_.window_read(base_ + offset, data); }
  void write(uint64_t offset, std::span<const std::byte> data) override {
    root_.window_write(base_ + offset, data);
  }

 private:
  Root& root_;
  uint64_t base_;
};

Root::Root(const Layout& layout)
    : layout_(layout),
      ecam_(std::make_unique<Ecam>(*this)),
      window32_(std::make_unique<Window>(*this, layout.mmio32_base)),
      window64_(std::make_unique<Window>(*this, layout.mmio64_base)) {
  slots_[0].device = std::make_unique<HostBridge>();
}

Root::~Root() {
  if (bus_ == nullptr) return;
  bus_->remove(layout_.ecam_base);
  if (layout_.mmio32_size != 0) bus_->remove(layout_.mmio32_base);
  if (layout_.mmio64_size != 0) bus_->remove(layout_.mmio64_base);
}

Status Root::attach_to(Bus& mmio) {
  CHECK(bus_ == nullptr);
  struct Claim {
    uint64_t base;
    uint64_t size;
    BusDevice& device;
    const char* what;
  };
  const Claim claims[] = {{layout_.ecam_base, layout_.ecam_size, *ecam_, "ECAM"},
                          {layout_.mmio32_base, layout_.mmio32_size, *window32_, "32-bit PCI window"},
                          {layout_.mmio64_base, layout_.mmio64_size, *window64_, "64-bit PCI window"}};
  for (const Claim& claim : claims) {
    if (claim.size == 0) continue;
    Status status = mmio.insert(claim.base, claim.size, claim.device);
    if (!status) {
      for (const Claim* done = claims; done != &claim; ++done) {
        if (done->size != 0) mmio.remove(done->base);
      }
      return std::move(status).context(claim.what);
    }
  }
  bus_ = &mmio;
  return {};
}

void Root::config_read(uint64_t offset, std::span<std::byte> data) {
  if (offset >> 20 == 0 && ((offset >> 12) & 7) == 0) {
    if (Use use(*this, (offset >> 15) & 31); use) {
      use.device().config_read(offset & 0xfff, data);
      return;
    }
  }
  read_ones(data);
}

void Root::config_write(uint64_t offset, std::span<const std::byte> data) {
  if (offset >> 20 != 0 || ((offset >> 12) & 7) != 0) return;
  unsigned slot = (offset >> 15) & 31;
  if (Use use(*this, slot); use) {
    auto at = static_cast<uint32_t>(offset & 0xfff);
    use.device().config_write(at, data);
    if (touches_bars(at, data.size())) place_bars(slot, use.device());
  }
}

void Root::window_read(uint64_t address, std::span<std::byte> data) {
  if (Use use(*this, address, data.size()); use) {
    use.device().bar_read(use.bar(), use.offset(), data);
  } else {
    read_ones(data);
  }
}

void Root::window_write(uint64_t address, std::span<const std::byte> data) {
  if (Use use(*this, address, data.size()); use) use.device().bar_write(use.bar(), use.offset(), data);
}

bool Root::in_window(uint64_t base, uint64_t size) const {
  auto inside = [&](uint64_t window, uint64_t window_size) {
    return base >= window && range_within(base - window, size, window_size);
  };
  return inside(layout_.mmio32_base, layout_.mmio32_size) || inside(layout_.mmio64_base, layout_.mmio64_size);
}

// Reads where the guest put the BARs and makes it so. Two vCPUs that move them at once come here one after
// the other, and the last one sees what both wrote.
void Root::place_bars(unsigned slot, Device& device) {
  std::lock_guard placing(slots_[slot].placing);
  auto bars = device.bars();
  std::array<std::optional<uint64_t>, kBars> addresses;
  std::array<Range, kBars> ranges{};
  unsigned count = 0;
  for (unsigned i = 0; i < kBars; ++i) {
    if (bars[i].size == 0 || !bars[i].decoding || !in_window(bars[i].address, bars[i].size)) continue;
    addresses[i] = bars[i].address;
    ranges[count++] = {i, bars[i].address, bars[i].size};
  }
  {
    std::lock_guard lock(mutex_);
    slots_[slot].ranges = ranges;
    slots_[slot].range_count = count;
  }
  device.on_bars_placed(addresses);
}

// With the lock. The lowest aligned space in a window that no BAR claims, switched on or not.
std::optional<uint64_t> Root::find_space(uint64_t window, uint64_t window_size, uint64_t size,
                                         const Device& for_device) const {
  std::vector<Range> taken;
  auto note = [&](const Device& device) {
    for (const Bar& bar : device.bars()) {
      if (bar.size != 0 && bar.address != 0 && checked_add(bar.address, bar.size)) {
        taken.push_back({0, bar.address, bar.size});
      }
    }
  };
  for (const Slot& slot : slots_) {
    if (slot.device != nullptr) note(*slot.device);
  }
  note(for_device);

  auto candidate = checked_align_up(window, size);
  while (candidate && *candidate >= window && range_within(*candidate - window, size, window_size)) {
    auto in_way = std::find_if(taken.begin(), taken.end(), [&](const Range& range) {
      return range.base < *candidate + size && *candidate < range.base + range.size;
    });
    if (in_way == taken.end()) return candidate;
    candidate = checked_align_up(in_way->base + in_way->size, size);
  }
  return std::nullopt;
}

// With the lock.
Status Root::assign_bars(Device& device) {
  auto bars = device.bars();
  for (unsigned i = 0; i < kBars; ++i) {
    if (bars[i].size == 0) continue;
    auto address = bars[i].is_64 ? find_space(layout_.mmio64_base, layout_.mmio64_size, bars[i].size, device)
                                 : find_space(layout_.mmio32_base, layout_.mmio32_size, bars[i].size, device);
    if (!address) return make_error(ErrorCode::kNoSpace, "no space for a BAR of {:#x} bytes", bars[i].size);
    device.assign_bar(i, *address);
  }
  return {};
}

Result<unsigned> Root::insert(std::unique_ptr<Device> device, std::optional<unsigned> wanted) {
  Device& added = *device;
  unsigned slot = 0;
  {
    std::lock_guard lock(mutex_);
    auto is_free = [&](unsigned i) { return slots_[i].device == nullptr && !slots_[i].gone; };
    if (wanted) {
      if (*wanted == 0 || *wanted >= kSlots) {
        return make_error(ErrorCode::kInvalidArgument, "there is no PCI slot {}", *wanted);
      }
      if (!is_free(*wanted)) return make_error(ErrorCode::kExists, "PCI slot {} is taken", *wanted);
      slot = *wanted;
    } else {
      slot = 1;
      while (slot < kSlots && !is_free(slot)) ++slot;
      if (slot == kSlots) return make_error(ErrorCode::kNoSpace, "all PCI slots are taken");
    }
    TRY(assign_bars(added));
    slots_[slot].device = std::move(device);
    slots_[slot].users = 1;  // until its BARs are in place
  }
  place_bars(slot, added);
  std::lock_guard lock(mutex_);
  if (--slots_[slot].users == 0 && slots_[slot].gone) idle_.notify_all();
  return slot;
}

Result<unsigned> Root::add(std::unique_ptr<Device> device, std::optional<unsigned> slot) {
  return insert(std::move(device), slot);
}

void Root::tell_guest() {
  if (raise_hotplug_) raise_hotplug_();
}

Result<unsigned> Root::plug(std::unique_ptr<Device> device) {
  unsigned slot = TRY(insert(std::move(device), std::nullopt));
  {
    std::lock_guard lock(mutex_);
    plugged_ |= bit_of(slot);
  }
  tell_guest();
  return slot;
}

Status Root::request_unplug(unsigned slot) {
  {
    std::lock_guard lock(mutex_);
    if (slot == 0 || slot >= kSlots || slots_[slot].device == nullptr || slots_[slot].gone) {
      return make_error(ErrorCode::kNotFound, "PCI slot {} is empty", slot);
    }
    slots_[slot].unplug_requested = true;
    leaving_ |= bit_of(slot);
  }
  tell_guest();
  return {};
}

// Hides the device, waits until the accesses under way are over, and hands it out. Nothing that they wait for
// is held here.
std::unique_ptr<Device> Root::take(unsigned index, bool only_if_requested) {
  std::unique_lock lock(mutex_);
  Slot& slot = slots_[index];
  if (slot.device == nullptr || slot.gone || (only_if_requested && !slot.unplug_requested)) return nullptr;
  slot.gone = true;
  slot.range_count = 0;
  idle_.wait(lock, [&] { return slot.users == 0; });
  slot.range_count = 0;  // an access that was under way may have moved a BAR
  // Before slot and BARs are free for another device, whose doorbells may have the same addresses.
  lock.unlock();
  slot.device->on_removed();
  lock.lock();
  slot.gone = false;
  slot.unplug_requested = false;
  plugged_ &= ~bit_of(index);
  leaving_ &= ~bit_of(index);
  return std::move(slot.device);
}

Result<std::unique_ptr<Device>> Root::remove(unsigned slot) {
  std::unique_ptr<Device> device;
  if (slot != 0 && slot < kSlots) device = take(slot, false);
  if (device == nullptr) return make_error(ErrorCode::kNotFound, "PCI slot {} is empty", slot);
  {
    // "Newly plugged" makes the guest look at the slot again, and find it empty.
    std::lock_guard lock(mutex_);
    plugged_ |= bit_of(slot);
  }
  tell_guest();
  return device;
}

uint32_t Root::occupied() const {
  std::lock_guard lock(mutex_);
  uint32_t slots = 0;
  for (unsigned i = 1; i < kSlots; ++i) {
    if (slots_[i].device != nullptr && !slots_[i].gone) slots |= bit_of(i);
  }
  return slots;
}

uint32_t Root::take_plugged() {
  std::lock_guard lock(mutex_);
  return std::exchange(plugged_, 0);
}

uint32_t Root::take_leaving() {
  std::lock_guard lock(mutex_);
  return std::exchange(leaving_, 0);
}

void Root::eject(uint32_t slots) {
  for (unsigned slot = 1; slot < kSlots; ++slot) {
    if ((slots & bit_of(slot)) == 0) continue;
    // Which devices a machine has is its owner's decision: a guest cannot throw one out unasked.
    auto device = take(slot, true);
    if (device == nullptr) {
      if (log_limit_.allow()) LOG_WARNING("PCI: the guest ejects slot {}, which nobody asked for", slot);
      continue;
    }
    if (on_ejected_) on_ejected_(slot, std::move(device));
  }
}

namespace {
constexpr uint64_t kPluggedRegister = 0x0;
constexpr uint64_t kLeavingRegister = 0x4;
constexpr uint64_t kEjectRegister = 0x8;
constexpr uint64_t kOccupiedRegister = 0xc;
}  // namespace

void HotplugRegisters::read(uint64_t offset, std::span<std::byte> data) {
  uint32_t value = 0;
  if (data.size() == 4) {
    if (offset == kPluggedRegister) value = root_.take_plugged();
    if (offset == kLeavingRegister) value = root_.take_leaving();
    if (offset == kOccupiedRegister) value = root_.occupied();
  }
  store_bytes(data, value);
}

void HotplugRegisters::write(uint64_t offset, std::span<const std::byte> data) {
  if (offset == kEjectRegister && data.size() == 4) {
    root_.eject(static_cast<uint32_t>(load_bytes(data)));
  }
}

}  // namespace haneul::devices::pci
