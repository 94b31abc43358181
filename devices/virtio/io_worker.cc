// SPDX-License-Identifier: Apache-2.0
#include "devices/virtio/io_worker.h"

#include <poll.h>

namespace haneul::devices::virtio {

Result<std::unique_ptr<IoWorker>> IoWorker::create(unsigned ring_entries) {
  auto ring = TRY(storage::IoRing::create(ring_entries));
  return std::unique_ptr<IoWorker>(new IoWorker(std::move(ring), TRY(EventFd::create())));
}

Status IoWorker::start(ThreadStarter& threads, std::string name, Client& client,
                       std::vector<const EventFd*> doorbells) {
  CHECK(!running());
  stop_.drain();
  thread_ = TRY(threads.start(std::move(name),
                              [this, &client, doorbells = std::move(doorbells)] { run(client, doorbells); }));
  return {};
}

void IoWorker::halt() {
  if (!running()) return;
  ask_to_halt();
  thread_.join();
}

void IoWorker::run(Client& client, const std::vector<const EventFd*>& doorbells) {
  bool stopping = false;
  Watch stop([&] { stopping = true; });
  ring_->watch(stop, stop_.fd(), POLLIN);
  std::vector<std::unique_ptr<Watch>> watches;
  for (size_t i = 0; i < doorbells.size(); ++i) {
    if (doorbells[i] == nullptr) continue;
    watches.push_back(std::make_unique<Watch>([&client, i] { client.rang(i); }));
    ring_->watch(*watches.back(), doorbells[i]->fd(), POLLIN);
  }
  // A ring that cannot be turned leaves requests whose buffers the kernel may still write to: nothing can be
  // saved, and the process must not go on as if.
  bool more = client.work();
  while (!stopping) {
    ring_->run_once(!more).value();
    if (stopping) client.stop();
    more = client.work();
  }
  ring_->unwatch(stop);
  for (auto& watch : watches) ring_->unwatch(*watch);
  while (ring_->in_flight() > 0 || !client.idle()) {
    ring_->run_once().value();
    client.work();
  }
  ring_->leave().value();
}

}  // namespace haneul::devices::virtio
