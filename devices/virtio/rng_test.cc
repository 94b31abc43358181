// SPDX-License-Identifier: Apache-2.0
#include "devices/virtio/rng.h"

#include <gtest/gtest.h>

#include "devices/testing/echo_fixture.h"

namespace haneul::devices::virtio {
namespace {

struct RngTest : ::testing::Test {
  RngTest() : driver(machine, machine.add(make_rng().value())) { driver.start(); }
  PciMachine machine;
  VirtioPci driver;
};

TEST_F(RngTest, FillsWhatItIsGiven) {
  auto request = driver.queue(0).chain().writable(300).writable(32).submit();
  driver.kick(0);
  auto used = driver.wait_used(0);
  ASSERT_TRUE(used.has_value());
  EXPECT_EQ(used->written, 332u);
  EXPECT_NE(machine.ram.read(request.buffers[1].address, 32), std::vector<std::byte>(32, std::byte{0xa5}));
  EXPECT_EQ(machine.config<uint16_t>(1, 2), 0x1044);
}

TEST_F(RngTest, BoundsARequest) {
  auto request = driver.queue(0).chain().writable(60000).writable(60000).submit();
  driver.kick(0);
  EXPECT_EQ(driver.wait_used(0)->written, kMaxRngBytes);
  auto tail = machine.ram.read(GuestAddress{request.buffers[1].address.value + 5536}, 60000 - 5536);
  EXPECT_EQ(tail, std::vector<std::byte>(60000 - 5536, std::byte{0xa5}));
}

TEST_F(RngTest, AnswersARequestWithoutRoomWithNothing) {
  driver.queue(0).chain().readable(text("no room")).submit();
  driver.kick(0);
  EXPECT_EQ(driver.wait_used(0)->written, 0u);
}

TEST_F(RngTest, KeepsUpThroughTheIndexWrap) {
  GuestAddress buffer = machine.ram.allocate(16);
  int done = 0;
  for (int i = 0; i < 70000; ++i) {
    driver.queue(0).chain().writable_at(buffer, 16).submit();
    if (driver.queue(0).wants_doorbell()) driver.kick(0);
    if (driver.queue(0).free_descriptors() == 0) {
      ASSERT_TRUE(driver.wait_used(0).has_value());
      ++done;
    }
    while (driver.queue(0).take_used()) ++done;
  }
  while (done < 70000) {
    ASSERT_TRUE(driver.wait_used(0).has_value()) << done;
    ++done;
  }
}

TEST_F(RngTest, ResetWhileAsked) {
  for (int i = 0; i < 50; ++i) {
    for (int n = 0; n < 16; ++n) driver.queue(0).chain().writable(1024).submit();
    driver.kick(0);
    driver.reset();
    driver.start();
  }
}

}  // namespace
}  // namespace haneul::devices::virtio
