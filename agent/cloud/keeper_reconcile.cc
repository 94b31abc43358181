// SPDX-License-Identifier: Apache-2.0
// The part of Keeper that runs at the daemon's start, and what it tidies from time to time.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <set>

#include "agent/cloud/keeper.h"
#include "base/file.h"
#include "base/log.h"

namespace haneul::agent {
namespace {

constexpr off_t kMaxLogBytes = 1 << 20;
constexpr off_t kKeptLogBytes = 256 << 10;

bool has_process(const InstanceRecord& instance) {
  return instance.pid > 0;
}

}  // namespace

// A VMM that is recorded and lives is watched again. One that was started and not recorded is ended: nobody
// has been told that it runs, and its start is repeated.
std::optional<launch::Process> Keeper::find_again(InstanceRecord instance) {
  if (has_process(instance)) {
    auto found =
        machines_.find(static_cast<pid_t>(instance.pid), static_cast<uint64_t>(instance.start_ticks));
    if (found.ok()) {
      LOG_INFO("{} runs on as process {}", instance.id, instance.pid);
      return std::move(found).value();
    }
    // A full disk may have kept the record of a newer one from being written.
    clear(instance);
    instance.pid = 0;
    instance.start_ticks = 0;
    if (instance.state == name(State::kRunning)) {
      launch::Ending ending = ending_of(instance.id);
      if (instance.rebooting && ending.reason == "powered-off") {
        instance.state = name(State::kPending);
      } else {
        apply_ending(instance, ending);
      }
    }
  } else {
    clear(instance);
    // Between the end of the old VMM of a reboot and the record of the new one.
    if (instance.state == name(State::kRunning)) instance.state = name(State::kPending);
  }
  instance.rebooting = false;
  std::scoped_lock lock(model_.mutex());
  save(instance);
  return std::nullopt;
}

void Keeper::clear(const InstanceRecord& instance) {
  Status cleared = machines_.clear(instance.uuid);
  if (!cleared.ok()) LOG_ERROR("{}: {}", instance.id, cleared.error().message());
  machines_.gone(instance.id);
}

void Keeper::resume(const InstanceRecord& instance) {
  auto state = state_from(instance.state);
  if (state == State::kPending) start(instance.id);
  if (state == State::kStopping || state == State::kShuttingDown) stop(instance.id, instance.forced);
  if (state == State::kRunning && instance.rebooting) reboot(instance.id);
}

void Keeper::resume_volumes() {
  std::vector<VolumeRecord> volumes;
  {
    std::scoped_lock lock(model_.mutex());
    for (const auto& [id, volume] : model_.volumes()) volumes.push_back(volume);
  }
  for (const VolumeRecord& volume : volumes) {
    if (volume.state == "creating" && volume.instance_id.empty()) create_volume(volume.id);
    if (volume.state == "deleting") delete_volume(volume.id);
    if (volume.attachment == "attaching") attach(volume);
    if (volume.attachment == "detaching") detach(volume);
    if (volume.modification.state == "modifying") modify(volume);
  }
}

Status Keeper::reconcile() {
  std::vector<InstanceRecord> instances;
  {
    std::scoped_lock lock(model_.mutex());
    for (const auto& [id, instance] : model_.instances()) instances.push_back(instance);
  }
  std::vector<NicPlan> live;
  std::vector<std::pair<std::string, launch::Process>> running;
  for (const InstanceRecord& instance : instances) {
    bool at_rest = instance.state == name(State::kTerminated) || instance.state == name(State::kStopped);
    auto process = at_rest ? std::nullopt : find_again(instance);
    if (!process) continue;
    live.push_back(nic_of(instance));
    running.emplace_back(instance.id, std::move(*process));
  }
  TRY(network_.reconcile(live));
  // Not before: one that ends now may start again, and needs the network for it.
  for (auto& [id, process] : running) watch(id, std::move(process));
  for (const InstanceRecord& instance : instances) {
    auto current = model_.instance(instance.id);
    if (current) resume(*current);
  }
  resume_volumes();
  tidy();
  return {};
}

void Keeper::tidy() {
  std::vector<InstanceRecord> instances;
  {
    std::scoped_lock lock(model_.mutex());
    model_.save_late();
    for (const auto& [id, instance] : model_.instances()) instances.push_back(instance);
  }
  for (const InstanceRecord& instance : instances) {
    bool old = instance.state == name(State::kTerminated) &&
               now().ms - instance.terminated_at.ms >= options_.terminated_visible.count();
    if (!old) {
      trim_log(instance.id);
      continue;
    }
    // The files before the record: what a crash leaves is then still known.
    std::error_code error;
    std::filesystem::remove_all(options_.layout.instance(instance.id), error);
    std::scoped_lock lock(model_.mutex());
    Update update(model_);
    update.remove<InstanceRecord>(instance.id);
    for (const auto& [id, token] : model_.tokens()) {
      if (token.reservation_id == instance.reservation_id) update.remove<TokenRecord>(id);
    }
    Status removed = update.commit();
    if (!removed.ok()) LOG_ERROR("{} cannot be forgotten: {}", instance.id, removed.error().message());
  }
  forget_unused_images();
}

void Keeper::forget_unused_images() {
  std::vector<std::string> unused;
  {
    std::scoped_lock lock(model_.mutex());
    std::set<std::string> used;
    for (const auto& [id, instance] : model_.instances()) {
      if (instance.state != name(State::kTerminated)) used.insert(instance.image_id);
    }
    // A volume or snapshot of a root may become an image's again, with the kernel that booted it.
    for (const auto& [id, volume] : model_.volumes()) used.insert(volume.image_id);
    for (const auto& [id, snapshot] : model_.snapshots()) used.insert(snapshot.image_id);
    for (const auto& [id, image] : model_.images()) used.insert(image.kernel_from);
    for (const auto& [id, image] : model_.images()) {
      if (image.state == "deregistered" && !used.contains(id)) unused.push_back(id);
    }
  }
  for (const std::string& id : unused) {
    std::error_code error;
    std::filesystem::remove_all(options_.layout.image(id), error);
    std::scoped_lock lock(model_.mutex());
    Status removed = Update(model_).remove<ImageRecord>(id).commit();
    if (!removed.ok()) LOG_ERROR("{} cannot be forgotten: {}", id, removed.error().message());
  }
}

// The VMM appends to the file by itself, also while no daemon runs; so the file is cut, not renamed.
void Keeper::trim_log(const std::string& id) {
  std::filesystem::path path = options_.layout.log(id);
  UniqueFd log(::open(path.c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW));
  struct stat info {};
  if (!log || ::fstat(log.get(), &info) != 0 || info.st_size <= kMaxLogBytes) return;
  std::string tail(static_cast<size_t>(kKeptLogBytes), '\0');
  Status read = read_exact_at(log.get(), static_cast<uint64_t>(info.st_size - kKeptLogBytes),
                              std::as_writable_bytes(std::span(tail)));
  if (read.ok()) read = replace_file(path.string() + ".old", tail);
  if (!read.ok()) LOG_WARNING("{}: {}", path.string(), read.error().message());
  if (::ftruncate(log.get(), 0) != 0) LOG_WARNING("{}: it cannot be cut", path.string());
}

}  // namespace haneul::agent
