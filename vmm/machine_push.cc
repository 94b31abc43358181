// SPDX-License-Identifier: Apache-2.0
// Snapshots of a running machine's disks: a new layer on each, at one moment. On a thread of its own, because
// what the guest wrote becomes durable first, and that takes as long as it takes.
#include <algorithm>

#include "storage/volume/direct_file.h"
#include "vmm/machine.h"

namespace haneul::vmm {

Status Machine::begin_push(std::vector<launch::VmmClient::PushLayer>& pushes) {
  if (push_thread_.joinable()) return Error(ErrorCode::kBusy, "another snapshot is under way");
  std::vector<launch::VmmClient::PushLayer*> fresh;
  auto work = std::make_shared<std::vector<storage::Push>>();
  std::lock_guard lock(mutex_);
  for (auto& push : pushes) {
    auto found =
        std::find_if(disks_.begin(), disks_.end(), [&](const PluggedDisk& d) { return d.id == push.disk; });
    if (found == disks_.end() || found->block == nullptr)
      return make_error(ErrorCode::kNotFound, "no disk {} is attached", push.disk);
    if (found->volume == nullptr)
      return make_error(ErrorCode::kInvalidArgument, "the disk {} is not a volume", push.disk);
    auto file = TRY(storage::make_file(TRY(duplicate(push.layer.file)), found->volume->bounce()));
    // Had already: all that can be left to do is finishing an earlier push. (A layer has one lock, the volume's.)
    const bool had = found->volume->holds(TRY(storage::read_layer_info(*file)).id);
    // Here, because the push's thread may not.
    if (!had) {
      TRY(file->lock(storage::AsyncFile::Lock::kExclusive)
              .context(fmt::format("the new layer of disk {}", push.disk)));
      fresh.push_back(&push);
    }
    work->push_back({found->volume, {std::move(file), push.layer.key}});
  }
  push_thread_ = TRY(surroundings_.io_threads.start("push", [this, work] {
    push_outcome_ = storage::push_layers(*work);
    pushed_.signal();
  }));
  std::vector<launch::VmmClient::PushLayer> left;
  for (auto* push : fresh) left.push_back(std::move(*push));
  pushes = std::move(left);
  return {};
}

Result<std::chrono::microseconds> Machine::finish_push() {
  if (push_thread_.joinable()) push_thread_.join();
  pushed_.drain();
  close_ejected();
  return push_outcome_;
}

size_t Machine::layers_of(std::string_view id) const {
  std::lock_guard lock(mutex_);
  auto found = std::find_if(disks_.begin(), disks_.end(), [id](const PluggedDisk& d) { return d.id == id; });
  return found == disks_.end() || found->volume == nullptr ? 0 : found->volume->layers();
}

}  // namespace haneul::vmm
