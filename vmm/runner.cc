// SPDX-License-Identifier: Apache-2.0
#include "vmm/runner.h"

#include <sys/epoll.h>
#include <sys/random.h>

#include <algorithm>
#include <utility>

namespace haneul::vmm {

Result<std::unique_ptr<Runner>> Runner::create(RunnerConfig config, const Kvm& kvm, Spawner& spawner) {
  EventLoop loop = TRY(EventLoop::create());
  std::unique_ptr<Runner> runner(new Runner(std::move(config), kvm, spawner, std::move(loop)));
  Runner* self = runner.get();
  auto& id = self->config_.machine.generation_id;
  if (::getrandom(id.data(), id.size(), 0) != static_cast<ssize_t>(id.size()))
    return errno_error("getrandom");
  self->detached_event_ = TRY(EventFd::create());
  TRY(self->loop_.watch(self->detached_event_->fd(), EPOLLIN, [self](uint32_t) {
    self->detached_event_->drain();
    self->forget_detached();
  }));
  self->console_ = TRY(
      Console::create(self->loop_, self->config_.console_ring, std::move(self->config_.console_listener)));
  if (self->config_.control_listener) {
    self->control_ =
        TRY(ControlServer::create(self->loop_, std::move(self->config_.control_listener), *self));
  }
  TRY(self->build_machine());
  return runner;
}

Runner::Runner(RunnerConfig config, const Kvm& kvm, Spawner& spawner, EventLoop loop)
    : config_(std::move(config)), kvm_(kvm), spawner_(spawner), loop_(std::move(loop)) {}

Runner::~Runner() {
  // The machine's threads write to the console; they end first.
  if (machine_) {
    conclude_push();
    loop_.unwatch(machine_->ended().fd());
    loop_.unwatch(machine_->pushed().fd());
    loop_.unwatch(machine_->ejected().fd());
  }
  refuse_pushes();
  machine_.reset();
}

void Runner::set_console_listener(std::function<void(std::span<const std::byte>)> listener) {
  console_->set_listener(std::move(listener));
}

Status Runner::build_machine() {
  Console* console = console_.get();
  machine_ = TRY(
      Machine::create(config_.machine, {kvm_, spawner_.vcpus(), spawner_.io(),
                                        [console](std::span<const std::byte> data) { console->output(data); },
                                        [console] { console->room_again(); }}));
  machine_->set_on_detached([this](std::string id) {
    std::lock_guard lock(detached_mutex_);
    detached_.push_back(std::move(id));
    detached_event_->signal();
  });
  console_->set_typist([this](std::span<const std::byte> input) { return machine_->type(input); });
  TRY(loop_.watch(machine_->pushed().fd(), EPOLLIN, [this](uint32_t) {
    conclude_push();
    begin_next_push();
  }));
  TRY(loop_.watch(machine_->ejected().fd(), EPOLLIN, [this](uint32_t) {
    machine_->close_ejected();
    forget_detached();
  }));
  return loop_.watch(machine_->ended().fd(), EPOLLIN, [this](uint32_t) {
    machine_->ended().drain();
    loop_.stop();
  });
}

// A guest that resets itself in a loop would have the processor for building machines alone.
void Runner::wait_between_lives() {
  constexpr auto kLife = std::chrono::seconds(1);
  constexpr int kFreeLives = 15;
  auto now = std::chrono::steady_clock::now();
  lives_paid_until_ = std::max(lives_paid_until_, now) + kLife;
  auto start = lives_paid_until_ - kFreeLives * kLife;
  between_lives_ = true;
  while (start > now) {
    auto left = std::chrono::ceil<std::chrono::milliseconds>(start - now).count();
    // The machine was ended, or there is an error that run() meets as well.
    if (!loop_.run_once(static_cast<int>(left)).ok()) break;
    now = std::chrono::steady_clock::now();
  }
  between_lives_ = false;
}

Result<End> Runner::run() {
  paused_ = config_.start_paused;
  TRY(machine_->start(paused_));
  if (on_started_) on_started_();
  for (;;) {
    TRY(loop_.run());
    End end = machine_->outcome().value_or(End{EndReason::kStopped, ""});
    conclude_push();
    loop_.unwatch(machine_->ended().fd());
    loop_.unwatch(machine_->pushed().fd());
    loop_.unwatch(machine_->ejected().fd());
    console_->set_typist({});
    machine_.reset();
    if (stopping_ && end.reason == EndReason::kReset) return End{EndReason::kStopped, "asked for"};
    if (end.reason != EndReason::kReset || config_.reset_ends) return end;
    if (off_) return End{EndReason::kPoweredOff, "the power button was pressed while the guest was reset"};
    if (log_limit_.allow()) LOG_INFO("the guest was reset");
    forget_leaving();
    TRY(build_machine().context("starting over after a reset"));
    begin_next_push();
    wait_between_lives();
    // A pause holds across resets, also one that was asked for when the guest had just come to its end.
    if (!machine_->outcome()) TRY(machine_->start(paused_).context("starting over after a reset"));
  }
}

std::string Runner::state() {
  return paused_ ? "paused" : "running";
}

std::string Runner::statistics() {
  return machine_->statistics();
}

Status Runner::press_power_button() {
  if (!between_lives_ && !machine_->outcome()) {
    machine_->press_power_button();
    return {};
  }
  // No system is there that could take notice, so the machine goes off, as a PC does in its firmware.
  off_ = true;
  machine_->end(End{EndReason::kPoweredOff, "the power button was pressed while the guest was reset"});
  return {};
}

Status Runner::reset() {
  // The next machine is as new as a reset would make it, and has its life before it.
  if (between_lives_) return {};
  machine_->end(End{EndReason::kReset, "asked for"});
  return {};
}

Status Runner::pause() {
  machine_->pause();
  paused_ = true;
  return {};
}

Status Runner::resume() {
  machine_->resume();
  paused_ = false;
  return {};
}

// The next machine, after a reset, has only the disks that are there now.
void Runner::forget_detached() {
  std::lock_guard lock(detached_mutex_);
  for (const std::string& id : detached_) {
    std::erase_if(config_.machine.disks, [&id](const launch::Disk& d) { return d.id == id; });
    leaving_.erase(id);
  }
  detached_.clear();
}

// A guest that is reset has let go of everything, so what was asked to leave is gone.
void Runner::forget_leaving() {
  std::erase_if(config_.machine.disks, [this](const launch::Disk& d) { return leaving_.contains(d.id); });
  leaving_.clear();
}

Status Runner::attach_disk(launch::Disk disk) {
  forget_detached();
  TRY(machine_->attach_disk(disk));
  // An earlier disk of the same id is surely reported by now; the new one must not be taken for it.
  forget_detached();
  config_.machine.disks.push_back(std::move(disk));
  return {};
}

Status Runner::detach_disk(const std::string& id, bool force) {
  // No guest is there to let go of it.
  TRY(machine_->detach_disk(id, force || between_lives_));
  leaving_.insert(id);
  forget_detached();
  return {};
}

Status Runner::resize_disk(const std::string& id, uint64_t size_bytes) {
  return machine_->resize_disk(id, size_bytes);
}

std::vector<std::string> Runner::disk_ids() {
  machine_->close_ejected();
  std::vector<std::string> ids = machine_->disk_ids();
  // What is no longer named must be closed, so that another machine can open it.
  forget_detached();
  return ids;
}

void Runner::push_layers(std::vector<launch::VmmClient::PushLayer> pushes, PushReply reply) {
  constexpr size_t kMaxQueued = 64;
  if (push_queue_.size() == kMaxQueued)
    return reply(make_error(ErrorCode::kBusy, "{} snapshots wait for another that is under way", kMaxQueued));
  push_queue_.push_back({std::move(pushes), std::move(reply)});
  begin_next_push();
}

bool Runner::has_closed(std::string_view disk) const {
  if (machine_ == nullptr) return false;
  const std::vector<std::string> ids = machine_->disk_ids();
  return std::find(ids.begin(), ids.end(), disk) == ids.end();
}

bool Runner::is_pushing(std::string_view disk) const {
  auto names = [disk](const std::vector<launch::VmmClient::PushLayer>& pushes) {
    return std::any_of(pushes.begin(), pushes.end(), [disk](const auto& push) { return push.disk == disk; });
  };
  return names(pushes_) || std::any_of(push_queue_.begin(), push_queue_.end(),
                                       [&](const QueuedPush& queued) { return names(queued.pushes); });
}

void Runner::begin_next_push() {
  while (!push_reply_ && !push_queue_.empty()) {
    QueuedPush next = std::move(push_queue_.front());
    push_queue_.pop_front();
    auto begun = machine_->begin_push(next.pushes);
    if (!begun.ok()) {
      next.reply(begun.error());
      continue;
    }
    pushes_ = std::move(next.pushes);
    push_reply_ = std::move(next.reply);
  }
}

// The next machine, after a reset, opens what the volumes stand on by now: the new layers are there, in order, but for
// those that a failed push did not come to.
void Runner::conclude_push() {
  if (!push_reply_) return;
  Result<std::chrono::microseconds> outcome = machine_->finish_push();
  for (auto& push : pushes_) {
    auto& disks = config_.machine.disks;
    auto found =
        std::find_if(disks.begin(), disks.end(), [&](const launch::Disk& d) { return d.id == push.disk; });
    if (found == disks.end() || machine_->layers_of(push.disk) <= found->layers.size()) continue;
    found->layers.push_back(std::move(push.layer));
  }
  pushes_.clear();
  std::exchange(push_reply_, {})(std::move(outcome));
}

// Those that wait when the runner ends.
void Runner::refuse_pushes() {
  for (QueuedPush& push : std::exchange(push_queue_, {}))
    push.reply(Error(ErrorCode::kBusy, "the machine has come to its end"));
}

Status Runner::shut_down() {
  // Remembered, because the guest may be resetting itself at this very moment.
  stopping_ = true;
  machine_->end(End{EndReason::kStopped, "asked for"});
  return {};
}

}  // namespace haneul::vmm
