// SPDX-License-Identifier: Apache-2.0
// haneul::Vm: a virtual machine inside your program: for a test harness that wants a real kernel, in
// milliseconds. No daemon, no files of its own, no root: only /dev/kvm.
//
//   auto vm = haneul::Vm::launch({.kernel = "vmlinux", .initrds = {"initrd"}, .command_line = "console=ttyS0"});
//   if (!vm.ok()) return fail(vm.error().message());
//   Status prompt = vm->wait_for_console("login: ", std::chrono::seconds(30));
//   if (!prompt.ok()) return fail(prompt.error().message());
//   (void)vm->type("root\n");
//
// Thread-safe. The machine's threads belong to the Vm; its destructor stops the guest and joins them. The
// library installs a handler for one realtime signal, SIGRTMIN+1, with which it interrupts its vCPU threads.
// The VMM's sandbox is not used here: the guest is as trusted as your test.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace haneul {

struct VmDisk {
  std::string path;
  /// What the guest reads as the disk's serial, at most 20 bytes.
  std::string id;
  bool read_only = false;
  /// Copy-on-write: `path` takes the changes (it is made if it does not exist) and `base` is the raw image
  /// beneath it, never written.
  std::string base = {};
  /// What is between the two, the lowest first: where the changes went before each snapshot_disk().
  std::vector<std::string> layers = {};
};

struct VmConfig {
  /// An ELF vmlinux or a bzImage.
  std::string kernel;
  std::vector<std::string> initrds = {};
  std::string command_line = {};
  /// A multiple of 2 MiB.
  uint64_t memory_bytes = 128 << 20;
  /// Back the memory with huge pages of 2 MiB that the host has reserved. Without, transparent ones are used where
  /// the host has them.
  bool huge_pages = false;
  /// 1 to 32.
  unsigned vcpus = 1;
  std::vector<VmDisk> disks = {};
  /// A reset ends the machine instead of starting it over.
  bool reset_ends = true;
};

struct VmEnd {
  /// "powered-off", "reset", "triple-fault", "kvm-error", "stopped", or "failed": the library could not go on, for
  /// example build the machine again after a reset. The detail says what was wrong.
  std::string reason;
  std::string detail;
};

class Vm {
 public:
  /// Starts the guest. The error says in one sentence what was wrong: no /dev/kvm, not a kernel, too little
  /// memory.
  static Result<Vm> launch(const VmConfig& config);
  /// Whether this machine's KVM can run Linux, and why not.
  static Status can_run_linux();

  Vm(Vm&&) noexcept;
  Vm& operator=(Vm&&) noexcept;
  ~Vm();

  /// Everything that the guest has written to its serial console, up to the last 4 MiB.
  std::string console() const;
  /// Returns when the console contains `text`, counted from after the last text that was waited for.
  /// kTimeout, or kCancelled if the guest ended without it; the message shows the console's last lines.
  Status wait_for_console(std::string_view text, std::chrono::milliseconds timeout);
  /// Types into the serial console.
  Status type(std::string_view text);

  /// Plugs a disk into the running guest.
  Status attach_disk(const VmDisk& disk);
  /// Asks the guest to let go of the disk and waits for it; with force, pulls it out.
  Status detach_disk(std::string_view id, bool force,
                     std::chrono::milliseconds timeout = std::chrono::seconds(10));
  Status resize_disk(std::string_view id, uint64_t size_bytes);
  std::vector<std::string> disk_ids() const;
  /// Of a copy-on-write disk: from now on its changes go to a new file, `path`, and what was there until now
  /// never changes again. Returns when that is durable: how long the guest's changes were held back. kBusy while
  /// another snapshot of the disk is under way. One that fails leaves no file, except where the disk uses it already.
  Result<std::chrono::microseconds> snapshot_disk(std::string_view id, const std::string& path);

  /// Between pause() and resume() no vCPU runs, also not after a reset.
  Status pause();
  Status resume();
  Status press_power_button();
  /// Ends the guest at once.
  Status stop();
  /// Waits for the guest's end, however it comes. kTimeout.
  Result<VmEnd> wait(std::chrono::milliseconds timeout);

  /// vCPU exits to user space so far, all vCPUs together; 0 once the guest has ended.
  uint64_t exits() const;

 private:
  class Impl;
  explicit Vm(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace haneul
