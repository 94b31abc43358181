// SPDX-License-Identifier: Apache-2.0
// Copies between stores: what moves, what a layer that was punched is good for, copies at once, cut off, of
// damaged sources, and with other keys.
#include <gmock/gmock.h>

#include <atomic>
#include <thread>

#include "storage/store/testing/store_fixture.h"

namespace haneul::storage {
namespace {

using ::testing::EndsWith;
using ::testing::HasSubstr;

constexpr uint64_t kDataOffset = uint64_t{1} << 35;

class CopyTest : public testing::StoreTest {
 protected:
  CopyTest() : eu_(open_store("eu")) {}

  static std::string message(Status status) { return status.ok() ? "ok" : status.error().message(); }
  void copy(Store& from, Store& to, const std::string& source, const std::string& id) {
    EXPECT_EQ(message(to.copy_snapshot(from, source, id, {})), "ok");
  }
  static void collect(Store& store) { EXPECT_EQ(message(store.collect({})), "ok"); }
  /// The first bytes that a snapshot holds.
  std::string content(Store& store, const std::string& snapshot, size_t length) {
    UniqueFd out = open_file(folder_ / "content", O_RDWR | O_CREAT | O_TRUNC).value();
    Status exported = store.export_snapshot(snapshot, out.get(), ImageFormat::kRaw, {});
    EXPECT_EQ(message(exported), "ok");
    std::string text(length, '?');
    EXPECT_TRUE(read_exact_at(out.get(), 0, std::as_writable_bytes(std::span(text))).ok());
    return text;
  }
  void expect_sound_in(Store& store) {
    auto checked = store.check("", {}, {});
    ASSERT_TRUE(checked.ok()) << checked.error().message();
    for (const auto& entry : checked->faults)
      ADD_FAILURE() << entry.subject << ": " << entry.fault.where << ": " << entry.fault.what;
  }
  /// snap-1 holds 1 MiB of a; snap-2, on it, b in its first half.
  void two_snapshots() {
    create("vol-1", 16_MiB);
    write("vol-1", 0, a_);
    snapshot("vol-1", "snap-1");
    write("vol-1", 0, std::string(512_KiB, 'b'));
    snapshot("vol-1", "snap-2");
  }
  /// Calls it once, while a store that has so many layers looks for what can be punched in one of two map pages.
  static void collect_and(Store& store, unsigned layers, const std::function<void()>& meanwhile) {
    bool called = false;
    auto progress = [&](unsigned percent) {
      bool between = true;
      for (unsigned i = 0; i <= layers; ++i) between = between && percent != i * 100 / layers;
      if (between && !std::exchange(called, true)) meanwhile();
      return true;
    };
    EXPECT_EQ(message(store.collect(progress)), "ok");
    EXPECT_TRUE(called);
  }
  std::vector<std::filesystem::path> layers(const std::string& store) {
    std::vector<std::filesystem::path> files;
    for (const auto& entry : std::filesystem::directory_iterator(folder_ / (store + "/layers")))
      files.push_back(entry.path());
    return files;
  }
  static void flip(const std::filesystem::path& file, uint64_t at) {
    UniqueFd fd = open_file(file, O_RDWR).value();
    std::byte byte{};
    ASSERT_TRUE(read_exact_at(fd.get(), at, std::span(&byte, 1)).ok());
    byte ^= std::byte{4};
    ASSERT_TRUE(write_all_at(fd.get(), at, std::span(&byte, 1)).ok());
  }

  const std::string a_ = std::string(1_MiB, 'a');
  const std::string b_ = std::string(512_KiB, 'b') + std::string(512_KiB, 'a');
  std::unique_ptr<Store> eu_;
};

TEST_F(CopyTest, OfTheOlderAfterTheNewersBaseWasPunched) {
  two_snapshots();
  copy(*store_, *eu_, "snap-2", "new");
  collect(*eu_);  // what snap-2 hides of snap-1's layer goes
  copy(*store_, *eu_, "snap-1", "old");
  EXPECT_TRUE(content(*eu_, "old", 1_MiB) == a_);
  EXPECT_TRUE(content(*eu_, "new", 1_MiB) == b_);
  expect_sound_in(*eu_);
  // With somebody on it, it is whole: neither moves again.
  uint64_t before = eu_->allocated_bytes();
  copy(*store_, *eu_, "snap-1", "again");
  EXPECT_LE(eu_->allocated_bytes(), before + 64_KiB);
}

TEST_F(CopyTest, OfSiblingsAtDifferentTimes) {
  create("base", 16_MiB);
  write("base", 0, a_);
  snapshot("base", "ami");
  create("vol-1", 0, "ami");
  create("vol-2", 0, "ami");
  write("vol-1", 0, std::string(512_KiB, 'b'));
  write("vol-2", 512_KiB, std::string(512_KiB, 'c'));
  snapshot("vol-1", "one");
  snapshot("vol-2", "two");
  copy(*store_, *eu_, "one", "one");
  collect(*eu_);
  copy(*store_, *eu_, "two", "two");
  EXPECT_TRUE(content(*eu_, "one", 1_MiB) == b_);
  EXPECT_TRUE(content(*eu_, "two", 1_MiB) == std::string(512_KiB, 'a') + std::string(512_KiB, 'c'));
  collect(*eu_);
  EXPECT_TRUE(content(*eu_, "two", 1_MiB) == std::string(512_KiB, 'a') + std::string(512_KiB, 'c'));
}

TEST_F(CopyTest, OfASiblingWhileTheirBaseIsBeingPunched) {
  create("base", 128_MiB);
  write("base", 0, a_);
  write("base", 100_MiB, a_);
  snapshot("base", "ami");
  create("vol-1", 0, "ami");
  create("vol-2", 0, "ami");
  write("vol-1", 0, b_);
  write("vol-2", 100_MiB, b_);
  snapshot("vol-1", "one");
  snapshot("vol-2", "two");
  copy(*store_, *eu_, "one", "one");
  collect_and(*eu_, 2, [&] { copy(*store_, *eu_, "two", "two"); });
  EXPECT_TRUE(content(*eu_, "two", 1_MiB) == a_) << "the base's, which the other copy hides";
  collect(*eu_);
  EXPECT_TRUE(content(*eu_, "two", 1_MiB) == a_);
  EXPECT_TRUE(content(*eu_, "one", 1_MiB) == b_);
}

TEST_F(CopyTest, AgainAfterItWasDeletedThere) {
  two_snapshots();
  copy(*store_, *eu_, "snap-1", "old");
  copy(*store_, *eu_, "snap-2", "new");
  ASSERT_TRUE(eu_->delete_snapshot("old").ok());
  collect(*eu_);
  copy(*store_, *eu_, "snap-1", "old");
  EXPECT_TRUE(content(*eu_, "old", 1_MiB) == a_);
}

TEST_F(CopyTest, ThatAPunchedLayerIsOneIsKnownThreeStoresOn) {
  two_snapshots();
  copy(*store_, *eu_, "snap-2", "new");
  collect(*eu_);
  auto third = open_store("third");
  copy(*eu_, *third, "new", "new");
  copy(*store_, *third, "snap-1", "old");
  EXPECT_TRUE(content(*third, "old", 1_MiB) == a_);
  EXPECT_TRUE(content(*third, "new", 1_MiB) == b_);
}

TEST_F(CopyTest, MovesOneLayerOfARotation) {
  two_snapshots();
  copy(*store_, *eu_, "snap-1", "snap-1");
  for (int i = 2; i < 6; ++i) {
    copy(*store_, *eu_, fmt::format("snap-{}", i), fmt::format("snap-{}", i));
    ASSERT_TRUE(store_->delete_snapshot(fmt::format("snap-{}", i - 1)).ok());
    ASSERT_TRUE(eu_->delete_snapshot(fmt::format("snap-{}", i - 1)).ok());
    collect(*store_);
    collect(*eu_);
    write("vol-1", 0, std::string(4096, static_cast<char>('b' + i)));
    snapshot("vol-1", fmt::format("snap-{}", i + 1));
    uint64_t before = eu_->allocated_bytes();
    copy(*store_, *eu_, fmt::format("snap-{}", i + 1), "probe");
    EXPECT_LE(eu_->allocated_bytes(), before + 128_KiB) << i;
    ASSERT_TRUE(eu_->delete_snapshot("probe").ok());
  }
}

TEST_F(CopyTest, SeveralAtOnceShareTheirLayers) {
  create("vol-1", 64_MiB);
  write("vol-1", 0, std::string(24_MiB, 'x'));
  snapshot("vol-1", "snap-0");
  for (int i = 1; i < 4; ++i) {
    write("vol-1", 0, std::string(4096, static_cast<char>('0' + i)));
    snapshot("vol-1", fmt::format("snap-{}", i));
  }
  std::vector<std::thread> threads;
  std::array<std::string, 4> said;
  for (size_t i = 0; i < 4; ++i) {
    threads.emplace_back([&, i] {
      std::string id = fmt::format("snap-{}", i);
      said[i] = message(eu_->copy_snapshot(*store_, id, id, {}));
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const std::string& each : said) EXPECT_EQ(each, "ok");
  EXPECT_EQ(layers("eu").size(), 4U);
  for (int i = 1; i < 4; ++i)
    EXPECT_EQ(content(*eu_, fmt::format("snap-{}", i), 1), std::string(1, static_cast<char>('0' + i)));
  expect_sound_in(*eu_);
}

TEST_F(CopyTest, GoesOnWithinALayer) {
  create("vol-1", 128_MiB);
  std::string data(80_MiB, '\0');
  for (size_t at = 0; at < data.size(); at += 4096) data[at] = static_cast<char>(1 + at / 4096 % 200);
  write("vol-1", 0, data);
  snapshot("vol-1", "snap-1");
  auto until = [](unsigned end) { return [end](unsigned percent) { return percent < end; }; };
  EXPECT_EQ(eu_->copy_snapshot(*store_, "snap-1", "copy", until(90)).error().code(), ErrorCode::kCancelled);
  eu_.reset();
  eu_ = open_store("eu");
  ASSERT_EQ(layers("eu").size(), 1U);
  EXPECT_THAT(layers("eu")[0].string(), EndsWith(".new"));
  // What is there is compared before it counts.
  flip(layers("eu")[0], kDataOffset + 30_MiB);
  unsigned first_new = 0;
  uint64_t before = eu_->allocated_bytes();
  EXPECT_GT(before, 64_MiB);
  Status copied = eu_->copy_snapshot(*store_, "snap-1", "copy", [&](unsigned percent) {
    if (first_new == 0 && percent > 2) first_new = percent;
    return true;
  });
  EXPECT_EQ(message(std::move(copied)), "ok");
  EXPECT_GT(first_new, 30U) << "it began anew";
  EXPECT_TRUE(content(*eu_, "copy", data.size()) == data);
  expect_sound_in(*eu_);
}

TEST_F(CopyTest, ThatIsGivenUpLeavesNothing) {
  two_snapshots();
  EXPECT_EQ(eu_->copy_snapshot(*store_, "snap-2", "copy", [](unsigned percent) { return percent < 60; })
                .error()
                .code(),
            ErrorCode::kCancelled);
  EXPECT_GT(layers("eu").size(), 0U);
  collect(*eu_);
  EXPECT_GT(layers("eu").size(), 0U) << "it may go on";
  ASSERT_TRUE(eu_->delete_snapshot("copy").ok());
  EXPECT_EQ(layers("eu").size(), 0U);
}

TEST_F(CopyTest, ThatIsGivenUpBeforeItsFirstFileLeavesNothing) {
  create("vol-1", 128_MiB);
  write("vol-1", 0, a_);
  write("vol-1", 100_MiB, a_);
  snapshot("vol-1", "snap-1");
  write("vol-1", 0, b_);
  snapshot("vol-1", "snap-2");
  ASSERT_TRUE(store_->delete_snapshot("snap-1").ok());
  std::atomic<bool> recorded{false};
  auto other = open_store("other", "key", [&](const char* done) {
    if (std::string_view(done) == "a copy's step was recorded") recorded = true;
  });
  std::thread copying;
  std::string said;
  // The lowest layer is not read while it is being punched.
  collect_and(*store_, 3, [&] {
    copying = std::thread([&] { said = message(other->copy_snapshot(*store_, "snap-2", "copy", {})); });
    while (!recorded) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    EXPECT_EQ(message(other->delete_snapshot("copy")), "ok");
  });
  copying.join();
  EXPECT_EQ(said, "the copy was given up");
  EXPECT_EQ(layers("other").size(), 0U);
}

TEST_F(CopyTest, OfADamagedSourceFailsAndNamesIt) {
  create("vol-1", 16_MiB);
  write("vol-1", 0, a_);
  snapshot("vol-1", "snap-1");
  for (const auto& file : layers("store")) {
    if (read_layer_info(open_file(file, O_RDONLY).value().get()).value().frozen)
      flip(file, kDataOffset + 9 * 4096);
  }
  Status copied = eu_->copy_snapshot(*store_, "snap-1", "copy", {});
  EXPECT_EQ(copied.error().code(), ErrorCode::kCorrupt);
  EXPECT_THAT(copied.error().message(), HasSubstr("data of block 9: the data and its sum do not agree"));
  EXPECT_EQ(eu_->snapshot("copy").error().code(), ErrorCode::kNotFound);
  UniqueFd out = open_file(folder_ / "out", O_RDWR | O_CREAT).value();
  Status exported = store_->export_snapshot("snap-1", out.get(), ImageFormat::kRaw, {});
  EXPECT_EQ(exported.error().code(), ErrorCode::kCorrupt);
  EXPECT_THAT(exported.error().message(), HasSubstr("data of block 9: the data and its sum do not agree"));
}

TEST_F(CopyTest, EncryptsAnewForAStoreWithAnotherKey) {
  create("vol-1", 16_MiB, "", true);
  write("vol-1", 0, a_);
  snapshot("vol-1", "snap-1");
  write("vol-1", 0, std::string(512_KiB, 'b'));
  snapshot("vol-1", "snap-2");
  auto other = open_store("other", "other-key");
  copy(*store_, *other, "snap-2", "copy");
  EXPECT_TRUE(other->snapshot("copy").value().encrypted);
  EXPECT_TRUE(content(*other, "copy", 1_MiB) == b_);
  expect_sound_in(*other);
  EXPECT_NE(read_file(folder_ / "key").value(), read_file(folder_ / "other-key").value());
  copy(*store_, *other, "snap-1", "base");
  EXPECT_TRUE(content(*other, "base", 1_MiB) == a_);
  EXPECT_EQ(layers("other").size(), 2U) << "known by its origin, whatever its key";
}

TEST_F(CopyTest, AnExportIsRightThoughItsSnapshotIsDeletedMeanwhile) {
  two_snapshots();
  UniqueFd out = open_file(folder_ / "out", O_RDWR | O_CREAT).value();
  bool deleted = false;
  Status exported = store_->export_snapshot("snap-1", out.get(), ImageFormat::kRaw, [&](unsigned) {
    if (!deleted) {
      EXPECT_TRUE(store_->delete_snapshot("snap-1").ok());
      collect(*store_);
    }
    deleted = true;
    return true;
  });
  EXPECT_EQ(message(std::move(exported)), "ok");
  EXPECT_TRUE(read_file(folder_ / "out").value().substr(0, 1_MiB) == a_);
  uint64_t before = store_->allocated_bytes();
  collect(*store_);
  EXPECT_LT(store_->allocated_bytes() + 256_KiB, before) << "afterwards its space is given back";
}

}  // namespace
}  // namespace haneul::storage
