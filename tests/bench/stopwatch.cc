// SPDX-License-Identifier: Apache-2.0
// stopwatch [-t SECONDS] TEXT... -- COMMAND...
//
// Starts the command and prints a line with the microseconds from just before its start until each TEXT had
// been seen on its standard output, in this order. Then the command is killed. Exit status: 0; 1 if a text
// did not come: the output's end goes to standard error; 2 usage.
//
// stopwatch --ticks: the processor's time stamp ticks in a second, for guests that print ticks.
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include <x86intrin.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;

long long us_since(Clock::time_point start) {
  return std::chrono::duration_cast<std::chrono::microseconds>(Clock::now() - start).count();
}

int print_ticks_per_second() {
  auto start = Clock::now();
  unsigned long long before = __rdtsc();
  while (us_since(start) < 200'000) {
  }
  unsigned long long ticks = __rdtsc() - before;
  std::printf("%.0f\n", static_cast<double>(ticks) * 1e6 / static_cast<double>(us_since(start)));
  return 0;
}

volatile sig_atomic_t child = 0;

// Whoever ends the stopwatch ends what it started.
void end_child(int signal) {
  if (child > 0) ::kill(child, SIGKILL);
  ::_exit(128 + signal);
}

struct Watch {
  std::vector<std::string_view> texts;
  double seconds = 60;
  char** command = nullptr;
};

bool parse(int argc, char** argv, Watch& watch) {
  int i = 1;
  if (i + 1 < argc && std::strcmp(argv[i], "-t") == 0) {
    watch.seconds = std::atof(argv[i + 1]);
    i += 2;
  }
  for (; i < argc && std::strcmp(argv[i], "--") != 0; ++i) watch.texts.emplace_back(argv[i]);
  if (i + 1 >= argc || watch.texts.empty()) return false;
  watch.command = argv + i + 1;
  return true;
}

// Reads until every text was there; the times of those that came.
std::vector<long long> follow(int output, Clock::time_point start, const Watch& watch, std::string& seen) {
  std::vector<long long> times;
  size_t from = 0;
  auto limit_ms = static_cast<long long>(watch.seconds * 1000);
  while (times.size() < watch.texts.size()) {
    long long left_ms = limit_ms - us_since(start) / 1000;
    pollfd wait{output, POLLIN, 0};
    if (left_ms <= 0 || ::poll(&wait, 1, static_cast<int>(left_ms)) <= 0) break;
    char bytes[4096];
    ssize_t got = ::read(output, bytes, sizeof bytes);
    if (got <= 0) break;
    long long now = us_since(start);
    seen.append(bytes, static_cast<size_t>(got));
    while (times.size() < watch.texts.size()) {
      std::string_view text = watch.texts[times.size()];
      size_t at = seen.find(text, from);
      if (at == std::string::npos) break;
      from = at + text.size();
      times.push_back(now);
    }
  }
  return times;
}

int run(const Watch& watch) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return std::perror("pipe"), 2;
  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  ::posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
  for (int signal : {SIGINT, SIGTERM, SIGHUP}) ::signal(signal, end_child);
  ::prctl(PR_SET_PDEATHSIG, SIGTERM);

  pid_t pid = 0;
  auto start = Clock::now();
  int error = ::posix_spawnp(&pid, watch.command[0], &actions, nullptr, watch.command, environ);
  child = pid;
  ::close(ends[1]);
  if (error != 0) {
    std::fprintf(stderr, "stopwatch: %s: %s\n", watch.command[0], std::strerror(error));
    return 1;
  }
  std::string seen;
  std::vector<long long> times = follow(ends[0], start, watch, seen);
  ::kill(pid, SIGKILL);
  ::waitpid(pid, nullptr, 0);
  if (times.size() < watch.texts.size()) {
    std::fprintf(stderr, "no '%s' within %.0f s; the output's end: %s\n", watch.texts[times.size()].data(),
                 watch.seconds, seen.substr(seen.size() - std::min<size_t>(seen.size(), 2000)).c_str());
    return 1;
  }
  for (size_t i = 0; i < times.size(); ++i) std::printf("%s%lld", i == 0 ? "" : " ", times[i]);
  std::printf("\n");
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc == 2 && std::strcmp(argv[1], "--ticks") == 0) return print_ticks_per_second();
  Watch watch;
  if (!parse(argc, argv, watch)) {
    std::fputs("Usage: stopwatch [-t SECONDS] TEXT... -- COMMAND...\n       stopwatch --ticks\n", stderr);
    return 2;
  }
  return run(watch);
}
