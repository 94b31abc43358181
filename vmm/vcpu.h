// SPDX-License-Identifier: Apache-2.0
// Vcpu: one virtual processor and the thread that runs it.
//
// The thread is in one of three states, asked for by others and entered between two KVM_RUNs: running,
// paused, stopped. To interrupt a KVM_RUN, the request is stored, then kvm_run.immediate_exit, then the
// thread gets a signal: whichever point the thread has reached, it sees one of the three. An access that the
// guest made is always answered and completed before the thread pauses, so no instruction is lost or done
// twice.
#pragma once

#include <signal.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <string>
#include <thread>

#include "base/result.h"
#include "base/thread.h"
#include "base/unique_fd.h"
#include "devices/bus.h"
#include "vmm/kvm_uapi.h"

namespace haneul::vmm {

/// Why a machine came to its end.
enum class EndReason {
  kPoweredOff,   ///< the guest switched itself off (ACPI S5)
  kReset,        ///< the guest, or the control socket, asked for a reset
  kTripleFault,  ///< the guest could not handle its own faults
  kKvmError,     ///< KVM could not go on; the detail says with what
  kStopped,      ///< ended from outside
};
std::string_view name(EndReason reason);

struct End {
  EndReason reason = EndReason::kStopped;
  std::string detail;
};

/// Exits to user space by kind. Written by the vCPU's thread, read by anybody.
struct ExitCounters {
  std::atomic<uint64_t> mmio{0};
  std::atomic<uint64_t> pio{0};
  std::atomic<uint64_t> signal{0};
  std::atomic<uint64_t> other{0};
  uint64_t total() const { return mmio + pio + signal + other; }
};

/// The signal that gets a vCPU's thread out of KVM_RUN. It has an empty handler.
int kick_signal();
/// Installs that handler. Once a process, before the first vCPU runs.
Status install_kick_handler();

class Vcpu {
 public:
  struct Buses {
    const devices::Bus& mmio;
    const devices::Bus& pio;
  };
  /// Told once, on the vCPU's thread, when the vCPU cannot go on by itself.
  using OnEnd = std::function<void(End)>;

  static Result<std::unique_ptr<Vcpu>> create(UniqueFd fd, unsigned index, size_t map_bytes, Buses buses,
                                              OnEnd on_end);
  ~Vcpu();
  Vcpu(const Vcpu&) = delete;
  Vcpu& operator=(const Vcpu&) = delete;

  const UniqueFd& fd() const { return fd_; }
  const ExitCounters& exits() const { return exits_; }

  /// Starts the thread, paused or running. Fails as the starter does.
  Status start(ThreadStarter& threads, bool paused);
  /// Returns when the vCPU stands still, or its thread has ended. Not to be called on its own thread.
  void pause();
  void resume();
  /// Makes the thread leave as soon as it can; does not wait. May be called on any thread, its own included.
  void request_stop();
  /// Waits for the thread to end, after request_stop().
  void join();

 private:
  enum class Request : uint32_t { kRun, kPause, kStop };

  Vcpu(UniqueFd fd, unsigned index, kvm_run* run, size_t map_bytes, Buses buses, OnEnd on_end);
  void loop();
  /// False: the vCPU has ended instead.
  bool stand_still();
  /// Runs the guest until its next exit, and handles it. False: the vCPU has ended.
  bool run_once();
  /// KVM_RUN failed with EAGAIN: whether it has, for too long.
  bool is_stuck();
  bool handle_exit();
  void handle_pio();
  bool complete_pending_access();
  void ask(Request request);
  void kick();

  UniqueFd fd_;
  unsigned index_;
  kvm_run* run_;
  size_t map_bytes_;
  Buses buses_;
  OnEnd on_end_;
  ExitCounters exits_;
  std::chrono::steady_clock::time_point last_refusal_;
  unsigned refusals_ = 0;

  std::atomic<Request> request_{Request::kRun};
  std::mutex mutex_;
  std::condition_variable changed_;
  bool still_ = false;  // paused or gone; guarded by mutex_
  std::atomic<pthread_t> handle_{};
  std::atomic<bool> alive_{false};
  std::thread thread_;
};

}  // namespace haneul::vmm
