// SPDX-License-Identifier: Apache-2.0
#include "vmm/interrupts.h"

#include "base/log.h"

namespace haneul::vmm {
namespace {

constexpr uint32_t kIoapicPins = 24;
constexpr uint32_t kPicPins = 16;
constexpr uint32_t kFirstMsiGsi = kIoapicPins;
// KVM takes 4096 routes; the fixed ones are 40.
constexpr uint32_t kMaxVectors = 2048;

}  // namespace

class KvmInterrupts::Line final : public devices::Interrupt {
 public:
  Line(const KvmVm& vm, EventFd event, uint32_t pin) : vm_(vm), event_(std::move(event)), pin_(pin) {}
  ~Line() override { (void)vm_.set_irqfd(event_.fd(), pin_, false); }
  void trigger() override { event_.signal(); }

 private:
  const KvmVm& vm_;
  EventFd event_;
  uint32_t pin_;
};

class KvmInterrupts::Vector final : public devices::MsiVector {
 public:
  Vector(KvmInterrupts& owner, EventFd event, uint32_t gsi)
      : owner_(owner), event_(std::move(event)), gsi_(gsi) {}
  ~Vector() override {
    if (attached_) (void)owner_.vm_.set_irqfd(event_.fd(), gsi_, false);
    owner_.release(gsi_);
  }

  void trigger() override { event_.signal(); }

  Status route(const devices::MsiMessage& message) override {
    TRY(owner_.route(gsi_, message));
    std::lock_guard lock(mutex_);
    if (attached_) return {};
    // What was signalled before the guest had programmed the vector is lost, as the interface says.
    event_.drain();
    TRY(owner_.vm_.set_irqfd(event_.fd(), gsi_, true));
    attached_ = true;
    return {};
  }

 private:
  KvmInterrupts& owner_;
  EventFd event_;
  uint32_t gsi_;
  std::mutex mutex_;
  bool attached_ = false;
};

KvmInterrupts::KvmInterrupts(const KvmVm& vm) : vm_(vm) {}
KvmInterrupts::~KvmInterrupts() = default;

Result<std::unique_ptr<devices::Interrupt>> KvmInterrupts::line(uint32_t pin) {
  CHECK(pin < kIoapicPins);
  EventFd event = TRY(EventFd::create());
  TRY(vm_.set_irqfd(event.fd(), pin, true));
  return std::unique_ptr<devices::Interrupt>(std::make_unique<Line>(vm_, std::move(event), pin));
}

Result<std::unique_ptr<devices::MsiVector>> KvmInterrupts::allocate() {
  EventFd event = TRY(EventFd::create());
  std::lock_guard lock(mutex_);
  size_t index = 0;
  while (index < slots_.size() && slots_[index].used) ++index;
  if (index == kMaxVectors)
    return make_error(ErrorCode::kNoSpace, "all {} MSI vectors are in use", kMaxVectors);
  if (index == slots_.size()) slots_.emplace_back();
  slots_[index].used = true;
  return std::unique_ptr<devices::MsiVector>(
      std::make_unique<Vector>(*this, std::move(event), kFirstMsiGsi + static_cast<uint32_t>(index)));
}

Status KvmInterrupts::route(uint32_t gsi, const devices::MsiMessage& message) {
  std::lock_guard lock(mutex_);
  Slot& slot = slots_[gsi - kFirstMsiGsi];
  if (slot.routed && slot.message.address == message.address && slot.message.data == message.data) return {};
  slot.routed = true;
  slot.message = message;
  return write_table();
}

void KvmInterrupts::release(uint32_t gsi) {
  std::lock_guard lock(mutex_);
  // The stale route stays in the table: its irqfd is gone, so nothing can use it.
  slots_[gsi - kFirstMsiGsi] = Slot{};
}

Status KvmInterrupts::write_table() {
  std::vector<kvm_irq_routing_entry> entries;
  entries.reserve(kIoapicPins + kPicPins + slots_.size());
  auto chip = [&entries](uint32_t gsi, uint32_t irqchip, uint32_t pin) {
    kvm_irq_routing_entry entry{};
    entry.gsi = gsi;
    entry.type = KVM_IRQ_ROUTING_IRQCHIP;
    entry.u.irqchip.irqchip = irqchip;
    entry.u.irqchip.pin = pin;
    entries.push_back(entry);
  };
  for (uint32_t pin = 0; pin < kIoapicPins; ++pin) chip(pin, KVM_IRQCHIP_IOAPIC, pin);
  for (uint32_t pin = 0; pin < kPicPins; ++pin) {
    chip(pin, pin < 8 ? KVM_IRQCHIP_PIC_MASTER : KVM_IRQCHIP_PIC_SLAVE, pin % 8);
  }
  for (size_t i = 0; i < slots_.size(); ++i) {
    if (!slots_[i].routed) continue;
    kvm_irq_routing_entry entry{};
    entry.gsi = kFirstMsiGsi + static_cast<uint32_t>(i);
    entry.type = KVM_IRQ_ROUTING_MSI;
    entry.u.msi.address_lo = static_cast<uint32_t>(slots_[i].message.address);
    entry.u.msi.address_hi = static_cast<uint32_t>(slots_[i].message.address >> 32);
    entry.u.msi.data = slots_[i].message.data;
    entries.push_back(entry);
  }
  return vm_.set_gsi_routing(entries);
}

Status KvmInterrupts::bind(devices::GuestAddress address, const EventFd& event) {
  return vm_.set_ioeventfd(event.fd(), address.value, true);
}

void KvmInterrupts::unbind(devices::GuestAddress address, const EventFd& event) {
  Status status = vm_.set_ioeventfd(event.fd(), address.value, false);
  if (!status.ok()) LOG_WARNING("{}", status.error().message());
}

}  // namespace haneul::vmm
