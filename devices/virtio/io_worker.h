// SPDX-License-Identifier: Apache-2.0
// IoWorker: the I/O thread of a device: turns one IoRing, listens to doorbells through it, and stops in
// order.
//
// The ring is made with the worker, early, and lives through all resets; the thread lives from start() to
// halt(). Threads: create, start and the halting belong to the transport's caller; the Client is called on the I/O
// thread only.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "base/event_fd.h"
#include "base/thread.h"
#include "storage/io_ring.h"

namespace haneul::devices::virtio {

class IoWorker {
 public:
  class Client {
   public:
    /// A doorbell, by its place in start()'s list, rang: remember it for work().
    virtual void rang(size_t doorbell) = 0;
    /// After every turn of the ring, and once at the start. True: there is more to do without waiting.
    virtual bool work() = 0;
    /// Start nothing any more, and cancel what would wait for ever.
    virtual void stop() = 0;
    /// Whether nothing is under way any more. Asked after stop(), after every turn.
    virtual bool idle() = 0;

   protected:
    ~Client() = default;
  };

  static Result<std::unique_ptr<IoWorker>> create(unsigned ring_entries);
  ~IoWorker() { CHECK(!running()); }

  storage::IoRing& ring() { return *ring_; }
  bool running() const { return thread_.joinable(); }

  /// The client and the doorbells (null: none in that place) stay until halt() returns. Fails as the starter
  /// does.
  Status start(ThreadStarter& threads, std::string name, Client& client,
               std::vector<const EventFd*> doorbells);
  /// Makes the thread end as soon as the client is idle; does not wait, halt() does.
  void ask_to_halt() { stop_.signal(); }
  /// Returns when the client is idle and the thread is gone.
  void halt();

 private:
  class Watch final : public storage::IoWatch {
   public:
    explicit Watch(std::function<void()> action) : action_(std::move(action)) {}
    void ready() override { action_(); }

   private:
    std::function<void()> action_;
  };

  IoWorker(std::unique_ptr<storage::IoRing> ring, EventFd stop)
      : ring_(std::move(ring)), stop_(std::move(stop)) {}
  void run(Client& client, const std::vector<const EventFd*>& doorbells);

  const std::unique_ptr<storage::IoRing> ring_;
  const EventFd stop_;
  std::thread thread_;
};

}  // namespace haneul::devices::virtio
