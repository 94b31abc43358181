// SPDX-License-Identifier: Apache-2.0
// Two stores on real files against a model: random writes, snapshots, clones, copies, imports, deletions, collections,
// resizes and checks, with the stores' ends in between, some of them in the middle of a change. HANEUL_SEED repeats a
// run, HANEUL_STORE_OPERATIONS makes it longer.
#include <sys/wait.h>
#include <unistd.h>

#include <map>
#include <random>

#include "storage/store/testing/store_fixture.h"

namespace haneul::storage {
namespace {

/// A disk as one letter for each of its first blocks; the rest is zeroes.
using Content = std::string;
constexpr size_t kBlocks = 48;
constexpr uint64_t kBlock = 4096;
constexpr uint64_t kStep = 64_KiB;

struct Modelled {
  std::map<std::string, Content> volumes;
  std::map<std::string, Content> snapshots;
  std::map<std::string, uint64_t> sizes;  // of volumes and snapshots
};

uint64_t operations() {
  const char* given = std::getenv("HANEUL_STORE_OPERATIONS");  // NOLINT(concurrency-mt-unsafe)
  return given != nullptr ? std::strtoull(given, nullptr, 0) : 400;
}

class StoreModelTest : public testing::StoreTest {
 protected:
  StoreModelTest() : random_(testing::seed()) {
    // Different keys: encrypted copies are encrypted anew.
    for (int i : {0, 1}) reopen(i);
  }
  static std::string name(int i) { return fmt::format("model-{}", i); }
  void reopen(int i) {
    stores_[i].reset();
    stores_[i] = open_store(name(i), fmt::format("key-{}", i));
  }
  uint64_t below(uint64_t limit) { return random_() % limit; }
  std::string fresh(const char* kind) { return fmt::format("{}-{}", kind, ++made_); }
  template <typename Map>
  std::string any(const Map& map) {
    if (map.empty()) return "";
    return std::next(map.begin(), static_cast<ptrdiff_t>(below(map.size())))->first;
  }
  static void expect_ok(const Status& status) { ASSERT_TRUE(status.ok()) << status.error().message(); }

  void write_some(Store& store, Modelled& model, const std::string& id) {
    auto volume = disk(store, id);
    for (uint64_t writes = 1 + below(4); writes > 0; --writes) {
      const size_t first = below(kBlocks);
      const size_t count = 1 + below(std::min<size_t>(8, kBlocks - first));
      const char letter = below(5) == 0 ? '\0' : static_cast<char>('a' + below(26));
      write(*volume, first * kBlock, std::string(count * kBlock, letter));
      std::fill_n(model.volumes[id].begin() + static_cast<ptrdiff_t>(first), count, letter);
    }
  }
  static Content content_of(const std::string& bytes) {
    Content content;
    for (size_t at = 0; at < kBlocks * kBlock; at += kBlock) {
      content.push_back(bytes[at]);
      if (bytes.substr(at, kBlock) != std::string(kBlock, bytes[at])) return "(blocks of several letters)";
    }
    return content;
  }
  Content exported(Store& store, const std::string& id) {
    UniqueFd out = open_file(folder_ / "out", O_RDWR | O_CREAT | O_TRUNC).value();
    Status done = store.export_snapshot(id, out.get(), ImageFormat::kRaw, {});
    EXPECT_TRUE(done.ok()) << id << ": " << done.error().message();
    std::string bytes(kBlocks * kBlock, '?');
    EXPECT_TRUE(read_exact_at(out.get(), 0, std::as_writable_bytes(std::span(bytes))).ok());
    return content_of(bytes);
  }
  void take_snapshot(Store& store, Modelled& model, const std::string& volume) {
    std::string id = fresh("snap");
    ASSERT_TRUE(store.begin_snapshots({{volume, id}}, testing::closed).ok());
    model.snapshots[id] = model.volumes[volume];
    model.sizes[id] = model.sizes[volume];
    if (below(4) != 0) expect_ok(store.complete_snapshot(id, {}));
  }
  void check_all(int i) {
    Store& store = *stores_[i];
    auto checked = store.check("", {}, {});
    ASSERT_TRUE(checked.ok());
    for (const auto& entry : checked->faults)
      ADD_FAILURE() << entry.subject << ": " << entry.fault.where << ": " << entry.fault.what;
    for (const auto& [id, content] : models_[i].volumes)
      EXPECT_EQ(content_of(read(*disk(store, id), 0, kBlocks * kBlock)), content) << id;
    for (const auto& [id, content] : models_[i].snapshots) {
      expect_ok(store.complete_snapshot(id, {}));
      EXPECT_EQ(exported(store, id), content) << id;
    }
  }
  void copy_one(int from) {
    std::string source = any(models_[from].snapshots);
    if (source.empty()) return;
    Store& to = *stores_[1 - from];
    expect_ok(stores_[from]->complete_snapshot(source, {}));
    std::string id = fresh("copy");
    // Cut off at some point, twice, perhaps with the store's end in between; then to its end.
    for (int tries = 0; tries < 2; ++tries) {
      int calls = static_cast<int>(below(12));
      Status cut = to.copy_snapshot(*stores_[from], source, id, [&](unsigned) { return calls-- > 0; });
      const bool ended = cut.ok() || cut.error().code() == ErrorCode::kCancelled;
      ASSERT_TRUE(ended) << cut.error().message();
      if (below(4) == 0) expect_ok(to.collect({}));
    }
    if (below(5) == 0) return expect_ok(to.delete_snapshot(id));
    expect_ok(to.copy_snapshot(*stores_[from], source, id, {}));
    models_[1 - from].snapshots[id] = models_[from].snapshots[source];
    models_[1 - from].sizes[id] = models_[from].sizes[source];
  }
  void step();

  std::mt19937_64 random_;
  std::array<std::unique_ptr<Store>, 2> stores_;
  std::array<Modelled, 2> models_;
  int made_ = 0;
};

void StoreModelTest::step() {
  const int i = static_cast<int>(below(2));
  Store& store = *stores_[i];
  Modelled& model = models_[i];
  const std::string volume = any(model.volumes);
  const std::string snapshot = any(model.snapshots);
  const uint64_t choice = below(100);
  if (choice < 12 && model.volumes.size() < 6) {
    std::string id = fresh("vol");
    if (!snapshot.empty() && below(3) != 0) {
      uint64_t size = below(2) == 0 ? 0 : model.sizes[snapshot] + kStep;
      expect_ok(store.create_volume({id, size, snapshot, below(3) == 0}));
      model.volumes[id] = model.snapshots[snapshot];
      model.sizes[id] = size == 0 ? model.sizes[snapshot] : size;
    } else {
      expect_ok(store.create_volume({id, kBlocks * kBlock, "", below(2) == 0}));
      model.volumes[id] = Content(kBlocks, '\0');
      model.sizes[id] = kBlocks * kBlock;
    }
  } else if (choice < 40 && !volume.empty()) {
    write_some(store, model, volume);
  } else if (choice < 55 && !volume.empty() && model.snapshots.size() < 12) {
    take_snapshot(store, model, volume);
  } else if (choice < 65) {
    copy_one(i);
  } else if (choice < 75 && !snapshot.empty()) {
    expect_ok(store.delete_snapshot(snapshot));
    model.snapshots.erase(snapshot);
  } else if (choice < 79 && !volume.empty()) {
    expect_ok(store.delete_volume(volume));
    model.volumes.erase(volume);
  } else if (choice < 88) {
    expect_ok(store.collect({}));
  } else if (choice < 91 && !volume.empty()) {
    model.sizes[volume] += kStep;
    expect_ok(store.resize_volume(volume, model.sizes[volume]));
    EXPECT_EQ(store.volume(volume).value().size_bytes, model.sizes[volume]);
  } else if (choice < 95) {
    reopen(i);
  } else {
    check_all(i);
  }
}

TEST_F(StoreModelTest, TwoStoresAreWhatTheModelSays) {
  std::array<uint64_t, 2> empty{};
  for (int i : {0, 1}) empty[static_cast<size_t>(i)] = stores_[i]->allocated_bytes();
  for (uint64_t operation = 0; operation < operations() && !HasFailure(); ++operation) {
    SCOPED_TRACE(fmt::format("operation {}", operation));
    step();
  }
  for (int i : {0, 1}) {
    check_all(i);
    for (const auto& [id, content] : models_[i].volumes) expect_ok(stores_[i]->delete_volume(id));
    for (const auto& [id, content] : models_[i].snapshots) expect_ok(stores_[i]->delete_snapshot(id));
    expect_ok(stores_[i]->collect({}));
    EXPECT_EQ(haneul::testing::entries_of((folder_ / (name(i) + "/layers")).c_str()), 0u);
    EXPECT_LE(stores_[i]->allocated_bytes(), empty[static_cast<size_t>(i)] + 128_KiB);
  }
}

// ---- Ends in the middle ----

/// What a store's process does before it ends: it tells nobody how far it came.
class StoreCrashTest : public testing::StoreTest {
 protected:
  /// Volume and snapshots before; `act` by a process that ends at its step `end`. False: it had fewer.
  bool run(int end, const std::function<void(Store& store, Store& eu)>& act) {
    pid_t child = ::fork();
    if (child == 0) {
      int left = end;
      auto step = [&](const char*) {
        if (left-- == 0) ::_exit(7);
      };
      auto store = open_store("store", "key", step);
      auto eu = open_store("eu", "key", step);
      act(*store, *eu);
      ::_exit(HasFailure() ? 1 : 0);
    }
    int status = 0;
    ::waitpid(child, &status, 0);
    EXPECT_TRUE(WIFEXITED(status) && (WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == 7)) << status;
    return WEXITSTATUS(status) == 7;
  }
  static std::string letters(Store& store, const std::string& volume) {
    std::string bytes = read(*disk(store, volume), 0, 2 * 4096);
    return {bytes[0], bytes[4096]};
  }
};

TEST_F(StoreCrashTest, AfterEachStepTheNextStoreGoesOn) {
  for (int end = 0;; ++end) {
    ASSERT_LT(end, 200);
    SCOPED_TRACE(end);
    for (const char* each : {"store", "eu"}) {
      store_.reset();
      std::filesystem::remove_all(folder_ / each);
    }
    open();
    create("vol", 16_MiB);
    write("vol", 0, std::string(4096, 'a') + std::string(4096, 'a'));
    store_.reset();
    auto act = [](Store& store, Store& eu) {
      // Repeated, all of it ends the same.
      EXPECT_TRUE(store.begin_snapshots({{"vol", "one"}}, testing::closed).ok());
      EXPECT_TRUE(store.complete_snapshot("one", {}).ok());
      if (letters(store, "vol") == "aa") write(*disk(store, "vol"), 4096, std::string(4096, 'b'));
      EXPECT_TRUE(store.begin_snapshots({{"vol", "two"}}, testing::closed).ok());
      EXPECT_TRUE(store.complete_snapshot("two", {}).ok());
      EXPECT_TRUE(store.create_volume({"clone", 0, "two", false}).ok());
      EXPECT_TRUE(eu.copy_snapshot(store, "two", "two", {}).ok());
      EXPECT_TRUE(eu.collect({}).ok());
      EXPECT_TRUE(eu.create_volume({"clone", 0, "two", false}).ok());
      EXPECT_TRUE(store.delete_snapshot("two").ok());
      EXPECT_TRUE(store.delete_volume("vol").ok());
      EXPECT_TRUE(store.collect({}).ok());
    };
    const bool ended = run(end, act);
    {
      auto eu = open_store("eu");
      open();
      for (Store* store : {store_.get(), eu.get()}) {
        auto checked = store->check("", {}, {});
        ASSERT_TRUE(checked.ok());
        for (const auto& entry : checked->faults) ADD_FAILURE() << entry.subject << ": " << entry.fault.what;
      }
      // The next process repeats what was asked for and not answered.
      const bool deleting = store_->volume("clone").ok() && eu->volume("clone").ok();
      if (!deleting) {
        act(*store_, *eu);
      } else {
        EXPECT_TRUE(store_->delete_snapshot("two").ok() && store_->delete_volume("vol").ok());
        EXPECT_TRUE(store_->collect({}).ok());
      }
      for (Store* store : {store_.get(), eu.get()}) EXPECT_EQ(letters(*store, "clone"), "ab");
      EXPECT_TRUE(store_->create_volume({"old", 0, "one", false}).ok());
      EXPECT_EQ(letters(*store_, "old"), "aa");
      EXPECT_TRUE(store_->delete_volume("old").ok() && store_->delete_volume("clone").ok());
      EXPECT_TRUE(store_->delete_snapshot("one").ok() && store_->collect({}).ok());
      EXPECT_TRUE(eu->delete_volume("clone").ok() && eu->delete_snapshot("two").ok() && eu->collect({}).ok());
      EXPECT_EQ(haneul::testing::entries_of((folder_ / "store/layers").c_str()), 0u);
      EXPECT_EQ(haneul::testing::entries_of((folder_ / "eu/layers").c_str()), 0u);
    }
    if (!ended) break;
  }
}

// ---- Sizes ----

/// In memory: ext4 has no file that is long enough for 16 TiB, and here nothing waits for a disk.
class StoreSizeTest : public testing::StoreTest {
 protected:
  StoreSizeTest() {
    std::string name = "/dev/shm/haneul-XXXXXX";
    if (::mkdtemp(name.data()) == nullptr) return;
    shared_ = name;
    store_ = std::move(Store::open(shared_ / "store", {shared_ / "key", false})).value();
  }
  ~StoreSizeTest() override {
    store_.reset();
    std::error_code ignored;
    if (!shared_.empty()) std::filesystem::remove_all(shared_, ignored);
  }
  void SetUp() override {
    if (shared_.empty()) GTEST_SKIP() << "there is no /dev/shm";
  }
  std::filesystem::path shared_;
};

TEST_F(StoreSizeTest, AThousandSnapshotsOfAVolume) {
  create("vol", 64_MiB);
  for (int i = 0; i < 1000; ++i) {
    if (i % 50 == 0)
      write("vol", static_cast<uint64_t>(i) * 4096, std::string(4096, static_cast<char>('a' + i / 50)));
    ASSERT_TRUE(store_->begin_snapshots({{"vol", fmt::format("snap-{}", i)}}, testing::closed).ok());
  }
  EXPECT_EQ(store_->volume("vol").value().layers, 1001u);
  EXPECT_EQ(read("vol", 950 * 4096, 4096), std::string(4096, 't'));
  EXPECT_EQ(read("vol", 0, 4096), std::string(4096, 'a'));
  ASSERT_TRUE(store_->complete_snapshot("snap-500", {}).ok());
  create("clone", 0, "snap-500");
  EXPECT_EQ(read("clone", 450 * 4096, 4096), std::string(4096, 'j'));
  EXPECT_EQ(read("clone", 550 * 4096, 4096), std::string(4096, '\0'));
  for (int i = 0; i < 1000; ++i) ASSERT_TRUE(store_->delete_snapshot(fmt::format("snap-{}", i)).ok());
  ASSERT_TRUE(store_->delete_volume("clone").ok() && store_->delete_volume("vol").ok());
  EXPECT_EQ(haneul::testing::entries_of((shared_ / "store/layers").c_str()), 0u);
}

TEST_F(StoreSizeTest, AVolumeOfSixteenTebibytes) {
  constexpr uint64_t kSize = uint64_t{1} << 44;
  create("vol", kSize);
  for (uint64_t at : {uint64_t{0}, kSize - 4096}) write("vol", at, std::string(4096, 'a'));
  snapshot("vol", "snap");
  write("vol", kSize - 4096, std::string(4096, 'b'));
  create("clone", 0, "snap");
  for (uint64_t at : {uint64_t{0}, kSize - 4096})
    EXPECT_EQ(read("clone", at, 4096), std::string(4096, 'a')) << at;
  EXPECT_EQ(read("vol", kSize - 4096, 4096), std::string(4096, 'b'));
  expect_sound();
  EXPECT_EQ(store_->resize_volume("vol", kSize + 512).error().code(), ErrorCode::kInvalidArgument);
}

}  // namespace
}  // namespace haneul::storage
