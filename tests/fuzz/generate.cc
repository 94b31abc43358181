// SPDX-License-Identifier: Apache-2.0
// Runs a fuzz target on inputs from a seeded generator, for compilers without libFuzzer: the target's
// property is checked in every build. `TARGET [RUNS [SEED]]`; a failing run is found again by its seed.
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace {

volatile unsigned long current = 0;

void tell_seed(int /*signal*/) {
  std::fprintf(stderr, "with seed %lu\n", current);
}

}  // namespace

int main(int count, char** arguments) {
  unsigned long runs = count > 1 ? std::strtoul(arguments[1], nullptr, 10) : 1000;
  unsigned long seed = count > 2 ? std::strtoul(arguments[2], nullptr, 10) : 1;
  std::signal(SIGABRT, tell_seed);
  for (unsigned long run = 0; run < runs; ++run) {
    std::mt19937 random(static_cast<uint32_t>(seed + run));
    std::vector<uint8_t> input(random() % 2048);
    for (auto& byte : input) byte = static_cast<uint8_t>(random());
    current = seed + run;
    LLVMFuzzerTestOneInput(input.data(), input.size());
  }
  std::printf("%lu runs from seed %lu\n", runs, seed);
  return 0;
}
