// SPDX-License-Identifier: Apache-2.0
// Boots the kernel given, waits for its console, types, plugs a disk in and ends it; and stops one that does not end by
// itself: a user's first program with the library. Exit status 0 if everything went as it should.
#include <haneul/vm.h>

#include <cstdio>

namespace {

int failed(const char* step, const haneul::Error& error) {
  std::fprintf(stderr, "%s: %s\n", step, error.message().c_str());
  return 1;
}

// A guest that would run for ever, with a disk from the start, is stopped from outside.
int stopped(const char* kernel, const char* disk) {
  auto vm =
      haneul::Vm::launch({.kernel = kernel, .command_line = "spin", .disks = {{.path = disk, .id = "root"}}});
  if (!vm.ok()) return failed("launch", vm.error());
  if (vm->disk_ids() != std::vector<std::string>{"root"}) return 1;
  if (auto s = vm->stop(); !s.ok()) return failed("stop", s.error());
  auto end = vm->wait(std::chrono::seconds(20));
  if (!end.ok()) return failed("wait", end.error());
  return end->reason == "stopped" ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  using std::chrono::seconds;
  if (argc != 4) {
    std::fprintf(stderr, "usage: boot_and_talk KERNEL INITRD DISK\n");
    return 2;
  }
  const char* disk = argv[3];
  if (int status = stopped(argv[1], disk); status != 0) return status;
  auto vm = haneul::Vm::launch({.kernel = argv[1], .initrds = {argv[2]}, .command_line = "echo"});
  if (!vm.ok()) return failed("launch", vm.error());
  if (auto s = vm->wait_for_console("ready", seconds(20)); !s.ok()) return failed("boot", s.error());
  if (auto s = vm->type("hello"); !s.ok()) return failed("type", s.error());
  if (auto s = vm->wait_for_console("hello", seconds(20)); !s.ok()) return failed("echo", s.error());
  if (auto s = vm->attach_disk({.path = disk, .id = "vol-1"}); !s.ok()) return failed("attach", s.error());
  if (vm->disk_ids().size() != 1) return 1;
  if (auto s = vm->detach_disk("vol-1", true); !s.ok()) return failed("detach", s.error());
  if (auto s = vm->pause(); !s.ok()) return failed("pause", s.error());
  if (auto s = vm->resume(); !s.ok()) return failed("resume", s.error());
  if (auto s = vm->type("q"); !s.ok()) return failed("type", s.error());
  auto end = vm->wait(seconds(20));
  if (!end.ok()) return failed("wait", end.error());
  std::printf("%s\n", end->reason.c_str());
  return end->reason == "powered-off" ? 0 : 1;
}
