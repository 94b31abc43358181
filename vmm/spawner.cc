// SPDX-License-Identifier: Apache-2.0
#include "vmm/spawner.h"

namespace haneul::vmm {
namespace {

// A thread that could not be bound must not run.
void bind(const Filters* filters, ThreadKind kind) {
  if (filters != nullptr) filters->apply(kind).value();
}

}  // namespace

Spawner::Spawner(const Filters* filters) : filters_(filters), thread_([this] { loop(); }) {}

Spawner::~Spawner() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

std::thread Spawner::Starter::start(std::string name, std::function<void()> body) {
  Order order{kind_, std::move(name), std::move(body), {}, false};
  std::unique_lock lock(owner_.mutex_);
  owner_.orders_.push_back(&order);
  owner_.changed_.notify_all();
  owner_.changed_.wait(lock, [&order] { return order.done; });
  return std::move(order.started);
}

void Spawner::loop() {
  ::pthread_setname_np(::pthread_self(), "spawner");
  bind(filters_, ThreadKind::kSpawner);
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [this] { return stopping_ || !orders_.empty(); });
    if (orders_.empty()) return;
    Order* order = orders_.front();
    orders_.pop_front();
    const Filters* filters = filters_;
    order->started =
        std::thread([filters, kind = order->kind, name = order->name, body = std::move(order->body)] {
          ::pthread_setname_np(::pthread_self(), name.substr(0, 15).c_str());
          bind(filters, kind);
          body();
        });
    order->done = true;
    changed_.notify_all();
  }
}

}  // namespace haneul::vmm
