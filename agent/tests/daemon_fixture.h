// SPDX-License-Identifier: Apache-2.0
// The real programs haneuld and haneul, on state folders of their own, without network and without instances.
#pragma once

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <thread>

#include "agent/http/http.h"
#include "agent/ops/shape.h"
#include "base/file.h"
#include "tests/support/programs.h"

namespace haneul::agent {

using ::testing::HasSubstr;
using ::testing::StartsWith;

inline std::string program(const std::string& name) {
  const char* folder = std::getenv("HANEUL_BIN");
  std::error_code error;
  auto fallback = std::filesystem::read_symlink("/proc/self/exe", error).parent_path().parent_path();
  return ((folder != nullptr ? std::filesystem::path(folder) : fallback) / name).string();
}

using haneul::testing::Ended;

class DaemonTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string name = (std::filesystem::temp_directory_path() / "haneul-daemon-XXXXXX").string();
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    folder_ = name;
    socket_ = folder_ / "haneul.sock";
  }
  void TearDown() override {
    for (pid_t pid : daemons_) {
      ::kill(pid, SIGKILL);
      ::waitpid(pid, nullptr, 0);
    }
    std::filesystem::remove_all(folder_);
  }

  // In a home of its own, so that no test touches the user's keys.
  pid_t spawn(const std::vector<std::string>& words, const std::string& label) {
    UniqueFd in = open_file("/dev/null", O_RDONLY).value();
    UniqueFd out = open_file(folder_ / (label + ".out"), O_WRONLY | O_CREAT | O_TRUNC).value();
    UniqueFd err = open_file(folder_ / (label + ".err"), O_WRONLY | O_CREAT | O_TRUNC).value();
    haneul::testing::Setting setting{.before = {}, .environment = {{"HOME", folder_.string()}}};
    return haneul::testing::spawn(words, setting, in.get(), out.get(), err.get());
  }

  Ended run(std::vector<std::string> words, const std::string& label = "run") {
    words[0] = program(words[0]);
    int status = haneul::testing::status_of(spawn(words, label));
    return {status, read_file(folder_ / (label + ".out")).value(),
            read_file(folder_ / (label + ".err")).value()};
  }

  std::vector<std::string> daemon_words() {
    return {"haneuld",  "--state",        (folder_ / "state").string(),
            "--socket", socket_.string(), "--network",
            "none",     "--without-kvm"};
  }

  pid_t start_daemon() {
    auto words = daemon_words();
    words[0] = program(words[0]);
    pid_t pid = spawn(words, "daemon");
    daemons_.push_back(pid);
    for (int i = 0; i < 1000; ++i) {
      auto status = http_request(socket_, {.method = "GET", .target = "/status", .body = "", .region = ""});
      if (status.ok()) return pid;
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    ADD_FAILURE() << "the daemon does not answer: " << read_file(folder_ / "daemon.err").value();
    return pid;
  }

  int end_of(pid_t pid) {
    int status = 0;
    ::waitpid(pid, &status, 0);
    std::erase(daemons_, pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }

  Ended haneul(std::vector<std::string> words) {
    words.insert(words.begin(), {"haneul", "--socket", socket_.string()});
    return run(words, "cli");
  }

  std::filesystem::path make_image() {
    std::filesystem::path image = folder_ / "image";
    std::filesystem::create_directories(image);
    std::ofstream(image / "kernel") << "kernel";
    std::ofstream(image / "image.json")
        << R"({"format":1,"name":"tiny","kernel":"kernel","cmdline":"quiet"})";
    return image;
  }

  std::filesystem::path folder_;
  std::filesystem::path socket_;
  std::vector<pid_t> daemons_;
};

}  // namespace haneul::agent
