// SPDX-License-Identifier: Apache-2.0
#include "vmm/embed/vm.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <future>
#include <mutex>
#include <thread>

#include "base/file.h"
#include "base/thread.h"
#include "storage/volume/layer.h"
#include "vmm/probe.h"
#include "vmm/runner.h"

namespace haneul {
namespace {

constexpr size_t kMaxConsole = 4 << 20;

Status make_layer(int fd, const storage::LayerId& parent, uint64_t size_bytes, uint64_t base_bytes) {
  storage::NewLayer layer;
  layer.id = storage::random_layer_id();
  layer.parent = parent;
  layer.size_bytes = size_bytes;
  layer.raw_base_bytes = base_bytes;
  return storage::create_layer(fd, layer);
}

Result<launch::Disk> open_disk(const VmDisk& from) {
  launch::Disk disk;
  disk.id = from.id;
  disk.read_only = from.read_only;
  int access = from.read_only ? O_RDONLY : O_RDWR;
  if (from.base.empty()) {
    disk.file = TRY(open_file(from.path, access));
    return disk;
  }
  disk.format = launch::DiskFormat::kVolume;
  disk.base = TRY(open_file(from.base, O_RDONLY));
  for (const std::string& layer : from.layers)
    disk.layers.push_back({TRY(open_file(layer, O_RDONLY)), std::nullopt});
  disk.layers.push_back({TRY(open_file(from.path, access | O_CREAT)), std::nullopt});
  int top = disk.layers.back().file.get();
  if (disk.layers.size() == 1 && TRY(file_size(top)) == 0) {
    uint64_t size = TRY(file_size(disk.base.get()));
    TRY(make_layer(top, {}, size, size));
  }
  return disk;
}

const launch::Disk* find_disk(const vmm::Runner& runner, const std::string& id) {
  const auto& disks = runner.config().machine.disks;
  auto disk = std::find_if(disks.begin(), disks.end(), [&id](const launch::Disk& d) { return d.id == id; });
  return disk == disks.end() ? nullptr : &*disk;
}

/// An empty layer in a new file, to be put on the disk's top.
Result<launch::VmmClient::PushLayer> next_layer(const vmm::Runner& runner, const std::string& id,
                                                const std::string& path) {
  const launch::Disk* disk = find_disk(runner, id);
  if (disk == nullptr) return make_error(ErrorCode::kNotFound, "no disk {} is attached", id);
  if (disk->layers.empty())
    return make_error(ErrorCode::kInvalidArgument, "the disk {} is not copy-on-write", id);
  // The new layer would stand on one that is not the top any more.
  if (runner.is_pushing(id))
    return make_error(ErrorCode::kBusy, "another snapshot of the disk {} is under way: wait for its end", id);
  storage::LayerInfo top = TRY(storage::read_layer_info(disk->layers.back().file.get()));
  UniqueFd file = TRY(open_file(path, O_RDWR | O_CREAT | O_EXCL));
  Status made = make_layer(file.get(), top.id, top.size_bytes, 0);
  if (!made.ok()) {
    ::unlink(path.c_str());
    return made.error();
  }
  return launch::VmmClient::PushLayer{id, {std::move(file), std::nullopt}};
}

/// Takes a failed snapshot's file away, unless the disk stands on it all the same, or may have: of one that was detached
/// meanwhile that is not known any more.
void remove_unused_layer(const vmm::Runner& runner, const std::string& id, const std::string& path,
                         size_t layers_before) {
  const launch::Disk* disk = find_disk(runner, id);
  if (disk != nullptr && !runner.has_closed(id) && disk->layers.size() == layers_before)
    ::unlink(path.c_str());
}

Result<vmm::RunnerConfig> runner_config(const VmConfig& from) {
  vmm::RunnerConfig config;
  vmm::MachineConfig& machine = config.machine;
  machine.memory_bytes = from.memory_bytes;
  machine.huge_pages = from.huge_pages;
  machine.vcpus = from.vcpus;
  machine.command_line = from.command_line;
  machine.kernel = TRY(open_file(from.kernel, O_RDONLY));
  for (const std::string& path : from.initrds) machine.initrds.push_back(TRY(open_file(path, O_RDONLY)));
  for (const VmDisk& disk : from.disks) machine.disks.push_back(TRY(open_disk(disk)));
  config.reset_ends = from.reset_ends;
  return config;
}

std::string last_lines(const std::string& text) {
  constexpr size_t kShown = 600;
  return text.size() <= kShown ? text : "…" + text.substr(text.size() - kShown);
}

}  // namespace

// The control thread owns the runner and does everything to it; the others hand it work and wait.
class Vm::Impl {
 public:
  static Result<std::unique_ptr<Impl>> start(const VmConfig& config) {
    vmm::Kvm kvm = TRY(vmm::Kvm::open());
    TRY(vmm::install_kick_handler());
    vmm::RunnerConfig runner = TRY(runner_config(config));
    EventFd work = TRY(EventFd::create());
    std::unique_ptr<Impl> impl(new Impl(std::move(kvm), std::move(work)));
    std::promise<Status> ready;
    auto outcome = ready.get_future();
    impl->thread_ = TRY(start_thread(
        "haneul-vm", [self = impl.get(), &ready, &runner] { self->control(std::move(runner), ready); }));
    TRY(outcome.get());
    return impl;
  }

  ~Impl() {
    if (!thread_.joinable()) return;
    (void)call([](vmm::Runner& runner) { return runner.shut_down(); });
    thread_.join();
  }

  /// Does something on the control thread; kCancelled once the guest has ended.
  Status call(std::function<Status(vmm::Runner&)> what) {
    std::promise<Status> promise;
    auto outcome = promise.get_future();
    {
      std::lock_guard lock(mutex_);
      if (end_) return ended_error();
      work_.push_back([this, &promise, what = std::move(what)](vmm::Runner* runner) {
        promise.set_value(runner != nullptr ? what(*runner) : ended_error());
      });
    }
    work_event_.signal();
    return outcome.get();
  }

  std::string console() const {
    std::lock_guard lock(mutex_);
    return console_;
  }

  Status wait_for_console(std::string_view text, std::chrono::milliseconds timeout) {
    std::unique_lock lock(mutex_);
    auto deadline = std::chrono::steady_clock::now() + timeout;
    for (;;) {
      size_t found = console_.find(text, seen_);
      if (found != std::string::npos) {
        seen_ = found + text.size();
        return {};
      }
      if (end_) {
        return make_error(ErrorCode::kCancelled, "the guest ended ({}) before its console said '{}': {}",
                          end_->reason, text, last_lines(console_));
      }
      if (changed_.wait_until(lock, deadline) == std::cv_status::timeout) {
        return make_error(ErrorCode::kTimeout, "the console did not say '{}': {}", text,
                          last_lines(console_));
      }
    }
  }

  Result<VmEnd> wait(std::chrono::milliseconds timeout) {
    std::unique_lock lock(mutex_);
    if (!changed_.wait_for(lock, timeout, [this] { return end_.has_value(); })) {
      return make_error(ErrorCode::kTimeout, "the guest has not ended within {} ms", timeout.count());
    }
    return *end_;
  }

  bool wait_until(std::chrono::milliseconds timeout, const std::function<bool()>& condition) const {
    auto deadline = std::chrono::steady_clock::now() + timeout;
    while (!condition()) {
      if (std::chrono::steady_clock::now() > deadline) return false;
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
    return true;
  }

 private:
  Impl(vmm::Kvm kvm, EventFd work) : kvm_(std::move(kvm)), work_event_(std::move(work)) {}

  Error ended_error() const {
    return make_error(ErrorCode::kCancelled, "the guest has ended ({})", end_->reason);
  }

  void control(vmm::RunnerConfig config, std::promise<Status>& ready) {
    auto give_up = [&](const Error& error) {
      finish(VmEnd{"failed", error.message()});
      ready.set_value(error);
    };
    auto spawner = vmm::Spawner::create(nullptr);
    if (!spawner.ok()) return give_up(spawner.error());
    auto runner = vmm::Runner::create(std::move(config), kvm_, **spawner);
    if (!runner.ok()) return give_up(runner.error());
    (*runner)->set_console_listener([this](std::span<const std::byte> data) { on_console(data); });
    Status watched = (*runner)->loop().watch(work_event_.fd(), EPOLLIN, [this, &runner](uint32_t) {
      work_event_.drain();
      do_work(runner->get());
    });
    if (!watched.ok()) return give_up(watched.error());
    ready.set_value(Status());
    auto end = (*runner)->run();
    // Before it is told: who waits for the end may open the disks again.
    runner->reset();
    finish(end.ok() ? VmEnd{std::string(vmm::name(end->reason)), end->detail}
                    : VmEnd{"failed", end.error().message()});
  }

  /// runner: null once the guest has ended.
  void do_work(vmm::Runner* runner) {
    for (;;) {
      std::function<void(vmm::Runner*)> next;
      {
        std::lock_guard lock(mutex_);
        if (work_.empty()) return;
        next = std::move(work_.front());
        work_.pop_front();
      }
      next(runner);
    }
  }

  void finish(VmEnd end) {
    {
      std::lock_guard lock(mutex_);
      end_ = std::move(end);
    }
    changed_.notify_all();
    // Work that was handed in while the guest ended still gets its answer.
    do_work(nullptr);
  }

  void on_console(std::span<const std::byte> data) {
    {
      std::lock_guard lock(mutex_);
      console_.append(reinterpret_cast<const char*>(data.data()), data.size());
      if (console_.size() > kMaxConsole) {
        size_t cut = console_.size() - kMaxConsole / 2;
        console_.erase(0, cut);
        seen_ -= std::min(seen_, cut);
      }
    }
    changed_.notify_all();
  }

  vmm::Kvm kvm_;
  EventFd work_event_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void(vmm::Runner*)>> work_;
  std::string console_;
  size_t seen_ = 0;
  std::optional<VmEnd> end_;
  std::thread thread_;
};

Vm::Vm(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Vm::Vm(Vm&&) noexcept = default;
Vm& Vm::operator=(Vm&&) noexcept = default;
Vm::~Vm() = default;

Result<Vm> Vm::launch(const VmConfig& config) {
  return Vm(TRY(Impl::start(config)));
}

Status Vm::can_run_linux() {
  return vmm::probe_linux(TRY(vmm::Kvm::open()));
}

std::string Vm::console() const {
  return impl_->console();
}

Status Vm::wait_for_console(std::string_view text, std::chrono::milliseconds timeout) {
  return impl_->wait_for_console(text, timeout);
}

Status Vm::type(std::string_view text) {
  std::string rest(text);
  bool done = false;
  // The serial line takes as much as its FIFO holds; the guest has to read before it takes more.
  bool in_time = impl_->wait_until(std::chrono::seconds(30), [&] {
    Status typed = impl_->call([&rest](vmm::Runner& runner) -> Status {
      rest.erase(0, runner.machine().type(std::as_bytes(std::span(rest))));
      return {};
    });
    done = rest.empty();
    return done || !typed.ok();
  });
  if (done) return {};
  if (!in_time)
    return make_error(ErrorCode::kTimeout, "the guest does not read its console: {} bytes are left",
                      rest.size());
  return Error(ErrorCode::kCancelled, "the guest has ended");
}

Status Vm::attach_disk(const VmDisk& disk) {
  launch::Disk opened = TRY(open_disk(disk));
  return impl_->call([&opened](vmm::Runner& runner) { return runner.attach_disk(std::move(opened)); });
}

Status Vm::detach_disk(std::string_view id, bool force, std::chrono::milliseconds timeout) {
  std::string name(id);
  TRY(impl_->call([&](vmm::Runner& runner) { return runner.detach_disk(name, force); }));
  bool gone = impl_->wait_until(timeout, [&] {
    auto ids = disk_ids();
    return std::find(ids.begin(), ids.end(), name) == ids.end();
  });
  if (!gone) return make_error(ErrorCode::kTimeout, "the guest does not let go of the disk {}", id);
  return {};
}

Status Vm::resize_disk(std::string_view id, uint64_t size_bytes) {
  std::string name(id);
  return impl_->call([&](vmm::Runner& runner) { return runner.resize_disk(name, size_bytes); });
}

std::vector<std::string> Vm::disk_ids() const {
  std::vector<std::string> ids;
  (void)impl_->call([&ids](vmm::Runner& runner) -> Status {
    ids = runner.disk_ids();
    return {};
  });
  return ids;
}

Result<std::chrono::microseconds> Vm::snapshot_disk(std::string_view id, const std::string& path) {
  using Outcome = Result<std::chrono::microseconds>;
  auto promise = std::make_shared<std::promise<Outcome>>();
  auto outcome = promise->get_future();
  std::string name(id);
  TRY(impl_->call([&](vmm::Runner& runner) -> Status {
    std::vector<launch::VmmClient::PushLayer> pushes;
    pushes.push_back(TRY(next_layer(runner, name, path)));
    size_t layers = find_disk(runner, name)->layers.size();
    runner.push_layers(std::move(pushes), [promise, &runner, name, path, layers](Outcome stalled) {
      if (!stalled.ok()) remove_unused_layer(runner, name, path, layers);
      promise->set_value(std::move(stalled));
    });
    return {};
  }));
  return outcome.get();
}

Status Vm::pause() {
  return impl_->call([](vmm::Runner& runner) { return runner.pause(); });
}

Status Vm::resume() {
  return impl_->call([](vmm::Runner& runner) { return runner.resume(); });
}

Status Vm::press_power_button() {
  return impl_->call([](vmm::Runner& runner) { return runner.press_power_button(); });
}

Status Vm::stop() {
  return impl_->call([](vmm::Runner& runner) { return runner.shut_down(); });
}

Result<VmEnd> Vm::wait(std::chrono::milliseconds timeout) {
  return impl_->wait(timeout);
}

uint64_t Vm::exits() const {
  uint64_t total = 0;
  (void)impl_->call([&total](vmm::Runner& runner) -> Status {
    for (const auto& vcpu : runner.machine().vcpus()) total += vcpu->exits().total();
    return {};
  });
  return total;
}

}  // namespace haneul
