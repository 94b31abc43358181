// SPDX-License-Identifier: Apache-2.0
// The power goes, at any point: see testing/volume_machine.h. A failure prints the seed that repeats it.
#include <cstdio>

#include "storage/testing/volume_machine.h"

namespace haneul::storage {
namespace {

using testing::below;
using testing::Random;
using testing::SimMedium;
using testing::VolumeMachine;

// A sanitizer makes everything ten times slower, that of threads thirty times.
#if defined(__SANITIZE_THREAD__)
constexpr uint64_t kPoints = 5'000;
constexpr uint64_t kShortRuns = 2;
#elif defined(__SANITIZE_ADDRESS__)
constexpr uint64_t kPoints = 30'000;
constexpr uint64_t kShortRuns = 8;
#else
constexpr uint64_t kPoints = 100'000;
constexpr uint64_t kShortRuns = 60;
#endif

void report(uint64_t points) {
  std::printf("%llu crash points\n", static_cast<unsigned long long>(points));
}

VolumeMachine::Options random_options(Random& random, uint64_t most_sectors, unsigned one_in) {
  VolumeMachine::Options options;
  options.sectors = 16 + below(random, most_sectors);
  options.base_sectors = below(random, 2) == 0 ? 0 : below(random, options.sectors + 1);
  options.encrypted = below(random, 8) == 0;
  options.crash_points_one_in = one_in;
  return options;
}

// What would be left if the power went now, asked again and again while requests are under way, and within all that
// blocks: pushes, growth, opening, closing, making layers, sums, giving back.
TEST(VolumeCrash, AtRandomPoints) {
  uint64_t first_seed = testing::seed();
  uint64_t wanted = testing::number_from("HANEUL_CRASH_POINTS", kPoints);
  uint64_t probes = 0;
  for (uint64_t round = 0; probes < wanted; ++round) {
    SCOPED_TRACE(::testing::Message() << "HANEUL_SEED=" << first_seed + round);
    Random random(first_seed + round);
    VolumeMachine machine(random, random_options(random, 100, 3));
    for (unsigned i = 0; i < 150; ++i) {
      machine.random_request();
      for (uint64_t steps = below(random, 5); steps > 0; --steps) {
        machine.step();
        machine.probe();
        if (::testing::Test::HasFailure()) return;
      }
      if (below(random, 30) == 0) machine.push();
      if (below(random, 100) == 0) machine.resize();
      if (below(random, 60) == 0) machine.make_sums();
      if (below(random, 60) == 0) machine.clone();
      if (below(random, 40) == 0) machine.delete_one();
      if (below(random, 40) == 0) machine.collect();
      if (below(random, 100) == 0) machine.crash();
      if (below(random, 100) == 0) machine.reopen();
      if (::testing::Test::HasFailure()) return;
    }
    machine.check_snapshots();
    if (::testing::Test::HasFailure()) return;
    probes += machine.probes();
  }
  report(probes);
}

// Short runs, the same each time, cut off after each of their steps: with nothing that was not synced, with all of it, and
// with any of it.
TEST(VolumeCrash, AfterEveryStepOfShortRuns) {
  uint64_t probes = 0;
  for (uint64_t seed = 1; seed <= kShortRuns; ++seed) {
    SCOPED_TRACE(::testing::Message() << "run " << seed);
    Random random(seed);
    VolumeMachine machine(random, random_options(random, 40, 1));
    auto cut = [&] {
      for (auto keep : {SimMedium::Keep::kNothing, SimMedium::Keep::kNewest, SimMedium::Keep::kAny,
                        SimMedium::Keep::kAny})
        machine.probe(keep);
    };
    for (unsigned i = 0; i < 20; ++i) {
      machine.random_request();
      cut();
      for (uint64_t steps = below(random, 3); steps > 0; --steps) {
        machine.step();
        cut();
      }
      if (i == 7 || i == 14) machine.push();
      if (i == 10) machine.resize();
      if (i == 15) machine.make_sums();
      if (i == 16) machine.delete_one();
      if (i == 17) machine.collect();
      if (::testing::Test::HasFailure()) return;
    }
    for (int i = 0; i < 40; ++i) {
      machine.step();
      cut();
      if (::testing::Test::HasFailure()) return;
    }
    machine.reopen();
    machine.check_snapshots();
    if (::testing::Test::HasFailure()) return;
    probes += machine.probes();
  }
  report(probes);
}

}  // namespace
}  // namespace haneul::storage
