// SPDX-License-Identifier: Apache-2.0
// Machine: one virtual machine put together: memory, kernel, vCPUs, buses, devices.
//
// Threads: created, started, controlled and destroyed on one thread, the control thread. The guest's end is
// reported through an EventFd that this thread waits for. A machine runs once: a reset is the next Machine
// over the same files.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "base/event_fd.h"
#include "base/result.h"
#include "base/thread.h"
#include "base/unique_fd.h"
#include "devices/acpi_events.h"
#include "devices/bus.h"
#include "devices/pci/config_ports.h"
#include "devices/pci/root.h"
#include "devices/serial.h"
#include "devices/virtio/block.h"
#include "storage/volume/volume.h"
#include "vmm/interrupts.h"
#include "vmm/kvm.h"
#include "vmm/launch/launch.h"
#include "vmm/ram.h"
#include "vmm/vcpu.h"

namespace haneul::vmm {

struct MachineConfig {
  uint64_t memory_bytes = 128 << 20;
  unsigned vcpus = 1;
  bool huge_pages = false;
  UniqueFd kernel;
  std::vector<UniqueFd> initrds;
  std::string command_line;
  std::string uuid;
  std::string product;
  /// New for each machine that is started, the same after its resets.
  std::array<uint8_t, 16> generation_id{};
  /// The machine duplicates the descriptors that it uses, so the next one (after a reset) finds them here.
  std::vector<launch::Disk> disks;
  std::vector<launch::Nic> nics;
  bool entropy = true;
};

class Machine {
 public:
  /// What the machine needs from around it; all of it outlives the machine.
  struct Surroundings {
    const Kvm& kvm;
    /// For vCPUs, and for the devices' I/O threads.
    ThreadStarter& vcpu_threads;
    ThreadStarter& io_threads;
    /// The guest's serial output, on vCPU threads.
    std::function<void(std::span<const std::byte>)> console;
    /// The serial line has room for input again; any thread.
    std::function<void()> console_room;
  };

  /// Builds everything and loads the kernel. Nothing runs yet.
  static Result<std::unique_ptr<Machine>> create(const MachineConfig& config, Surroundings surroundings);
  ~Machine();
  Machine(const Machine&) = delete;
  Machine& operator=(const Machine&) = delete;

  /// All vCPUs, or none that has run the guest.
  Status start(bool paused = false);
  void pause();
  void resume();
  /// Ends the machine from outside: ended() signals soon.
  void end(End end);

  /// Readable once the guest has ended; then `outcome()` says how.
  const EventFd& ended() const { return ended_; }
  std::optional<End> outcome() const;

  size_t type(std::span<const std::byte> input) { return serial_->feed(input); }
  void press_power_button();

  Status attach_disk(const launch::Disk& disk);
  /// With force the guest has lost it when this returns; disk_ids() names it until it is closed.
  Status detach_disk(std::string_view id, bool force);
  Status resize_disk(std::string_view id, uint64_t size_bytes);
  std::vector<std::string> disk_ids() const;

  /// Puts these layers on their disks (storage::push_layers) on a thread of its own: pushed() is signalled
  /// when finish_push() has the outcome. kBusy while another push is under way, kNotFound and
  /// kInvalidArgument for disks that are not there or no volumes. The descriptors are duplicated. Once begun, those
  /// that their disks do not have yet stay in `pushes`.
  Status begin_push(std::vector<launch::VmmClient::PushLayer>& pushes);
  const EventFd& pushed() const { return pushed_; }
  /// Waits for the end of the push that was begun: how long changes were held back. Closes the disks that left
  /// meanwhile.
  Result<std::chrono::microseconds> finish_push();
  /// 0 for a disk that is no volume, or not there.
  size_t layers_of(std::string_view id) const;

  /// Readable when the guest has let go of a disk; then close_ejected() closes it, on the control thread. While
  /// a push is under way that is left to finish_push(): a push takes as long as its disk does.
  const EventFd& ejected() const { return ejected_; }
  void close_ejected();
  /// Called when a disk is gone, on the control thread, before disk_ids() no longer names it. Must not call
  /// back.
  void set_on_detached(std::function<void(std::string id)> callback) { on_detached_ = std::move(callback); }

  const GuestRam& ram() const { return *ram_; }
  const std::vector<std::unique_ptr<Vcpu>>& vcpus() const { return vcpus_; }
  /// Counters as JSON text.
  std::string statistics() const;

 private:
  struct PluggedDisk {
    std::string id;
    unsigned slot = 0;
    // Owned by the PCI root; null while it is being taken away.
    const devices::pci::Device* function = nullptr;
    devices::virtio::Block* block = nullptr;
    storage::Volume* volume = nullptr;  ///< the device's, if it is one
  };
  struct MadeDisk {
    std::unique_ptr<devices::pci::Device> function;
    devices::virtio::Block* block = nullptr;
    storage::Volume* volume = nullptr;
  };

  Machine(KvmVm vm, EventFd ended, EventFd pushed, EventFd ejected, Surroundings surroundings);
  Status build(const MachineConfig& config);
  Status build_buses();
  Status build_devices(const MachineConfig& config);
  Status build_vcpus(const MachineConfig& config);
  Status load(const MachineConfig& config);
  Result<MadeDisk> make_disk(const launch::Disk& disk);
  void on_ejected(std::unique_ptr<devices::pci::Device> device);

  Surroundings surroundings_;
  // From here on in the order of dependence: destroyed from the bottom up.
  KvmVm vm_;
  std::unique_ptr<GuestRam> ram_;
  std::unique_ptr<KvmInterrupts> interrupts_;
  devices::Bus mmio_;
  devices::Bus pio_;
  std::unique_ptr<devices::Interrupt> serial_line_;
  std::unique_ptr<devices::Serial> serial_;
  std::unique_ptr<devices::Interrupt> event_line_;
  std::unique_ptr<devices::acpi::EventDevice> events_;
  std::unique_ptr<devices::acpi::PowerRegisters> power_;
  std::unique_ptr<devices::BusDevice> reset_port_;
  std::unique_ptr<devices::pci::Root> pci_;
  std::unique_ptr<devices::pci::ConfigPorts> config_ports_;
  std::unique_ptr<devices::pci::HotplugRegisters> hotplug_;
  uint16_t disk_queues_ = 1;
  uint64_t kernel_entry_ = 0;
  std::vector<std::unique_ptr<Vcpu>> vcpus_;

  EventFd ended_;
  EventFd pushed_;
  EventFd ejected_;
  mutable std::mutex mutex_;  // guards outcome_, disks_ and ejected_disks_
  /// Until it is joined, no volume goes away.
  std::thread push_thread_;
  Result<std::chrono::microseconds> push_outcome_ =
      std::chrono::microseconds(0);  // the thread's until joined
  std::optional<End> outcome_;
  std::vector<PluggedDisk> disks_;
  std::vector<std::pair<std::string, std::unique_ptr<devices::pci::Device>>> ejected_disks_;
  std::function<void(std::string)> on_detached_;
};

/// A duplicate of a descriptor, close-on-exec.
Result<UniqueFd> duplicate(const UniqueFd& fd);

}  // namespace haneul::vmm
