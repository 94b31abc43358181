// SPDX-License-Identifier: Apache-2.0
#include "vmm/machine.h"

#include <fcntl.h>

#include <algorithm>

#include "base/log.h"
#include "devices/virtio/net.h"
#include "devices/virtio/pci_transport.h"
#include "devices/virtio/rng.h"
#include "storage/raw.h"
#include "storage/volume/volume.h"
#include "vmm/arch/x86_64/boot.h"
#include "vmm/arch/x86_64/cpuid.h"
#include "vmm/arch/x86_64/layout.h"
#include "vmm/arch/x86_64/reset_port.h"
#include "vmm/arch/x86_64/tables.h"
#include "vmm/loader/kernel_image.h"

namespace haneul::vmm {

using devices::acpi::PowerAction;

namespace {

// One I/O thread serves a disk, so more queues than a few only cost memory: they keep the guest's processors out of
// each other's way.
constexpr unsigned kMaxDiskQueues = 4;

}  // namespace

Result<UniqueFd> duplicate(const UniqueFd& fd) {
  if (!fd) return UniqueFd();
  UniqueFd copy(::fcntl(fd.get(), F_DUPFD_CLOEXEC, 3));
  if (!copy) return errno_error("duplicating a descriptor");
  return copy;
}

Result<std::unique_ptr<Machine>> Machine::create(const MachineConfig& config, Surroundings surroundings) {
  if (config.vcpus < 1 || config.vcpus > x86::kMaxVcpus) {
    return make_error(ErrorCode::kInvalidArgument, "an instance has 1 to {} vCPUs, not {}", x86::kMaxVcpus,
                      config.vcpus);
  }
  KvmVm vm = TRY(KvmVm::create(surroundings.kvm));
  EventFd ended = TRY(EventFd::create());
  EventFd pushed = TRY(EventFd::create());
  EventFd ejected = TRY(EventFd::create());
  std::unique_ptr<Machine> machine(new Machine(std::move(vm), std::move(ended), std::move(pushed),
                                               std::move(ejected), std::move(surroundings)));
  TRY(machine->build(config));
  return machine;
}

Machine::Machine(KvmVm vm, EventFd ended, EventFd pushed, EventFd ejected, Surroundings surroundings)
    : surroundings_(std::move(surroundings)),
      vm_(std::move(vm)),
      ended_(std::move(ended)),
      pushed_(std::move(pushed)),
      ejected_(std::move(ejected)) {}

Machine::~Machine() {
  for (const auto& vcpu : vcpus_) vcpu->request_stop();
  for (const auto& vcpu : vcpus_) vcpu->join();
  if (push_thread_.joinable()) push_thread_.join();
}

Status Machine::build(const MachineConfig& config) {
  disk_queues_ = static_cast<uint16_t>(std::min(config.vcpus, kMaxDiskQueues));
  ram_ = TRY(GuestRam::create(config.memory_bytes, config.huge_pages));
  TRY(ram_->map_into(vm_));
  TRY(vm_.set_tss_and_identity_map(x86::kTssGpa, x86::kIdentityMapGpa));
  TRY(vm_.create_irqchip());
  interrupts_ = std::make_unique<KvmInterrupts>(vm_);
  TRY(build_buses());
  TRY(build_devices(config));
  TRY(load(config));
  return build_vcpus(config);
}

Status Machine::build_buses() {
  serial_line_ = TRY(interrupts_->line(x86::kSerialIrq));
  serial_ = std::make_unique<devices::Serial>(*serial_line_, surroundings_.console);
  if (surroundings_.console_room) serial_->set_on_space(surroundings_.console_room);
  TRY(pio_.insert(x86::kSerialPort, devices::Serial::kRegisters, *serial_));

  event_line_ = TRY(interrupts_->line(x86::kEventIrq));
  events_ = std::make_unique<devices::acpi::EventDevice>(*event_line_);
  TRY(mmio_.insert(x86::kEventGpa, x86::kRegisterBytes, *events_));
  power_ = std::make_unique<devices::acpi::PowerRegisters>([this](PowerAction action) {
    end(End{action == PowerAction::kReset ? EndReason::kReset : EndReason::kPoweredOff, ""});
  });
  TRY(mmio_.insert(x86::kPowerGpa, x86::kRegisterBytes, *power_));
  reset_port_ = std::make_unique<x86::ResetPort>([this] { end(End{EndReason::kReset, ""}); });

  devices::pci::Layout layout;
  layout.ecam_base = x86::kEcamGpa;
  layout.ecam_size = x86::kEcamBytes;
  layout.mmio32_base = x86::kMmio32Gpa;
  layout.mmio32_size = x86::kMmio32Bytes;
  layout.mmio64_base = x86::mmio64_gpa(ram_->bytes());
  layout.mmio64_size = x86::kMmio64Bytes;
  pci_ = std::make_unique<devices::pci::Root>(layout);
  pci_->set_hotplug_event([this] { events_->raise(devices::acpi::kPciHotplug); });
  pci_->set_on_ejected(
      [this](unsigned, std::unique_ptr<devices::pci::Device> device) { on_ejected(std::move(device)); });
  TRY(pci_->attach_to(mmio_));
  using devices::pci::ConfigPorts;
  static_assert(x86::kResetPort == ConfigPorts::kPort + 1);
  config_ports_ = std::make_unique<ConfigPorts>(*pci_, *reset_port_);
  TRY(pio_.insert(ConfigPorts::kPort, ConfigPorts::kPorts, *config_ports_));
  hotplug_ = std::make_unique<devices::pci::HotplugRegisters>(*pci_);
  return mmio_.insert(x86::kHotplugGpa, x86::kRegisterBytes, *hotplug_);
}

Status Machine::build_devices(const MachineConfig& config) {
  using namespace devices::virtio;
  for (const launch::Disk& disk : config.disks) {
    MadeDisk made = TRY(make_disk(disk).context(fmt::format("disk {}", disk.id)));
    const auto* function = made.function.get();
    unsigned slot = TRY(pci_->add(std::move(made.function)));
    disks_.push_back({disk.id, slot, function, made.block, made.volume});
  }
  for (const launch::Nic& nic : config.nics) {
    NetOptions options;
    options.mac = nic.mac;
    options.mtu = nic.mtu;
    auto net = TRY(make_net(options, TRY(duplicate(nic.tap))).context("network interface"));
    TRY(pci_->add(TRY(PciTransport::create(std::move(net), ram_->memory(), *interrupts_, *interrupts_,
                                           surroundings_.io_threads))));
  }
  if (config.entropy) {
    auto rng = TRY(make_rng());
    TRY(pci_->add(TRY(PciTransport::create(std::move(rng), ram_->memory(), *interrupts_, *interrupts_,
                                           surroundings_.io_threads))));
  }
  return {};
}

Result<Machine::MadeDisk> Machine::make_disk(const launch::Disk& disk) {
  using namespace devices::virtio;
  MadeDisk made;
  std::unique_ptr<storage::BlockBackend> backend;
  if (disk.format == launch::DiskFormat::kRaw) {
    storage::RawOptions options;
    options.read_only = disk.read_only;
    backend = TRY(storage::open_raw(TRY(duplicate(disk.file)), options));
  } else {
    std::vector<storage::StackDescriptor> layers;
    for (const launch::Layer& layer : disk.layers) layers.push_back({TRY(duplicate(layer.file)), layer.key});
    storage::VolumeOptions options;
    options.read_only = disk.read_only;
    auto volume = TRY(storage::open_volume(TRY(duplicate(disk.base)), std::move(layers), options));
    made.volume = volume.get();
    backend = std::move(volume);
  }
  BlockOptions options;
  options.id = disk.id;
  options.read_only = disk.read_only;
  options.queues = disk_queues_;
  auto device = TRY(make_block(options, std::move(backend)));
  made.block = device.get();
  made.function = TRY(PciTransport::create(std::move(device), ram_->memory(), *interrupts_, *interrupts_,
                                           surroundings_.io_threads));
  return made;
}

Status Machine::load(const MachineConfig& config) {
  const devices::GuestMemory& memory = ram_->memory();
  KernelImage kernel = TRY(load_kernel(config.kernel.get(), memory, ram_->low_end()));
  InitrdPlace initrd = TRY(load_initrds(config.initrds, kernel, memory, ram_->low_end()));
  TRY(x86::write_boot_data(memory, ram_->bytes(), kernel, initrd, config.command_line));
  TRY(x86::write_acpi_tables(memory, ram_->bytes(), config.vcpus, config.generation_id));
  x86::SystemIdentity identity;
  identity.uuid = config.uuid.empty() ? "ec200000-0000-0000-0000-000000000000" : config.uuid;
  identity.product = config.product;
  TRY(x86::write_smbios(memory, ram_->bytes(), config.vcpus, identity));
  kernel_entry_ = kernel.entry;
  return {};
}

Status Machine::build_vcpus(const MachineConfig& config) {
  std::vector<kvm_cpuid_entry2> supported = TRY(surroundings_.kvm.supported_cpuid());
  bool tsc_deadline = surroundings_.kvm.capability(KVM_CAP_TSC_DEADLINE_TIMER) > 0;
  for (unsigned i = 0; i < config.vcpus; ++i) {
    UniqueFd fd = TRY(vm_.create_vcpu(i));
    TRY(x86::set_cpuid(fd, x86::guest_cpuid(supported, i, config.vcpus, tsc_deadline)));
    TRY(x86::set_common_registers(fd));
    // The others wait for the INIT and SIPI of the first, which KVM's local APIC handles.
    if (i == 0) TRY(x86::set_boot_registers(fd, kernel_entry_));
    vcpus_.push_back(TRY(Vcpu::create(std::move(fd), i, surroundings_.kvm.vcpu_map_bytes(), {mmio_, pio_},
                                      [this](End reason) { end(std::move(reason)); })));
  }
  return {};
}

// The first vCPU comes last: the others wait for it, so the guest runs only if all can.
Status Machine::start(bool paused) {
  for (auto vcpu = vcpus_.rbegin(); vcpu != vcpus_.rend(); ++vcpu) {
    TRY((*vcpu)->start(surroundings_.vcpu_threads, paused));
  }
  return {};
}

void Machine::pause() {
  for (const auto& vcpu : vcpus_) vcpu->pause();
}

void Machine::resume() {
  for (const auto& vcpu : vcpus_) vcpu->resume();
}

void Machine::end(End reason) {
  {
    std::lock_guard lock(mutex_);
    if (outcome_) return;
    outcome_ = std::move(reason);
  }
  for (const auto& vcpu : vcpus_) vcpu->request_stop();
  ended_.signal();
}

std::optional<End> Machine::outcome() const {
  std::lock_guard lock(mutex_);
  return outcome_;
}

void Machine::press_power_button() {
  events_->raise(devices::acpi::kPowerButton);
}

Status Machine::attach_disk(const launch::Disk& disk) {
  {
    std::lock_guard lock(mutex_);
    if (std::any_of(disks_.begin(), disks_.end(), [&](const PluggedDisk& d) { return d.id == disk.id; })) {
      return make_error(ErrorCode::kExists, "the disk {} is attached already", disk.id);
    }
  }
  MadeDisk made = TRY(make_disk(disk).context(fmt::format("disk {}", disk.id)));
  const auto* function = made.function.get();
  unsigned slot = TRY(pci_->plug(std::move(made.function)));
  std::lock_guard lock(mutex_);
  disks_.push_back({disk.id, slot, function, made.block, made.volume});
  return {};
}

Status Machine::detach_disk(std::string_view id, bool force) {
  unsigned slot = 0;
  {
    std::lock_guard lock(mutex_);
    auto found =
        std::find_if(disks_.begin(), disks_.end(), [id](const PluggedDisk& d) { return d.id == id; });
    if (found == disks_.end()) return make_error(ErrorCode::kNotFound, "no disk {} is attached", id);
    if (found->function == nullptr) return {};  // already on its way out
    slot = found->slot;
  }
  if (!force) return pci_->request_unplug(slot);
  auto device = TRY(pci_->remove(slot));
  on_ejected(std::move(device));
  close_ejected();
  return {};
}

// On a vCPU's thread when the guest has let go, and that thread may not do what closing a disk takes.
void Machine::on_ejected(std::unique_ptr<devices::pci::Device> device) {
  {
    // From here on nobody resizes it.
    std::lock_guard lock(mutex_);
    auto found = std::find_if(disks_.begin(), disks_.end(),
                              [&](const PluggedDisk& d) { return d.function == device.get(); });
    if (found == disks_.end()) return;
    found->function = nullptr;
    found->block = nullptr;
    found->volume = nullptr;
    ejected_disks_.emplace_back(found->id, std::move(device));
  }
  ejected_.signal();
}

void Machine::close_ejected() {
  ejected_.drain();
  if (push_thread_.joinable()) return;
  for (;;) {
    std::pair<std::string, std::unique_ptr<devices::pci::Device>> next;
    {
      std::lock_guard lock(mutex_);
      if (ejected_disks_.empty()) return;
      next = std::move(ejected_disks_.back());
      ejected_disks_.pop_back();
    }
    // The device's destructor waits for its I/O, so what is reported as detached is at rest.
    next.second.reset();
    std::lock_guard lock(mutex_);
    std::erase_if(disks_, [&](const PluggedDisk& d) { return d.id == next.first; });
    if (on_detached_) on_detached_(std::move(next.first));
  }
}

Status Machine::resize_disk(std::string_view id, uint64_t size_bytes) {
  std::lock_guard lock(mutex_);
  auto found = std::find_if(disks_.begin(), disks_.end(), [id](const PluggedDisk& d) { return d.id == id; });
  if (found == disks_.end() || found->block == nullptr) {
    return make_error(ErrorCode::kNotFound, "no disk {} is attached", id);
  }
  return found->block->resize(size_bytes);
}

std::vector<std::string> Machine::disk_ids() const {
  std::lock_guard lock(mutex_);
  std::vector<std::string> ids;
  for (const PluggedDisk& disk : disks_) ids.push_back(disk.id);
  return ids;
}

std::string Machine::statistics() const {
  std::string text = "{\"vcpus\":[";
  for (size_t i = 0; i < vcpus_.size(); ++i) {
    const ExitCounters& exits = vcpus_[i]->exits();
    text += fmt::format("{}{{\"mmio\":{},\"pio\":{},\"signal\":{},\"other\":{}}}", i == 0 ? "" : ",",
                        exits.mmio.load(), exits.pio.load(), exits.signal.load(), exits.other.load());
  }
  return text + fmt::format("],\"memory_bytes\":{}}}", ram_->bytes());
}

}  // namespace haneul::vmm
