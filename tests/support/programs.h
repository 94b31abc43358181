// SPDX-License-Identifier: Apache-2.0
// Programs that a test runs to their end: their status and what they said.
#pragma once

#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <map>
#include <string>
#include <vector>

#include "base/file.h"
#include "tests/support/files.h"

namespace haneul::testing {

using Words = std::vector<std::string>;

struct Ended {
  int status = -1;  ///< 128 + the signal, if one ended it
  std::string out;
  std::string err;
};

/// How a program is run: through another one, as setpriv, and with other variables than ours.
struct Setting {
  Words before;
  std::map<std::string, std::string> environment;
};

/// Starts a program with its standard streams on these descriptors.
inline pid_t spawn(const Words& words, const Setting& setting, int in, int out, int err) {
  Words all = setting.before;
  all.insert(all.end(), words.begin(), words.end());
  std::vector<char*> argv;
  for (std::string& word : all) argv.push_back(word.data());
  argv.push_back(nullptr);
  pid_t pid = ::fork();
  if (pid != 0) return pid;
  // Nothing of the user's, unless the test says so.
  for (const char* variable : {"XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME", "XDG_RUNTIME_DIR",
                               "HANEUL_SOCKET", "HANEUL_REGION"})
    ::unsetenv(variable);
  for (const auto& [name, value] : setting.environment) ::setenv(name.c_str(), value.c_str(), 1);
  ::dup2(in, 0);
  ::dup2(out, 1);
  ::dup2(err, 2);
  ::execvp(argv[0], argv.data());
  ::_exit(127);
}

/// Waits for it; its status as in Ended.
inline int status_of(pid_t pid) {
  int status = 0;
  while (::waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/// Runs a program to its end, with nothing on standard input. Through files: an orphan that inherits them keeps nobody
/// waiting.
inline Ended run_program(const Words& words, const Setting& setting = {}) {
  TempFolder folder;
  UniqueFd null = open_file("/dev/null", O_RDONLY).value();
  UniqueFd out = open_file(folder / "out", O_RDWR | O_CREAT).value();
  UniqueFd err = open_file(folder / "err", O_RDWR | O_CREAT).value();
  Ended ended;
  ended.status = status_of(spawn(words, setting, null.get(), out.get(), err.get()));
  ended.out = read_file(folder / "out").value();
  ended.err = read_file(folder / "err").value();
  return ended;
}

}  // namespace haneul::testing
