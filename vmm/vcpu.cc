// SPDX-License-Identifier: Apache-2.0
#include "vmm/vcpu.h"

#include <sys/ioctl.h>
#include <sys/mman.h>

#include <cerrno>
#include <cstring>

namespace haneul::vmm {

std::string_view name(EndReason reason) {
  switch (reason) {
    case EndReason::kPoweredOff:
      return "powered-off";
    case EndReason::kReset:
      return "reset";
    case EndReason::kTripleFault:
      return "triple-fault";
    case EndReason::kKvmError:
      return "kvm-error";
    case EndReason::kStopped:
      return "stopped";
  }
  return "unknown";
}

int kick_signal() {
  return SIGRTMIN + 1;
}

Status install_kick_handler() {
  struct sigaction action {};
  action.sa_handler = [](int) {};
  if (::sigaction(kick_signal(), &action, nullptr) != 0) return errno_error("sigaction");
  return {};
}

Result<std::unique_ptr<Vcpu>> Vcpu::create(UniqueFd fd, unsigned index, size_t map_bytes, Buses buses,
                                           OnEnd on_end) {
  void* map = ::mmap(nullptr, map_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0);
  if (map == MAP_FAILED) return errno_error("mapping the state of vCPU {}", index);
  return std::unique_ptr<Vcpu>(
      new Vcpu(std::move(fd), index, static_cast<kvm_run*>(map), map_bytes, buses, std::move(on_end)));
}

Vcpu::Vcpu(UniqueFd fd, unsigned index, kvm_run* run, size_t map_bytes, Buses buses, OnEnd on_end)
    : fd_(std::move(fd)),
      index_(index),
      run_(run),
      map_bytes_(map_bytes),
      buses_(buses),
      on_end_(std::move(on_end)) {}

Vcpu::~Vcpu() {
  request_stop();
  join();
  ::munmap(run_, map_bytes_);
}

Status Vcpu::start(ThreadStarter& threads, bool paused) {
  if (paused) request_ = Request::kPause;
  thread_ = TRY(threads.start(fmt::format("vcpu{}", index_), [this] { loop(); }));
  return {};
}

void Vcpu::loop() {
  // A program that blocks signals before it starts threads has blocked this one as well.
  sigset_t kick;
  ::sigemptyset(&kick);
  ::sigaddset(&kick, kick_signal());
  ::pthread_sigmask(SIG_UNBLOCK, &kick, nullptr);
  {
    std::lock_guard lock(mutex_);
    handle_ = ::pthread_self();
    alive_ = true;
  }
  for (;;) {
    // The order matters, see the head of vcpu.h: clear, then look, then run.
    std::atomic_ref<uint8_t>(run_->immediate_exit).store(0);
    Request request = request_.load();
    if (request == Request::kStop) break;
    if (!(request == Request::kPause ? stand_still() : run_once())) break;
  }
  std::lock_guard lock(mutex_);
  alive_ = false;
  still_ = true;
  changed_.notify_all();
}

bool Vcpu::stand_still() {
  if (!complete_pending_access()) return false;
  std::unique_lock lock(mutex_);
  still_ = true;
  changed_.notify_all();
  changed_.wait(lock, [this] { return request_.load() != Request::kPause; });
  still_ = false;
  // Linux must not take the time that it stood still for a lock-up. A guest without kvmclock cannot be told.
  (void)::ioctl(fd_.get(), KVM_KVMCLOCK_CTRL, 0);
  return true;
}

// KVM finishes an access that user space answered (a read's value reaches its register) at the next KVM_RUN;
// with immediate_exit it does only that. One that spans two pages or more than eight bytes comes in parts,
// each an exit of its own.
bool Vcpu::complete_pending_access() {
  std::atomic_ref<uint8_t>(run_->immediate_exit).store(1);
  while (::ioctl(fd_.get(), KVM_RUN, 0) == 0) {
    if (!handle_exit()) return false;
  }
  return true;
}

bool Vcpu::run_once() {
  if (::ioctl(fd_.get(), KVM_RUN, 0) == 0) return handle_exit();
  if (errno == EINTR) {
    exits_.signal.fetch_add(1, std::memory_order_relaxed);
    return true;
  }
  if (errno == EAGAIN && !is_stuck()) return true;
  const char* advice =
      errno == EAGAIN ? " (is a limit on threads reached: pids.max of the cgroup, or ulimit -u?)" : "";
  on_end_(End{EndReason::kKvmError, errno_error("KVM_RUN of vCPU {}{}", index_, advice).message()});
  return false;
}

// KVM says "again" to a vCPU that was woken while it waits to be started, and over and over to one that has an NMI
// pending by then, for as long as the guest likes. It also says so, each time and to every vCPU, where it cannot start
// the thread of its own that it wants for a machine. The first vCPU never waits to be started and tells the two apart.
bool Vcpu::is_stuck() {
  constexpr unsigned kFreeTries = 3;
  constexpr unsigned kTries = 1000;
  auto now = std::chrono::steady_clock::now();
  if (now - last_refusal_ > std::chrono::milliseconds(100)) refusals_ = 0;
  last_refusal_ = now;
  if (++refusals_ > kTries && index_ == 0) {
    errno = EAGAIN;
    return true;
  }
  if (refusals_ > kFreeTries) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  return false;
}

bool Vcpu::handle_exit() {
  switch (run_->exit_reason) {
    case KVM_EXIT_MMIO: {
      exits_.mmio.fetch_add(1, std::memory_order_relaxed);
      size_t length = std::min<size_t>(run_->mmio.len, sizeof run_->mmio.data);
      auto data = std::as_writable_bytes(std::span(run_->mmio.data).first(length));
      if (run_->mmio.is_write != 0) {
        buses_.mmio.write(run_->mmio.phys_addr, data);
      } else {
        buses_.mmio.read(run_->mmio.phys_addr, data);
      }
      return true;
    }
    case KVM_EXIT_IO:
      exits_.pio.fetch_add(1, std::memory_order_relaxed);
      handle_pio();
      return true;
    case KVM_EXIT_INTR:
      exits_.signal.fetch_add(1, std::memory_order_relaxed);
      return true;
    case KVM_EXIT_SHUTDOWN:
      on_end_(End{EndReason::kTripleFault, fmt::format("vCPU {} shut down after a triple fault", index_)});
      return false;
    case KVM_EXIT_SYSTEM_EVENT:
      exits_.other.fetch_add(1, std::memory_order_relaxed);
      if (run_->system_event.type == KVM_SYSTEM_EVENT_SHUTDOWN) {
        on_end_(End{EndReason::kPoweredOff, ""});
      } else {
        on_end_(End{EndReason::kReset, ""});
      }
      return false;
    case KVM_EXIT_INTERNAL_ERROR: {
      kvm_regs regs{};
      (void)::ioctl(fd_.get(), KVM_GET_REGS, &regs);
      uint32_t suberror = run_->internal.suberror;
      const char* meaning =
          suberror == KVM_INTERNAL_ERROR_EMULATION
              ? "it met an instruction that it cannot emulate: this KVM interprets guest code "
                "instead of running it, or the guest executes from device memory"
              : "internal error";
      on_end_(End{EndReason::kKvmError, fmt::format("KVM gave up on vCPU {} at rip {:#x}: {} (suberror {})",
                                                    index_, regs.rip, meaning, suberror)});
      return false;
    }
    case KVM_EXIT_FAIL_ENTRY:
      on_end_(End{EndReason::kKvmError,
                  fmt::format("the processor refused to enter the guest on vCPU {} (hardware reason {:#x})",
                              index_, uint64_t{run_->fail_entry.hardware_entry_failure_reason})});
      return false;
    default:
      on_end_(End{EndReason::kKvmError,
                  fmt::format("KVM stopped vCPU {} with exit reason {}, which Haneul does not use", index_,
                              uint32_t{run_->exit_reason})});
      return false;
  }
}

void Vcpu::handle_pio() {
  size_t width = run_->io.size;
  auto* data = reinterpret_cast<std::byte*>(run_) + run_->io.data_offset;
  for (uint32_t i = 0; i < run_->io.count; ++i, data += width) {
    if (run_->io.direction == KVM_EXIT_IO_OUT) {
      buses_.pio.write(run_->io.port, std::span<const std::byte>(data, width));
    } else {
      buses_.pio.read(run_->io.port, std::span(data, width));
    }
  }
}

void Vcpu::ask(Request request) {
  std::lock_guard lock(mutex_);
  // A stop is final.
  if (request_.load() == Request::kStop) return;
  request_.store(request);
  kick();
  changed_.notify_all();
}

void Vcpu::kick() {
  std::atomic_ref<uint8_t>(run_->immediate_exit).store(1);
  if (alive_ && !::pthread_equal(handle_, ::pthread_self())) ::pthread_kill(handle_, kick_signal());
}

void Vcpu::pause() {
  ask(Request::kPause);
  std::unique_lock lock(mutex_);
  if (!thread_.joinable()) return;
  changed_.wait(lock, [this] { return still_ || request_.load() == Request::kRun; });
}

void Vcpu::resume() {
  ask(Request::kRun);
}

void Vcpu::request_stop() {
  ask(Request::kStop);
}

void Vcpu::join() {
  if (thread_.joinable()) thread_.join();
}

}  // namespace haneul::vmm
