// SPDX-License-Identifier: Apache-2.0
#include "storage/io_ring.h"

#include <poll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>

#include "base/log.h"

namespace haneul::storage {

void IoOperation::deliver(int32_t result, uint32_t) {
  completed(result);
}

void IoWatch::deliver(int32_t result, uint32_t flags) {
  bool more = (flags & IORING_CQE_F_MORE) != 0;
  if (!more) active_ = false;
  // The kernel ends a multishot poll when its completion queue is full; then it is armed again.
  if (!more && !stopping_ && result >= 0) ring_->watch(*this, fd_, events_);
  if (!stopping_ && result < 0 && result != -ECANCELED) {
    LOG_ERROR("a descriptor can no longer be watched (error {})", -result);
  }
  if (!stopping_ && result > 0) ready();
}

void IoRing::List::push(IoOperation& op) {
  op.next_ = nullptr;
  (last != nullptr ? last->next_ : first) = &op;
  last = &op;
}

IoOperation* IoRing::List::pop() {
  IoOperation* op = first;
  if (op == nullptr) return nullptr;
  first = op->next_;
  if (first == nullptr) last = nullptr;
  op->next_ = nullptr;
  return op;
}

bool IoRing::List::remove(IoOperation& op) {
  IoOperation* before = nullptr;
  for (IoOperation* at = first; at != nullptr; before = at, at = at->next_) {
    if (at != &op) continue;
    (before != nullptr ? before->next_ : first) = op.next_;
    if (last == &op) last = before;
    op.next_ = nullptr;
    return true;
  }
  return false;
}

namespace {

// io_uring does its work behind a system-call filter's back. So a ring can do only what the methods here do,
// for good: not open a file, not make a socket, not register anything.
Status restrict_to_own_operations(io_uring& ring) {
  std::array<io_uring_restriction, 6> allowed{};
  constexpr std::array<uint8_t, allowed.size()> kOperations = {IORING_OP_READV,    IORING_OP_WRITEV,
                                                               IORING_OP_FSYNC,    IORING_OP_FALLOCATE,
                                                               IORING_OP_POLL_ADD, IORING_OP_ASYNC_CANCEL};
  for (size_t i = 0; i < allowed.size(); ++i) {
    allowed[i].opcode = IORING_RESTRICTION_SQE_OP;
    allowed[i].sqe_op = kOperations[i];
  }
  // System calls, because liburing 2.3 has these two in its archive but does not export them.
  if (::syscall(SYS_io_uring_register, ring.ring_fd, IORING_REGISTER_RESTRICTIONS, allowed.data(),
                allowed.size()) != 0 ||
      ::syscall(SYS_io_uring_register, ring.ring_fd, IORING_REGISTER_ENABLE_RINGS, nullptr, 0) != 0) {
    return errno_error("restricting an io_uring");
  }
  return {};
}

}  // namespace

IoRing::IoRing(unsigned entries, EventFd event) : limit_(entries), mailbox_(*this, std::move(event)) {}

Result<std::unique_ptr<IoRing>> IoRing::create(unsigned entries) {
  CHECK(entries >= 4 && entries <= 4096);
  EventFd event = TRY(EventFd::create());
  std::unique_ptr<IoRing> ring(new IoRing(entries, std::move(event)));
  // The completion queue has room for every operation and for bursts of the watches. Cooperative task running
  // (Linux 5.19) keeps the kernel from interrupting a thread that will enter it soon anyway.
  int error = 0;
  for (unsigned flags : {IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG, 0U}) {
    io_uring_params params{};
    params.flags = flags | IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP | IORING_SETUP_R_DISABLED;
    params.cq_entries = entries * 4;
    error = -io_uring_queue_init_params(entries, &ring->ring_, &params);
    if (error != EINVAL) break;
  }
  if (error != 0) {
    return Error::from_errno(error,
                             "io_uring, which all disk and network I/O goes through, is not available here "
                             "(io_uring_setup; see kernel.io_uring_disabled and seccomp)");
  }
  ring->initialised_ = true;
  // Buffered I/O that would block runs on kernel worker threads; a few are enough for one device.
  std::array<unsigned, 2> workers{8, 4};
  io_uring_register_iowq_max_workers(&ring->ring_, workers.data());
  TRY(restrict_to_own_operations(ring->ring_));
  return ring;
}

IoRing::~IoRing() {
  if (!initialised_) return;
  CHECK(in_flight() == 0);
  io_uring_queue_exit(&ring_);
}

bool IoRing::push_to_kernel(const io_uring_sqe& sqe) {
  io_uring_sqe* slot = io_uring_get_sqe(&ring_);
  if (slot == nullptr) {
    io_uring_submit(&ring_);
    slot = io_uring_get_sqe(&ring_);
    if (slot == nullptr) return false;
  }
  *slot = sqe;
  return true;
}

void IoRing::enqueue(IoOperation& op) {
  io_uring_sqe_set_data(&op.sqe_, &op);
  if (waiting_.empty() && kernel_ < limit_ && push_to_kernel(op.sqe_)) {
    ++kernel_;
    return;
  }
  waiting_.push(op);
  ++waiting_count_;
}

void IoRing::refill() {
  while (!waiting_.empty() && kernel_ < limit_ && push_to_kernel(waiting_.first->sqe_)) {
    waiting_.pop();
    --waiting_count_;
    ++kernel_;
  }
}

void IoRing::readv(IoOperation& op, int fd, std::span<const iovec> data, uint64_t offset, int flags) {
  io_uring_prep_readv2(&op.sqe_, fd, data.data(), static_cast<unsigned>(data.size()), offset, flags);
  enqueue(op);
}

void IoRing::writev(IoOperation& op, int fd, std::span<const iovec> data, uint64_t offset, int flags) {
  io_uring_prep_writev2(&op.sqe_, fd, data.data(), static_cast<unsigned>(data.size()), offset, flags);
  enqueue(op);
}

void IoRing::fdatasync(IoOperation& op, int fd) {
  io_uring_prep_fsync(&op.sqe_, fd, IORING_FSYNC_DATASYNC);
  enqueue(op);
}

void IoRing::fallocate(IoOperation& op, int fd, int mode, uint64_t offset, uint64_t length) {
  // Not io_uring_prep_fallocate: it differs between versions of liburing in the width of length.
  io_uring_prep_rw(IORING_OP_FALLOCATE, &op.sqe_, fd, nullptr, static_cast<unsigned>(mode), offset);
  op.sqe_.addr = length;
  enqueue(op);
}

void IoRing::poll(IoOperation& op, int fd, uint32_t events) {
  io_uring_prep_poll_add(&op.sqe_, fd, events);
  enqueue(op);
}

void IoRing::watch(IoWatch& watch, int fd, uint32_t events) {
  CHECK(!watch.active_);
  watch.ring_ = this;
  watch.fd_ = fd;
  watch.events_ = events;
  watch.active_ = true;
  watch.stopping_ = false;
  io_uring_prep_poll_multishot(&watch.sqe_, fd, events);
  enqueue(watch);
}

void IoRing::unwatch(IoWatch& watch) {
  if (!watch.active_ || watch.stopping_) return;
  watch.stopping_ = true;
  cancel(watch);
}

void IoRing::cancel(IoOperation& op) {
  if (waiting_.remove(op)) {
    --waiting_count_;
    defer(op, -ECANCELED);
    return;
  }
  // User data 0 marks the cancellation's own completion, which nobody waits for.
  io_uring_sqe sqe{};
  io_uring_prep_cancel(&sqe, &op, 0);
  sqe.user_data = 0;
  while (!push_to_kernel(sqe)) {
  }
}

void IoRing::defer(IoOperation& op, int32_t result) {
  op.result_ = result;
  deferred_.push(op);
  ++deferred_count_;
}

void IoRing::post(IoOperation& op) {
  // Signalled under the lock: whoever takes the mail may then let go of the ring, and of the event with it.
  std::lock_guard lock(mailbox_.mutex_);
  const bool wake = mailbox_.mail_.empty();
  mailbox_.mail_.push(op);
  if (wake) mailbox_.event_.signal();
}

void IoRing::take_mail() {
  std::lock_guard lock(mailbox_.mutex_);
  while (IoOperation* op = mailbox_.mail_.pop()) defer(*op, 0);
}

void IoRing::run_deferred() {
  // Only what is there now: handlers that defer again wait for their turn, so that I/O goes on between.
  size_t count = deferred_count_;
  while (count-- > 0) {
    IoOperation* op = deferred_.pop();
    --deferred_count_;
    op->deliver(op->result_, 0);
  }
}

void IoRing::dispatch() {
  std::array<io_uring_cqe*, 64> batch;
  while (unsigned count = io_uring_peek_batch_cqe(&ring_, batch.data(), batch.size())) {
    for (unsigned i = 0; i < count; ++i) {
      io_uring_cqe cqe{};
      cqe.user_data = batch[i]->user_data;
      cqe.res = batch[i]->res;
      cqe.flags = batch[i]->flags;
      io_uring_cq_advance(&ring_, 1);
      auto* op = static_cast<IoOperation*>(io_uring_cqe_get_data(&cqe));
      if (op == nullptr) continue;
      if ((cqe.flags & IORING_CQE_F_MORE) == 0) --kernel_;
      op->deliver(cqe.res, cqe.flags);
    }
    if (count < batch.size()) break;
  }
}

Status IoRing::leave() {
  CHECK(in_flight() == 0);
  unwatch(mailbox_);
  while (mailbox_.active()) TRY(turn(true));
  return {};
}

Status IoRing::run_once(bool wait) {
  if (!mailbox_.active()) watch(mailbox_, mailbox_.event_.fd(), POLLIN);
  return turn(wait);
}

Status IoRing::turn(bool wait) {
  refill();
  bool sleep = wait && deferred_.empty();
  int result = sleep ? io_uring_submit_and_wait(&ring_, 1) : io_uring_submit(&ring_);
  if (result < 0 && result != -EINTR && result != -EBUSY && result != -EAGAIN) {
    return Error::from_errno(-result, "io_uring_enter");
  }
  dispatch();
  run_deferred();
  refill();
  return {};
}

}  // namespace haneul::storage
