// SPDX-License-Identifier: Apache-2.0
// The parts below the cloud: key pairs, the state store, the state machine, the guest's files, the executor.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sqlite3.h>
#include <sys/stat.h>

#include <array>
#include <atomic>
#include <cstdio>
#include <fstream>

#include "agent/cloud/builder.h"
#include "agent/cloud/executor.h"
#include "agent/cloud/lifecycle.h"
#include "agent/keys/key_pair.h"
#include "agent/state/store.h"
#include "base/file.h"

namespace haneul::agent {
namespace {

using ::testing::HasSubstr;
using ::testing::MatchesRegex;
using ::testing::SizeIs;
using ::testing::StartsWith;

class Folder {
 public:
  Folder() {
    std::string name = (std::filesystem::temp_directory_path() / "haneul-parts-XXXXXX").string();
    CHECK(::mkdtemp(name.data()) != nullptr);
    path = name;
  }
  ~Folder() { std::filesystem::remove_all(path); }
  std::filesystem::path path;
};

std::string output_of(const std::string& command) {
  FILE* pipe = ::popen((command + " 2>&1").c_str(), "r");
  std::string text;
  std::array<char, 4096> chunk;
  while (size_t got = std::fread(chunk.data(), 1, chunk.size(), pipe)) text.append(chunk.data(), got);
  return ::pclose(pipe) == 0 ? text : "failed: " + text;
}

bool have(const char* program) {
  return std::system(fmt::format("command -v {} >/dev/null", program).c_str()) == 0;
}

// ---- key pairs ----

TEST(KeyPair, OpenSshReadsThePrivateKeyAndAgreesOnThePublicOne) {
  if (!have("ssh-keygen")) GTEST_SKIP() << "no ssh-keygen here";
  Folder folder;
  for (const char* type : {"rsa", "ed25519"}) {
    KeyPair pair = create_key_pair(type, "my key").value();
    std::filesystem::path file = folder.path / type;
    ASSERT_TRUE(replace_file(file, pair.private_key, 0600).ok());
    std::string read = output_of("ssh-keygen -y -P '' -f " + file.string());
    // ssh-keygen adds the comment only where the format keeps one.
    EXPECT_THAT(pair.public_key, StartsWith(read.substr(0, read.find_first_of(" \n", 12)))) << type;
    EXPECT_THAT(pair.public_key, HasSubstr(" my key"));
  }
}

TEST(KeyPair, FingerprintsAreEc2s) {
  KeyPair rsa = create_key_pair("rsa", "a").value();
  EXPECT_THAT(rsa.private_key, StartsWith("-----BEGIN RSA PRIVATE KEY-----\n"));
  EXPECT_THAT(rsa.fingerprint, MatchesRegex("([0-9a-f][0-9a-f]:){19}[0-9a-f][0-9a-f]"));
  KeyPair imported = import_key_pair(rsa.public_key, "b").value();
  EXPECT_THAT(imported.fingerprint, MatchesRegex("([0-9a-f][0-9a-f]:){15}[0-9a-f][0-9a-f]"));
  EXPECT_EQ(imported.type, "rsa");
  if (!have("openssl")) return;
  Folder folder;
  std::filesystem::path file = folder.path / "key";
  ASSERT_TRUE(replace_file(file, rsa.private_key, 0600).ok());
  std::string created = output_of("openssl pkcs8 -in " + file.string() +
                                  " -inform PEM -outform DER -topk8 -nocrypt | openssl sha1 -c");
  EXPECT_THAT(created, HasSubstr(rsa.fingerprint));
  std::string public_md5 =
      output_of("openssl rsa -in " + file.string() + " -pubout -outform DER 2>/dev/null | openssl md5 -c");
  EXPECT_THAT(public_md5, HasSubstr(imported.fingerprint));
}

TEST(KeyPair, Ed25519FingerprintIsOpenSshs) {
  KeyPair pair = create_key_pair("ed25519", "a").value();
  EXPECT_EQ(import_key_pair(pair.public_key, "b").value().fingerprint, pair.fingerprint);
  EXPECT_THAT(pair.fingerprint, MatchesRegex("[A-Za-z0-9+/]{43}="));
  if (!have("ssh-keygen")) return;
  Folder folder;
  ASSERT_TRUE(replace_file(folder.path / "pub", pair.public_key + "\n", 0600).ok());
  EXPECT_THAT(output_of("ssh-keygen -l -E sha256 -f " + (folder.path / "pub").string()),
              HasSubstr("SHA256:" + pair.fingerprint.substr(0, 43)));
}

TEST(KeyPair, ImportsTheUsualFormats) {
  if (!have("ssh-keygen")) GTEST_SKIP() << "no ssh-keygen here";
  Folder folder;
  KeyPair pair = create_key_pair("rsa", "x").value();
  std::filesystem::path file = folder.path / "pub";
  ASSERT_TRUE(replace_file(file, pair.public_key + "\n", 0600).ok());
  std::string expected = import_key_pair(pair.public_key, "x").value().fingerprint;
  for (const char* format : {"RFC4716", "PKCS8"}) {
    std::string text = output_of(fmt::format("ssh-keygen -e -m {} -f {}", format, file.string()));
    auto imported = import_key_pair(text, "x");
    ASSERT_TRUE(imported.ok()) << format << ": " << imported.error().message() << text;
    EXPECT_EQ(imported->fingerprint, expected) << format;
  }
}

TEST(KeyPair, RefusesWhatIsNoKey) {
  for (std::string text :
       {"", "ssh-rsa", "ssh-rsa AAAA", "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA==", "ssh-dss AAAAB3NzaC1kc3M=",
        "-----BEGIN PUBLIC KEY-----\n", "---- BEGIN SSH2 PUBLIC KEY ----\nAAAA\n", "\xff\xfe"}) {
    auto imported = import_key_pair(text, "x");
    ASSERT_FALSE(imported.ok()) << text;
    EXPECT_EQ(imported.error().code(), ApiCode::kInvalidKeyFormat) << text;
    EXPECT_EQ(imported.error().message(), "Key is not in valid OpenSSH public key format") << text;
  }
}

// ---- the state store ----

TEST(Store, KeepsWhatWasCommittedWholly) {
  Folder folder;
  {
    auto store = SqliteStore::open(folder.path / "state.db").value();
    ASSERT_TRUE(store->commit(Batch().put("a", "1", "one").put("a", "2", "two").put("b", "1", "other")).ok());
    ASSERT_TRUE(store->commit(Batch().put("a", "1", "uno").remove("a", "2")).ok());
  }
  auto store = SqliteStore::open(folder.path / "state.db").value();
  auto objects = store->list("a").value();
  ASSERT_THAT(objects, SizeIs(1));
  EXPECT_EQ(objects[0].value, "uno");
}

TEST(Store, DamagedFileIsRefusedAndUntouched) {
  Folder folder;
  std::filesystem::path file = folder.path / "state.db";
  {
    auto store = SqliteStore::open(file).value();
    for (int i = 0; i < 500; ++i)
      ASSERT_TRUE(store->commit(Batch().put("a", std::to_string(i), std::string(300, 'x'))).ok());
  }
  std::string whole = read_file(file).value();
  std::string torn = whole;
  for (size_t i = 8192; i < 8192 + 2000; ++i) torn[i] = static_cast<char>(i);
  for (const std::string& bad :
       {std::string("garbage garbage"), whole.substr(0, 60), std::string(200, 'z'), torn}) {
    ASSERT_TRUE(replace_file(file, bad).ok());
    auto opened = SqliteStore::open(file);
    ASSERT_FALSE(opened.ok());
    EXPECT_EQ(opened.error().code(), ErrorCode::kCorrupt) << opened.error().message();
    EXPECT_THAT(opened.error().message(), StartsWith("the state file " + file.string()));
    EXPECT_EQ(read_file(file).value(), bad);
  }
}

TEST(Store, NewerVersionIsRefused) {
  Folder folder;
  std::filesystem::path file = folder.path / "state.db";
  { auto store = SqliteStore::open(file).value(); }
  sqlite3* db = nullptr;
  ASSERT_EQ(::sqlite3_open(file.c_str(), &db), SQLITE_OK);
  ::sqlite3_exec(db, "PRAGMA user_version=2", nullptr, nullptr, nullptr);
  ::sqlite3_close(db);
  auto opened = SqliteStore::open(file);
  ASSERT_FALSE(opened.ok());
  EXPECT_EQ(opened.error().message(),
            "the state file is of version 2, made by a newer haneuld than this one (1)");
}

// ---- the state machine ----

TEST(Lifecycle, CodesAndNames) {
  EXPECT_EQ(code(State::kPending), 0);
  EXPECT_EQ(code(State::kRunning), 16);
  EXPECT_EQ(code(State::kShuttingDown), 32);
  EXPECT_EQ(code(State::kTerminated), 48);
  EXPECT_EQ(code(State::kStopping), 64);
  EXPECT_EQ(code(State::kStopped), 80);
  for (State state : {State::kPending, State::kRunning, State::kShuttingDown, State::kTerminated,
                      State::kStopping, State::kStopped}) {
    EXPECT_EQ(state_from(name(state)), state);
  }
}

TEST(Lifecycle, EveryEventInEveryState) {
  constexpr std::array kStates = {State::kPending,    State::kRunning,  State::kShuttingDown,
                                  State::kTerminated, State::kStopping, State::kStopped};
  // One row an event, one letter a state in the order above; - is "not allowed".
  const std::vector<std::pair<Event, std::string>> table = {
      {Event::kLaunched, "r-----"},      {Event::kLaunchFailed, "d-----"},
      {Event::kRestartFailed, "gg----"}, {Event::kStart, "pr---p"},
      {Event::kStop, "-g--gs"},          {Event::kTerminate, "dddtdd"},
      {Event::kGuestStopped, "-g----"},  {Event::kGuestTerminated, "-d----"},
      {Event::kCrashed, "-g----"},       {Event::kReleased, "--t-s-"}};
  const std::map<char, State> letters = {{'p', State::kPending},      {'r', State::kRunning},
                                         {'d', State::kShuttingDown}, {'t', State::kTerminated},
                                         {'g', State::kStopping},     {'s', State::kStopped}};
  for (const auto& [event, row] : table) {
    for (size_t i = 0; i < kStates.size(); ++i) {
      auto next = next_state(kStates[i], event);
      auto expected = row[i] == '-' ? std::nullopt : std::optional(letters.at(row[i]));
      EXPECT_EQ(next, expected) << name(kStates[i]) << " event " << static_cast<int>(event);
    }
  }
}

// ---- the guest's files ----

TEST(Cpio, IsReadByCpio) {
  std::string archive = make_cpio({{.path = "etc/haneul/instance.env", .content = "A='1'\n"},
                                   {.path = "etc/haneul/user-data", .mode = 0600, .content = "#!/bin/sh\n"}});
  EXPECT_EQ(archive.size() % 4, 0U);
  EXPECT_THAT(archive, StartsWith("070701"));
  if (!have("cpio")) return;
  Folder folder;
  ASSERT_TRUE(replace_file(folder.path / "archive", archive).ok());
  std::string out = output_of("cd " + folder.path.string() +
                              " && cpio -idm --quiet < archive && find etc -type f | sort | xargs cat");
  EXPECT_EQ(out, "A='1'\n#!/bin/sh\n");
  struct stat info {};
  ASSERT_EQ(::stat((folder.path / "etc/haneul/user-data").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600U);
}

TEST(GuestFiles, SayWhoTheGuestIs) {
  InstanceRecord instance;
  instance.id = "i-0123456789abcdef0";
  instance.region = "us-east-1";
  instance.address = "172.31.3.7";
  instance.mac = "02:68:ac:1f:03:07";
  instance.authorized_key = "ssh-ed25519 AAAA me";
  Places places;
  EXPECT_EQ(instance_env(instance, *places.zone("us-east-1a"), "9.9.9.9"),
            "INSTANCE_ID='i-0123456789abcdef0'\nHOSTNAME='ip-172-31-3-7'\nDOMAIN='ec2.internal'\n"
            "ADDRESS='172.31.3.7/20'\nGATEWAY='172.31.0.1'\nDNS='9.9.9.9'\nMAC='02:68:ac:1f:03:07'\n");
  auto files = guest_files(instance, *places.zone("us-east-1a"), "");
  ASSERT_THAT(files, SizeIs(2));
  EXPECT_EQ(files[1].content, "ssh-ed25519 AAAA me\n");
  EXPECT_EQ(disk_serial("vol-0123456789abcdef0"), "vol0123456789abcdef0");
}

// ---- the executor ----

TEST(Executor, RunsJobsOfAKeyInOrderAndOneAtATime) {
  Executor executor(4);
  std::map<int, std::vector<int>> order;
  std::array<std::atomic<int>, 8> inside{};
  std::mutex mutex;
  for (int i = 0; i < 4000; ++i) {
    executor.post(std::to_string(i % 8), [&, i] {
      EXPECT_EQ(inside[static_cast<size_t>(i % 8)].fetch_add(1), 0);
      {
        std::scoped_lock lock(mutex);
        order[i % 8].push_back(i);
      }
      inside[static_cast<size_t>(i % 8)].fetch_sub(1);
    });
  }
  executor.wait_idle();
  for (const auto& [key, jobs] : order) {
    EXPECT_THAT(jobs, SizeIs(500));
    EXPECT_TRUE(std::is_sorted(jobs.begin(), jobs.end()));
  }
}

}  // namespace
}  // namespace haneul::agent
