// SPDX-License-Identifier: Apache-2.0
// kill -9 of the real daemon at random moments, while requests run and while it starts. HANEUL_SEED repeats one run.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <cstdlib>
#include <random>
#include <thread>

#include "tests/integration/real_cloud.h"

namespace haneul::testing {
namespace {

constexpr int kRounds = 12;
constexpr size_t kMostInstances = 5;

class Storm {
 public:
  explicit Storm(unsigned seed) : random_(seed) {
    cloud_.start();
    cloud_.add_image("idle", "0halt");
  }
  void run();

 private:
  struct Request {
    Words words;
    pid_t pid = 0;
    std::string out;
  };

  int pick(int below) { return std::uniform_int_distribution<int>(0, below - 1)(random_); }
  void look();
  Words next_words();
  void send();
  void collect();
  void settle();

  RealCloud cloud_;
  std::mt19937 random_;
  std::vector<std::string> ids_;        // of instances that are not terminated
  std::set<std::string> acknowledged_;  // the daemon said that these were launched
  std::vector<Request> requests_;
  int sent_ = 0;
};

void Storm::look() {
  ids_.clear();
  for (const Json& instance : cloud_.json({"ls"}).value("Instances", Json::array()))
    ids_.push_back(instance["InstanceId"]);
}

Words Storm::next_words() {
  const std::string one = ids_.empty() ? "" : ids_[static_cast<size_t>(pick(static_cast<int>(ids_.size())))];
  bool room = ids_.size() < kMostInstances;
  if (one.empty() || (room && pick(3) == 0))
    return {"run", "idle", "--type", "t2.nano", "--count", std::to_string(1 + pick(2)), "--json"};
  switch (pick(6)) {
    case 0:
      return {"stop", one};
    case 1:
      return {"stop", one, "--force"};
    case 2:
      return {"start", one};
    case 3:
      return {"reboot", one};
    default:
      return {"terminate", one};
  }
}

void Storm::send() {
  Request request;
  request.words = next_words();
  request.out = cloud_.folder() / fmt::format("request-{}", ++sent_);
  UniqueFd null = open_file("/dev/null", O_RDWR).value();
  UniqueFd out = open_file(request.out, O_WRONLY | O_CREAT).value();
  request.pid =
      spawn(cloud_.haneul_words(request.words), cloud_.setting(), null.get(), out.get(), null.get());
  requests_.push_back(std::move(request));
}

// Most were refused or cut off; what was promised must hold.
void Storm::collect() {
  for (const Request& request : requests_) {
    int status = status_of(request.pid);
    EXPECT_LT(status, 128) << fmt::format("{}", fmt::join(request.words, " "));
    if (status != 0 || request.words[0] != "run") continue;
    Json reply = agent::parse_json(read_file(request.out).value()).value();
    for (const Json& instance : reply["Instances"]) acknowledged_.insert(instance["InstanceId"]);
  }
  requests_.clear();
}

void Storm::settle() {
  std::string moving;
  EXPECT_TRUE(eventually([&] {
    moving.clear();
    for (const Json& instance : cloud_.json({"ls"}).value("Instances", Json::array())) {
      std::string state = instance["State"]["Name"];
      if (state != "running" && state != "stopped")
        moving += fmt::format("{} {}\n", instance["InstanceId"].get<std::string>(), state);
    }
    return moving.empty();
  })) << moving;
  std::set<std::string> known;
  for (const Json& instance : cloud_.json({"ls", "--all"}).value("Instances", Json::array()))
    known.insert(instance["InstanceId"]);
  for (const std::string& id : acknowledged_)
    EXPECT_TRUE(known.contains(id)) << id << " was launched and is forgotten";
  cloud_.expect_consistent();
}

void Storm::run() {
  for (int round = 0; round < kRounds && !::testing::Test::HasFailure(); ++round) {
    SCOPED_TRACE(fmt::format("round {}", round));
    look();
    for (int i = 1 + pick(4); i > 0; --i) send();
    std::this_thread::sleep_for(std::chrono::milliseconds(pick(250)));
    EXPECT_EQ(cloud_.end(SIGKILL), 128 + SIGKILL);
    collect();
    // Now and then the next one does not even come to serve.
    for (int i = pick(3); i > 0; --i) {
      cloud_.begin();
      std::this_thread::sleep_for(std::chrono::milliseconds(pick(120)));
      EXPECT_EQ(cloud_.end(SIGKILL), 128 + SIGKILL);
    }
    cloud_.start();
    settle();
  }
  cloud_.expect_nothing_left();
}

TEST(RealKill, AtAnyMomentNothingIsLostAndNothingLeaks) {
  const char* given = std::getenv("HANEUL_SEED");
  unsigned seed = given != nullptr ? static_cast<unsigned>(std::atoi(given)) : std::random_device{}();
  fmt::print("HANEUL_SEED={}\n", seed);
  Storm(seed).run();
}

// The first start makes the network: a process that holds it must be known, or end by itself.
TEST(RealKill, InTheFirstStartNothingUnknownIsLeft) {
  std::mt19937 random(std::random_device{}());
  for (int round = 0; round < 15 && !::testing::Test::HasFailure(); ++round) {
    RealCloud cloud;
    cloud.begin();
    std::this_thread::sleep_for(std::chrono::microseconds(random() % 60000));
    EXPECT_EQ(cloud.end(SIGKILL), 128 + SIGKILL);
    auto known = [&] {
      auto holder = cloud.network_holder();
      for (const std::string& orphan : orphans()) {
        if (!holder || !orphan.starts_with(std::to_string(*holder) + " ")) return false;
      }
      return true;
    };
    EXPECT_TRUE(eventually(known)) << fmt::format("{}", fmt::join(orphans(), ", "));
    cloud.start();
    cloud.expect_nothing_left();
  }
}

}  // namespace
}  // namespace haneul::testing
