// SPDX-License-Identifier: Apache-2.0
#include "storage/io_ring.h"

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>

#include <thread>
#include <vector>

#include "base/file.h"
#include "base/socket.h"

namespace haneul::storage {
namespace {

struct Recorder final : IoOperation {
  void completed(int32_t its_result) override {
    result = its_result;
    ++times;
  }
  int32_t result = 0;
  int times = 0;
};

struct Bell final : IoWatch {
  void ready() override { ++times; }
  int times = 0;
};

TEST(IoRing, WritesAndReadsAFile) {
  auto ring = IoRing::create().value();
  UniqueFd file = make_memfd("test").value();
  std::string text = "hello";
  std::string back(5, ' ');
  iovec out{text.data(), text.size()};
  iovec in{back.data(), back.size()};
  Recorder write, sync, read;
  ring->writev(write, file.get(), std::span(&out, 1), 100);
  ASSERT_TRUE(ring->run_once().ok());
  EXPECT_EQ(write.result, 5);
  ring->fdatasync(sync, file.get());
  ring->readv(read, file.get(), std::span(&in, 1), 100);
  EXPECT_EQ(ring->in_flight(), 2u);
  while (ring->in_flight() > 0) ASSERT_TRUE(ring->run_once().ok());
  EXPECT_EQ(sync.result, 0);
  EXPECT_EQ(read.result, 5);
  EXPECT_EQ(back, "hello");
}

TEST(IoRing, MoreOperationsThanEntriesWaitTheirTurn) {
  auto ring = IoRing::create(4).value();
  UniqueFd file = make_memfd("test").value();
  std::vector<Recorder> writes(1000);
  char byte = 'x';
  iovec out{&byte, 1};
  for (size_t i = 0; i < writes.size(); ++i) ring->writev(writes[i], file.get(), std::span(&out, 1), i);
  EXPECT_EQ(ring->in_flight(), 1000u);
  while (ring->in_flight() > 0) ASSERT_TRUE(ring->run_once().ok());
  for (auto& write : writes) EXPECT_EQ(write.times, 1);
  EXPECT_EQ(file_size(file.get()).value(), 1000u);
}

TEST(IoRing, AWatchHearsEverySignalThoughNobodyReadsTheEvent) {
  auto ring = IoRing::create().value();
  auto event = EventFd::create().value();
  event.signal();
  Bell bell;
  ring->watch(bell, event.fd(), POLLIN);
  ASSERT_TRUE(ring->run_once().ok());
  EXPECT_EQ(bell.times, 1) << "signalled before the watch";
  for (int i = 2; i < 10; ++i) {
    event.signal();
    while (bell.times < i) ASSERT_TRUE(ring->run_once().ok());
  }
  ASSERT_TRUE(ring->run_once(false).ok());
  EXPECT_EQ(bell.times, 9);
  ring->unwatch(bell);
  while (bell.active()) ASSERT_TRUE(ring->run_once().ok());
  EXPECT_EQ(ring->in_flight(), 0u);
}

TEST(IoRing, AWatchSurvivesMoreEventsThanTheQueueHolds) {
  auto ring = IoRing::create(4).value();
  std::vector<EventFd> events;
  std::vector<std::unique_ptr<Bell>> bells;
  for (int i = 0; i < 3; ++i) {
    events.push_back(EventFd::create().value());
    bells.push_back(std::make_unique<Bell>());
    ring->watch(*bells.back(), events.back().fd(), POLLIN);
  }
  ASSERT_TRUE(ring->run_once(false).ok());
  for (int round = 0; round < 200; ++round) {
    for (auto& event : events) event.signal();
  }
  for (int i = 0; i < 20; ++i) ASSERT_TRUE(ring->run_once(false).ok());
  for (auto& bell : bells) bell->times = 0;
  for (auto& event : events) event.signal();
  for (auto& bell : bells) {
    while (bell->times == 0) ASSERT_TRUE(ring->run_once().ok());
    ring->unwatch(*bell);
  }
  while (ring->in_flight() > 0) ASSERT_TRUE(ring->run_once().ok());
}

TEST(IoRing, CancelEndsWhatWaits) {
  auto ring = IoRing::create(4).value();
  auto [one, two] = socket_pair(SOCK_STREAM).value();
  std::vector<char> room(6);
  std::vector<iovec> iovecs;
  for (char& byte : room) iovecs.push_back({&byte, 1});
  std::vector<Recorder> reads(6);
  for (size_t i = 0; i < reads.size(); ++i) ring->readv(reads[i], one.get(), std::span(&iovecs[i], 1), 0);
  ASSERT_TRUE(ring->run_once(false).ok());
  for (auto& read : reads) ring->cancel(read);
  while (ring->in_flight() > 0) ASSERT_TRUE(ring->run_once().ok());
  for (auto& read : reads) {
    EXPECT_EQ(read.result, -ECANCELED);
    EXPECT_EQ(read.times, 1);
  }
}

TEST(IoRing, PostWakesTheThreadThatWaits) {
  auto ring = IoRing::create().value();
  std::vector<Recorder> mail(1000);
  std::thread poster([&] {
    for (auto& letter : mail) ring->post(letter);
  });
  while (mail.back().times == 0) ASSERT_TRUE(ring->run_once().ok());
  poster.join();
  for (auto& letter : mail) EXPECT_EQ(letter.times, 1);
}

TEST(IoRing, AnotherThreadTakesOver) {
  auto ring = IoRing::create().value();
  auto event = EventFd::create().value();
  for (int i = 0; i < 20; ++i) {
    std::thread thread([&] {
      Bell bell;
      Recorder letter;
      ring->watch(bell, event.fd(), POLLIN);
      event.signal();
      while (bell.times == 0) ring->run_once().value();
      std::thread other([&] { ring->post(letter); });
      while (letter.times == 0) ring->run_once().value();
      other.join();
      ring->unwatch(bell);
      while (ring->in_flight() > 0) ring->run_once().value();
      ring->leave().value();
    });
    thread.join();
  }
}

TEST(IoRing, DeferredWorkRunsFromTheNextTurn) {
  auto ring = IoRing::create().value();
  Recorder later;
  ring->defer(later, 7);
  EXPECT_EQ(later.times, 0);
  ASSERT_TRUE(ring->run_once().ok());
  EXPECT_EQ(later.result, 7);
}

}  // namespace
}  // namespace haneul::storage
