// SPDX-License-Identifier: Apache-2.0
// io_uring works behind the system-call filter's back, so the rings themselves must be bound.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/file.h"
#include "storage/io_ring.h"

namespace haneul::storage {

/// Uses a ring as somebody would who has taken over the process.
class IoRingIntruder {
 public:
  explicit IoRingIntruder(IoRing& ring) : ring_(ring) {}
  int32_t submit(const io_uring_sqe& sqe) {
    io_uring_sqe* slot = io_uring_get_sqe(&ring_.ring_);
    *slot = sqe;
    slot->user_data = 1;
    io_uring_submit_and_wait(&ring_.ring_, 1);
    io_uring_cqe* cqe = nullptr;
    io_uring_wait_cqe(&ring_.ring_, &cqe);
    int32_t result = cqe->res;
    io_uring_cqe_seen(&ring_.ring_, cqe);
    return result;
  }
  io_uring& ring() { return ring_.ring_; }

 private:
  IoRing& ring_;
};

namespace {

TEST(Ring, RefusesWhatItsMethodsDoNotDo) {
  auto ring = IoRing::create().value();
  IoRingIntruder intruder(*ring);
  for (int operation = 0; operation <= IORING_OP_SOCKET; ++operation) {
    bool used = operation == IORING_OP_READV || operation == IORING_OP_WRITEV ||
                operation == IORING_OP_FSYNC || operation == IORING_OP_FALLOCATE ||
                operation == IORING_OP_POLL_ADD || operation == IORING_OP_ASYNC_CANCEL;
    if (used) continue;
    io_uring_sqe sqe{};
    io_uring_prep_rw(operation, &sqe, -1, nullptr, 0, 0);
    EXPECT_EQ(intruder.submit(sqe), -EACCES) << "operation " << operation;
  }
}

TEST(Ring, OpensNoFileAndMakesNoSocket) {
  auto ring = IoRing::create().value();
  IoRingIntruder intruder(*ring);
  io_uring_sqe sqe{};
  io_uring_prep_openat(&sqe, AT_FDCWD, "/", O_RDONLY, 0);
  EXPECT_EQ(intruder.submit(sqe), -EACCES);
  io_uring_prep_socket(&sqe, AF_UNIX, SOCK_STREAM, 0, 0);
  EXPECT_EQ(intruder.submit(sqe), -EACCES);
}

TEST(Ring, RegistersNothing) {
  auto ring = IoRing::create().value();
  IoRingIntruder intruder(*ring);
  int fd = 0;
  EXPECT_EQ(io_uring_register_files(&intruder.ring(), &fd, 1), -EACCES);
  EXPECT_EQ(io_uring_register_eventfd(&intruder.ring(), fd), -EACCES);
  EXPECT_EQ(::syscall(SYS_io_uring_register, ring->fd(), IORING_REGISTER_RESTRICTIONS, nullptr, 0), -1);
  EXPECT_EQ(errno, EACCES);
}

}  // namespace
}  // namespace haneul::storage
