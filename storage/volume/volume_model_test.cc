// SPDX-License-Identifier: Apache-2.0
// Volumes against a model: see testing/volume_machine.h. A failure prints the seed that repeats it.
#include <cstdio>
#include <cstdlib>

#include "storage/testing/volume_machine.h"

namespace haneul::storage {
namespace {

using testing::below;
using testing::Random;
using testing::VolumeMachine;

uint64_t number_from(const char* name, uint64_t otherwise) {
  const char* text = std::getenv(name);  // NOLINT(concurrency-mt-unsafe)
  return text != nullptr ? std::strtoull(text, nullptr, 0) : otherwise;
}

// A sanitizer makes everything ten times slower.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr uint64_t kShare = 10;
#else
constexpr uint64_t kShare = 1;
#endif

// Lives of requests, snapshots and growth, each ended by a power loss or in order.
TEST(VolumeModel, SurvivesRandomRequestsSnapshotsAndCrashes) {
  uint64_t first_seed = testing::seed();
  uint64_t wanted = number_from("HANEUL_MODEL_OPERATIONS", 1'000'000 / kShare);
  uint64_t operations = 0;
  uint64_t layers = 0;
  for (uint64_t round = 0; operations < wanted; ++round) {
    SCOPED_TRACE(::testing::Message() << "HANEUL_SEED=" << first_seed + round);
    Random random(first_seed + round);
    uint64_t sectors = 64 + below(random, 600);
    uint64_t base_sectors = below(random, 3) == 0 ? 0 : below(random, sectors + 1);
    VolumeMachine machine(random, sectors, base_sectors);
    for (unsigned life = 0; life < 12; ++life) {
      uint64_t requests = below(random, 120);
      for (uint64_t i = 0; i < requests && !::testing::Test::HasFailure(); ++i) {
        machine.random_request();
        for (uint64_t steps = below(random, 4); steps > 0; --steps) machine.step();
        if (below(random, 60) == 0) machine.push();
        if (below(random, 300) == 0) machine.resize();
      }
      if (!::testing::Test::HasFailure()) machine.check_snapshots();
      if (::testing::Test::HasFailure()) return;
      below(random, 6) == 0 ? machine.reopen() : machine.crash();
      if (::testing::Test::HasFailure()) return;
    }
    operations += machine.operations();
    layers += machine.layers();
  }
  std::printf("%llu operations, %llu layers\n", static_cast<unsigned long long>(operations),
              static_cast<unsigned long long>(layers));
}

// What would be left if the power went now, asked again and again while requests are under way.
TEST(VolumeModel, SurvivesAPowerLossAtAnyPoint) {
  uint64_t first_seed = testing::seed();
  uint64_t wanted = number_from("HANEUL_CRASH_POINTS", 100'000 / kShare);
  uint64_t probes = 0;
  for (uint64_t round = 0; probes < wanted; ++round) {
    SCOPED_TRACE(::testing::Message() << "HANEUL_SEED=" << first_seed + round);
    Random random(first_seed + round);
    uint64_t sectors = 16 + below(random, 100);
    VolumeMachine machine(random, sectors, below(random, 2) == 0 ? 0 : below(random, sectors + 1));
    for (unsigned i = 0; i < 150; ++i) {
      machine.random_request();
      for (uint64_t steps = below(random, 5); steps > 0; --steps) {
        machine.step();
        machine.probe();
        if (::testing::Test::HasFailure()) return;
      }
      if (below(random, 40) == 0) machine.push();
      if (::testing::Test::HasFailure()) return;
    }
    machine.check_snapshots();
    probes += machine.probes();
  }
  std::printf("%llu crash points\n", static_cast<unsigned long long>(probes));
}

}  // namespace
}  // namespace haneul::storage
