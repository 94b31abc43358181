// SPDX-License-Identifier: Apache-2.0
// haneul-vmm: runs one instance. The daemon starts it with descriptors only; by hand it takes paths as well.
#include <link.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <span>
#include <tuple>

#include "base/file.h"
#include "base/log.h"
#include "vmm/options.h"
#include "vmm/probe.h"
#include "vmm/runner.h"
#include "vmm/sandbox/filters.h"
#include "vmm/sandbox/jail.h"

namespace haneul::vmm {
namespace {

// The exit statuses of the program, as in haneul-vmm(1).
constexpr int kExitOk = 0;
constexpr int kExitFailed = 1;
constexpr int kExitUsage = 2;
constexpr int kExitNoKvm = 3;
constexpr int kExitGuestFault = 4;

int fail(const Error& error, int status) {
  std::fprintf(stderr, "haneul-vmm: %s\n", error.message().c_str());
  return status;
}

std::string json_escaped(std::string_view text) {
  std::string out;
  for (char c : text) {
    auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') out += '\\';
    if (byte < 0x20) {
      out += fmt::format("\\u{:04x}", byte);
    } else {
      out += c;
    }
  }
  return out;
}

void write_status(const UniqueFd& file, std::string_view reason, std::string_view detail) {
  if (!file) return;
  std::string text = fmt::format("{{\"reason\":\"{}\",\"detail\":\"{}\"}}\n", reason, json_escaped(detail));
  std::ignore = ::ftruncate(file.get(), 0);
  Status written = write_all_at(file.get(), 0, std::as_bytes(std::span(text)));
  if (!written.ok()) LOG_ERROR("cannot write the last words: {}", written.error().message());
}

int probe() {
  auto kvm = Kvm::open();
  if (!kvm.ok()) return fail(kvm.error(), kExitNoKvm);
  auto verdict = probe_linux(*kvm);
  if (!verdict.ok()) return fail(verdict.error(), kExitNoKvm);
  std::puts("this KVM runs Linux guests");
  return kExitOk;
}

/// Sends one byte when the guest is entered, so that a launcher knows.
void report_ready(UniqueFd& ready) {
  if (!ready) return;
  char byte = '1';
  std::ignore = ::write(ready.get(), &byte, 1);
  ready.reset();
}

/// Gives the program's own pages back: most were needed to start, and what is still used comes again from the page cache.
/// (With them go a debugger's breakpoints.)
void forget_start() {
  auto visit = [](dl_phdr_info* object, size_t, void*) {
    const auto page = static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
    for (const auto& segment : std::span(object->dlpi_phdr, object->dlpi_phnum)) {
      if (segment.p_type != PT_LOAD || (segment.p_flags & PF_W) != 0) continue;
      uint64_t start = (object->dlpi_addr + segment.p_vaddr) / page * page;
      uint64_t end = object->dlpi_addr + segment.p_vaddr + segment.p_memsz;
      std::ignore = ::madvise(reinterpret_cast<void*>(start), end - start, MADV_DONTNEED);
    }
    return 0;
  };
  ::dl_iterate_phdr(visit, nullptr);
}

/// A failure before the guest ran: said on standard error, and in the status file for the launcher.
int give_up(const Options& options, const Error& error, int status) {
  write_status(options.status, "failed", error.message());
  return fail(error, status);
}

int run(Options options) {
  // Whatever a guest does, and however often it starts over, its log grows by a line in ten seconds, and an error.
  set_log_budget(50, std::chrono::seconds(10));
  auto kvm = options.kvm ? Kvm::from_fd(std::move(options.kvm)) : Kvm::open();
  if (!kvm.ok()) return give_up(options, kvm.error(), kExitNoKvm);
  if (options.jail) {
    Status jailed = enter_jail({options.uid, options.gid});
    if (!jailed.ok()) {
      return give_up(options, std::move(jailed).error().context("the sandbox cannot be built"), kExitFailed);
    }
  }
  std::optional<Filters> filters;
  if (options.jail && options.filter) {
    if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) {
      return give_up(options, errno_error("PR_SET_NO_NEW_PRIVS"), kExitFailed);
    }
    auto compiled = Filters::compile();
    if (!compiled.ok()) return give_up(options, compiled.error(), kExitFailed);
    filters = std::move(*compiled);
  }
  Status handler = install_kick_handler();
  if (!handler.ok()) return give_up(options, handler.error(), kExitFailed);

  auto spawner = Spawner::create(filters ? &*filters : nullptr);
  if (!spawner.ok()) return give_up(options, spawner.error(), kExitFailed);
  // From here on the guest's owner speaks: kernel, initrd and volumes are read behind the filter.
  if (filters) {
    Status applied = filters->apply(ThreadKind::kControl);
    if (!applied.ok()) return give_up(options, applied.error(), kExitFailed);
  }
  auto runner = Runner::create(std::move(options.runner), *kvm, **spawner);
  if (!runner.ok()) return give_up(options, runner.error(), kExitFailed);
  if (options.console_to_stdout) {
    (*runner)->set_console_listener(
        [](std::span<const std::byte> data) { (void)write_all(STDOUT_FILENO, data); });
  }
  (*runner)->set_on_started([&options] {
    report_ready(options.ready);
    forget_start();
  });
  auto end = (*runner)->run();
  if (!end.ok()) return give_up(options, end.error(), kExitFailed);
  runner->reset();
  write_status(options.status, name(end->reason), end->detail);
  if (end->reason == EndReason::kTripleFault || end->reason == EndReason::kKvmError) {
    return fail(make_error(ErrorCode::kIo, "{}: {}", name(end->reason), end->detail), kExitGuestFault);
  }
  return kExitOk;
}

int main_program(int argc, char** argv) {
  auto options = parse_options(argc, argv);
  if (!options.ok()) {
    std::fprintf(stderr, "haneul-vmm: %s\nSee haneul-vmm --help.\n", options.error().message().c_str());
    return kExitUsage;
  }
  switch (options->action) {
    case Options::Action::kHelp:
      std::fputs(help_text(), stdout);
      return kExitOk;
    case Options::Action::kVersion:
      std::puts("haneul-vmm " HANEUL_VERSION);
      return kExitOk;
    case Options::Action::kProbe:
      return probe();
    case Options::Action::kRun:
      return run(std::move(*options));
  }
  return kExitFailed;
}

}  // namespace
}  // namespace haneul::vmm

int main(int argc, char** argv) {
  return haneul::vmm::main_program(argc, argv);
}
