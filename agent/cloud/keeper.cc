// SPDX-License-Identifier: Apache-2.0
#include "agent/cloud/keeper.h"

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstring>

#include "agent/cloud/crash.h"
#include "base/file.h"
#include "base/log.h"

namespace haneul::agent {
namespace {

State state_of(const InstanceRecord& instance) {
  return state_from(instance.state).value_or(State::kTerminated);
}

// The event must be allowed: the caller has looked at the state under the same lock.
void apply(InstanceRecord& instance, Event event) {
  auto next = next_state(state_of(instance), event);
  CHECK(next.has_value());
  instance.state = name(*next);
  if (*next == State::kTerminated) instance.terminated_at = now();
}

// How our own child ended, "killed by signal 31 (Bad system call)"; empty for an earlier daemon's child, of
// which the kernel tells only that it is gone. No zombie stays.
std::string reap(const launch::Process& process) {
  siginfo_t info{};
  if (::waitid(P_PIDFD, static_cast<id_t>(process.pidfd.get()), &info, WEXITED | WNOHANG) != 0) return "";
  bool signalled = info.si_code == CLD_KILLED || info.si_code == CLD_DUMPED;
  if (info.si_pid == 0 || !signalled) return "";
  return fmt::format("killed by signal {} ({})", info.si_status, ::sigdescr_np(info.si_status));
}

}  // namespace

StateReason state_reason(std::string_view code, std::string_view message) {
  return {.code = std::string(code), .message = fmt::format("{}: {}", code, message)};
}

std::string user_initiated() {
  std::string text = to_text(now());
  return fmt::format("User initiated ({} {} GMT)", text.substr(0, 10), text.substr(11, 8));
}

NicPlan nic_of(const InstanceRecord& instance) {
  return {
      .instance_id = instance.id, .zone = instance.zone, .mac = instance.mac, .address = instance.address};
}

Keeper::Keeper(KeeperOptions options, Model& model, const Places& places, Machines& machines,
               Network& network, Stores& stores, Supervisor& supervisor, Executor& executor)
    : options_(std::move(options)),
      model_(model),
      places_(places),
      machines_(machines),
      network_(network),
      stores_(stores),
      supervisor_(supervisor),
      executor_(executor) {}

void Keeper::start(const std::string& id) {
  executor_.post(id, [this, id] { run_start(id); });
}

void Keeper::stop(const std::string& id, bool force) {
  executor_.post(id, [this, id, force] { run_stop(id, force); });
}

void Keeper::reboot(const std::string& id) {
  executor_.post(id, [this, id] { run_reboot(id); });
}

void Keeper::later(std::chrono::milliseconds delay, const std::string& id, std::function<void()> job) {
  supervisor_.after(delay, [this, id, job = std::move(job)] { executor_.post(id, job); });
}

// Under the lock.
void Keeper::save(const InstanceRecord& instance) {
  Update(model_).put(instance).commit_result();
}

Keeper::Process Keeper::process_of(const std::string& id) {
  std::scoped_lock lock(model_.mutex());
  auto found = live_.find(id);
  return found == live_.end() ? nullptr : found->second;
}

unsigned Keeper::slot_of(const InstanceRecord& instance) const {
  // The address within the VPC: no two instances have the same one.
  return address_from(instance.address).value_or(0) & 0xffff;
}

// ---- starting ----

void Keeper::run_start(const std::string& id) {
  auto instance = model_.instance(id);
  if (!instance || state_of(*instance) != State::kPending) return;
  crash_point("start.intended");
  start_machine(*instance);
}

// The volumes are held until the VMM that opened them is known.
void Keeper::start_machine(const InstanceRecord& instance) {
  hooks_.shut_down(instance.id);
  bool failed = false;
  {
    auto held = locks_.lock(volume_ids_of(instance.id));
    auto started = boot(instance);
    failed = !started.ok();
    record_start(instance.id, std::move(started));
  }
  if (failed) release(instance.id);
}

Result<launch::Process> Keeper::boot(const InstanceRecord& instance) {
  auto image = model_.image(instance.image_id);
  if (!image) return make_error(ErrorCode::kNotFound, "its image {} is gone", instance.image_id);
  TRY(make_instance_folder(options_.layout, instance.id));
  crash_point("start.prepared");
  auto launched = launch_plugged(instance, *image);
  if (!launched.ok()) {
    Status unplugged = network_.unplug(instance.id);
    if (!unplugged.ok()) LOG_WARNING("{}: {}", instance.id, unplugged.error().message());
  }
  return launched;
}

Result<launch::Process> Keeper::launch_plugged(const InstanceRecord& instance, const ImageRecord& image) {
  const InstanceType* type = find_instance_type(instance.type);
  const Zone* zone = places_.zone(instance.zone);
  if (type == nullptr || zone == nullptr) {
    return make_error(ErrorCode::kNotFound, "no type {} or zone {}", instance.type, instance.zone);
  }
  launch::Spec spec = TRY(make_spec(options_.layout, instance, image, *type, *zone, options_.name_server()));
  spec.disks = TRY(disks_of(instance));
  crash_point("start.opened");
  UniqueFd tap = TRY(network_.plug(nic_of(instance)));
  crash_point("start.plugged");
  if (tap) {
    launch::Nic nic;
    nic.tap = std::move(tap);
    nic.mac = mac_bytes(instance.mac);
    spec.nics.push_back(std::move(nic));
  }
  spec.program = options_.vmm_program;
  spec.kvm = TRY(machines_.open_kvm());
  spec.jail = machines_.jail(slot_of(instance));
  launch::Process process = TRY(machines_.launch(std::move(spec)));
  crash_point("start.launched");
  return process;
}

void Keeper::record_start(const std::string& id, Result<launch::Process> started) {
  bool failed = !started.ok();
  {
    std::scoped_lock lock(model_.mutex());
    InstanceRecord instance = model_.instances()[id];
    State state = state_of(instance);
    if (failed) {
      LOG_WARNING("{} did not start: {}", id, started.error().message());
      bool again = instance.has_run || state == State::kRunning;
      if (state == State::kPending || state == State::kRunning) {
        apply(instance, again ? Event::kRestartFailed : Event::kLaunchFailed);
        instance.transition_reason = "Server.InternalError";
        instance.reason = state_reason("Server.InternalError", started.error().message());
      }
    } else {
      instance.pid = started->pid;
      instance.start_ticks = static_cast<int64_t>(started->start_ticks);
      instance.has_run = true;
      if (state == State::kPending) {
        apply(instance, Event::kLaunched);
        instance.reason.reset();
        instance.transition_reason.clear();
      }
    }
    Update update(model_);
    update.put(instance);
    if (!failed) put_attached(update, id);
    update.commit_result();
  }
  crash_point("start.recorded");
  if (!failed) watch(id, std::move(started).value());
}

void Keeper::watch(const std::string& id, launch::Process process) {
  auto shared = std::make_shared<launch::Process>(std::move(process));
  {
    std::scoped_lock lock(model_.mutex());
    live_[id] = shared;
  }
  UniqueFd pidfd(::fcntl(shared->pidfd.get(), F_DUPFD_CLOEXEC, 3));
  supervisor_.when_readable(std::move(pidfd), [this, id, shared] {
    executor_.post(id, [this, id, shared] { run_ended(id, shared); });
  });
}

// ---- stopping ----

bool Keeper::press_power_button(const std::string& id) {
  auto control = machines_.connect(options_.layout.control_socket(id));
  Status pressed = control.ok() ? (*control)->press_power_button() : Status(control.error());
  if (!pressed.ok()) LOG_WARNING("{}: the power button: {}", id, pressed.error().message());
  return pressed.ok();
}

void Keeper::run_stop(const std::string& id, bool force) {
  auto instance = model_.instance(id);
  if (!instance) return;
  State state = state_of(*instance);
  if (state != State::kStopping && state != State::kShuttingDown) return;
  Process process = process_of(id);
  if (process == nullptr) return release(id);
  crash_point("stop.intended");
  if (force || !press_power_button(id)) {
    machines_.kill(*process);
    return;
  }
  auto timeout = state == State::kStopping ? options_.stop_timeout : options_.terminate_timeout;
  later(timeout, id, [this, id, process] { run_timeout(id, process); });
}

void Keeper::run_timeout(const std::string& id, const Process& process) {
  auto instance = model_.instance(id);
  if (!instance || process_of(id) != process) return;
  State state = state_of(*instance);
  if (state != State::kStopping && state != State::kShuttingDown) return;
  LOG_INFO("{} did not react to its power button in time and is switched off", id);
  machines_.kill(*process);
}

void Keeper::run_reboot(const std::string& id) {
  auto instance = model_.instance(id);
  Process process = process_of(id);
  if (!instance || !instance->rebooting || process == nullptr) return;
  if (!press_power_button(id)) return run_reset(id, process);
  later(options_.reboot_timeout, id, [this, id, process] { run_reset(id, process); });
}

void Keeper::run_reset(const std::string& id, const Process& process) {
  {
    std::scoped_lock lock(model_.mutex());
    auto found = model_.instances().find(id);
    if (found == model_.instances().end() || !found->second.rebooting || live_[id] != process) return;
    InstanceRecord instance = found->second;
    instance.rebooting = false;
    save(instance);
  }
  hooks_.shut_down(id);
  auto control = machines_.connect(options_.layout.control_socket(id));
  Status reset = control.ok() ? (*control)->reset() : Status(control.error());
  if (!reset.ok()) LOG_WARNING("{}: reset: {}", id, reset.error().message());
}

// ---- the end of a VMM ----

launch::Ending Keeper::ending_of(const std::string& id) {
  auto status = open_file(options_.layout.status(id), O_RDONLY);
  if (!status.ok()) return {.reason = "vanished", .detail = ""};
  return machines_.ending(status->get());
}

// A running instance left by itself: EC2's states and reasons for that.
void Keeper::apply_ending(InstanceRecord& instance, const launch::Ending& ending) {
  if (ending.reason == "powered-off") {
    bool terminate = instance.shutdown_behavior == "terminate";
    apply(instance, terminate ? Event::kGuestTerminated : Event::kGuestStopped);
    instance.reason = state_reason("Client.InstanceInitiatedShutdown", "Instance initiated shutdown");
    instance.transition_reason = "";
    return;
  }
  apply(instance, Event::kCrashed);
  std::string what = ending.reason == "vanished"
                         ? "the virtual machine's process was killed or crashed"
                         : fmt::format("the virtual machine ended: {}", ending.reason);
  if (!ending.detail.empty()) what += fmt::format(" ({})", ending.detail);
  instance.reason = state_reason("Server.InternalError", what);
  instance.transition_reason = "Server.InternalError";
  LOG_WARNING("{}: {}", instance.id, what);
}

void Keeper::run_ended(const std::string& id, const Process& process) {
  std::string death = reap(*process);
  launch::Ending ending = ending_of(id);
  if (ending.reason == "vanished") ending.detail = death;
  machines_.gone(id);
  std::optional<InstanceRecord> reboot;
  {
    std::scoped_lock lock(model_.mutex());
    if (live_[id] != process) return;
    live_.erase(id);
    InstanceRecord instance = model_.instances()[id];
    instance.pid = 0;
    instance.start_ticks = 0;
    if (state_of(instance) == State::kRunning) {
      if (instance.rebooting && ending.reason == "powered-off") {
        reboot = instance;
      } else {
        apply_ending(instance, ending);
      }
    }
    instance.rebooting = false;
    save(instance);
  }
  crash_point("ended.recorded");
  hooks_.shut_down(id);
  if (!reboot) return release(id);
  Status unplugged = network_.unplug(id);
  if (!unplugged.ok()) LOG_WARNING("{}: {}", id, unplugged.error().message());
  start_machine(*reboot);
}

void Keeper::release(const std::string& id) {
  auto instance = model_.instance(id);
  if (!instance) return;
  State state = state_of(*instance);
  if (state != State::kStopping && state != State::kShuttingDown) return;
  Status unplugged = network_.unplug(id);
  if (!unplugged.ok()) LOG_WARNING("{}: {}", id, unplugged.error().message());
  std::error_code ignored;
  std::filesystem::remove(options_.layout.control_socket(id), ignored);
  std::filesystem::remove(options_.layout.console_socket(id), ignored);
  if (state == State::kShuttingDown) std::filesystem::remove(options_.layout.status(id), ignored);
  release_volumes(*instance);
  crash_point("release.released");
  std::scoped_lock lock(model_.mutex());
  InstanceRecord record = model_.instances()[id];
  // A terminate that came while a stop was being released has a job of its own.
  if (state_of(record) != state) return;
  apply(record, Event::kReleased);
  save(record);
  LOG_INFO("{} is {}", id, record.state);
}

}  // namespace haneul::agent
