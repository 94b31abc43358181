// SPDX-License-Identifier: Apache-2.0
// What may come next on a command line: commands and options as they are declared, and the names of what there is in the
// cloud. The shells' scripts only ask.
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>
#include <sstream>

#include "agent/cli/arguments.h"

namespace haneul::agent {
namespace {

// Lists of the API whose members are values of an option or argument.
struct Source {
  const char* operation;
  std::vector<std::string> members;
};
const Source kInstances{"DescribeInstances", {"InstanceId", "Name"}};
const Source kImages{"DescribeImages", {"Name"}};
const Source kVolumes{"DescribeVolumes", {"VolumeId", "Name"}};
const Source kSnapshots{"DescribeSnapshots", {"SnapshotId", "Name"}};

// By option or argument, or by command and that.
const std::map<std::string, Source>& sources() {
  static const std::map<std::string, Source> table = {
      {"instance", kInstances},
      {"image", kImages},
      {"volume", kVolumes},
      {"snapshot", kSnapshots},
      {"resource", kInstances},
      {"create volume", kVolumes},
      {"--from", kSnapshots},
      {"--snapshot", kSnapshots},
      {"--kernel-of", kImages},
      {"--key", {"DescribeKeyPairs", {"KeyName"}}},
      {"rm name", {"DescribeKeyPairs", {"KeyName"}}},
      {"run --type", {"DescribeInstanceTypes", {"InstanceType"}}},
      {"--region", {"DescribeRegions", {"RegionName"}}},
      {"--to-region", {"DescribeRegions", {"RegionName"}}},
      {"--zone", {"DescribeAvailabilityZones", {"ZoneName"}}},
  };
  return table;
}

// Arguments and options that the declarations do not know for files.
bool is_file(const std::string& name) {
  return name == "file" || name == "--output" || name == "--socket";
}

std::string name_of(const CLI::Option& option) {
  if (option.get_positional()) return option.get_name(true);
  return "--" + option.get_lnames().at(0);
}

void collect(const Json& value, const std::vector<std::string>& members, std::set<std::string>& found) {
  if (value.is_object() && text_of(value, "Key") == "Name") found.insert(text_of(value, "Value"));
  for (const auto& [key, inner] : value.items()) {
    bool wanted = std::find(members.begin(), members.end(), key) != members.end();
    if (wanted && inner.is_string()) found.insert(inner.get<std::string>());
    if (inner.is_structured()) collect(inner, members, found);
  }
}

// Where a command line has come to.
class Place {
 public:
  explicit Place(const CLI::App& app) : app_(app), command_(&app) {}
  void pass(const std::string& word);
  std::set<std::string> candidates(Api& api, const std::string& begun) const;

 private:
  std::vector<const CLI::App*> commands() const;
  const CLI::Option* find(const std::string& word) const;
  const CLI::Option* argument() const;
  std::set<std::string> values(Api& api, const CLI::Option& option) const;
  std::set<std::string> options() const;

  const CLI::App& app_;
  const CLI::App* command_;
  const CLI::Option* value_of_ = nullptr;  // the option whose value comes next
  size_t arguments_ = 0;
  bool rest_ = false;  // after --
};

std::vector<const CLI::App*> Place::commands() const {
  return command_->get_subcommands([](const CLI::App* sub) { return !sub->get_group().empty(); });
}

const CLI::Option* Place::find(const std::string& word) const {
  const CLI::Option* own = command_->get_option_no_throw(word);
  return own != nullptr ? own : app_.get_option_no_throw(word);
}

void Place::pass(const std::string& word) {
  std::vector<const CLI::App*> subs = commands();
  auto sub =
      std::find_if(subs.begin(), subs.end(), [&](const CLI::App* one) { return one->get_name() == word; });
  if (value_of_ != nullptr) {
    value_of_ = nullptr;
  } else if (word == "--") {
    rest_ = true;
  } else if (word.starts_with("-") && !rest_) {
    const CLI::Option* option = find(word);
    if (option != nullptr && option->get_items_expected_max() > 0) value_of_ = option;
  } else if (sub != subs.end() && !rest_) {
    command_ = *sub;
    arguments_ = 0;
  } else {
    ++arguments_;
  }
}

const CLI::Option* Place::argument() const {
  size_t at = 0;
  for (const CLI::Option* option : command_->get_options()) {
    if (!option->get_positional()) continue;
    bool many = option->get_items_expected_max() > 1;
    if (at == arguments_ || many) return option;
    ++at;
  }
  return nullptr;
}

std::set<std::string> Place::values(Api& api, const CLI::Option& option) const {
  std::set<std::string> found;
  std::string name = name_of(option);
  std::string type = option.get_type_name();
  // "TEXT:{raw,qcow2}", "TEXT:FILE" and "TEXT:DIR" are what checks make of it.
  size_t brace = type.find('{');
  if (brace != std::string::npos) {
    std::istringstream words(type.substr(brace + 1, type.find('}') - brace - 1));
    for (std::string word; std::getline(words, word, ',');) found.insert(word);
    return found;
  }
  if (type.find("DIR") != std::string::npos) return {":folders"};
  if (type.find("FILE") != std::string::npos || is_file(name)) return {":files"};
  auto source = sources().find(command_->get_name() + " " + name);
  if (source == sources().end()) source = sources().find(name);
  if (source == sources().end()) return {};
  auto reply = api.call(source->second.operation, Json::object());
  if (reply.ok()) collect(*reply, source->second.members, found);
  return found;
}

std::set<std::string> Place::options() const {
  std::set<std::string> found;
  for (const CLI::App* app : {command_, &app_}) {
    for (const CLI::Option* option : app->get_options()) {
      if (option->get_group().empty()) continue;
      for (const std::string& name : option->get_lnames()) found.insert("--" + name);
    }
  }
  return found;
}

std::set<std::string> Place::candidates(Api& api, const std::string& begun) const {
  if (value_of_ != nullptr) return values(api, *value_of_);
  if (rest_) return {};
  if (begun.starts_with("-")) return options();
  std::set<std::string> found;
  for (const CLI::App* sub : commands()) found.insert(sub->get_name());
  if (!found.empty()) return found;
  if (const CLI::Option* next = argument()) return values(api, *next);
  return options();
}

// What an option is given in these words, the last of which is not complete.
std::string value_in(const std::vector<std::string>& words, const std::string& option,
                     const std::string& otherwise) {
  std::string value;
  for (size_t i = 0; i + 2 < words.size(); ++i) {
    // A shell may make three words of OPTION=VALUE.
    const bool cut = words[i + 1] == "=" && i + 3 < words.size();
    if (words[i] == option) value = words[i + (cut ? 2 : 1)];
    if (words[i].starts_with(option + "=")) value = words[i].substr(option.size() + 1);
  }
  const char* home = std::getenv("HOME");  // NOLINT(concurrency-mt-unsafe)
  if (home != nullptr && value.starts_with("~/")) value.replace(0, 1, home);
  return value.empty() || value == "=" ? otherwise : value;
}

}  // namespace

Result<int> complete_command(const CLI::App& app, Api& api, const std::vector<std::string>& words) {
  // Of the cloud and region that the line names. Nobody waits long for a proposal.
  constexpr auto kLimit = std::chrono::milliseconds(1500);
  std::string socket = value_in(words, "--socket", api.socket().string());
  Api asked(std::filesystem::absolute(socket), value_in(words, "--region", api.region()), kLimit);
  Place place(app);
  for (size_t i = 0; i + 1 < words.size(); ++i) place.pass(words[i]);
  std::string begun = words.empty() ? "" : words.back();
  for (const std::string& candidate : place.candidates(asked, begun)) {
    if (candidate.starts_with(":") || candidate.starts_with(begun)) fmt::print("{}\n", candidate);
  }
  return kCliOk;
}

}  // namespace haneul::agent
