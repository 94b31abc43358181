// SPDX-License-Identifier: Apache-2.0
// IoRing: one io_uring and the thread that turns it. Device threads wait in it for everything: finished disk
// and tap I/O, doorbells, stop events and messages from other threads.
//
// Purpose   one io_uring_enter per wake-up: what the handlers of one batch submit goes to the kernel with the
//           next wait. Nothing is allocated per operation: an operation is an object of its owner's.
// Thread    every method but post() belongs to the thread that calls run_once(). Another thread may take over
//           when the first has called leave() and was joined; the ring may be made on yet another.
// Lifetime  an IoOperation stays alive and in place from its submission until completed() is called. The ring
//           is destroyed only when in_flight() is 0 (watches and polls cancelled first).
// Bounds    at most `entries` operations are with the kernel; further ones wait in order in an intrusive list.
// Errors    results are io_uring's: a count, or a negated errno.
// System calls   create(): io_uring_setup, io_uring_register, mmap, eventfd2. Destruction: munmap, close.
//           run_once(): io_uring_enter. post(): write (the ring's own eventfd). Nothing else.
#pragma once

#include <liburing.h>
#include <sys/uio.h>

#include <cstdint>
#include <memory>
#include <mutex>
#include <span>

#include "base/event_fd.h"
#include "base/result.h"

namespace haneul::storage {

class IoRing;

/// One operation that the kernel carries out; embedded in whatever waits for it.
class IoOperation {
 public:
  IoOperation() = default;
  IoOperation(const IoOperation&) = delete;
  IoOperation& operator=(const IoOperation&) = delete;

  /// The operation is over and may be submitted again, or destroyed, from within. On the ring's thread.
  virtual void completed(int32_t result) = 0;

 protected:
  virtual ~IoOperation() = default;

 private:
  friend class IoRing;
  friend class IoWatch;
  virtual void deliver(int32_t result, uint32_t flags);

  io_uring_sqe sqe_{};
  IoOperation* next_ = nullptr;
  int32_t result_ = 0;
};

/// Waits for a descriptor again and again (a multishot poll). Edge-triggered: ready() comes once for every
/// event, so an eventfd need never be read: its counter only grows, and each addition wakes the poll.
class IoWatch : private IoOperation {
 public:
  /// On the ring's thread.
  virtual void ready() = 0;
  /// Between watch() and the last event after unwatch(): the object must stay.
  bool active() const { return active_; }

 protected:
  ~IoWatch() override = default;

 private:
  friend class IoRing;
  void completed(int32_t) final {}
  void deliver(int32_t result, uint32_t flags) final;

  IoRing* ring_ = nullptr;
  int fd_ = -1;
  uint32_t events_ = 0;
  bool active_ = false;
  bool stopping_ = false;
};

class IoRing {
 public:
  /// kUnsupported or kPermission, naming io_uring, where the kernel or its configuration does not offer it.
  /// The kernel refuses everything on this ring but the operations below, whoever gets hold of it.
  static Result<std::unique_ptr<IoRing>> create(unsigned entries = 128);
  ~IoRing();
  IoRing(const IoRing&) = delete;
  IoRing& operator=(const IoRing&) = delete;

  /// The iovecs (at most 1024) and what they point at stay in place until completion.
  void readv(IoOperation& op, int fd, std::span<const iovec> data, uint64_t offset, int flags = 0);
  void writev(IoOperation& op, int fd, std::span<const iovec> data, uint64_t offset, int flags = 0);
  void fdatasync(IoOperation& op, int fd);
  void fallocate(IoOperation& op, int fd, int mode, uint64_t offset, uint64_t length);
  /// Once: the result is the ready events.
  void poll(IoOperation& op, int fd, uint32_t events);

  /// Asks for an early end: the operation completes with -ECANCELED, or with its result if it was faster.
  void cancel(IoOperation& op);

  void watch(IoWatch& watch, int fd, uint32_t events);
  void unwatch(IoWatch& watch);

  /// completed(result) from the next run_once(), not from within this call.
  void defer(IoOperation& op, int32_t result);
  /// The same with result 0, from any thread.
  void post(IoOperation& op);

  /// Hands over what was submitted, waits for at least one event unless `wait` is false or deferred work is
  /// due, and handles everything that is ready.
  Status run_once(bool wait = true);

  /// Before this thread ends, with in_flight() 0: takes back the ring's own poll, which the kernel would
  /// cancel with the thread. The next run_once() arms it again.
  Status leave();

  /// Operations submitted and not yet completed; watches included, except the ring's own.
  size_t in_flight() const {
    return kernel_ + waiting_count_ + deferred_count_ - (mailbox_.active() ? 1 : 0);
  }
  int fd() const { return ring_.ring_fd; }

 private:
  struct List {
    IoOperation* first = nullptr;
    IoOperation* last = nullptr;
    void push(IoOperation& op);
    IoOperation* pop();
    bool remove(IoOperation& op);
    bool empty() const { return first == nullptr; }
  };
  class Mailbox final : public IoWatch {
   public:
    Mailbox(IoRing& ring, EventFd event) : ring_(ring), event_(std::move(event)) {}
    void ready() override { ring_.take_mail(); }
    IoRing& ring_;
    EventFd event_;
    std::mutex mutex_;
    List mail_;
  };
  class Ignored final : public IoOperation {
    void completed(int32_t) override {}
  };

  friend class IoRingIntruder;  // a test that submits what no method does

  IoRing(unsigned entries, EventFd event);
  Status turn(bool wait);
  void enqueue(IoOperation& op);
  bool push_to_kernel(const io_uring_sqe& sqe);
  void refill();
  void take_mail();
  void run_deferred();
  void dispatch();

  io_uring ring_{};
  bool initialised_ = false;
  unsigned limit_;
  size_t kernel_ = 0;
  size_t waiting_count_ = 0;
  size_t deferred_count_ = 0;
  List waiting_;
  List deferred_;
  Mailbox mailbox_;
};

}  // namespace haneul::storage
