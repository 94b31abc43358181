// SPDX-License-Identifier: Apache-2.0
#include "tests/integration/real_cloud.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cctype>
#include <fstream>
#include <sstream>
#include <tuple>

#include "agent/http/http.h"

namespace haneul::testing {
namespace {

using ::testing::HasSubstr;

std::string text_of(const std::string& file) {
  auto text = read_file(file);
  return text.ok() ? *text : "";
}

void fail(const std::string& what, const Ended& ended) {
  ADD_FAILURE() << what << ": status " << ended.status << "\n" << ended.out << ended.err;
}

std::vector<pid_t> all_processes() {
  std::vector<pid_t> found;
  for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
    std::string name = entry.path().filename();
    if (std::isdigit(static_cast<unsigned char>(name[0])) != 0) found.push_back(std::atoi(name.c_str()));
  }
  return found;
}

// The fields of /proc/PID/stat from the third on; empty for a process that is gone.
Words stat_of(pid_t pid) {
  std::string stat = text_of(fmt::format("/proc/{}/stat", pid));
  if (stat.rfind(')') == std::string::npos) return {};
  std::istringstream fields(stat.substr(stat.rfind(')') + 1));
  Words words;
  for (std::string word; fields >> word;) words.push_back(word);
  return words;
}

std::string name_of(pid_t pid) {
  std::string name = text_of(fmt::format("/proc/{}/comm", pid));
  return name.substr(0, name.find('\n'));
}

bool same_file(const std::string& a, const std::string& b) {
  struct stat one {};
  struct stat other {};
  return ::stat(a.c_str(), &one) == 0 && ::stat(b.c_str(), &other) == 0 && one.st_ino == other.st_ino &&
         one.st_dev == other.st_dev;
}

}  // namespace

std::vector<std::string> orphans() {
  std::vector<std::string> found;
  std::string self = std::to_string(::getpid());
  for (pid_t pid : all_processes()) {
    Words stat = stat_of(pid);
    if (stat.size() < 2 || stat[1] != self) continue;
    if (stat[0] == "Z") {
      ::waitpid(pid, nullptr, WNOHANG);
    } else {
      found.push_back(fmt::format("{} {}", pid, name_of(pid)));
    }
  }
  return found;
}

RealCloud::RealCloud(Words daemon_options, Setting setting)
    : daemon_options_(std::move(daemon_options)), setting_(std::move(setting)) {
  ::prctl(PR_SET_CHILD_SUBREAPER, 1);
  std::filesystem::create_directory(state());
  std::filesystem::create_directory(folder() / "home");
  setting_.environment["HOME"] = folder_ / "home";
}

RealCloud::~RealCloud() {
  if (daemon_ != 0) end(SIGKILL);
  kill_leftovers();
  if (::testing::Test::HasFailure()) fmt::print(stderr, "the daemon's log:\n{}\n", log());
}

// The programs as well: the build's folder may be closed to that user.
void RealCloud::give_to(uid_t user) {
  programs_ = folder() / "bin";
  std::filesystem::create_directory(programs_);
  for (const char* name : {"haneul", "haneuld", "haneul-vmm"})
    std::filesystem::copy_file(bin_folder() / name, programs_ / name);
  user_ = user;
  own_files();
}

void RealCloud::own_files() {
  if (!user_) return;
  CHECK(::chown(folder().c_str(), *user_, *user_) == 0);
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder()))
    std::ignore = ::lchown(entry.path().c_str(), *user_, *user_);
}

// What a failed test left; never anything else's.
void RealCloud::kill_leftovers() {
  for (const auto& [id, machine] : machines()) ::kill(machine.pid, SIGKILL);
  for (const std::string& orphan : orphans()) ::kill(std::atoi(orphan.c_str()), SIGKILL);
  eventually([] { return orphans().empty(); });
}

void RealCloud::begin() {
  Words words = {program("haneuld"), "--state", state(), "--socket", socket()};
  Words defaults = {"--network",           "private", "--stop-timeout",   "1",
                    "--terminate-timeout", "1",       "--reboot-timeout", "1"};
  words.insert(words.end(), defaults.begin(), defaults.end());
  words.insert(words.end(), daemon_options_.begin(), daemon_options_.end());
  UniqueFd null = open_file("/dev/null", O_RDWR).value();
  UniqueFd log = open_file(folder_ / "log", O_WRONLY | O_CREAT | O_APPEND, 0666).value();
  daemon_ = spawn(words, setting_, null.get(), log.get(), log.get());
}

void RealCloud::wait_until_served() {
  EXPECT_TRUE(eventually([this] {
    agent::HttpRequest request{.method = "GET", .target = "/status", .body = "", .region = ""};
    return agent::http_request(socket(), request).ok() || stat_of(daemon_).empty() ||
           stat_of(daemon_)[0] == "Z";
  })) << log();
}

void RealCloud::start() {
  begin();
  wait_until_served();
}

int RealCloud::end(int signal) {
  ::kill(daemon_, signal);
  int status = status_of(daemon_);
  daemon_ = 0;
  return status;
}

Words RealCloud::haneul_words(Words words) const {
  words.insert(words.begin(), {program("haneul"), "--socket", socket().string()});
  return words;
}

Ended RealCloud::haneul(Words words) {
  return run_program(haneul_words(std::move(words)), setting_);
}

Json RealCloud::json(Words words) {
  words.push_back("--json");
  Ended ended = haneul(words);
  auto parsed = agent::parse_json(ended.out);
  if (ended.status == 0 && parsed.ok()) return *parsed;
  fail(fmt::format("haneul {}", fmt::join(words, " ")), ended);
  return Json::object();
}

void RealCloud::add_image(const std::string& name, const std::string& command) {
  std::filesystem::path image = folder() / name;
  std::filesystem::create_directory(image);
  std::filesystem::copy_file(guest_kernel(), image / "kernel");
  std::ofstream(image / "root.raw");
  std::filesystem::resize_file(image / "root.raw", 1 << 20);
  std::ofstream(image / "image.json") << Json{
      {"format", 1}, {"name", name}, {"kernel", "kernel"}, {"root", "root.raw"}, {"cmdline", command}};
  own_files();
  Ended registered = haneul({"image", "register", image.string()});
  if (registered.status != 0) fail("image register", registered);
}

std::vector<std::string> RealCloud::run(const std::string& image, int count, const std::string& name) {
  Words words = {"run", image, "--type", "t2.nano", "--count", std::to_string(count), "--wait"};
  if (!name.empty()) words.insert(words.end(), {"--name", name});
  Json reply = json(words);
  std::vector<std::string> ids;
  for (const Json& instance : reply.value("Instances", Json::array())) {
    ids.push_back(instance["InstanceId"]);
    EXPECT_EQ(instance["State"]["Name"], "running");
  }
  EXPECT_EQ(ids.size(), static_cast<size_t>(count));
  return ids;
}

std::string RealCloud::start_one(const std::string& image, const std::string& command) {
  start();
  add_image(image, command);
  std::vector<std::string> ids = run(image);
  return ids.empty() ? "" : ids[0];
}

std::string RealCloud::state_of(const std::string& id) {
  return json({"show", id}).value("State", Json::object()).value("Name", "");
}

std::string RealCloud::console_of(const std::string& id) {
  return haneul({"console", id}).out;
}

void RealCloud::expect_console(const std::string& id, const std::string& text) {
  EXPECT_TRUE(eventually([&] { return console_of(id).find(text) != std::string::npos; }))
      << text << " is not in:\n"
      << console_of(id);
}

void RealCloud::expect_state(const std::string& id, const std::string& state) {
  EXPECT_TRUE(eventually([&] { return state_of(id) == state; }))
      << id << " is " << state_of(id) << ", not " << state;
}

std::map<std::string, Machine> RealCloud::machines() {
  std::map<std::string, Machine> found;
  std::vector<pid_t> processes = all_processes();
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(state() / "instances", error)) {
    for (pid_t pid : processes) {
      if (!same_file(fmt::format("/proc/{}/fd/2", pid), entry.path() / "vmm.log")) continue;
      Words stat = stat_of(pid);
      if (stat.size() < 20) continue;
      std::string id = entry.path().filename();
      EXPECT_FALSE(found.contains(id)) << id << " has two VMMs: " << found[id].pid << " and " << pid;
      found[id] = {.pid = pid, .started = stat[19]};
    }
  }
  return found;
}

std::optional<pid_t> RealCloud::network_holder() {
  pid_t pid = std::atoi(text_of(state() / "network-holder").c_str());
  Words stat = stat_of(pid);
  if (pid <= 1 || stat.empty() || stat[0] == "Z" || name_of(pid) != "haneul-network") return std::nullopt;
  return pid;
}

std::set<std::string> RealCloud::taps() {
  std::set<std::string> found;
  auto holder = network_holder();
  if (!holder) return found;
  Ended links = run_program({"nsenter", fmt::format("--net=/proc/{}/ns/net", *holder), "ip", "-o", "link"});
  std::istringstream lines(links.out);
  for (std::string line; std::getline(lines, line);) {
    std::string name = line.substr(line.find(' ') + 1);
    if (name.starts_with("t-")) found.insert(name.substr(0, name.find(':')));
  }
  return found;
}

std::string RealCloud::rules() {
  auto holder = network_holder();
  if (!holder) return "";
  return run_program({"nsenter", fmt::format("--net=/proc/{}/ns/net", *holder), "nft", "list", "ruleset"})
      .out;
}

std::set<std::string> RealCloud::files(const std::string& folder) {
  std::set<std::string> found;
  std::error_code error;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(state() / folder, error))
    found.insert(entry.path().lexically_relative(state()));
  return found;
}

void RealCloud::expect_consistent() {
  std::set<std::string> running;
  std::set<std::string> volumes;
  for (const Json& instance : json({"ls", "--all"}).value("Instances", Json::array())) {
    std::string state = instance["State"]["Name"];
    EXPECT_THAT(state, ::testing::AnyOf("running", "stopped", "terminated")) << instance["InstanceId"];
    if (state == "running") running.insert(instance["InstanceId"]);
    for (const Json& mapping : instance.value("BlockDeviceMappings", Json::array()))
      volumes.insert(mapping["Ebs"]["VolumeId"]);
  }
  std::set<std::string> alive;
  for (const auto& [id, machine] : machines()) alive.insert(id);
  EXPECT_EQ(alive, running) << "the VMMs and the running instances";
  std::set<std::string> plugged = taps();
  EXPECT_EQ(plugged.size(), running.size()) << fmt::format("{}", fmt::join(plugged, " "));
  std::string firewall = rules();
  for (const std::string& tap : plugged) EXPECT_THAT(firewall, HasSubstr(tap));
  std::set<std::string> there;
  for (const Json& volume : json({"volume", "ls"}).value("Volumes", Json::array()))
    there.insert(volume["VolumeId"]);
  EXPECT_EQ(there, volumes) << "the volumes and the roots of instances";
}

void RealCloud::expect_nothing_left() {
  Words all = {"terminate"};
  for (const Json& instance : json({"ls"}).value("Instances", Json::array()))
    all.push_back(instance["InstanceId"]);
  all.push_back("--wait");
  if (all.size() > 2) {
    Ended ended = haneul(all);
    if (ended.status != 0) fail("terminate", ended);
  }
  expect_consistent();
  EXPECT_TRUE(machines().empty());
  EXPECT_TRUE(taps().empty());
  EXPECT_THAT(rules(), ::testing::Not(::testing::ContainsRegex("\"t-[^*\"]+\""))) << "a tap's rule";
  for (const std::string& file : files("instances"))
    EXPECT_THAT(file, ::testing::Not(::testing::EndsWith(".sock")));
  Ended checked = haneul({"volume", "check"});
  EXPECT_THAT(checked.out, HasSubstr("all is well")) << checked.err;
  EXPECT_EQ(end(SIGTERM), 0);
  EXPECT_FALSE(std::filesystem::exists(socket()));
  EXPECT_FALSE(network_holder());
  EXPECT_FALSE(std::filesystem::exists(state() / "network-holder"));
  EXPECT_TRUE(eventually([] { return orphans().empty(); })) << fmt::format("{}", fmt::join(orphans(), ", "));
  for (const std::string& file : files("")) {
    EXPECT_THAT(file, ::testing::Not(HasSubstr("network-holder."))) << "a temporary file";
  }
}

std::string RealCloud::log() const {
  return text_of(folder_.path() / "log");
}

}  // namespace haneul::testing
