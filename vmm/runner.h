// SPDX-License-Identifier: Apache-2.0
// Runner: a Machine with its console and control socket, from start to end. A reset of the guest is the next
// Machine over the same files; every other end ends the runner. A pause holds across resets, a disk that was
// asked to leave is gone after one, and a guest that resets itself again and again is held back.
#pragma once

#include <chrono>
#include <deque>
#include <memory>
#include <set>
#include <string>

#include "base/event_loop.h"
#include "base/log.h"
#include "base/result.h"
#include "vmm/console.h"
#include "vmm/control.h"
#include "vmm/machine.h"
#include "vmm/spawner.h"

namespace haneul::vmm {

struct RunnerConfig {
  MachineConfig machine;
  UniqueFd console_ring;      ///< may be empty
  UniqueFd console_listener;  ///< may be empty
  UniqueFd control_listener;  ///< may be empty
  bool start_paused = false;
  bool reset_ends = false;  ///< end at a reset instead of starting over
};

/// Lives on the thread that calls create() and run(), the control thread.
class Runner final : public ControlHandler {
 public:
  static Result<std::unique_ptr<Runner>> create(RunnerConfig config, const Kvm& kvm, Spawner& spawner);
  ~Runner() override;

  /// Also gets the guest's serial output, on vCPU threads. Before run().
  void set_console_listener(std::function<void(std::span<const std::byte>)> listener);
  EventLoop& loop() { return loop_; }
  const RunnerConfig& config() const { return config_; }
  Console& console() { return *console_; }
  Machine& machine() { return *machine_; }
  /// Whether the next machine, after a reset, is built and does not run yet.
  bool between_lives() const { return between_lives_; }
  /// Whether the machine has let go of a disk that it was given. No machine, as at the end: none of them.
  bool has_closed(std::string_view disk) const;
  /// Whether a snapshot of the disk waits or is under way.
  bool is_pushing(std::string_view disk) const;
  /// Called once, when the vCPUs run (or stand ready, paused).
  void set_on_started(std::function<void()> callback) { on_started_ = std::move(callback); }

  /// Runs the guest to its end.
  Result<End> run();

  std::string state() override;
  std::string statistics() override;
  Status press_power_button() override;
  Status reset() override;
  Status pause() override;
  Status resume() override;
  Status attach_disk(launch::Disk disk) override;
  Status detach_disk(const std::string& id, bool force) override;
  Status resize_disk(const std::string& id, uint64_t size_bytes) override;
  std::vector<std::string> disk_ids() override;
  void push_layers(std::vector<launch::VmmClient::PushLayer> pushes, PushReply reply) override;
  Status shut_down() override;

 private:
  Runner(RunnerConfig config, const Kvm& kvm, Spawner& spawner, EventLoop loop);
  Status build_machine();
  void wait_between_lives();
  void forget_detached();
  void forget_leaving();
  void conclude_push();
  void begin_next_push();
  void refuse_pushes();

  RunnerConfig config_;
  const Kvm& kvm_;
  Spawner& spawner_;
  EventLoop loop_;
  std::unique_ptr<Console> console_;
  std::unique_ptr<ControlServer> control_;
  std::unique_ptr<Machine> machine_;
  std::function<void()> on_started_;
  // The push under way, and those that wait for it, in order.
  std::vector<launch::VmmClient::PushLayer> pushes_;
  PushReply push_reply_;
  struct QueuedPush {
    std::vector<launch::VmmClient::PushLayer> pushes;
    PushReply reply;
  };
  std::deque<QueuedPush> push_queue_;
  bool paused_ = false;
  bool stopping_ = false;
  bool off_ = false;  // the power button, when no guest ran
  bool between_lives_ = false;
  std::chrono::steady_clock::time_point lives_paid_until_;
  std::set<std::string> leaving_;  // disks that the guest was asked to let go
  LogLimiter log_limit_;
  // Disks that are gone, some reported from a vCPU's thread.
  std::mutex detached_mutex_;
  std::vector<std::string> detached_;
  std::optional<EventFd> detached_event_;
};

}  // namespace haneul::vmm
