// SPDX-License-Identifier: Apache-2.0
#include "devices/pci/root.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "devices/testing/pci_machine.h"

namespace haneul::devices::pci {
namespace {

using testing::PciMachine;

// A function with a 32-bit BAR 0 and a 64-bit BAR 2 that remembers what was done to it.
class Card : public Device {
 public:
  explicit Card(std::atomic<bool>* destroyed = nullptr)
      : Device({.vendor = 0x1234,
                .device = 0x5678,
                .subsystem_vendor = 0x9abc,
                .subsystem = 0xdef0,
                .class_code = 0x0880aa,
                .revision = 7}),
        destroyed_(destroyed) {
    add_memory_bar(0, 0x1000, false);
    add_memory_bar(2, 0x10000, true);
  }
  ~Card() override {
    if (destroyed_ != nullptr) *destroyed_ = true;
  }
  void bar_read(unsigned bar, uint64_t offset, std::span<std::byte> data) override {
    if (on_read) on_read();
    store_bytes(data, bar * 0x1000000 + offset);
  }
  void bar_write(unsigned bar, uint64_t offset, std::span<const std::byte> data) override {
    last_write = {bar, offset, load_bytes(data)};
  }
  void on_bars_placed(const std::array<std::optional<uint64_t>, kBars>& addresses) override {
    placed = addresses;
  }

  struct Write {
    unsigned bar;
    uint64_t offset;
    uint64_t value;
    bool operator==(const Write&) const = default;
  };
  std::optional<Write> last_write;
  std::array<std::optional<uint64_t>, kBars> placed;
  std::function<void()> on_read;

 private:
  std::atomic<bool>* destroyed_;
};

struct RootTest : ::testing::Test {
  // Adds a card; its slot.
  unsigned add(std::optional<unsigned> slot = std::nullopt) {
    auto made = std::make_unique<Card>();
    card = made.get();
    return machine.root.add(std::move(made), slot).value();
  }
  uint64_t bar2(unsigned slot) {
    return (machine.config<uint32_t>(slot, 0x18) | uint64_t{machine.config<uint32_t>(slot, 0x1c)} << 32) &
           ~0xfull;
  }
  PciMachine machine;
  Card* card = nullptr;
};

TEST_F(RootTest, HostBridgeIsInSlotZero) {
  EXPECT_EQ(machine.config<uint32_t>(0, 0), 0x00081b36u);
  EXPECT_EQ(machine.config<uint16_t>(0, 0x0a), 0x0600u);
  EXPECT_EQ(machine.config<uint8_t>(0, 0x0e), 0u);
}

TEST_F(RootTest, EmptySlotsFunctionsAndBusesReadAsOnes) {
  unsigned slot = add();
  EXPECT_EQ(slot, 1u);
  EXPECT_EQ(machine.config<uint32_t>(2, 0), 0xffffffffu);
  EXPECT_EQ(machine.config<uint32_t>(slot, 0x1000), 0xffffffffu) << "function 1";
  EXPECT_EQ(machine.mmio<uint32_t>(PciMachine::kLayout.ecam_base + 1_MiB), 0xffffffffu) << "bus 1";
  machine.set_config<uint32_t>(2, 4, 7);
  machine.set_config<uint32_t>(slot, 0x1004, 7);
  machine.set_mmio<uint32_t>(PciMachine::kLayout.ecam_base + 1_MiB + 4, 7);
}

TEST_F(RootTest, HeaderSaysWhatItIs) {
  unsigned slot = add();
  EXPECT_EQ(machine.config<uint64_t>(slot, 0x00), 0x0000000256781234u) << "memory decoding is on";
  EXPECT_EQ(machine.config<uint32_t>(slot, 0x08), 0x0880aa07u);
  EXPECT_EQ(machine.config<uint32_t>(slot, 0x2c), 0xdef09abcu);
  EXPECT_EQ(machine.config<uint8_t>(slot, 0x3d), 0u) << "no interrupt pin";
}

TEST_F(RootTest, ConfigSpaceTakesAnyWidthAndOffset) {
  unsigned slot = add();
  EXPECT_EQ(machine.config<uint8_t>(slot, 1), 0x12u);
  EXPECT_EQ(machine.config<uint16_t>(slot, 1), 0x7812u);
  EXPECT_EQ(machine.config<uint32_t>(slot, 3), 0x00000256u);
  EXPECT_EQ(machine.config<uint64_t>(slot, 0xfc), 0u) << "over the end of what is stored";
  EXPECT_EQ(machine.config<uint32_t>(slot, 0x100), 0u) << "no extended capabilities";
  EXPECT_EQ(machine.config<uint64_t>(slot, 0xffc), 0xffffffff00000000u) << "over the end of the function";
  machine.set_config<uint64_t>(slot, 0xffc, 0);
  // Read-only bits stay; writable ones change alone, a byte at a time too.
  machine.set_config<uint64_t>(slot, 0, ~0ull);
  EXPECT_EQ(machine.config<uint32_t>(slot, 0), 0x56781234u);
  EXPECT_EQ(machine.config<uint32_t>(slot, 4), 0x00000406u);
  machine.set_config<uint8_t>(slot, 5, 0);
  EXPECT_EQ(machine.config<uint32_t>(slot, 4), 0x00000006u);
  machine.set_config<uint8_t>(slot, 0x3c, 0x5a);
  EXPECT_EQ(machine.config<uint8_t>(slot, 0x3c), 0x5a);
  machine.set_config<uint32_t>(slot, 0xff, ~0u);
}

TEST_F(RootTest, BarsTellTheirSize) {
  unsigned slot = add();
  machine.set_config<uint16_t>(slot, 4, 0);
  machine.set_config<uint32_t>(slot, 0x10, 0xffffffff);
  EXPECT_EQ(machine.config<uint32_t>(slot, 0x10), 0xfffff000u);
  machine.set_config<uint32_t>(slot, 0x18, 0xffffffff);
  machine.set_config<uint32_t>(slot, 0x1c, 0xffffffff);
  EXPECT_EQ(machine.config<uint32_t>(slot, 0x18), 0xffff0004u);
  EXPECT_EQ(machine.config<uint32_t>(slot, 0x1c), 0xffffffffu);
  for (uint32_t other : {0x14u, 0x20u, 0x24u, 0x30u}) {
    machine.set_config<uint32_t>(slot, other, 0xffffffff);
    EXPECT_EQ(machine.config<uint32_t>(slot, other), 0u) << other;
  }
}

TEST_F(RootTest, ColdPlugPlacesBarsInTheirWindows) {
  unsigned slot = add();
  EXPECT_EQ(machine.config<uint32_t>(slot, 0x10), 0xc0000000u);
  EXPECT_EQ(bar2(slot), 0x4000000000u);
  EXPECT_EQ(card->placed[0], 0xc0000000u);
  EXPECT_EQ(card->placed[1], std::nullopt);
  EXPECT_EQ(card->placed[2], 0x4000000000u);
  unsigned other = add();
  EXPECT_EQ(machine.config<uint32_t>(other, 0x10), 0xc0001000u);
  EXPECT_EQ(bar2(other), 0x4000010000u);
}

TEST_F(RootTest, AccessesReachTheBarThatHoldsThem) {
  add();
  EXPECT_EQ(machine.mmio<uint32_t>(0xc0000010), 0x10u);
  EXPECT_EQ(machine.mmio<uint32_t>(0x400000fffc), 0x200fffcu);
  machine.set_mmio<uint16_t>(0x4000000124, 0xbeef);
  EXPECT_EQ(card->last_write, (Card::Write{2, 0x124, 0xbeef}));
  EXPECT_EQ(machine.mmio<uint64_t>(0x400000fffc), ~0ull) << "over the end of the BAR";
  EXPECT_EQ(machine.mmio<uint32_t>(0x4000010000), ~0u) << "no BAR there";
}

TEST_F(RootTest, BarsMoveAndSwitchOff) {
  unsigned slot = add();
  machine.set_config<uint32_t>(slot, 0x18, 0x00100000);
  EXPECT_EQ(machine.mmio<uint32_t>(0x4000000000), ~0u);
  EXPECT_EQ(machine.mmio<uint32_t>(0x4000100008), 0x2000008u);
  EXPECT_EQ(card->placed[2], 0x4000100000u);
  machine.set_config<uint16_t>(slot, 4, 0);
  EXPECT_EQ(machine.mmio<uint32_t>(0x4000100008), ~0u);
  EXPECT_EQ(card->placed[0], std::nullopt);
  EXPECT_EQ(card->placed[2], std::nullopt);
  machine.set_config<uint16_t>(slot, 4, 2);
  EXPECT_EQ(machine.mmio<uint32_t>(0x4000100008), 0x2000008u);
}

TEST_F(RootTest, ABarOutsideTheWindowsAnswersNowhere) {
  unsigned slot = add();
  // Over RAM, over ECAM, past a window's end, and where the address wraps.
  for (uint64_t address :
       {uint64_t{1_MiB}, uint64_t{0xe0000000}, uint64_t{0x4040000000}, uint64_t{0xffffffffffff0000}}) {
    machine.set_config<uint32_t>(slot, 0x18, static_cast<uint32_t>(address));
    machine.set_config<uint32_t>(slot, 0x1c, static_cast<uint32_t>(address >> 32));
    EXPECT_EQ(card->placed[2], std::nullopt) << address;
  }
  EXPECT_EQ(machine.config<uint16_t>(slot, 0), 0x1234u) << "ECAM is where it was";
}

TEST_F(RootTest, OverlappingBarsAnswerOnce) {
  add();
  unsigned second = add();
  Card* other = card;
  machine.set_config<uint32_t>(second, 0x18, 0);
  machine.set_config<uint32_t>(second, 0x1c, 0x40);
  machine.set_mmio<uint32_t>(0x4000000000, 1);
  EXPECT_EQ(other->last_write, std::nullopt) << "the lower slot answers";
}

TEST_F(RootTest, SlotsAreGivenOnce) {
  EXPECT_EQ(add(5), 5u);
  auto again = machine.root.add(std::make_unique<Card>(), 5);
  EXPECT_EQ(again.error().message(), "PCI slot 5 is taken");
  auto zero = machine.root.add(std::make_unique<Card>(), 0);
  EXPECT_EQ(zero.error().message(), "there is no PCI slot 0");
  for (unsigned i = 1; i < kSlots; ++i) {
    if (i != 5) {
      EXPECT_EQ(add(), i);
    }
  }
  auto full = machine.root.add(std::make_unique<Card>());
  EXPECT_EQ(full.error().code(), ErrorCode::kNoSpace);
  EXPECT_EQ(machine.root.occupied(), 0xfffffffeu);
}

TEST_F(RootTest, PluggingAvoidsBarsThatTheGuestMoved) {
  unsigned first = add();
  machine.set_config<uint32_t>(first, 0x18, 0x00010000);
  machine.set_config<uint32_t>(first, 0x1c, 0x40);
  auto made = std::make_unique<Card>();
  unsigned second = machine.root.plug(std::move(made)).value();
  EXPECT_EQ(bar2(second), 0x4000000000u);
  unsigned third = machine.root.plug(std::make_unique<Card>()).value();
  EXPECT_EQ(bar2(third), 0x4000020000u);
}

TEST_F(RootTest, AFullWindowRefuses) {
  Root small({.ecam_base = 0xe0000000,
              .mmio32_base = 0xc0000000,
              .mmio32_size = 0x1000,
              .mmio64_base = 0x4000000000,
              .mmio64_size = 0x8000});
  auto slot = small.add(std::make_unique<Card>());
  EXPECT_EQ(slot.error().message(), "no space for a BAR of 0x10000 bytes");
  EXPECT_EQ(small.occupied(), 0u);
}

TEST_F(RootTest, ClaimsAreAllOrNothing) {
  Bus bus;
  bus.insert(0x4000000000, 0x1000, machine.hotplug).value();
  Root root(PciMachine::kLayout);
  EXPECT_EQ(root.attach_to(bus).error().message(),
            "64-bit PCI window: the range 0x4000000000-0x403fffffff is taken");
  EXPECT_TRUE(bus.insert(0xe0000000, 0x1000, machine.hotplug).ok()) << "the others were given back";
}

// ---- Hot-plug ----

struct Hotplug : RootTest {
  static constexpr uint64_t kRegisters = PciMachine::kHotplugBase;
  uint32_t plugged() { return machine.mmio<uint32_t>(kRegisters); }
  uint32_t leaving() { return machine.mmio<uint32_t>(kRegisters + 4); }
  void eject(uint32_t slots) { machine.set_mmio<uint32_t>(kRegisters + 8, slots); }
  uint32_t occupied() { return machine.mmio<uint32_t>(kRegisters + 12); }
};

TEST_F(Hotplug, PlugTellsTheGuestOnce) {
  add();
  EXPECT_EQ(plugged(), 0u) << "cold-plugged";
  unsigned slot = machine.root.plug(std::make_unique<Card>()).value();
  EXPECT_EQ(machine.event_interrupt.count(), 1);
  EXPECT_EQ(machine.mmio<uint32_t>(PciMachine::kEventBase), acpi::kPciHotplug);
  EXPECT_EQ(plugged(), 1u << slot);
  EXPECT_EQ(plugged(), 0u);
  EXPECT_EQ(occupied(), 6u);
}

TEST_F(Hotplug, UnplugIsAskedForAndGranted) {
  std::atomic<bool> destroyed = false;
  std::vector<unsigned> ejected;
  machine.root.set_on_ejected([&](unsigned slot, std::unique_ptr<Device> device) {
    ejected.push_back(slot);
    EXPECT_FALSE(destroyed);
    device.reset();
  });
  unsigned slot = machine.root.plug(std::make_unique<Card>(&destroyed)).value();
  plugged();
  machine.root.request_unplug(slot).value();
  EXPECT_EQ(leaving(), 1u << slot);
  EXPECT_EQ(leaving(), 0u);
  EXPECT_EQ(machine.config<uint16_t>(slot, 0), 0x1234) << "there until it is ejected";
  eject(1u << slot);
  EXPECT_THAT(ejected, ::testing::ElementsAre(slot));
  EXPECT_TRUE(destroyed);
  EXPECT_EQ(machine.config<uint16_t>(slot, 0), 0xffff);
  EXPECT_EQ(machine.mmio<uint32_t>(0x4000000000), ~0u);
  EXPECT_EQ(occupied(), 0u);
  eject(1u << slot);
  EXPECT_EQ(ejected.size(), 1u);
  EXPECT_EQ(machine.root.plug(std::make_unique<Card>()).value(), slot) << "the slot is free again";
}

TEST_F(Hotplug, AGuestCannotEjectWhatNobodyAskedItTo) {
  unsigned slot = add();
  eject(0xffffffff);
  EXPECT_EQ(occupied(), 1u << slot);
  EXPECT_EQ(machine.config<uint32_t>(0, 0), 0x00081b36u) << "nor the host bridge";
}

TEST_F(Hotplug, EmptySlotsCannotBeUnplugged) {
  EXPECT_EQ(machine.root.request_unplug(3).error().message(), "PCI slot 3 is empty");
  EXPECT_EQ(machine.root.request_unplug(0).error().message(), "PCI slot 0 is empty");
  EXPECT_EQ(machine.root.request_unplug(32).error().message(), "PCI slot 32 is empty");
  EXPECT_EQ(machine.root.remove(3).error().message(), "PCI slot 3 is empty");
  EXPECT_EQ(machine.root.remove(0).error().message(), "PCI slot 0 is empty");
}

TEST_F(Hotplug, ForcedRemovalTellsTheGuestToLook) {
  unsigned slot = add();
  auto device = machine.root.remove(slot).value();
  EXPECT_EQ(device.get(), card);
  EXPECT_EQ(plugged(), 1u << slot);
  EXPECT_EQ(machine.config<uint16_t>(slot, 0), 0xffff);
}

TEST_F(Hotplug, OddAccessesDoNothing) {
  unsigned slot = machine.root.plug(std::make_unique<Card>()).value();
  machine.root.request_unplug(slot).value();
  EXPECT_EQ(machine.mmio<uint8_t>(kRegisters), 0u);
  EXPECT_EQ(machine.mmio<uint64_t>(kRegisters), 0u);
  EXPECT_EQ(machine.mmio<uint16_t>(kRegisters + 2), 0u);
  machine.set_mmio<uint8_t>(kRegisters + 8, 2);
  machine.set_mmio<uint64_t>(kRegisters + 8, 2);
  machine.set_mmio<uint32_t>(kRegisters, 2);
  EXPECT_EQ(plugged(), 2u);
  EXPECT_EQ(leaving(), 2u);
  EXPECT_EQ(occupied(), 2u);
}

TEST_F(Hotplug, RemovalWaitsForAccessesUnderWay) {
  unsigned slot = add();
  std::atomic<bool> inside = false;
  std::atomic<bool> let_go = false;
  card->on_read = [&] {
    inside = true;
    while (!let_go) std::this_thread::yield();
  };
  std::thread vcpu([&] { EXPECT_EQ(machine.mmio<uint32_t>(0x4000000004), 0x2000004u); });
  while (!inside) std::this_thread::yield();
  std::atomic<bool> removed = false;
  std::thread control([&] {
    auto device = machine.root.remove(slot).value();
    removed = true;
  });
  // Gone for everybody else at once, and other devices are not held up.
  while (machine.config<uint16_t>(slot, 0) != 0xffff) std::this_thread::yield();
  EXPECT_EQ(machine.mmio<uint32_t>(0x4000000004), ~0u);
  EXPECT_EQ(machine.config<uint16_t>(0, 0), 0x1b36);
  EXPECT_FALSE(removed);
  let_go = true;
  vcpu.join();
  control.join();
  EXPECT_TRUE(removed);
}

// Guests that use a device, move its BARs and eject it while the owner plugs and takes away.
TEST_F(Hotplug, EverybodyAtOnce) {
  std::atomic<bool> stop = false;
  machine.root.set_on_ejected([](unsigned, std::unique_ptr<Device>) {});
  std::vector<std::thread> vcpus;
  for (unsigned seed = 0; seed < 3; ++seed) {
    vcpus.emplace_back([&, seed] {
      unsigned state = seed + 1;
      while (!stop) {
        state = state * 1103515245 + 12345;
        unsigned slot = 1 + (state >> 16) % 4;
        switch ((state >> 24) % 6) {
          case 0:
            machine.set_config<uint32_t>(slot, 0x18, (state & 0xf) << 16);
            break;
          case 1:
            machine.set_config<uint16_t>(slot, 4, (state >> 8) & 2);
            break;
          case 2:
            eject(1u << slot);
            break;
          case 3:
            plugged();
            leaving();
            break;
          default:
            machine.mmio<uint32_t>(0x4000000000 + (state & 0xffffc));
            break;
        }
      }
    });
  }
  for (int i = 0; i < 2000; ++i) {
    if (std::popcount(machine.root.occupied()) < 4) machine.root.plug(std::make_unique<Card>()).value();
    unsigned slot = 1 + static_cast<unsigned>(i) % 4;
    if (i % 3 == 0) (void)machine.root.request_unplug(slot).ok();
    if (i % 5 == 0) (void)machine.root.remove(slot).ok();
  }
  stop = true;
  for (auto& vcpu : vcpus) vcpu.join();
}

}  // namespace
}  // namespace haneul::devices::pci
