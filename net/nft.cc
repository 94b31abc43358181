// SPDX-License-Identifier: Apache-2.0
#include "net/nft.h"

#include <unistd.h>

#include <sstream>

#include "net/program.h"

namespace haneul::net {
namespace {

/// What nft complained about, on one line: its first line of errors.
std::string complaint(const ProgramOutcome& outcome) {
  std::string text = outcome.errors.substr(0, outcome.errors.find('\n'));
  return text.empty() ? fmt::format("exit code {}", outcome.exit_code) : text;
}

Error refused(const ProgramOutcome& outcome, const char* what) {
  bool permission = outcome.errors.find("Operation not permitted") != std::string::npos;
  return make_error(permission ? ErrorCode::kPermission : ErrorCode::kIo, "{}: nft says: {}", what,
                    complaint(outcome));
}

}  // namespace

Result<Nft> Nft::find(const std::filesystem::path& program) {
  if (!program.empty()) {
    if (::access(program.c_str(), X_OK) == 0) return Nft(program);
    return make_error(ErrorCode::kUnsupported, "{} is not a program that can be run", program.string());
  }
  auto found = find_program("nft");
  if (found.ok()) return Nft(*found);
  return make_error(ErrorCode::kUnsupported,
                    "the program nft is not installed (package nftables): instances are not started without "
                    "their firewall");
}

Status Nft::apply(const std::string& text) const {
  ProgramOutcome outcome = TRY(run_program(program_, {"-f", "-"}, text));
  if (outcome.exit_code != 0) return refused(outcome, "the firewall rules were not changed");
  return {};
}

Result<std::string> Nft::list(const std::vector<std::string>& arguments) const {
  std::vector<std::string> all{"-n", "list"};
  all.insert(all.end(), arguments.begin(), arguments.end());
  ProgramOutcome outcome = TRY(run_program(program_, all));
  if (outcome.exit_code != 0) return refused(outcome, "the firewall rules could not be listed");
  return outcome.output;
}

std::vector<std::string> dropping_forward_chains(const std::string& listing, const std::string& own_prefix) {
  std::vector<std::string> found;
  std::istringstream lines(listing);
  std::string table;
  std::string table_name;
  std::string chain;
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    std::string first;
    words >> first;
    if (first == "table") {
      std::string family;
      words >> family >> table_name;
      table = fmt::format("{} {}", family, table_name);
    } else if (first == "chain") {
      words >> chain;
    } else if (first == "type" && line.find("hook forward") != std::string::npos &&
               line.find("policy drop") != std::string::npos && !table_name.starts_with(own_prefix) &&
               (table.starts_with("ip ") || table.starts_with("inet "))) {
      found.push_back(fmt::format("{} {}", table, chain));
    }
  }
  return found;
}

}  // namespace haneul::net
