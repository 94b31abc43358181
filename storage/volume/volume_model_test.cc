// SPDX-License-Identifier: Apache-2.0
// Volumes against a model: see testing/volume_machine.h. A failure prints the seed that repeats it.
#include <cstdio>

#include "storage/testing/volume_machine.h"

namespace haneul::storage {
namespace {

using testing::below;
using testing::Random;
using testing::VolumeMachine;

// A sanitizer makes everything ten times slower.
#if defined(__SANITIZE_THREAD__)
constexpr uint64_t kOperations = 500'000;
#elif defined(__SANITIZE_ADDRESS__)
constexpr uint64_t kOperations = 1'500'000;
#else
constexpr uint64_t kOperations = 4'000'000;
#endif

void live(VolumeMachine& machine, Random& random) {
  for (uint64_t requests = below(random, 120); requests > 0 && !::testing::Test::HasFailure(); --requests) {
    machine.random_request();
    for (uint64_t steps = below(random, 4); steps > 0; --steps) machine.step();
    if (below(random, 60) == 0) machine.push();
    if (below(random, 300) == 0) machine.resize();
    if (below(random, 100) == 0) machine.clone();
    if (below(random, 150) == 0) machine.delete_one();
    if (below(random, 100) == 0) machine.collect();
    if (below(random, 200) == 0) machine.make_sums();
  }
  if (!::testing::Test::HasFailure()) machine.check_snapshots();
  if (::testing::Test::HasFailure()) return;
  below(random, 6) == 0 ? machine.reopen() : machine.crash();
}

// Lives of requests, snapshots, clones, deletions and growth, each ended by a power loss or in order.
TEST(VolumeModel, SurvivesRandomLives) {
  uint64_t first_seed = testing::seed();
  uint64_t wanted = testing::number_from("HANEUL_MODEL_OPERATIONS", kOperations);
  uint64_t operations = 0;
  uint64_t layers = 0;
  uint64_t given_back = 0;
  for (uint64_t round = 0; operations < wanted; ++round) {
    SCOPED_TRACE(::testing::Message() << "HANEUL_SEED=" << first_seed + round);
    Random random(first_seed + round);
    VolumeMachine::Options options;
    options.sectors = 64 + below(random, 600);
    options.base_sectors = below(random, 3) == 0 ? 0 : below(random, options.sectors + 1);
    options.encrypted = below(random, 4) == 0;
    VolumeMachine machine(random, options);
    for (unsigned life = 0; life < 12; ++life) {
      live(machine, random);
      if (::testing::Test::HasFailure()) return;
    }
    operations += machine.operations();
    layers += machine.layers();
    given_back += machine.given_back();
  }
  std::printf("%llu operations, %llu layers, %llu blocks given back\n",
              static_cast<unsigned long long>(operations), static_cast<unsigned long long>(layers),
              static_cast<unsigned long long>(given_back));
}

}  // namespace
}  // namespace haneul::storage
