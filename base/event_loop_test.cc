// SPDX-License-Identifier: Apache-2.0
#include "base/event_loop.h"

#include <gtest/gtest.h>
#include <sys/epoll.h>

#include <thread>

namespace haneul {
namespace {

TEST(EventLoop, CallsTheHandlerAndStopsFromAnotherThread) {
  EventLoop loop = EventLoop::create().value();
  EventFd event = EventFd::create().value();
  int calls = 0;
  ASSERT_TRUE(loop.watch(event.fd(), EPOLLIN,
                         [&](uint32_t) {
                           event.drain();
                           ++calls;
                           loop.stop();
                         })
                  .ok());
  std::thread other([&] { event.signal(); });
  EXPECT_TRUE(loop.run().ok());
  other.join();
  EXPECT_EQ(calls, 1);
}

TEST(EventLoop, AHandlerMayUnwatchItself) {
  EventLoop loop = EventLoop::create().value();
  EventFd event = EventFd::create().value();
  int calls = 0;
  ASSERT_TRUE(loop.watch(event.fd(), EPOLLIN,
                         [&](uint32_t) {
                           loop.unwatch(event.fd());
                           ++calls;
                         })
                  .ok());
  event.signal();
  EXPECT_TRUE(loop.run_once(1000).ok());
  EXPECT_TRUE(loop.run_once(0).ok());
  EXPECT_EQ(calls, 1);
}

}  // namespace
}  // namespace haneul
