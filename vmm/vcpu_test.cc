// SPDX-License-Identifier: Apache-2.0
// What a vCPU makes of a KVM that does not run it. A system-call filter on its thread plays that KVM.
#include "vmm/vcpu.h"

#include <gtest/gtest.h>
#include <seccomp.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <future>

#include "tests/support/files.h"

namespace haneul::vmm {
namespace {

/// Threads on which KVM_RUN says "again", always.
class RefusedThreads final : public ThreadStarter {
 public:
  Result<std::thread> start(std::string name, std::function<void()> body) override {
    return start_thread(std::move(name), [body = std::move(body)] {
      scmp_filter_ctx filter = ::seccomp_init(SCMP_ACT_ALLOW);
      CHECK(::seccomp_rule_add(filter, SCMP_ACT_ERRNO(EAGAIN), SCMP_SYS(ioctl), 1,
                               SCMP_A1(SCMP_CMP_EQ, KVM_RUN)) == 0);
      CHECK(::seccomp_load(filter) == 0);
      ::seccomp_release(filter);
      body();
    });
  }
};

TEST(Vcpu, OnlyTheFirstIsStuckBecauseTheOthersMayWaitToBeStarted) {
  install_kick_handler().value();
  devices::Bus mmio;
  devices::Bus pio;
  RefusedThreads threads;
  std::promise<std::string> first_end;
  std::atomic<bool> second_ended = false;
  auto make = [&](unsigned index, Vcpu::OnEnd on_end) {
    UniqueFd state(::memfd_create("vcpu", MFD_CLOEXEC));
    CHECK(::ftruncate(state.get(), 4096) == 0);
    return Vcpu::create(std::move(state), index, 4096, {mmio, pio}, std::move(on_end)).value();
  };
  auto second = make(1, [&](End) { second_ended = true; });
  auto first = make(0, [&](End end) { first_end.set_value(end.detail); });
  // The second has had more tries than the first when that gives up.
  second->start(threads, false).value();
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  first->start(threads, false).value();

  auto said = first_end.get_future();
  ASSERT_EQ(said.wait_for(testing::kPatience), std::future_status::ready);
  EXPECT_EQ(said.get(),
            "KVM_RUN of vCPU 0 (is a limit on threads reached: pids.max of the cgroup, or ulimit -u?): "
            "Resource temporarily unavailable");
  EXPECT_FALSE(second_ended);
}

}  // namespace
}  // namespace haneul::vmm
