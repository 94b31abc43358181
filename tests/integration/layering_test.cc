// SPDX-License-Identifier: Apache-2.0
// Every #include of every folder against the table of who may use whom, in cmake/Haneul.cmake.
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <map>
#include <regex>
#include <set>
#include <sstream>

#include "base/file.h"

namespace haneul {
namespace {

namespace fs = std::filesystem;

fs::path source_folder() {
  const char* folder = std::getenv("HANEUL_SOURCE");
  return folder != nullptr ? folder : ".";
}

using Table = std::map<std::string, std::set<std::string>>;

Table read_table() {
  Table table;
  std::string text = read_file(source_folder() / "cmake/Haneul.cmake").value();
  static const std::regex kLine(R"re(set\(HANEUL_MAY_USE_([a-z]+) "?([a-z ]*)"?\))re");
  for (std::sregex_iterator at(text.begin(), text.end(), kLine), end; at != end; ++at) {
    std::istringstream words((*at)[2]);
    std::set<std::string>& used = table[(*at)[1]];
    for (std::string word; words >> word;) used.insert(word);
  }
  return table;
}

/// The table's name for the part of the project that a file belongs to.
std::string part_of(const std::string& path) {
  if (path.starts_with("vmm/launch/")) return "launch";
  if (path.starts_with("storage/store/")) return "store";
  return path.substr(0, path.find('/'));
}

bool is_source(const fs::path& path) {
  return path.extension() == ".h" || path.extension() == ".cc";
}

bool is_test(const std::string& path) {
  return path.ends_with("_test.cc") || path.find("/testing/") != std::string::npos ||
         path.find("/tests/") != std::string::npos;
}

std::vector<std::string> includes_of(const fs::path& file) {
  std::vector<std::string> found;
  std::string text = read_file(file).value();
  static const std::regex kInclude(R"re((?:^|\n)[ \t]*#[ \t]*include[ \t]*"([^"]+)")re");
  for (std::sregex_iterator at(text.begin(), text.end(), kInclude), end; at != end; ++at)
    found.push_back((*at)[1]);
  return found;
}

/// Each line one breach of the rule.
std::string breaches_of(const std::string& path, const Table& table) {
  std::string part = part_of(path);
  std::string breaches;
  auto known = table.find(part);
  if (known == table.end()) return path + ": the folder is not in the table\n";
  for (const std::string& include : includes_of(source_folder() / path)) {
    std::string used = part_of(include);
    bool allowed = used == part || known->second.count(used) != 0 || (is_test(path) && used == "tests");
    if (!allowed) breaches += path + " may not include " + include + "\n";
    if (allowed && !fs::exists(source_folder() / include)) {
      breaches += path + " includes " + include + ", which is not there from the top\n";
    }
  }
  return breaches;
}

/// All sources but those of tests/, as paths from the top.
std::vector<std::string> sources() {
  std::vector<std::string> found;
  for (const auto& folder : fs::directory_iterator(source_folder())) {
    std::string name = folder.path().filename();
    if (!folder.is_directory() || name.starts_with('.') || name == "build" || name == "tests") continue;
    for (const auto& file : fs::recursive_directory_iterator(folder)) {
      if (file.is_regular_file() && is_source(file.path()))
        found.push_back(fs::relative(file.path(), source_folder()));
    }
  }
  return found;
}

TEST(Layering, TheTableIsRead) {
  Table table = read_table();
  ASSERT_GE(table.size(), 6u);
  EXPECT_TRUE(table.at("base").empty());
  EXPECT_EQ(table.at("storage"), std::set<std::string>{"base"});
  EXPECT_TRUE(table.at("vmm").contains("devices"));
  EXPECT_FALSE(table.at("devices").contains("vmm"));
}

TEST(Layering, EveryIncludeIsAllowed) {
  Table table = read_table();
  std::vector<std::string> all = sources();
  ASSERT_GT(all.size(), 50u) << "where are the sources? " << source_folder();
  std::string breaches;
  for (const std::string& path : all) breaches += breaches_of(path, table);
  EXPECT_EQ(breaches, "");
}

TEST(Layering, AnUnknownFolderIsABreach) {
  EXPECT_EQ(breaches_of("newfolder/a.cc", read_table()), "newfolder/a.cc: the folder is not in the table\n");
}

TEST(Layering, TheTableItselfGoesUpwardsOnly) {
  Table table = read_table();
  for (const auto& [part, used] : table) {
    for (const std::string& other : used) {
      ASSERT_TRUE(table.contains(other)) << part << " uses " << other;
      EXPECT_FALSE(table.at(other).contains(part)) << part << " and " << other << " use each other";
      // What a part uses, it may use the uses of: then there is no way round in a circle either.
      for (const std::string& deeper : table.at(other)) EXPECT_TRUE(used.contains(deeper)) << part;
    }
  }
}

}  // namespace
}  // namespace haneul
