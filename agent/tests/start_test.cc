// SPDX-License-Identifier: Apache-2.0
// The parts of the daemon's start: the choice of a range and a tag, of user ids, and what a failed start takes back.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <map>

#include "agent/daemon/footprint.h"
#include "agent/daemon/network_record.h"
#include "agent/daemon/vmm_users.h"
#include "base/socket.h"
#include "tests/support/files.h"

namespace haneul::agent {
namespace {

using ::testing::HasSubstr;

class NetworkRecordTest : public ::testing::Test {
 protected:
  NetworkRecordTest() : store_(SqliteStore::open(folder_ / "state.db").value()) {
    survey_.choose_tag = [this](const std::string& wanted) -> Result<std::string> {
      return wanted.empty() || wanted == taken_tag_ ? std::string("free") : wanted;
    };
    survey_.user_of = [this](const std::string&, const net::Ipv4Prefix& range) -> Result<std::string> {
      return users_[range.text()];
    };
  }
  std::string settled(const std::string& wanted = "") {
    auto range = wanted.empty() ? std::nullopt : std::optional(parse_vpc(wanted).value());
    auto record = settle_network(*store_, range, survey_);
    return record.ok() ? record->vpc + " " + record->tag : record.error().message();
  }

  haneul::testing::TempFolder folder_;
  std::unique_ptr<SqliteStore> store_;
  NetworkSurvey survey_;
  std::string taken_tag_;
  std::map<std::string, std::string> users_;
};

TEST_F(NetworkRecordTest, Ec2sRangeIsTheFirstChoiceAndIsKept) {
  EXPECT_EQ(settled(), "172.31.0.0/16 free");
  users_["172.31.0.0/16"] = "interface docker0 has 172.31.0.1/16";
  EXPECT_EQ(settled(), "172.31.0.0/16 free") << "the fabric refuses it, if it is really in the way";
  EXPECT_EQ(settled("172.31.0.0/16"), "172.31.0.0/16 free");
  EXPECT_EQ(
      settled("172.30.0.0/16"),
      "this cloud has had the range 172.31.0.0/16 since its first start, and its instances have addresses of "
      "it, not of 172.30.0.0/16: leave --vpc away, or choose another state folder");
}

TEST_F(NetworkRecordTest, TheNextFreeRangeIsTakenAndKept) {
  users_["172.31.0.0/16"] = users_["172.30.0.0/16"] = "interface hnl-x-a has 172.31.0.1/20";
  EXPECT_EQ(settled(), "172.29.0.0/16 free");
  users_.clear();
  store_.reset();
  store_ = SqliteStore::open(folder_ / "state.db").value();
  EXPECT_EQ(settled(), "172.29.0.0/16 free");
}

TEST_F(NetworkRecordTest, AHostWithoutAFreeRangeIsTold) {
  for (int octet = 16; octet <= 31; ++octet) users_[fmt::format("172.{}.0.0/16", octet)] = "a route";
  EXPECT_EQ(
      settled(),
      "all ranges from 172.31.0.0/16 down to 172.16.0.0/16 are in use on this host (the first: a route): "
      "choose another with --vpc, or run the cloud in a network of its own with `--network private`");
  EXPECT_EQ(settled("10.7.0.0/16"), "10.7.0.0/16 free");
}

TEST_F(NetworkRecordTest, ARangeThatWasAskedForIsNotReplacedByAnother) {
  users_["10.7.0.0/16"] = "there is a route to 10.0.0.0/8 through tun0";
  EXPECT_EQ(
      settled("10.7.0.0/16"),
      "the range 10.7.0.0/16 is in use on this host (there is a route to 10.0.0.0/8 through tun0): choose "
      "another with --vpc, or leave it away for one that is free");
  EXPECT_EQ(settled("10.8.0.0/16"), "10.8.0.0/16 free") << "nothing was recorded";
}

TEST_F(NetworkRecordTest, ATagThatWasTakenMeanwhileIsReplaced) {
  EXPECT_EQ(settled(), "172.31.0.0/16 free");
  survey_.choose_tag = [](const std::string& wanted) -> Result<std::string> {
    return wanted == "free" ? std::string("next") : wanted;
  };
  EXPECT_EQ(settled(), "172.31.0.0/16 next");
  EXPECT_EQ(settled(), "172.31.0.0/16 next");
}

TEST_F(NetworkRecordTest, AStateFromBeforeTheChoiceHasEc2sRange) {
  ASSERT_TRUE(store_->commit(Batch().put("instance", "i-1", "{}")).ok());
  users_["172.31.0.0/16"] = "interface hnl-free-a has 172.31.0.1/20";
  EXPECT_EQ(settled("10.7.0.0/16").substr(0, 40), "this cloud has had the range 172.31.0.0/");
  EXPECT_EQ(settled(), "172.31.0.0/16 free");
}

TEST_F(NetworkRecordTest, RangesThatAreNone) {
  for (const char* bad : {"172.31.0.0/20", "172.31.1.0/16", "127.0.0.0/16", "169.254.0.0/16", "224.0.0.0/16",
                          "0.1.0.0/16", "172.31.0.0", "all"}) {
    auto parsed = parse_vpc(bad);
    EXPECT_FALSE(parsed.ok()) << bad;
  }
  EXPECT_EQ(parse_vpc("10.0.0.0/8").error().message(),
            "10.0.0.0/8 is not a range for a VPC: a /16 such as 10.7.0.0/16");
}

TEST(Footprint, AFailedStartTakesBackWhatItMade) {
  haneul::testing::TempFolder folder;
  std::filesystem::path state = folder.path() / "a/b/state";
  {
    Footprint footprint;
    ASSERT_TRUE(footprint.make_folder(state, 0700).ok());
    EXPECT_EQ(std::filesystem::status(state).permissions(), std::filesystem::perms::owner_all);
    UniqueFd lock = footprint.lock(state).value();
    std::filesystem::create_directories(state / "regions/r/store");
    footprint.undo();
    EXPECT_FALSE(std::filesystem::exists(folder.path() / "a"));
  }
  std::filesystem::create_directories(state);
  folder.file("a/b/state/store.key", "precious");
  {
    Footprint footprint;
    ASSERT_TRUE(footprint.make_folder(state, 0700).ok());
    UniqueFd lock = footprint.lock(state).value();
    folder.file("a/b/state/state.db", "new");
    folder.file("a/b/state/state.db-wal", "its journal");
    // Somebody else's, made meanwhile.
    std::filesystem::create_directories(state / "notes");
    folder.file("a/b/state/notes/mine", "precious");
    footprint.undo();
    EXPECT_FALSE(std::filesystem::exists(state / "state.db"));
    EXPECT_FALSE(std::filesystem::exists(state / "state.db-wal"));
    EXPECT_TRUE(std::filesystem::exists(state / "notes/mine"));
    EXPECT_FALSE(std::filesystem::exists(state / "lock"));
    EXPECT_TRUE(std::filesystem::exists(state / "store.key"));
  }
}

// What a database did not take over yet is in its journal.
TEST(Footprint, TheJournalOfAnOlderDatabaseStays) {
  haneul::testing::TempFolder folder;
  folder.file("state.db", "old");
  Footprint footprint;
  UniqueFd lock = footprint.lock(folder.path()).value();
  folder.file("state.db-wal", "written since");
  footprint.undo();
  EXPECT_TRUE(std::filesystem::exists(folder.path() / "state.db-wal"));
}

/// Another process that has the folder's lock until it is killed. A child of it, as one that is about to become a VMM, has
/// its files open for longer.
class Holder {
 public:
  explicit Holder(const std::filesystem::path& folder) {
    auto [ours, theirs] = socket_pair(SOCK_STREAM).value();
    pid_ = ::fork();
    if (pid_ == 0) {
      ours.reset();
      Footprint footprint;
      UniqueFd lock = footprint.lock(folder).value();
      const bool child = ::fork() == 0;
      char byte = child ? 'c' : 'p';
      (void)!::write(theirs.get(), &byte, 1);
      // Until our end is closed.
      while (::read(theirs.get(), &byte, 1) > 0) {
      }
      ::_exit(0);
    }
    theirs.reset();
    char bytes[2];
    for (size_t i = 0; i < 2; ++i) CHECK(::read(ours.get(), &bytes[i], 1) == 1);
    end_ = std::move(ours);
  }
  ~Holder() {
    if (pid_ != 0) kill();
  }
  void kill() {
    ::kill(pid_, SIGKILL);
    ::waitpid(std::exchange(pid_, 0), nullptr, 0);
  }

 private:
  UniqueFd end_;
  pid_t pid_ = 0;
};

TEST(Footprint, TheFolderOfAnotherIsLeftAlone) {
  haneul::testing::TempFolder folder;
  Holder first(folder.path());
  folder.file("state.db", "the first one's");
  Footprint second;
  auto refused = second.lock(folder.path());
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code(), ErrorCode::kBusy);
  EXPECT_EQ(refused.error().message(), "another haneuld has the state folder " + folder.path().string());
  second.undo();
  EXPECT_TRUE(std::filesystem::exists(folder.path() / "state.db"));
  EXPECT_TRUE(std::filesystem::exists(folder.path() / "lock"));
}

TEST(Footprint, AKilledOnesFolderIsFree) {
  haneul::testing::TempFolder folder;
  Holder first(folder.path());
  first.kill();
  Footprint second;
  auto lock = second.lock(folder.path());
  EXPECT_TRUE(lock.ok()) << lock.error().message();
}

TEST(Footprint, AFileInPlaceOfAFolderIsTold) {
  haneul::testing::TempFolder folder;
  Footprint footprint;
  EXPECT_THAT(footprint.make_folder(folder.file("state", "x"), 0700).error().message(),
              HasSubstr("is not a folder"));
}

TEST(VmmUsers, IdsThatAnotherCloudHasAreNotTaken) {
  auto first = first_vmm_uid("/a", {});
  if (!first) GTEST_SKIP() << "needs root";
  EXPECT_EQ(first_vmm_uid("/a", {}), first);
  int ready[2];
  ASSERT_EQ(::pipe(ready), 0);
  pid_t vmm = ::fork();
  if (vmm == 0) {
    bool changed = ::setgid(*first + 7) == 0 && ::setuid(*first + 7) == 0;
    if (!changed || ::write(ready[1], "x", 1) != 1) ::_exit(1);
    ::pause();
  }
  char byte = 0;
  ASSERT_EQ(::read(ready[0], &byte, 1), 1);
  EXPECT_EQ(first_vmm_uid("/a", {}), *first + kVmmUids);
  EXPECT_EQ(first_vmm_uid("/a", {vmm}), first) << "its own from before a restart";
  ::kill(vmm, SIGKILL);
  ::waitpid(vmm, nullptr, 0);
}

}  // namespace
}  // namespace haneul::agent
