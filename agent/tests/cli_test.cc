// SPDX-License-Identifier: Apache-2.0
// The command line by itself: its statuses, its help against the manual page, completion, and where it looks for the
// daemon.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <regex>
#include <set>
#include <sstream>

#include "agent/cli/statuses.h"
#include "agent/http/http.h"
#include "base/socket.h"
#include "tests/support/files.h"
#include "tests/support/programs.h"

namespace haneul::agent {
namespace {

using haneul::testing::Ended;
using haneul::testing::run_program;
using haneul::testing::Words;
using ::testing::HasSubstr;

using Flags = std::set<std::string>;

std::string source(const std::string& file) {
  const char* folder = std::getenv("HANEUL_SOURCE");
  return read_file(std::filesystem::path(folder != nullptr ? folder : ".") / file).value();
}

// With no daemon to ask, and nothing of the user's.
Ended program(const std::string& name, Words words) {
  words.insert(words.begin(), haneul::testing::bin_folder() / name);
  return run_program(
      words,
      {.before = {}, .environment = {{"HOME", "/nonexistent"}, {"HANEUL_SOCKET", "/nonexistent/sock"}}});
}

Ended haneul_program(const Words& words) {
  return program("haneul", words);
}

Words lines_of(const std::string& text) {
  Words lines;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  return lines;
}

Words words_of(const std::string& text) {
  Words words;
  std::istringstream stream(text);
  for (std::string word; stream >> word;) words.push_back(word);
  return words;
}

// ---- statuses ----

TEST(Statuses, EveryCodeOfTheApisHasOne) {
  std::map<ApiCode, int> rows;
  std::set<int> statuses;
  std::set<ErrorCode> kinds;
  for (const StatusRow& row : status_table()) {
    EXPECT_TRUE(statuses.insert(row.status).second) << "two rows with status " << row.status;
    EXPECT_TRUE(kinds.insert(row.kind).second) << "two rows of one kind";
    for (ApiCode code : row.codes) ++rows[code];
  }
  for (size_t i = 0; i < kApiCodeCount; ++i) {
    auto code = static_cast<ApiCode>(i);
    EXPECT_EQ(rows[code], 1) << name(code);
  }
}

TEST(Statuses, FollowFromTheCode) {
  auto status = [](std::string_view code) { return status_of(Error(kind_of(code), "")); };
  EXPECT_EQ(status("InvalidInstanceID.NotFound"), 6);
  EXPECT_EQ(status("InvalidInstanceID.Malformed"), 7);
  EXPECT_EQ(status("InvalidInstanceType"), 7);
  EXPECT_EQ(status("IncorrectInstanceState"), 8);
  EXPECT_EQ(status("VolumeInUse"), 9);
  EXPECT_EQ(status("InvalidKeyPair.Duplicate"), 9);
  EXPECT_EQ(status("InsufficientInstanceCapacity"), 10);
  EXPECT_EQ(status("OperationNotPermitted"), 11);
  EXPECT_EQ(status("InternalError"), 12);
  EXPECT_EQ(status("Something.New"), 1);
  // What is always true of a name is true of its status.
  for (const StatusRow& row : status_table()) {
    for (ApiCode code : row.codes) {
      std::string_view text = name(code);
      auto always = [&](bool so_named, CliStatus wanted) {
        EXPECT_TRUE(!so_named || row.status == wanted) << text << " has status " << row.status;
      };
      always(text.ends_with(".NotFound"), kCliNotFound);
      always(text.ends_with(".Malformed"), kCliInvalid);
      always(text.ends_with("LimitExceeded"), kCliLimit);
      always(text.ends_with("InUse") || text.ends_with(".Duplicate"), kCliConflict);
    }
  }
}

TEST(Statuses, AreInTheManual) {
  std::string manual = source("agent/man/haneul.1");
  std::string section = manual.substr(manual.find(".Sh EXIT STATUS"));
  std::set<int> told;
  for (const std::string& line : lines_of(section.substr(0, section.find(".Sh EXAMPLES")))) {
    if (std::regex_match(line, std::regex(R"(\.It \d+)"))) told.insert(std::atoi(line.c_str() + 4));
  }
  std::set<int> known = {kCliOk, kCliUsage, kCliUnfit, kCliInterrupted};
  for (const StatusRow& row : status_table()) known.insert(row.status);
  EXPECT_EQ(told, known);
}

// ---- help and the manual page ----

struct Help {
  Flags options;
  Words commands;
};

Help help_of(const std::string& program_name, Words words) {
  words.push_back("--help");
  Ended ended = program(program_name, words);
  EXPECT_EQ(ended.status, 0) << fmt::format("{}", fmt::join(words, " "));
  EXPECT_THAT(ended.out, HasSubstr("Usage:"));
  Help help;
  std::string section;
  for (const std::string& line : lines_of(ended.out)) {
    if (line.ends_with(":") && line[0] != ' ') section = line;
    bool entry = line.starts_with("  ") && line.size() > 2 && line[2] != ' ';
    if (!entry) continue;
    std::string first = words_of(line).at(0);
    if (section == "Subcommands:") help.commands.push_back(first);
    if (section != "Options:") continue;
    std::istringstream names(first);
    for (std::string one; std::getline(names, one, ',');) help.options.insert(one);
  }
  for (const char* everywhere : {"-h", "--help", "--json"}) help.options.erase(everywhere);
  return help;
}

// ".Fl n , Fl -name" are "-n" and "--name".
Flags flags_in(const std::string& line) {
  Flags flags;
  Words words = words_of(line);
  for (size_t i = 0; i + 1 < words.size(); ++i) {
    if (words[i] == "Fl" && words[i + 1] != "-") flags.insert("-" + words[i + 1]);
  }
  return flags;
}

// The options of each command: an entry begins with ".It Ic COMMAND", its options are ".It Fl" entries.
std::map<std::string, Flags> manual_entries() {
  std::map<std::string, Flags> entries;
  std::string command;
  std::string text = source("agent/man/haneul.1");
  for (const std::string& line : lines_of(text.substr(0, text.find(".Sh ENVIRONMENT")))) {
    if (line.starts_with(".It Ic ")) {
      command.clear();
      for (const std::string& word : words_of(line.substr(7))) {
        if (word == "Ar" || word == "Op" || word == "Cm") break;
        command += (command.empty() ? "" : " ") + word;
      }
      entries[command];
    }
    if (line.starts_with(".It Fl ")) entries[command].merge(flags_in(line.substr(4)));
  }
  return entries;
}

std::map<std::string, Flags> all_help() {
  std::map<std::string, Flags> entries;
  Help top = help_of("haneul", {});
  entries[""] = top.options;
  for (const std::string& command : top.commands) {
    Help help = help_of("haneul", {command});
    if (help.commands.empty()) entries[command] = help.options;
    for (const std::string& sub : help.commands)
      entries[command + " " + sub] = help_of("haneul", {command, sub}).options;
  }
  return entries;
}

TEST(Manual, HasEveryCommandAndOptionThatHelpShows) {
  auto told = manual_entries();
  auto known = all_help();
  EXPECT_GT(known.size(), 40u);
  for (const auto& [command, options] : known) {
    ASSERT_TRUE(told.contains(command)) << "haneul.1 does not have: " << command;
    EXPECT_EQ(told[command], options) << "the options of " << command;
  }
  for (const auto& [command, options] : told)
    EXPECT_TRUE(known.contains(command)) << "there is no command " << command;
}

TEST(Manual, OfTheDaemonHasEveryOption) {
  std::string manual = source("agent/man/haneuld.8");
  std::string synopsis = manual.substr(0, manual.find(".Sh DESCRIPTION"));
  Flags told;
  for (const std::string& line : lines_of(synopsis)) told.merge(flags_in(line));
  EXPECT_EQ(told, help_of("haneuld", {}).options);
}

TEST(Manual, IsFormattedWithoutAWarning) {
  for (const char* page : {"agent/man/haneul.1", "agent/man/haneuld.8"}) {
    haneul::testing::TempFolder folder;
    Ended ended = run_program({"groff", "-ww", "-mandoc", "-Tutf8", folder.file("page", source(page))});
    if (ended.status == 127) GTEST_SKIP() << "groff is not installed";
    EXPECT_EQ(ended.err, "") << page;
  }
}

// ---- --json and completion ----

TEST(Cli, WhatHasNoJsonSaysSo) {
  for (const Words& words : {Words{"ssh", "web", "--json"}, Words{"proxy", "web", "--json"},
                             Words{"completion", "bash", "--json"}}) {
    Ended ended = haneul_program(words);
    EXPECT_EQ(ended.status, 2);
    EXPECT_THAT(ended.err, HasSubstr("haneul " + words[0] + " has nothing to print as JSON"));
  }
  EXPECT_EQ(haneul_program({"console", "web", "--follow", "--json"}).status, 2);
}

TEST(Cli, AnUnknownKernelIsAUsageError) {
  Ended ended = haneul_program({"image", "build", "tiny", "--kernel", "nonsense"});
  EXPECT_EQ(ended.status, 2);
  EXPECT_THAT(ended.err, HasSubstr("--kernel: nonsense not in {debian,fast}"));
}

TEST(Completion, OffersEveryCommandAndOption) {
  for (const auto& [command, options] : all_help()) {
    Words words = {"complete", "--"};
    for (const std::string& word : words_of(command)) words.push_back(word);
    Words long_ones = words;
    long_ones.push_back("--");
    Words offered = lines_of(haneul_program(long_ones).out);
    for (const std::string& option : options) {
      bool is_short = !option.starts_with("--");
      EXPECT_TRUE(is_short || std::find(offered.begin(), offered.end(), option) != offered.end())
          << command << " " << option;
    }
    if (command.empty()) continue;
    std::string last = words.back();
    words.back() = last.substr(0, 1);
    EXPECT_THAT(lines_of(haneul_program(words).out), ::testing::Contains(last)) << command;
  }
}

TEST(Completion, KnowsValuesAndFiles) {
  auto complete = [](Words words) {
    words.insert(words.begin(), {"complete", "--"});
    return haneul_program(words).out;
  };
  EXPECT_EQ(complete({"snapshot", "export", "--format", ""}), "qcow2\nraw\n");
  EXPECT_EQ(complete({"completion", "z"}), "zsh\n");
  EXPECT_EQ(complete({"run", "--user-data", ""}), ":files\n");
  EXPECT_EQ(complete({"image", "register", ""}), ":folders\n");
  EXPECT_EQ(complete({"--region", "eu-west-1", "vol"}), "volume\n");
  EXPECT_EQ(complete({"ssh", "web", "--", "l"}), "");
}

// As bash calls it, with an option of haneul's before the command.
TEST(Completion, WorksInBash) {
  std::string script = R"sh(source /dev/stdin <<<"$($1 completion bash)"
    COMP_WORDS=("$1" --socket /nonexistent image build --k) COMP_CWORD=5
    _haneul
    printf '%s\n' "${COMPREPLY[@]}")sh";
  std::string haneul = haneul::testing::bin_folder() / "haneul";
  Ended ended = run_program({"bash", "-c", script, "bash", haneul});
  EXPECT_EQ(ended.out, "--kernel\n") << ended.err;
  EXPECT_THAT(haneul_program({"completion", "zsh"}).out, ::testing::StartsWith("#compdef haneul"));
}

// Somebody listens, and never answers.
TEST(Cli, ARequestEndsWithItsTime) {
  haneul::testing::TempFolder folder;
  UniqueFd listener = listen_unix(folder / "sock", SOCK_STREAM).value();
  HttpRequest request{.method = "GET", .target = "/status", .body = "", .region = ""};
  auto begin = std::chrono::steady_clock::now();
  auto reply = http_request(folder / "sock", request, std::chrono::milliseconds(200));
  ASSERT_FALSE(reply.ok());
  EXPECT_EQ(status_of(reply.error()), 5) << reply.error().message();
  EXPECT_EQ(reply.error().message(), "haneuld did not answer in time");
  EXPECT_LT(std::chrono::steady_clock::now() - begin, haneul::testing::kPatience);
}

TEST(Cli, NobodyServesTheSocket) {
  Ended ended = haneul_program({"ls"});
  EXPECT_EQ(ended.status, 4);
  EXPECT_EQ(
      ended.err,
      "haneul: no haneuld serves /nonexistent/sock: start one, or choose with --socket or HANEUL_SOCKET\n");
}

}  // namespace
}  // namespace haneul::agent
