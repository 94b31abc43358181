// SPDX-License-Identifier: Apache-2.0
#include "vmm/spawner.h"

namespace haneul::vmm {
namespace {

// A thread that could not be bound must not run.
void bind(const Filters* filters, ThreadKind kind) {
  if (filters != nullptr) filters->apply(kind).value();
}

}  // namespace

Result<std::unique_ptr<Spawner>> Spawner::create(const Filters* filters) {
  std::unique_ptr<Spawner> spawner(new Spawner(filters));
  spawner->thread_ = TRY(start_thread("spawner", [self = spawner.get()] { self->loop(); }));
  return spawner;
}

Spawner::~Spawner() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

Result<std::thread> Spawner::Starter::start(std::string name, std::function<void()> body) {
  Order order{kind_, std::move(name), std::move(body), std::nullopt};
  std::unique_lock lock(owner_.mutex_);
  owner_.orders_.push_back(&order);
  owner_.changed_.notify_all();
  owner_.changed_.wait(lock, [&order] { return order.started.has_value(); });
  return std::move(*order.started);
}

void Spawner::loop() {
  bind(filters_, ThreadKind::kSpawner);
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [this] { return stopping_ || !orders_.empty(); });
    if (orders_.empty()) return;
    Order* order = orders_.front();
    orders_.pop_front();
    const Filters* filters = filters_;
    order->started = start_thread(order->name, [filters, kind = order->kind, body = std::move(order->body)] {
      bind(filters, kind);
      body();
    });
    changed_.notify_all();
  }
}

}  // namespace haneul::vmm
