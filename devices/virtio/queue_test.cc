// SPDX-License-Identifier: Apache-2.0
#include "devices/virtio/queue.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <random>
#include <thread>

#include "devices/testing/driver_queue.h"
#include "devices/testing/fakes.h"
#include "devices/virtio/ring_format.h"

namespace haneul::devices::virtio {
namespace {

using testing::CountingInterrupt;
using testing::DriverQueue;
using ::testing::ElementsAre;
using testing::GuestRam;
using testing::RecordingHost;

std::vector<std::byte> bytes(size_t count, int first = 0) {
  std::vector<std::byte> data(count);
  for (size_t i = 0; i < count; ++i) data[i] = static_cast<std::byte>(first + static_cast<int>(i));
  return data;
}

// Both sides of one queue, in one thread.
struct Pair {
  explicit Pair(const DriverQueue::Options& options = {},
                std::vector<GuestRam::Range> ranges = {{1_MiB, 4_MiB}})
      : ram(std::move(ranges)), driver(ram, options), doorbell(EventFd::create().value()) {
    device = Queue::create(ram.memory(), driver.layout(), doorbell, interrupt, host).value();
  }

  // The queue refuses the next request with this reason, hands out nothing ever after, and told the host
  // once.
  void expect_broken(const std::string& reason) {
    Chain chain;
    EXPECT_FALSE(device->pop(chain));
    EXPECT_TRUE(device->broken());
    EXPECT_THAT(host.reasons(), ElementsAre("queue 0: " + reason));
    driver.offer(0);
    EXPECT_FALSE(device->pop(chain));
    EXPECT_FALSE(device->arm_doorbell());
    EXPECT_THAT(host.reasons(), ::testing::SizeIs(1));
  }

  GuestRam ram;
  DriverQueue driver;
  EventFd doorbell;
  CountingInterrupt interrupt;
  RecordingHost host;
  std::unique_ptr<Queue> device;
};

constexpr uint16_t kNone = 0;

TEST(Queue, CarriesARequestThereAndBack) {
  Pair pair;
  auto request =
      pair.driver.chain().readable(bytes(16)).readable(bytes(100, 16)).writable(512).writable(1).submit();

  Chain chain;
  ASSERT_TRUE(pair.device->pop(chain));
  EXPECT_EQ(chain.head(), request.head);
  EXPECT_EQ(chain.readable().size(), 2u);
  EXPECT_EQ(chain.writable().size(), 2u);
  EXPECT_EQ(chain.readable_bytes(), 116u);
  EXPECT_EQ(chain.writable_bytes(), 513u);
  std::vector<std::byte> seen(116);
  EXPECT_TRUE(chain.read_at(0, seen));
  EXPECT_EQ(seen, bytes(116));
  EXPECT_TRUE(chain.write_at(510, bytes(3, 7)));
  EXPECT_FALSE(chain.write_at(511, bytes(3, 7)));
  EXPECT_FALSE(chain.read_at(101, seen));
  EXPECT_EQ(pair.device->in_flight(), 1);

  EXPECT_FALSE(pair.device->pop(chain));
  pair.device->push(request.head, 513);
  EXPECT_FALSE(pair.driver.take_used().has_value()) << "not shown before it is published";
  pair.device->notify();
  auto used = pair.driver.take_used();
  ASSERT_TRUE(used.has_value());
  EXPECT_EQ(used->head, request.head);
  EXPECT_EQ(used->written, 513u);
  EXPECT_EQ(pair.ram.read(GuestAddress{request.buffers[2].address.value + 510}, 2), bytes(2, 7));
  EXPECT_EQ(pair.ram.read(request.buffers[3].address, 1), bytes(1, 9));
  EXPECT_EQ(pair.interrupt.count(), 1);
  EXPECT_EQ(pair.driver.free_descriptors(), pair.driver.size());
}

TEST(Queue, FollowsAnIndirectTable) {
  Pair pair;
  pair.driver.chain().indirect().readable(bytes(16)).writable(4096).writable(1).submit();
  Chain chain;
  ASSERT_TRUE(pair.device->pop(chain));
  EXPECT_EQ(chain.readable_bytes(), 16u);
  EXPECT_EQ(chain.writable_bytes(), 4097u);
}

// Section 2.7.5.3.2: a device handles ordinary descriptors before an indirect one.
TEST(Queue, FollowsAnIndirectTableAtTheEndOfAChain) {
  Pair pair;
  GuestAddress buffer = pair.ram.allocate(64);
  GuestAddress table = pair.ram.allocate(32, 16);
  ASSERT_TRUE(
      pair.ram.memory().write_object(table, RingDescriptor{buffer.value, 8u, kDescNext, uint16_t{1}}));
  ASSERT_TRUE(pair.ram.memory().write_object(GuestAddress{table.value + 16},
                                             RingDescriptor{buffer.value, 32u, kDescWrite, kNone}));
  pair.driver.set_descriptor(0, {buffer.value, 4u, kDescNext, uint16_t{5}});
  pair.driver.set_descriptor(5, {table.value, 32u, kDescIndirect, kNone});
  pair.driver.offer(0);
  Chain chain;
  ASSERT_TRUE(pair.device->pop(chain));
  EXPECT_EQ(chain.readable_bytes(), 12u);
  EXPECT_EQ(chain.writable_bytes(), 32u);
}

TEST(Queue, ReadsAnIndirectTableAtAnyAlignment) {
  Pair pair;
  GuestAddress buffer = pair.ram.allocate(64);
  GuestAddress table{pair.ram.allocate(64).value + 3};
  ASSERT_TRUE(pair.ram.memory().write_object(table, RingDescriptor{buffer.value, 9u, kDescWrite, kNone}));
  pair.driver.set_descriptor(0, {table.value, 16u, kDescIndirect, kNone});
  pair.driver.offer(0);
  Chain chain;
  ASSERT_TRUE(pair.device->pop(chain));
  EXPECT_EQ(chain.writable_bytes(), 9u);
}

TEST(Queue, GivesBackWhatWasNotUsed) {
  Pair pair;
  auto first = pair.driver.chain().writable(1).submit();
  auto second = pair.driver.chain().writable(2).submit();
  Chain a;
  Chain b;
  ASSERT_TRUE(pair.device->pop(a));
  ASSERT_TRUE(pair.device->pop(b));
  pair.device->unpop(b);
  EXPECT_EQ(pair.device->in_flight(), 1);
  pair.device->push(first.head, 1);
  ASSERT_TRUE(pair.device->pop(b));
  EXPECT_EQ(b.head(), second.head);
}

TEST(Queue, CompletesOutOfOrder) {
  Pair pair;
  auto first = pair.driver.chain().writable(1).submit();
  auto second = pair.driver.chain().writable(1).submit();
  Chain chain;
  ASSERT_TRUE(pair.device->pop(chain));
  ASSERT_TRUE(pair.device->pop(chain));
  pair.device->push(second.head, 1);
  pair.device->push(first.head, 1);
  pair.device->notify();
  EXPECT_EQ(pair.driver.take_used()->head, second.head);
  EXPECT_EQ(pair.driver.take_used()->head, first.head);
  EXPECT_EQ(pair.interrupt.count(), 1);
}

TEST(Queue, AppendSliceCutsAtBothEnds) {
  std::vector<std::byte> a(10);
  std::vector<std::byte> b(10);
  std::vector<iovec> parts = {{a.data(), 10}, {b.data(), 10}};
  std::vector<iovec> out;
  EXPECT_TRUE(append_slice(parts, 8, 5, out));
  ASSERT_EQ(out.size(), 2u);
  EXPECT_EQ(out[0].iov_base, a.data() + 8);
  EXPECT_EQ(out[0].iov_len, 2u);
  EXPECT_EQ(out[1].iov_base, b.data());
  EXPECT_EQ(out[1].iov_len, 3u);
  EXPECT_FALSE(append_slice(parts, 16, 5, out));
  EXPECT_FALSE(append_slice(parts, UINT64_MAX, 5, out));
  EXPECT_EQ(out.size(), 2u);
}

// ---- Where a driver puts the ring ----

struct Placement : ::testing::Test {
  std::string refusal(const QueueLayout& layout) {
    auto queue = Queue::create(ram.memory(), layout, doorbell, interrupt, host);
    return queue.ok() ? "" : queue.error().message();
  }
  GuestRam ram{{{0x10000, 0x10000}, {0x20000, 0x10000}, {0x40000, 0x1000}}};
  EventFd doorbell = EventFd::create().value();
  CountingInterrupt interrupt;
  RecordingHost host;
  QueueLayout good{.index = 0,
                   .size = 16,
                   .descriptors = GuestAddress{0x10000},
                   .available = GuestAddress{0x11000},
                   .used = GuestAddress{0x12000},
                   .event_idx = true,
                   .indirect = true};
};

TEST_F(Placement, SizeMustBeAPowerOfTwo) {
  EXPECT_EQ(refusal(good), "");
  for (auto size : std::to_array<uint16_t>({0, 3, 12, 2048, 0xffff})) {
    QueueLayout bad = good;
    bad.size = size;
    EXPECT_EQ(refusal(bad), fmt::format("a queue of {} entries", size));
  }
}

TEST_F(Placement, PartsMustBeAligned) {
  QueueLayout bad = good;
  bad.descriptors.value += 8;
  EXPECT_EQ(refusal(bad), "the descriptor table at 0x10008 is not aligned to 16");
  bad = good;
  bad.available.value += 1;
  EXPECT_EQ(refusal(bad), "the available ring at 0x11001 is not aligned to 2");
  bad = good;
  bad.used.value += 2;
  EXPECT_EQ(refusal(bad), "the used ring at 0x12002 is not aligned to 4");
}

TEST_F(Placement, PartsMustBeInRamWhole) {
  QueueLayout bad = good;
  bad.descriptors.value = 0x40ff0;
  EXPECT_EQ(refusal(bad), "the descriptor table at 0x40ff0 with 256 bytes is not in RAM");
  bad = good;
  bad.available.value = 0x40ffe;
  EXPECT_EQ(refusal(bad), "the available ring at 0x40ffe with 38 bytes is not in RAM");
  bad = good;
  bad.used.value = 0xfffffffffffffffc;
  EXPECT_EQ(refusal(bad), "the used ring at 0xfffffffffffffffc with 134 bytes is not in RAM");
  bad = good;
  bad.used.value = 0xfec00000;
  EXPECT_EQ(refusal(bad), "the used ring at 0xfec00000 with 134 bytes is not in RAM");
  // The end of RAM itself is good.
  bad = good;
  bad.descriptors.value = 0x40f00;
  EXPECT_EQ(refusal(bad), "");
}

// ---- Hostile drivers ----

TEST(HostileQueue, AvailableIndexJumpsByMoreThanTheSize) {
  Pair pair;
  pair.driver.set_available_index(17);
  pair.expect_broken("the available index jumped from 0 to 17");
}

TEST(HostileQueue, AvailableIndexGoesBack) {
  Pair pair;
  pair.driver.chain().writable(1).submit();
  Chain chain;
  ASSERT_TRUE(pair.device->pop(chain));
  pair.driver.set_available_index(0);
  pair.expect_broken("the available index jumped from 1 to 0");
}

TEST(HostileQueue, JumpIsSeenWhileArmingTheDoorbell) {
  Pair pair;
  pair.driver.set_available_index(0x8000);
  EXPECT_FALSE(pair.device->arm_doorbell());
  EXPECT_TRUE(pair.device->broken());
}

TEST(HostileQueue, HeadIsOutOfRange) {
  for (auto head : std::to_array<uint16_t>({16, 0xffff})) {
    Pair pair;
    pair.driver.offer(head);
    pair.expect_broken(fmt::format("descriptor {} is out of range", head));
  }
}

TEST(HostileQueue, NextIsOutOfRange) {
  Pair pair;
  GuestAddress buffer = pair.ram.allocate(64);
  pair.driver.set_descriptor(0, {buffer.value, 64u, kDescNext, uint16_t{16}});
  pair.driver.offer(0);
  pair.expect_broken("descriptor 16 is out of range");
}

TEST(HostileQueue, SameHeadTwiceInFlight) {
  Pair pair;
  auto request = pair.driver.chain().writable(1).submit();
  pair.driver.offer(request.head);
  Chain chain;
  ASSERT_TRUE(pair.device->pop(chain));
  pair.expect_broken("descriptor 0 is in flight already");
  // The completion of the first one is swallowed.
  pair.device->push(request.head, 1);
  pair.device->notify();
  EXPECT_EQ(pair.driver.used_index(), 0);
  EXPECT_EQ(pair.interrupt.count(), 0);
}

TEST(HostileQueue, SameHeadAgainAfterItsCompletionIsFine) {
  Pair pair;
  Chain chain;
  pair.driver.set_descriptor(3, {pair.ram.allocate(8).value, 8u, kDescWrite, kNone});
  for (int i = 0; i < 100; ++i) {
    pair.driver.offer(3);
    ASSERT_TRUE(pair.device->pop(chain));
    pair.device->push(3, 8);
    pair.device->notify();
  }
  EXPECT_FALSE(pair.device->broken());
}

TEST(HostileQueue, ChainLoops) {
  Pair pair;
  GuestAddress buffer = pair.ram.allocate(64);
  pair.driver.set_descriptor(0, {buffer.value, 8u, kDescNext, uint16_t{1}});
  pair.driver.set_descriptor(1, {buffer.value, 8u, kDescNext, uint16_t{0}});
  pair.driver.offer(0);
  pair.expect_broken("a chain is longer than the queue");
}

TEST(HostileQueue, DescriptorNamesItself) {
  Pair pair;
  pair.driver.set_descriptor(0, {pair.ram.allocate(8).value, 8u, kDescNext | kDescWrite, uint16_t{0}});
  pair.driver.offer(0);
  pair.expect_broken("a chain is longer than the queue");
}

TEST(HostileQueue, IndirectTableLoops) {
  Pair pair;
  GuestAddress buffer = pair.ram.allocate(64);
  GuestAddress table = pair.ram.allocate(32);
  for (uint16_t i = 0; i < 2; ++i) {
    auto other = static_cast<uint16_t>(1 - i);
    ASSERT_TRUE(pair.ram.memory().write_object(GuestAddress{table.value + 16u * i},
                                               RingDescriptor{buffer.value, 8u, kDescNext, other}));
  }
  pair.driver.set_descriptor(0, {table.value, 32u, kDescIndirect, kNone});
  pair.driver.offer(0);
  pair.expect_broken("a chain is longer than the queue");
}

TEST(HostileQueue, ZeroLengthDescriptor) {
  Pair pair;
  pair.driver.chain().readable(bytes(16)).writable_at(GuestAddress{1_MiB}, 0).submit();
  pair.expect_broken("a descriptor of zero bytes");
}

TEST(HostileQueue, NestedIndirect) {
  Pair pair;
  GuestAddress table = pair.ram.allocate(16);
  ASSERT_TRUE(pair.ram.memory().write_object(table, RingDescriptor{table.value, 16u, kDescIndirect, kNone}));
  pair.driver.set_descriptor(0, {table.value, 16u, kDescIndirect, kNone});
  pair.driver.offer(0);
  pair.expect_broken("an indirect table inside an indirect table");
}

TEST(HostileQueue, IndirectWithNext) {
  Pair pair;
  GuestAddress table = pair.ram.allocate(16);
  pair.driver.set_descriptor(0, {table.value, 16u, kDescIndirect | kDescNext, uint16_t{1}});
  pair.driver.offer(0);
  pair.expect_broken("an indirect descriptor that has a next one");
}

TEST(HostileQueue, IndirectNotNegotiated) {
  Pair pair({.indirect = false});
  pair.driver.chain().indirect().writable(8).submit();
  pair.expect_broken("an indirect descriptor that was not negotiated");
}

TEST(HostileQueue, IndirectTableOfBadLength) {
  // Empty, not whole entries, more entries than the queue, far too many.
  for (uint32_t length : {0u, 8u, 17u, 16u * 17, 0xfffffff0u}) {
    Pair pair;
    pair.driver.set_descriptor(0, {pair.ram.allocate(4096).value, length, kDescIndirect, kNone});
    pair.driver.offer(0);
    pair.expect_broken(fmt::format("an indirect table of {} bytes", length));
  }
}

TEST(HostileQueue, IndirectTableOutsideRam) {
  // Nowhere, over the end, and so high that it wraps.
  for (uint64_t address : {uint64_t{0}, 5_MiB - 16, uint64_t{0xfffffffffffffff0}}) {
    Pair pair;
    pair.driver.set_descriptor(0, {address, 32u, kDescIndirect, kNone});
    pair.driver.offer(0);
    pair.expect_broken(fmt::format("an indirect table at {:#x} that is not in RAM", address));
  }
}

TEST(HostileQueue, IndirectNextIsOutOfTheTable) {
  Pair pair;
  GuestAddress buffer = pair.ram.allocate(8);
  GuestAddress table = pair.ram.allocate(64);
  ASSERT_TRUE(
      pair.ram.memory().write_object(table, RingDescriptor{buffer.value, 8u, kDescNext, uint16_t{2}}));
  pair.driver.set_descriptor(0, {table.value, 32u, kDescIndirect, kNone});
  pair.driver.offer(0);
  pair.expect_broken("entry 2 of an indirect table of 2");
}

TEST(HostileQueue, ChainOfDirectAndIndirectIsLongerThanTheQueue) {
  Pair pair({.size = 4});
  GuestAddress buffer = pair.ram.allocate(8);
  GuestAddress table = pair.ram.allocate(64);
  for (uint16_t i = 0; i < 4; ++i) {
    uint16_t flags = i < 3 ? kDescNext : kNone;
    auto next = static_cast<uint16_t>(i + 1);
    ASSERT_TRUE(pair.ram.memory().write_object(GuestAddress{table.value + 16u * i},
                                               RingDescriptor{buffer.value, 8u, flags, next}));
  }
  pair.driver.set_descriptor(0, {buffer.value, 8u, kDescNext, uint16_t{1}});
  pair.driver.set_descriptor(1, {table.value, 64u, kDescIndirect, kNone});
  pair.driver.offer(0);
  pair.expect_broken("a chain is longer than the queue");
}

TEST(HostileQueue, BufferAddressWraps) {
  Pair pair;
  pair.driver.chain().writable_at(GuestAddress{0xfffffffffffff000}, 0x2000).submit();
  pair.expect_broken("a buffer at 0xfffffffffffff000 with 8192 bytes that is not in RAM");
}

TEST(HostileQueue, BufferOverTheEndOfRam) {
  Pair pair;
  pair.driver.chain().writable_at(GuestAddress{5_MiB - 1}, 2).submit();
  pair.expect_broken("a buffer at 0x4fffff with 2 bytes that is not in RAM");
}

TEST(HostileQueue, BufferAimedAtDeviceRegisters) {
  Pair pair;
  pair.driver.chain().writable_at(GuestAddress{0xfee00000}, 4).submit();
  pair.expect_broken("a buffer at 0xfee00000 with 4 bytes that is not in RAM");
}

TEST(HostileQueue, BufferStraddlesAHoleBetweenRegions) {
  Pair pair({}, {{1_MiB, 1_MiB}, {3_MiB, 1_MiB}});
  pair.driver.chain().writable_at(GuestAddress{2_MiB - 16}, 32).submit();
  pair.expect_broken("a buffer at 0x1ffff0 with 32 bytes that is not in RAM");
}

TEST(Queue, BufferAcrossTouchingRegionsBecomesTwoParts) {
  Pair pair({}, {{1_MiB, 1_MiB}, {2_MiB, 1_MiB}});
  pair.driver.chain().writable_at(GuestAddress{2_MiB - 16}, 48).submit();
  Chain chain;
  ASSERT_TRUE(pair.device->pop(chain));
  ASSERT_EQ(chain.writable().size(), 2u);
  EXPECT_EQ(chain.writable()[0].iov_len, 16u);
  EXPECT_EQ(chain.writable()[1].iov_len, 32u);
  EXPECT_TRUE(chain.write_at(14, bytes(4, 1)));
  EXPECT_EQ(pair.ram.read(GuestAddress{2_MiB - 2}, 4), bytes(4, 1));
}

TEST(HostileQueue, ReadableAfterWritable) {
  Pair pair;
  pair.driver.chain().readable(bytes(16)).writable(1).readable(bytes(1)).submit();
  pair.expect_broken("a readable descriptor after a writable one");
}

TEST(HostileQueue, MoreBytesThanAChainMayHave) {
  Pair pair({.size = 512}, {{1_MiB, 64_MiB}});
  auto chain = pair.driver.chain();
  for (int i = 0; i < 17; ++i) chain.writable_at(GuestAddress{1_MiB}, 64_MiB);
  chain.submit();
  pair.expect_broken("a chain of more than 1073741824 bytes");
}

TEST(Queue, AsManyBytesAsAChainMayHave) {
  Pair pair({.size = 16}, {{1_MiB, 64_MiB}});
  auto builder = pair.driver.chain();
  for (int i = 0; i < 16; ++i) builder.writable_at(GuestAddress{1_MiB}, 64_MiB);
  builder.submit();
  Chain chain;
  ASSERT_TRUE(pair.device->pop(chain));
  EXPECT_EQ(chain.writable_bytes(), kMaxChainBytes);
}

TEST(HostileQueue, DescriptorChangedAfterItWasPoppedChangesNothing) {
  Pair pair;
  auto request = pair.driver.chain().readable(bytes(16)).writable(32).submit();
  Chain chain;
  ASSERT_TRUE(pair.device->pop(chain));
  pair.driver.set_descriptor(request.head, {0xfee00000, 0xffffffffu, kDescIndirect, kNone});
  EXPECT_EQ(chain.readable_bytes(), 16u);
  EXPECT_TRUE(chain.write_at(0, bytes(32)));
  pair.device->push(request.head, 32);
  pair.device->notify();
  EXPECT_EQ(pair.driver.used_index(), 1);
}

TEST(HostileQueue, ADeviceCanLatchTheQueueBroken) {
  Pair pair;
  pair.device->fail("a header of 3 bytes");
  pair.device->fail("and more");
  EXPECT_THAT(pair.host.reasons(), ElementsAre("queue 0: a header of 3 bytes"));
}

// ---- Event suppression ----

TEST(QueueEvents, FlagsSuppressInterruptsAndDoorbells) {
  Pair pair({.event_idx = false});
  Chain chain;
  pair.driver.disarm_interrupt();
  pair.driver.chain().writable(1).submit();
  ASSERT_TRUE(pair.device->pop(chain));
  pair.device->push(chain.head(), 1);
  pair.device->notify();
  EXPECT_EQ(pair.interrupt.count(), 0);
  pair.driver.arm_interrupt();
  pair.driver.chain().writable(1).submit();
  ASSERT_TRUE(pair.device->pop(chain));
  pair.device->push(chain.head(), 1);
  pair.device->notify();
  EXPECT_EQ(pair.interrupt.count(), 1);
  pair.device->notify();
  EXPECT_EQ(pair.interrupt.count(), 1) << "nothing new, no interrupt";

  pair.device->disarm_doorbell();
  EXPECT_EQ(pair.driver.used_flags(), kUsedNoNotify);
  pair.driver.chain().writable(1).submit();
  EXPECT_FALSE(pair.driver.wants_doorbell());
  EXPECT_TRUE(pair.device->arm_doorbell()) << "a request came while the doorbell was off";
  EXPECT_EQ(pair.driver.used_flags(), 0);
}

TEST(QueueEvents, DoorbellIsAskedForOnceEachTime) {
  Pair pair;
  Chain chain;
  EXPECT_FALSE(pair.device->arm_doorbell());
  pair.driver.chain().writable(1).submit();
  EXPECT_TRUE(pair.driver.wants_doorbell());
  pair.driver.chain().writable(1).submit();
  EXPECT_FALSE(pair.driver.wants_doorbell());
  while (pair.device->pop(chain)) {
  }
  pair.driver.chain().writable(1).submit();
  EXPECT_FALSE(pair.driver.wants_doorbell()) << "not armed yet";
  EXPECT_TRUE(pair.device->arm_doorbell());
}

// Section 2.7.10 in words: an interrupt is due if the used index moves past used_event, that is, if the entry
// number used_event is among those just published. Counted with plain 64-bit numbers that never wrap.
TEST(QueueEvents, InterruptsMatchAModelThatNeverWraps) {
  std::mt19937 random(1);
  Pair pair({.size = 256});
  uint64_t published = 0;  // entries published so far
  uint64_t event = 0;      // the entry whose publication the driver waits for
  int expected = 0;
  Chain chain;
  auto entry_event = [&] {
    GuestAddress place{pair.driver.layout().available.value + used_event_offset(256)};
    ASSERT_TRUE(
        pair.ram.memory().store<uint16_t>(place, static_cast<uint16_t>(event), std::memory_order_seq_cst));
  };
  GuestAddress buffer = pair.ram.allocate(8);
  while (published < 4 * 65536) {
    uint64_t batch = 1 + random() % 256;
    for (uint64_t i = 0; i < batch; ++i) {
      pair.driver.chain().writable_at(buffer, 8).submit();
      ASSERT_TRUE(pair.device->pop(chain));
      pair.device->push(chain.head(), 8);
    }
    // Somewhere between long past and far ahead, often at the edges of what is published next.
    switch (random() % 4) {
      case 0:
        event = published;
        break;
      case 1:
        event = published + batch - 1;
        break;
      case 2:
        event = published + batch;
        break;
      default:
        event = published + random() % 1000;
        break;
    }
    entry_event();
    bool due = published <= event && event < published + batch;
    published += batch;
    if (due) ++expected;
    pair.device->notify();
    ASSERT_EQ(pair.interrupt.count(), expected) << "at " << published << " with event " << event;
    while (pair.driver.take_used()) {
    }
  }
}

TEST(QueueEvents, AvailEventFollowsTheIndexThroughItsWrap) {
  Pair pair({.size = 4});
  GuestAddress buffer = pair.ram.allocate(8);
  Chain chain;
  for (uint32_t i = 0; i < 2 * 65536 + 10; ++i) {
    ASSERT_FALSE(pair.device->arm_doorbell());
    ASSERT_EQ(pair.driver.available_event(), static_cast<uint16_t>(i));
    pair.driver.chain().writable_at(buffer, 8).submit();
    ASSERT_TRUE(pair.driver.wants_doorbell()) << i;
    ASSERT_TRUE(pair.device->pop(chain));
    pair.device->push(chain.head(), 8);
    pair.device->notify();
    ASSERT_TRUE(pair.driver.take_used().has_value());
  }
}

// Two threads, each of which sleeps only after asking to be woken. If a wake-up were lost, both would sleep.
void ping_pong(bool event_idx) {
  Pair pair({.size = 8, .event_idx = event_idx});
  constexpr int kRequests = 20000;
  GuestAddress buffer = pair.ram.allocate(8);
  std::thread device([&] {
    Chain chain;
    for (int done = 0; done < kRequests;) {
      pair.device->disarm_doorbell();
      while (pair.device->pop(chain)) {
        pair.device->push(chain.head(), 8);
        ++done;
      }
      pair.device->notify();
      if (done == kRequests || pair.device->arm_doorbell()) continue;
      auto until = std::chrono::steady_clock::now() + std::chrono::seconds(20);
      while (!pair.doorbell.drain()) {
        ASSERT_LT(std::chrono::steady_clock::now(), until) << "the doorbell was lost";
        std::this_thread::yield();
      }
    }
  });
  int offered = 0;
  int taken = 0;
  while (taken < kRequests) {
    while (offered < kRequests && pair.driver.free_descriptors() > 0) {
      pair.driver.chain().writable_at(buffer, 8).submit();
      ++offered;
      if (pair.driver.wants_doorbell()) pair.doorbell.signal();
    }
    int seen = pair.interrupt.count();
    pair.driver.disarm_interrupt();
    int before = taken;
    while (pair.driver.take_used()) ++taken;
    if (taken > before) continue;
    pair.driver.arm_interrupt();
    if (pair.driver.take_used()) {
      ++taken;
      continue;
    }
    ASSERT_TRUE(pair.interrupt.wait_for(seen + 1, std::chrono::seconds(20))) << "the interrupt was lost";
  }
  device.join();
}

TEST(QueueEvents, NoWakeUpIsLostWithEventIdx) {
  ping_pong(true);
}
TEST(QueueEvents, NoWakeUpIsLostWithFlags) {
  ping_pong(false);
}

// A request's way costs no allocation once the chain has its capacity: its storage does not move.
TEST(Queue, SteadyStateReusesTheChain) {
  Pair pair({.size = 64});
  GuestAddress buffer = pair.ram.allocate(8);
  Chain chain;
  const iovec* storage = nullptr;
  for (int i = 0; i < 1000; ++i) {
    auto builder = pair.driver.chain();
    for (int part = 0; part < 64; ++part) builder.writable_at(buffer, 8);
    builder.submit();
    ASSERT_TRUE(pair.device->pop(chain));
    if (i == 0) storage = chain.writable().data();
    ASSERT_EQ(chain.writable().data(), storage);
    pair.device->push(chain.head(), 8);
    pair.device->notify();
    ASSERT_TRUE(pair.driver.take_used().has_value());
  }
}

}  // namespace
}  // namespace haneul::devices::virtio
