// SPDX-License-Identifier: Apache-2.0
// A guest that writes anything anywhere in PCI: configuration space, BARs, the transport's registers, MSI-X,
// hot-plug registers, while devices come and go. The oracle: what is read-only stays; BARs keep their size;
// doorbells are bound inside the windows and only for devices that run; requests popped from rings the guest
// placed lie in RAM.
#include <algorithm>
#include <bit>
#include <map>
#include <vector>

#include "base/log.h"
#include "devices/testing/pci_machine.h"
#include "devices/virtio/pci_format.h"
#include "devices/virtio/ring_format.h"
#include "tests/fuzz/input.h"

namespace haneul::fuzz {
namespace {

using namespace devices;          // NOLINT(google-build-using-namespace)
using namespace devices::virtio;  // NOLINT(google-build-using-namespace)
using testing::PciMachine;

// Where the transport puts them; check() sees to it.
constexpr uint32_t kMsixCapability = 0x40;
constexpr uint32_t kAccessCapability = 0x90;

// A device without a thread: the fuzzer's steps make it work, so that a run can be repeated.
class PassiveDevice : public Device {
 public:
  ~PassiveDevice() override { CHECK(queues_.empty()); }
  DeviceType type() const override { return DeviceType::kBlock; }
  std::string_view name() const override { return "passive"; }
  uint64_t features() const override { return 0x5; }
  bool accepts(uint64_t features) const override { return (features & 0x4) == 0 || (features & 0x1) != 0; }
  std::span<const uint16_t> queue_sizes() const override { return kSizes; }
  uint32_t config_size() const override { return 60; }
  void read_config(uint32_t offset, std::span<std::byte> data) override {
    CHECK(offset + data.size() <= config_size());
  }
  void write_config(uint32_t offset, std::span<const std::byte> data) override {
    CHECK(offset + data.size() <= config_size());
  }
  void attach(DeviceHost& host) override { host_ = &host; }
  void let_go() override {}
  Status activate(Activation activation) override {
    CHECK(queues_.empty() && activation.queues.size() == 3);
    CHECK((activation.features & kFeatureVersion1) != 0 && accepts(activation.features));
    if (fail_) return make_error(ErrorCode::kIo, "cannot start");
    queues_ = std::move(activation.queues);
    return {};
  }
  void reset() override { queues_.clear(); }

  void serve() {
    for (auto& queue : queues_) {
      if (queue == nullptr) continue;
      for (int i = 0; i < 8 && queue->pop(chain_); ++i) {
        for (const iovec& part : chain_.writable())
          *static_cast<volatile std::byte*>(part.iov_base) = std::byte{1};
        queue->push(chain_.head(), chain_.writable_bytes());
      }
      queue->notify();
      queue->arm_doorbell();
    }
  }
  void change() { host_->config_changed(); }
  void fail_next() { fail_ = !fail_; }

 private:
  static constexpr std::array<uint16_t, 3> kSizes = {64, 64, 2};
  DeviceHost* host_ = nullptr;
  std::vector<std::unique_ptr<Queue>> queues_;
  Chain chain_;
  bool fail_ = false;
};

class World {
 public:
  explicit World(Input& input) : input_(input), machine_(64, 64_KiB) {
    machine_.root.set_on_ejected(
        [this](unsigned slot, std::unique_ptr<pci::Device>) { devices_.erase(slot); });
    plug();
  }
  void run() {
    while (!input_.empty()) {
      step();
      check();
    }
  }

 private:
  void plug() {
    if (devices_.size() == 4) return;
    auto device = std::make_unique<PassiveDevice>();
    PassiveDevice* plain = device.get();
    devices_[machine_.plug(std::move(device))] = plain;
  }
  unsigned slot() { return input_.below(6); }
  PassiveDevice* some_device() {
    auto found = devices_.find(slot());
    return found == devices_.end() ? nullptr : found->second;
  }

  uint64_t value(size_t width) {
    switch (input_.below(6)) {
      case 0:
        return 0;
      case 1:
        return ~uint64_t{0};
      case 2:
        return input_.take<uint64_t>();
      default:
        return width == 1 ? input_.take<uint8_t>() : input_.take<uint16_t>();
    }
  }

  void access(uint64_t address) {
    size_t width = size_t{1} << input_.below(4);
    std::byte bytes[8];
    store_le<uint64_t>(bytes, value(width));
    if (input_.below(3) == 0) {
      machine_.bus.read(address, std::span(bytes).first(width));
    } else {
      machine_.bus.write(address, std::span(bytes).first(width));
    }
  }

  uint64_t bar(unsigned of) {
    uint64_t low = machine_.config<uint32_t>(of, 0x10);
    uint64_t high = machine_.config<uint32_t>(of, 0x14);
    return (high << 32 | low) & ~uint64_t{0xf};
  }

  void step() {
    switch (input_.below(21)) {
      case 0:
      case 1:
        access(PciMachine::config_address(slot(), input_.below(256)));
        break;
      case 2:
        access(PciMachine::kLayout.ecam_base + input_.take<uint32_t>() % PciMachine::kLayout.ecam_size);
        break;
      case 3:
      case 4:
      case 5:
        access(bar(slot()) + input_.below(common::kSize));
        break;
      case 6:
        access(bar(slot()) + input_.below(kBarSize));
        break;
      case 7:
        access(bar(slot()) + kMsixTablePage + 4 * input_.below(20));
        break;
      case 8:
        access(PciMachine::kLayout.mmio64_base + input_.take<uint32_t>());
        break;
      case 9:
        access(PciMachine::kHotplugBase + input_.below(16));
        break;
      case 10:
        owner();
        break;
      case 11:
      case 12:
        start(slot());
        break;
      case 13: {
        uint64_t word = input_.take<uint64_t>();
        (void)machine_.ram.memory().write(GuestAddress{1_MiB + input_.below(0x3000)},
                                          std::as_bytes(std::span(&word, 1)));
        break;
      }
      case 14:
        enable_msix(slot());
        break;
      case 15:
      case 16:
        offer();
        break;
      case 17:
        access_through_config(slot());
        break;
      default:
        if (PassiveDevice* device = some_device()) device->serve();
        break;
    }
  }

  void enable_msix(unsigned of) {
    for (uint32_t vector = 0; vector < 4; ++vector) {
      uint64_t entry = bar(of) + kMsixTablePage + 16 * vector;
      machine_.set_mmio<uint64_t>(entry, 0xfee00000);
      machine_.set_mmio<uint32_t>(entry + 8, vector);
      machine_.set_mmio<uint32_t>(entry + 12, input_.below(4) == 0 ? 1 : 0);
    }
    machine_.set_mmio<uint16_t>(bar(of) + kCommonPage + common::kConfigVector,
                                static_cast<uint16_t>(input_.below(4)));
    uint32_t control = input_.below(2) == 0 ? 2 : input_.below(4);
    machine_.set_config<uint16_t>(of, kMsixCapability + 2, static_cast<uint16_t>(control << 14));
  }

  // One more request, mostly sound, on a ring where start() may have put one.
  void offer() {
    const GuestMemory& memory = machine_.ram.memory();
    uint64_t ring = 1_MiB + 0x1000u * input_.below(4);
    auto head = static_cast<uint16_t>(input_.below(9));
    auto flags = static_cast<uint16_t>(input_.below(8) != 0 ? kDescWrite : input_.below(8));
    uint64_t address = input_.below(16) != 0 ? 1_MiB + 0x8000 : input_.take<uint64_t>();
    RingDescriptor descriptor{address, input_.below(256), flags, static_cast<uint16_t>(input_.below(9))};
    CHECK(memory.write_object(GuestAddress{ring + 16u * head}, descriptor));
    auto index = *memory.load<uint16_t>(GuestAddress{ring + 0x402}, std::memory_order_relaxed);
    uint16_t size = static_cast<uint16_t>(1u << input_.below(8));
    CHECK(memory.store<uint16_t>(GuestAddress{ring + 0x404 + 2u * (index % size)}, head,
                                 std::memory_order_relaxed));
    CHECK(memory.store<uint16_t>(GuestAddress{ring + 0x402}, ++index, std::memory_order_relaxed));
  }

  void access_through_config(unsigned of) {
    machine_.set_config<uint8_t>(of, kAccessCapability + 4,
                                 input_.below(8) == 0 ? input_.take<uint8_t>() : 0);
    machine_.set_config<uint32_t>(
        of, kAccessCapability + 8,
        kPage * input_.below(8) + (input_.below(2) == 0 ? 0 : input_.take<uint8_t>()));
    machine_.set_config<uint32_t>(of, kAccessCapability + 12, input_.below(5));
    access(PciMachine::config_address(of, kAccessCapability + 16));
  }

  // What the machine's owner does meanwhile.
  void owner() {
    switch (input_.below(6)) {
      case 0:
        plug();
        break;
      case 1: {
        unsigned leaving = slot();
        auto device = machine_.root.remove(leaving);
        if (device.ok()) devices_.erase(leaving);
        break;
      }
      case 2:
        (void)machine_.root.request_unplug(slot()).ok();
        break;
      case 3:
        if (PassiveDevice* device = some_device()) device->fail_next();
        break;
      default:
        if (PassiveDevice* device = some_device()) device->change();
        break;
    }
  }

  // A driver's usual steps with a mistake here and there, so that runs get past them.
  void start(unsigned of) {
    if (input_.below(2) == 0) machine_.set_config<uint16_t>(of, 4, 6);
    uint64_t base = bar(of) + kCommonPage;
    if (input_.below(4) == 0) machine_.set_mmio<uint8_t>(base + common::kStatus, 0);
    machine_.set_mmio<uint8_t>(base + common::kStatus, kAcknowledge | kDriver);
    uint64_t features = input_.below(8) == 0 ? input_.take<uint64_t>()
                                             : kFeatureVersion1 | kFeatureEventIdx | kFeatureIndirectDesc;
    for (uint32_t word : {0u, 1u}) {
      machine_.set_mmio<uint32_t>(base + common::kDriverFeatureSelect, word);
      machine_.set_mmio<uint32_t>(base + common::kDriverFeature,
                                  static_cast<uint32_t>(features >> (32 * word)));
    }
    machine_.set_mmio<uint8_t>(base + common::kStatus, kAcknowledge | kDriver | kFeaturesOk);
    for (uint16_t queue = 0; queue < 1 + input_.below(3); ++queue) {
      machine_.set_mmio<uint16_t>(base + common::kQueueSelect, queue);
      machine_.set_mmio<uint16_t>(base + common::kQueueSize, static_cast<uint16_t>(1u << input_.below(8)));
      uint64_t ring =
          1_MiB + 0x1000u * input_.below(4) + (input_.below(8) == 0 ? input_.take<uint16_t>() : 0);
      machine_.set_mmio<uint64_t>(base + common::kQueueDescriptors, ring);
      machine_.set_mmio<uint64_t>(base + common::kQueueAvailable, ring + 0x400);
      machine_.set_mmio<uint64_t>(base + common::kQueueUsed, ring + 0x800);
      machine_.set_mmio<uint16_t>(base + common::kQueueVector, queue);
      machine_.set_mmio<uint16_t>(base + common::kQueueEnable, 1);
    }
    machine_.set_mmio<uint8_t>(base + common::kStatus, kAcknowledge | kDriver | kFeaturesOk | kDriverOk);
  }

  void check() {
    CHECK(machine_.config<uint32_t>(0, 0) == 0x00081b36);
    uint32_t slots = 0;
    for (auto& [of, device] : devices_) {
      slots |= 1u << of;
      CHECK(machine_.config<uint32_t>(of, 0) == 0x10421af4);
      CHECK((machine_.config<uint32_t>(of, 0x10) & (kBarSize - 1)) == 0x4);
      CHECK(machine_.config<uint8_t>(of, 0x34) == kMsixCapability);
      CHECK(machine_.config<uint8_t>(of, kMsixCapability) == 0x11);
      CHECK(machine_.config<uint8_t>(of, kAccessCapability + 3) == kCapPciAccess);
    }
    CHECK(machine_.root.occupied() == slots);
    auto bound = machine_.doorbells.bound();
    CHECK(bound.size() <= 3 * devices_.size());
    for (GuestAddress address : bound) {
      bool inside64 = address.value - PciMachine::kLayout.mmio64_base < PciMachine::kLayout.mmio64_size;
      bool inside32 = address.value - PciMachine::kLayout.mmio32_base < PciMachine::kLayout.mmio32_size;
      CHECK(inside64 || inside32);
      CHECK(std::any_of(devices_.begin(), devices_.end(), [&](const auto& device) {
        return address.value - (bar(device.first) + kNotifyPage) < 12 && address.value % 4 == 0;
      }));
    }
  }

  Input& input_;
  PciMachine machine_;
  std::map<unsigned, PassiveDevice*> devices_;
};

}  // namespace
}  // namespace haneul::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  haneul::set_log_level(haneul::LogLevel::kError);
  haneul::fuzz::Input input(data, size);
  haneul::fuzz::World(input).run();
  return 0;
}
