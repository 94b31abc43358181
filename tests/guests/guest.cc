// SPDX-License-Identifier: Apache-2.0
// The guest's commands, chosen by the first word of the command line. Results are lines "name=number" on the
// serial line; a failure is a line "FAIL reason".
//
//   hello                     says hello and powers off
//   echo                      writes back what is typed, until 'q'
//   boots                     counts its boots on the first disk, then does as echo
//   reset [port=1]            resets the machine, by ACPI's register or the chipset's port
//   spin                      uses its vCPU for ever, in ring 3
//   flood bytes=N             writes N bytes to the serial line
//   block requests=N depth=N bytes=N write=0|1 [sequential=1] [flush=1] [check=1]
//                             block I/O at random places; flush: each write, one at a time, and a flush after
//                             it; check: verifies what it wrote; among=N: N places, evenly spread.
//                             longest: ticks between two completions; queue=N: by that queue of the disk
//   disk-id [nth=N]           a disk's size and serial
//   net frames=N              sends N frames and counts the echoed ones
//   entropy                   reads 64 bytes from virtio-rng
//   interrupts                takes a device's MSI-X interrupts and the power button's line, as they come to wait in
//                             the local APIC
//   hotplug [write=1]         reads, or writes to, each disk that is plugged in; ejects it when asked, until 'q'
//   generation [reset=1]      tells the machine's generation ID; then resets the machine
//   smp vcpus=N [letters=1]   starts the other vCPUs and waits until each has counted far; letters: then each writes
//                             its own letter for ever
//   3fault, 0halt             in ring 0, see start.S
// With wait=1 the guest begins when a 'q' is typed. With stay=1 it spins at its end, without any exit, instead of
// powering off. With high=1 its memory comes from above 4 GiB: rings, headers and buffers.
#include "tests/guests/runtime.h"
#include "tests/guests/virtio.h"

namespace guest {

void set_command_line(const uint8_t* boot_params);

namespace {

constexpr uint16_t kNetDevice = 1;
constexpr uint16_t kBlockDevice = 2;
constexpr uint16_t kEntropyDevice = 4;

constexpr uint32_t kRead = 0;
constexpr uint32_t kWriteRequest = 1;
constexpr uint32_t kFlush = 4;
constexpr uint32_t kGetId = 8;

struct BlockHeader {
  uint32_t type;
  uint32_t reserved;
  uint64_t sector;
};

/// A block device with a queue of requests of one size, each with three descriptors of its own.
class Disk {
 public:
  Disk(unsigned slot, uint16_t depth, uint32_t bytes) : depth_(depth), bytes_(bytes) {
    if (slot == 0) fail("no block device");
    device_.open(slot, 1ull << 9 /* FLUSH */ | 1ull << 12 /* MQ */);
    device_.set_up_queue(static_cast<uint16_t>(option("queue", 0)), queue_, 256);
    device_.go();
    headers_ = static_cast<BlockHeader*>(allocate(sizeof(BlockHeader) * depth));
    statuses_ = static_cast<volatile uint8_t*>(allocate(depth));
    buffers_ = static_cast<uint8_t*>(allocate(uint64_t{bytes} * depth));
    if (3u * depth > queue_.size()) fail("the queue is too small");
    // Memory that nobody wrote to may be one shared page of zeroes, which is faster to read than memory is.
    for (uint64_t at = 0; at < uint64_t{bytes} * depth; at += 512)
      buffers_[at] = static_cast<uint8_t>(at >> 9);
  }
  uint64_t sectors() { return read_mmio<uint64_t>(device_.config(0)); }
  uint8_t* buffer(uint16_t slot) { return buffers_ + uint64_t{slot} * bytes_; }
  uint8_t status(uint16_t slot) const { return statuses_[slot]; }
  uint64_t kicks() const { return queue_.kicks(); }
  void kick() { queue_.kick(); }

  void submit(uint16_t slot, uint32_t type, uint64_t sector, uint32_t bytes) {
    headers_[slot] = {type, 0, sector};
    statuses_[slot] = 0xff;
    auto head = static_cast<uint16_t>(slot * 3);
    auto data = static_cast<uint16_t>(head + 1);
    auto last = static_cast<uint16_t>(head + 2);
    queue_.descriptor(head) = {reinterpret_cast<uint64_t>(&headers_[slot]), sizeof(BlockHeader), kNext,
                               bytes != 0 ? data : last};
    auto flags = static_cast<uint16_t>(type == kWriteRequest ? kNext : kNext | kWrite);
    queue_.descriptor(data) = {reinterpret_cast<uint64_t>(buffer(slot)), bytes, flags, last};
    queue_.descriptor(last) = {reinterpret_cast<uint64_t>(&statuses_[slot]), 1, kWrite, 0};
    queue_.add(head);
  }
  /// A finished request's slot, or -1.
  int finished() {
    int head = queue_.poll();
    return head < 0 ? -1 : head / 3;
  }
  void do_one(uint32_t type, uint64_t sector, uint32_t bytes) {
    submit(0, type, sector, bytes);
    kick();
    while (finished() < 0) pause();
    if (status(0) != 0) fail("a request failed");
  }

 private:
  VirtioDevice device_;
  Queue queue_;
  uint16_t depth_;
  uint32_t bytes_;
  BlockHeader* headers_;
  volatile uint8_t* statuses_;
  uint8_t* buffers_;
};

// Until `requests` are done, `depth` at a time, at random places or one after the other. With flush, each
// write is followed by a flush, one at a time.
void block_speed(Disk& disk, uint64_t requests, uint16_t depth, uint32_t bytes, bool write) {
  Random random(option("seed", 1));
  const bool sequential = option("sequential", 0) != 0;
  const bool flush = option("flush", 0) != 0;
  uint64_t places = disk.sectors() / (bytes / 512);
  uint64_t sent = 0;
  uint64_t done = 0;
  const uint64_t among = option("among", places);
  auto place = [&] { return (sequential ? sent : random.next()) % among * (places / among) * (bytes / 512); };
  auto send = [&](uint16_t slot) {
    disk.submit(slot, write ? kWriteRequest : kRead, place(), bytes);
    ++sent;
  };
  uint64_t begin = ticks();
  uint64_t last = begin;
  uint64_t longest = 0;
  for (; flush && done < requests; ++sent, ++done) {
    disk.do_one(kWriteRequest, place(), bytes);
    disk.do_one(kFlush, 0, 0);
  }
  for (uint16_t slot = 0; slot < depth && sent < requests; ++slot) send(slot);
  disk.kick();
  while (done < requests) {
    bool added = false;
    for (int slot = disk.finished(); slot >= 0; slot = disk.finished()) {
      if (disk.status(static_cast<uint16_t>(slot)) != 0) fail("a request failed");
      ++done;
      uint64_t now = ticks();
      if (now - last > longest) longest = now - last;
      last = now;
      if (sent < requests) {
        send(static_cast<uint16_t>(slot));
        added = true;
      }
    }
    if (added) disk.kick();
    pause();
  }
  print_line("ticks", ticks() - begin);
  print_line("longest", longest);
  print_line("requests", done);
  print_line("kicks", disk.kicks());
}

// Writes a pattern over the disk's start, flushes, reads it back, compares.
void block_check(Disk& disk, uint64_t requests, uint32_t bytes) {
  uint32_t sectors = bytes / 512;
  if (disk.sectors() < requests * sectors) fail("the disk is too small");
  for (uint64_t i = 0; i < requests; ++i) {
    Random random(i + 1);
    auto* words = reinterpret_cast<uint64_t*>(disk.buffer(0));
    for (uint32_t w = 0; w < bytes / 8; ++w) words[w] = random.next();
    disk.do_one(kWriteRequest, i * sectors, bytes);
  }
  disk.do_one(kFlush, 0, 0);
  for (uint64_t i = 0; i < requests; ++i) {
    disk.do_one(kRead, i * sectors, bytes);
    Random random(i + 1);
    const auto* words = reinterpret_cast<const uint64_t*>(disk.buffer(0));
    for (uint32_t w = 0; w < bytes / 8; ++w) {
      if (words[w] != random.next()) fail("read back something else than was written");
    }
  }
  print_line("verified", requests * bytes);
}

void run_block() {
  auto depth = static_cast<uint16_t>(option("depth", 1));
  auto bytes = static_cast<uint32_t>(option("bytes", 4096));
  uint64_t requests = option("requests", 1000);
  Disk disk(VirtioDevice::slot_of(kBlockDevice, 0), depth, bytes);
  if (option("check", 0) != 0) {
    block_check(disk, requests, bytes);
  } else {
    block_speed(disk, requests, depth, bytes, option("write", 0) != 0);
  }
}

void print_disk(unsigned slot) {
  Disk disk(slot, 1, 512);
  print_line("sectors", disk.sectors());
  disk.do_one(kGetId, 0, 20);
  char id[21] = {};
  for (int i = 0; i < 20; ++i) id[i] = static_cast<char>(disk.buffer(0)[i]);
  print("id=");
  print(id);
  print("\n");
}

// The registers that the machine's ACPI methods use (devices/pci/root.h).
void run_hotplug() {
  constexpr uint64_t kHotplug = 0xe8000010;
  print("ready\n");
  while (!serial_has('q')) {
    uint32_t plugged = read_mmio<uint32_t>(kHotplug);
    for (unsigned slot = 1; slot < 32; ++slot) {
      if ((plugged >> slot & 1) == 0) continue;
      if (VirtioDevice::type_in(slot) == kBlockDevice) {
        print_disk(slot);
        if (option("write", 0) != 0) Disk(slot, 1, 4096).do_one(kWriteRequest, 0, 4096);
      } else {
        print("gone\n");
      }
    }
    uint32_t leaving = read_mmio<uint32_t>(kHotplug + 4);
    if (leaving != 0) write_mmio<uint32_t>(kHotplug + 8, leaving);
  }
}

void run_net() {
  constexpr uint16_t kBuffers = 64;
  constexpr uint32_t kHeader = 12;
  constexpr uint32_t kRoom = 2048;
  uint64_t frames = option("frames", 100);
  auto frame_bytes = static_cast<uint32_t>(option("bytes", 64));
  unsigned slot = VirtioDevice::slot_of(kNetDevice, 0);
  if (slot == 0) fail("no network device");
  VirtioDevice device;
  device.open(slot, 1ull << 5 /* MAC */);
  Queue receive;
  Queue send;
  device.set_up_queue(0, receive, kBuffers);
  device.set_up_queue(1, send, kBuffers);
  device.go();
  auto* in = static_cast<uint8_t*>(allocate(uint64_t{kBuffers} * kRoom));
  auto* out = static_cast<uint8_t*>(allocate(kRoom));
  for (uint16_t i = 0; i < kBuffers; ++i) {
    receive.descriptor(i) = {reinterpret_cast<uint64_t>(in + uint64_t{i} * kRoom), kRoom, kWrite, 0};
    receive.add(i);
  }
  receive.kick();
  for (int i = 0; i < 6; ++i) {
    out[kHeader + i] = 0xff;
    out[kHeader + 6 + i] = read_mmio<uint8_t>(device.config(static_cast<uint32_t>(i)));
  }
  out[kHeader + 12] = 0x88;  // EtherType 0x88b5: local experiments
  out[kHeader + 13] = 0xb5;
  uint64_t echoed = 0;
  uint64_t begin = ticks();
  for (uint64_t sent = 0; sent < frames; ++sent) {
    *reinterpret_cast<uint64_t*>(out + kHeader + 14) = sent;
    send.descriptor(0) = {reinterpret_cast<uint64_t>(out), kHeader + frame_bytes, 0, 0};
    send.add(0);
    send.kick();
    while (send.poll() < 0) pause();
    // The other side sends each frame back.
    for (;;) {
      uint32_t written = 0;
      int got = receive.poll(&written);
      if (got < 0) {
        pause();
        continue;
      }
      const uint8_t* frame = in + uint64_t(got) * kRoom;
      bool ours = frame[kHeader + 12] == 0x88 && frame[kHeader + 13] == 0xb5;
      if (ours && *reinterpret_cast<const uint64_t*>(frame + kHeader + 14) != sent)
        fail("a frame came back changed");
      if (ours && written != kHeader + frame_bytes) fail("a frame came back with another length");
      receive.add(static_cast<uint16_t>(got));
      receive.kick();
      if (ours) break;
    }
    ++echoed;
  }
  print_line("ticks", ticks() - begin);
  print_line("echoed", echoed);
}

void run_entropy() {
  unsigned slot = VirtioDevice::slot_of(kEntropyDevice, 0);
  if (slot == 0) fail("no entropy device");
  VirtioDevice device;
  device.open(slot, 0);
  Queue queue;
  device.set_up_queue(0, queue, 8);
  device.go();
  auto* bytes = static_cast<uint8_t*>(allocate(64));
  queue.descriptor(0) = {reinterpret_cast<uint64_t>(bytes), 64, kWrite, 0};
  queue.add(0);
  queue.kick();
  uint32_t written = 0;
  while (queue.poll(&written) < 0) pause();
  uint64_t ones = 0;
  for (uint32_t bit = 0; bit < written * 8; ++bit) ones += (bytes[bit / 8] >> (bit % 8)) & 1u;
  print_line("bytes", written);
  print_line("ones", ones);
}

constexpr uint64_t kLocalApic = 0xfee00000;

/// The vector waits to be taken, as it does for ever with interrupts off.
bool waits(uint8_t vector) {
  uint32_t word = read_mmio<uint32_t>(kLocalApic + 0x200 + vector / 32 * 0x10u);
  return (word >> (vector % 32) & 1) != 0;
}

void run_interrupts() {
  write_mmio<uint32_t>(kLocalApic + 0xf0, 0x1ff);  // software enable
  VirtioDevice device;
  device.open(VirtioDevice::slot_of(kEntropyDevice, 0), 0);
  Queue queue;
  device.set_up_queue(0, queue, 8);
  device.use_msix(0);
  device.go();
  queue.descriptor(0) = {reinterpret_cast<uint64_t>(allocate(64)), 64, kWrite, 0};
  auto request = [&] {
    queue.want_interrupt();
    queue.add(0);
    queue.kick();
    while (queue.poll() < 0) pause();
  };
  // Each vector is new to the route, and cannot be one that came before.
  constexpr uint8_t kFirst = 0x40;
  constexpr uint8_t kCount = 16;
  for (uint8_t vector = kFirst; vector < kFirst + kCount; ++vector) {
    device.mask(true);
    device.set_vector(vector);
    device.mask(false);
    if (waits(vector)) fail("an interrupt came unasked");
    request();
    while (!waits(vector)) pause();
  }
  print_line("messages", kCount);

  constexpr uint8_t kMasked = 0x70;
  device.mask(true);
  device.set_vector(kMasked);
  request();
  for (int i = 0; i < 1000; ++i) {
    if (waits(kMasked)) fail("a masked interrupt came");
  }
  device.mask(false);
  while (!waits(kMasked)) pause();
  print("unmasked\n");

  // The line of ACPI's events, pin 5 of the IOAPIC (vmm/arch/x86_64/layout.h), edge-triggered.
  constexpr uint64_t kIoapic = 0xfec00000;
  constexpr uint8_t kButton = 0x80;
  constexpr uint32_t kPin = 5;
  write_mmio<uint32_t>(kIoapic, 0x10 + 2 * kPin + 1);
  write_mmio<uint32_t>(kIoapic + 0x10, 0);
  write_mmio<uint32_t>(kIoapic, 0x10 + 2 * kPin);
  write_mmio<uint32_t>(kIoapic + 0x10, kButton);
  print("ready\n");
  while (!waits(kButton)) pause();
  print_line("events", read_mmio<uint32_t>(0xe8000000));
}

void run_echo() {
  print("ready\n");
  for (;;) {
    uint8_t byte = read_serial();
    if (byte == 'q') return;
    out8(0x3f8, byte);
  }
}

// Where the DSDT says that it is (vmm/arch/x86_64/layout.h).
void run_generation() {
  constexpr uint64_t kGeneration = 0xdf000;
  print_line("low", read_mmio<uint64_t>(kGeneration));
  print_line("high", read_mmio<uint64_t>(kGeneration + 8));
  if (option("reset", 0) != 0) reset();
}

constexpr unsigned kMaxVcpus = 32;
volatile uint64_t counts[kMaxVcpus];
volatile bool letters = false;

void count(unsigned index) {
  while (!letters) {
    counts[index] = counts[index] + 1;
    pause();
  }
  for (;;) out8(0x3f8, static_cast<uint8_t>('a' + index));
}

void run_smp() {
  constexpr uint64_t kFar = 1000;
  auto vcpus = static_cast<unsigned>(option("vcpus", 2));
  for (unsigned i = 1; i < vcpus; ++i) start_vcpu(i, count);
  // All at once: from where each is by now.
  uint64_t from[kMaxVcpus];
  for (unsigned i = 1; i < vcpus; ++i) from[i] = counts[i];
  for (unsigned i = 1; i < vcpus; ++i) {
    while (counts[i] < from[i] + kFar) pause();
  }
  print_line("vcpus", vcpus);
  if (option("letters", 0) == 0) return;
  letters = true;
  count(0);
}

void run_boots() {
  Disk disk(VirtioDevice::slot_of(kBlockDevice, 0), 1, 512);
  disk.do_one(kRead, 0, 512);
  uint64_t boots = ++*reinterpret_cast<uint64_t*>(disk.buffer(0));
  disk.do_one(kWriteRequest, 0, 512);
  disk.do_one(kFlush, 0, 0);
  print_line("boots", boots);
  run_echo();
}

void run_flood() {
  uint64_t bytes = option("bytes", 1 << 20);
  for (uint64_t i = 0; i < bytes; ++i) out8(0x3f8, static_cast<uint8_t>('a' + i % 26));
  print("\n");
}

void run() {
  if (option("wait", 0) != 0) {
    print("waiting\n");
    while (read_serial() != 'q') {
    }
  }
  if (command_is("hello")) {
    print("hello\n");
  } else if (command_is("echo")) {
    run_echo();
  } else if (command_is("boots")) {
    run_boots();
  } else if (command_is("reset")) {
    if (option("port", 0) == 0) reset();
    out8(0xcf9, 6);
    for (;;) pause();
  } else if (command_is("spin")) {
    print("spinning\n");
    for (;;) pause();
  } else if (command_is("generation")) {
    run_generation();
  } else if (command_is("smp")) {
    run_smp();
  } else if (command_is("interrupts")) {
    run_interrupts();
  } else if (command_is("flood")) {
    run_flood();
  } else if (command_is("block")) {
    run_block();
  } else if (command_is("disk-id")) {
    print_disk(VirtioDevice::slot_of(kBlockDevice, static_cast<unsigned>(option("nth", 0))));
  } else if (command_is("hotplug")) {
    run_hotplug();
  } else if (command_is("net")) {
    run_net();
  } else if (command_is("entropy")) {
    run_entropy();
  } else {
    fail("no such command");
  }
}

}  // namespace
}  // namespace guest

extern "C" void guest_main(const uint8_t* boot_params) {
  guest::set_command_line(boot_params);
  guest::run();
  guest::print("done\n");
  if (guest::option("stay", 0) != 0) {
    for (;;) guest::pause();
  }
  guest::power_off();
}
