// SPDX-License-Identifier: Apache-2.0
#include "storage/store/local_store.h"

#include <gmock/gmock.h>
#include <sys/stat.h>

#include <random>
#include <thread>

#include "storage/store/testing/store_fixture.h"

namespace haneul::storage {
namespace {

using testing::closed;
using ::testing::HasSubstr;
using testing::StoreTest;

TEST_F(StoreTest, AVolumeItsSnapshotAndAClone) {
  create("vol-1", 16_MiB);
  write("vol-1", 0, std::string(8192, 'a'));
  snapshot("vol-1", "snap-1");
  write("vol-1", 4096, std::string(4096, 'b'));
  create("vol-2", 0, "snap-1");
  EXPECT_TRUE(read("vol-1", 0, 8192) == std::string(4096, 'a') + std::string(4096, 'b'));
  EXPECT_TRUE(read("vol-2", 0, 8192) == std::string(8192, 'a'));
  EXPECT_EQ(store_->volume("vol-2").value().size_bytes, 16_MiB);
  EXPECT_EQ(store_->volume("vol-2").value().layers, 2u);
  SnapshotInfo info = store_->snapshot("snap-1").value();
  EXPECT_TRUE(info.completed);
  EXPECT_EQ(info.changed_bytes, 8192u);
  EXPECT_EQ(info.volume, "vol-1");
  expect_sound();
  open();
  EXPECT_TRUE(read("vol-1", 4096, 4096) == std::string(4096, 'b'));
}

TEST_F(StoreTest, ASecondSnapshotHoldsOnlyWhatChanged) {
  create("vol-1", 16_MiB);
  write("vol-1", 0, std::string(1_MiB, 'a'));
  snapshot("vol-1", "snap-1");
  write("vol-1", 8192, std::string(4096, 'b'));
  snapshot("vol-1", "snap-2");
  EXPECT_EQ(store_->snapshot("snap-1").value().changed_bytes, 1_MiB);
  EXPECT_EQ(store_->snapshot("snap-2").value().changed_bytes, 4096u);
}

TEST_F(StoreTest, DeletingASnapshotInTheMiddleGivesBackWhatOnlyItHeld) {
  create("vol-1", 16_MiB);
  write("vol-1", 0, std::string(1_MiB, 'a'));
  snapshot("vol-1", "snap-1");
  write("vol-1", 0, std::string(1_MiB, 'b'));
  snapshot("vol-1", "snap-2");
  write("vol-1", 0, std::string(512_KiB, 'c'));
  snapshot("vol-1", "snap-3");
  uint64_t before = store_->allocated_bytes();
  ASSERT_TRUE(store_->delete_snapshot("snap-2").ok());
  ASSERT_TRUE(store_->collect({}).ok());
  // Of its 1 MiB, half is what snap-3 sees.
  EXPECT_LE(store_->allocated_bytes() + 512_KiB, before + 64_KiB);
  EXPECT_TRUE(read("vol-1", 0, 1_MiB) == std::string(512_KiB, 'c') + std::string(512_KiB, 'b'));
  create("vol-old", 0, "snap-1");
  EXPECT_TRUE(read("vol-old", 0, 1_MiB) == std::string(1_MiB, 'a'));
  expect_sound();
}

TEST_F(StoreTest, DeletingEverythingLeavesNothing) {
  uint64_t empty = store_->allocated_bytes();
  create("vol-1", 64_MiB);
  for (int i = 0; i < 20; ++i) {
    write("vol-1", static_cast<uint64_t>(i) * 64_KiB, std::string(128_KiB, 'x'));
    snapshot("vol-1", fmt::format("snap-{}", i));
  }
  create("vol-2", 0, "snap-7");
  ASSERT_TRUE(store_->delete_volume("vol-1").ok());
  for (int i : {7, 3, 19, 0, 12, 1, 2, 4, 5, 6, 8, 9, 10, 11, 13, 14, 15, 16, 17, 18}) {
    ASSERT_TRUE(store_->delete_snapshot(fmt::format("snap-{}", i)).ok());
    ASSERT_TRUE(store_->collect({}).ok());
  }
  EXPECT_TRUE(read("vol-2", 0, 64_KiB) == std::string(64_KiB, 'x'));
  EXPECT_EQ(files(), 9u) << "vol-2, and the eight layers beneath it";
  ASSERT_TRUE(store_->delete_volume("vol-2").ok());
  EXPECT_EQ(files(), 0u);
  ASSERT_TRUE(store_->collect({}).ok());
  // Some pages of the catalog's stay.
  EXPECT_LE(store_->allocated_bytes(), empty + 64_KiB);
}

TEST_F(StoreTest, ASnapshotOfAnOpenVolumeIsPushedByItsUser) {
  create("vol-1", 16_MiB);
  auto volume = disk(*store_, "vol-1");
  write(*volume, 0, std::string(4096, 'a'));
  auto in_use = [](const std::string&) { return true; };
  auto prepared = store_->begin_snapshots({{"vol-1", "snap-1"}}, in_use);
  ASSERT_TRUE(prepared.ok()) << prepared.error().message();
  ASSERT_EQ(prepared->size(), 1u);
  EXPECT_EQ(store_->snapshot_pushed("snap-1").error().code(), ErrorCode::kBusy);
  // A daemon that died before it told the VMM asks again.
  auto again = store_->begin_snapshots({{"vol-1", "snap-1"}}, in_use);
  ASSERT_EQ(again->size(), 1u);
  EXPECT_EQ(again->front().layer, prepared->front().layer);
  Push push{volume.get(), {make_async_file(std::move(again->front().top.fd)), std::nullopt}};
  ASSERT_TRUE(push.layer.file->lock(AsyncFile::Lock::kExclusive).ok());
  ASSERT_TRUE(push_layers(std::span(&push, 1)).ok());
  ASSERT_TRUE(store_->snapshot_pushed("snap-1").ok());
  ASSERT_TRUE(store_->complete_snapshot("snap-1", {}).ok());
  write(*volume, 0, std::string(4096, 'b'));
  create("vol-2", 0, "snap-1");
  EXPECT_TRUE(read("vol-2", 0, 4096) == std::string(4096, 'a'));
  EXPECT_EQ(store_->delete_volume("vol-1").error().message(), "the volume vol-1 is open");
  EXPECT_EQ(store_->open_volume("vol-1").error().code(), ErrorCode::kBusy);
  volume.reset();
  EXPECT_TRUE(read("vol-1", 0, 4096) == std::string(4096, 'b'));
}

TEST_F(StoreTest, ImagesGoInAndComeOut) {
  std::string image(3_MiB, '\0');
  std::minstd_rand random(3);
  for (size_t at = 1_MiB; at < 2_MiB; ++at) image[at] = static_cast<char>(random());
  std::string in = folder_.file("in", image);
  UniqueFd file = open_file(in, O_RDONLY).value();
  std::vector<unsigned> percents;
  auto progress = [&](unsigned percent) {
    percents.push_back(percent);
    return true;
  };
  Status imported = store_->import_snapshot("snap-1", file.get(), ImageFormat::kRaw, 8_MiB, false, progress);
  ASSERT_TRUE(imported.ok()) << imported.error().message();
  EXPECT_FALSE(percents.empty());
  SnapshotInfo info = store_->snapshot("snap-1").value();
  EXPECT_EQ(info.size_bytes, 8_MiB);
  EXPECT_EQ(info.changed_bytes, 1_MiB) << "zeroes take no space";
  UniqueFd out = open_file(folder_ / "out", O_RDWR | O_CREAT).value();
  Status exported = store_->export_snapshot("snap-1", out.get(), ImageFormat::kRaw, {});
  ASSERT_TRUE(exported.ok()) << exported.error().message();
  image.resize(8_MiB);
  EXPECT_TRUE(read_file(folder_ / "out", 16_MiB).value() == image);
  EXPECT_EQ(
      store_->import_snapshot("snap-2", file.get(), ImageFormat::kQcow2, 0, false, {}).error().message(),
      "the file is not a qcow2 image: it does not begin with its mark; is it raw?");
  // Whatever it looks like, raw is raw.
  std::string disguised = "QFI\xfb" + std::string(4092, 'q');
  UniqueFd other = open_file(folder_.file("disguised", disguised), O_RDONLY).value();
  ASSERT_TRUE(store_->import_snapshot("snap-3", other.get(), ImageFormat::kRaw, 0, false, {}).ok());
  create("vol-3", 0, "snap-3");
  EXPECT_TRUE(read("vol-3", 0, 4096) == disguised);
}

TEST_F(StoreTest, AnImportThatIsEndedLeavesNothing) {
  UniqueFd file = open_file(folder_.file("in", std::string(4_MiB, 'i')), O_RDONLY).value();
  Status ended = store_->import_snapshot("snap-1", file.get(), ImageFormat::kRaw, 0, false,
                                         [](unsigned) { return false; });
  EXPECT_EQ(ended.error().code(), ErrorCode::kCancelled);
  EXPECT_EQ(files(), 0u);
  EXPECT_EQ(store_->snapshot("snap-1").error().code(), ErrorCode::kNotFound);
}

TEST_F(StoreTest, ACopyMovesOnlyWhatIsNotThere) {
  auto other = std::move(Store::open(folder_ / "other", {folder_ / "key", false})).value();
  create("vol-1", 16_MiB, "", true);
  write("vol-1", 0, std::string(1_MiB, 'a'));
  snapshot("vol-1", "snap-1");
  Status copied = other->copy_snapshot(*store_, "snap-1", "snap-x", {});
  ASSERT_TRUE(copied.ok()) << copied.error().message();
  write("vol-1", 0, std::string(4096, 'b'));
  snapshot("vol-1", "snap-2");
  uint64_t before = other->allocated_bytes();
  ASSERT_TRUE(other->copy_snapshot(*store_, "snap-2", "snap-y", {}).ok());
  EXPECT_LT(other->allocated_bytes(), before + 256_KiB);
  ASSERT_TRUE(other->create_volume({"vol-c", 0, "snap-y", false}).ok());
  EXPECT_TRUE(other->volume("vol-c").value().encrypted);
  EXPECT_TRUE(read(*disk(*other, "vol-c"), 0, 8192) == std::string(4096, 'b') + std::string(4096, 'a'));
}

TEST_F(StoreTest, EncryptedDataIsNotInTheFiles) {
  create("vol-1", 16_MiB, "", true);
  write("vol-1", 0, std::string(64_KiB, 's'));
  struct stat key {};
  ASSERT_EQ(::stat((folder_ / "key").c_str(), &key), 0);
  EXPECT_EQ(key.st_mode & 0777, 0600u);
  auto name = std::filesystem::directory_iterator(folder_ / "store/layers")->path();
  UniqueFd file = open_file(name, O_RDONLY).value();
  std::string raw(64_KiB, '\0');
  ASSERT_TRUE(read_exact_at(file.get(), uint64_t{1} << 35, std::as_writable_bytes(std::span(raw))).ok());
  EXPECT_EQ(raw.find("ssssssss"), std::string::npos);
  EXPECT_TRUE(read("vol-1", 0, 64_KiB) == std::string(64_KiB, 's'));
  snapshot("vol-1", "snap-1");
  create("vol-2", 0, "snap-1");
  EXPECT_TRUE(store_->volume("vol-2").value().encrypted);
}

TEST_F(StoreTest, AFlippedBitIsNamed) {
  create("vol-1", 16_MiB);
  write("vol-1", 40960, std::string(8192, 'a'));
  snapshot("vol-1", "snap-1");
  std::string layer;
  for (const auto& entry : std::filesystem::directory_iterator(folder_ / "store/layers")) {
    if (read_layer_info(open_file(entry.path(), O_RDONLY).value().get()).value().frozen) layer = entry.path();
  }
  struct Place {
    uint64_t at;
    const char* where;
  };
  for (Place place :
       {Place{20, "header and state"}, Place{4096 + 16, "header and state"}, Place{(1 << 30) + 70, "map"},
        Place{(uint64_t{1} << 35) + 45056 + 9, "data of block 11"},
        Place{(uint64_t{1} << 33) + 40, "data of block 10"}}) {
    UniqueFd file = open_file(layer, O_RDWR).value();
    std::byte byte{};
    ASSERT_TRUE(read_exact_at(file.get(), place.at, std::span(&byte, 1)).ok());
    byte ^= std::byte{4};
    ASSERT_TRUE(write_all_at(file.get(), place.at, std::span(&byte, 1)).ok());
    auto found = store_->check("snap-1", {}, {});
    ASSERT_TRUE(found.ok()) << found.error().message();
    ASSERT_EQ(found->faults.size(), 1u) << place.where;
    EXPECT_EQ(found->faults[0].subject, "snapshot snap-1");
    EXPECT_EQ(found->faults[0].fault.where, place.where);
    byte ^= std::byte{4};
    ASSERT_TRUE(write_all_at(file.get(), place.at, std::span(&byte, 1)).ok());
  }
  expect_sound();
}

TEST_F(StoreTest, SaysWhatIsWrong) {
  auto error = [](Status status) { return status.ok() ? "it worked" : status.error().message(); };
  create("vol-1", 16_MiB);
  snapshot("vol-1", "snap-1");
  EXPECT_EQ(error(store_->create_volume({"vol-2", 8_MiB, "snap-1", false})),
            "a volume of 8388608 bytes cannot hold the snapshot snap-1, which has 16777216");
  EXPECT_EQ(error(store_->create_volume({"vol-2", 0, "snap-9", false})), "the store has no snapshot snap-9");
  EXPECT_EQ(error(store_->create_volume({"vol-1", 8_MiB, "", false})), "the store has another volume vol-1");
  EXPECT_EQ(error(store_->create_volume({"../x", 8_MiB, "", false})),
            "'../x' is not a name: 1 to 64 of a-z, 0-9 and -");
  EXPECT_TRUE(store_->create_volume({"vol-1", 16_MiB, "", false}).ok()) << "the same again";
  EXPECT_TRUE(store_->delete_volume("vol-9").ok());
  EXPECT_EQ(Store::open(folder_ / "store", {}).error().code(), ErrorCode::kBusy);
  EXPECT_THAT(Store::open(folder_ / "store", {}).error().message(), HasSubstr("is open in another process"));
}

TEST_F(StoreTest, ACatalogThatIsNoneIsRefused) {
  store_.reset();
  for (const char* name : {"store/catalog.db", "store/catalog.db-wal", "store/catalog.db-shm"})
    std::filesystem::remove(folder_ / name);
  folder_.file("store/catalog.db", std::string(8192, 'j'));
  EXPECT_EQ(Store::open(folder_ / "store", {}).error().code(), ErrorCode::kCorrupt);
}

TEST_F(StoreTest, FilesThatNobodyKnowsGoAtTheNextStart) {
  create("vol-1", 1_MiB);
  store_.reset();
  folder_.file("store/layers/0123456789abcdef0123456789abcdef", "left by a crash");
  folder_.file("store/layers/0123456789abcdef0123456789abcdee.new", "left by a crash");
  open();
  EXPECT_EQ(files(), 1u);
}

TEST_F(StoreTest, ResizesWhatIsClosed) {
  create("vol-1", 1_MiB);
  Status grown = store_->resize_volume("vol-1", 4_MiB);
  ASSERT_TRUE(grown.ok()) << grown.error().message();
  EXPECT_EQ(store_->volume("vol-1").value().size_bytes, 4_MiB);
  EXPECT_EQ(disk(*store_, "vol-1")->size_bytes(), 4_MiB);
}

TEST_F(StoreTest, OneDamagedLayerIsItsStacksErrorOnly) {
  create("vol-1", 16_MiB);
  write("vol-1", 0, std::string(4096, 'd'));
  snapshot("vol-1", "snap-1");
  create("vol-2", 1_MiB);
  store_.reset();
  std::string damaged;
  for (const auto& entry : std::filesystem::directory_iterator(folder_ / "store/layers")) {
    if (read_layer_info(open_file(entry.path(), O_RDONLY).value().get()).value().frozen)
      damaged = entry.path();
  }
  for (bool gone : {false, true}) {
    if (gone) {
      std::filesystem::remove(damaged);
    } else {
      std::byte byte{0x55};
      ASSERT_TRUE(write_all_at(open_file(damaged, O_RDWR).value().get(), 20, std::span(&byte, 1)).ok());
    }
    auto opened = Store::open(folder_ / "store", {folder_ / "key", false});
    ASSERT_TRUE(opened.ok()) << opened.error().message();
    store_ = std::move(opened).value();
    write("vol-2", 0, std::string(512, 'w'));
    EXPECT_EQ(read("vol-2", 0, 512), std::string(512, 'w'));
    EXPECT_EQ(store_->open_volume("vol-1").error().code(), gone ? ErrorCode::kNotFound : ErrorCode::kCorrupt);
    auto found = store_->check("", {}, {});
    ASSERT_TRUE(found.ok());
    ASSERT_EQ(found->faults.size(), 1u);
    EXPECT_EQ(found->faults[0].subject, "snapshot snap-1");
    EXPECT_EQ(found->faults[0].fault.where, gone ? "file" : "header and state");
    EXPECT_EQ(store_->snapshots().size(), 1u);
    store_.reset();
  }
  store_ = open_store("store");
  EXPECT_TRUE(store_->delete_volume("vol-1").ok());
  EXPECT_TRUE(store_->delete_snapshot("snap-1").ok());
  expect_sound();
  EXPECT_EQ(files(), 1u);
}

TEST_F(StoreTest, AllLayersThatAVolumesUserHasNotAreHandedToItInOrder) {
  create("vol-1", 16_MiB);
  auto volume = disk(*store_, "vol-1");
  auto in_use = [](const std::string&) { return true; };
  write(*volume, 0, std::string(4096, 'a'));
  ASSERT_EQ(store_->begin_snapshots({{"vol-1", "snap-1"}}, in_use).value().size(), 1u);
  auto both = store_->begin_snapshots({{"vol-1", "snap-2"}}, in_use);
  ASSERT_TRUE(both.ok()) << both.error().message();
  ASSERT_EQ(both->size(), 2u);
  EXPECT_EQ((*both)[0].snapshot, "snap-1");
  EXPECT_EQ((*both)[1].snapshot, "snap-2");
  for (PreparedSnapshot& each : *both) {
    Push push{volume.get(), {make_async_file(std::move(each.top.fd)), std::nullopt}};
    ASSERT_TRUE(push.layer.file->lock(AsyncFile::Lock::kExclusive).ok());
    auto pushed = push_layers(std::span(&push, 1));
    ASSERT_TRUE(pushed.ok()) << pushed.error().message();
    ASSERT_TRUE(store_->snapshot_pushed(each.snapshot).ok());
  }
  EXPECT_EQ(store_->begin_snapshots({{"vol-1", "snap-2"}}, in_use).value().size(), 0u) << "it has them all";
  volume.reset();
  EXPECT_TRUE(read("vol-1", 0, 4096) == std::string(4096, 'a'));
  expect_sound();
}

TEST_F(StoreTest, ASnapshotThatNobodyTookIsTakenBack) {
  create("vol-1", 16_MiB);
  auto volume = disk(*store_, "vol-1");
  auto in_use = [](const std::string&) { return true; };
  {
    auto prepared = store_->begin_snapshots({{"vol-1", "snap-1"}}, in_use).value();
    auto taken = make_async_file(std::move(prepared[0].top.fd));
    ASSERT_TRUE(taken->lock(AsyncFile::Lock::kExclusive).ok());
    EXPECT_EQ(store_->abandon_snapshots({{"vol-1", "snap-1"}}).error().code(), ErrorCode::kBusy);
  }
  Status taken_back = store_->abandon_snapshots({{"vol-1", "snap-1"}});
  ASSERT_TRUE(taken_back.ok()) << taken_back.error().message();
  EXPECT_EQ(store_->snapshot("snap-1").error().code(), ErrorCode::kNotFound);
  EXPECT_EQ(files(), 1u);
  ASSERT_TRUE(volume->resize(32_MiB).ok());
  ASSERT_TRUE(store_->note_size("vol-1", 32_MiB).ok());
  volume.reset();
  EXPECT_EQ(disk(*store_, "vol-1")->size_bytes(), 32_MiB);
}

TEST_F(StoreTest, ASnapshotThatIsTakenBackWhileItsVolumeIsBeingOpenedLeavesItsTopWritable) {
  store_.reset();
  bool armed = false;
  store_ = open_store("store", "key", [&](const char* next) {
    if (std::string_view(next) != "a layer is to be frozen" || !std::exchange(armed, false)) return;
    EXPECT_TRUE(store_->abandon_snapshots({{"vol-1", "snap-1"}}).ok());
  });
  create("vol-1", 16_MiB);
  write("vol-1", 0, std::string(512, 'a'));
  ASSERT_TRUE(store_->begin_snapshots({{"vol-1", "snap-1"}}, [](const std::string&) { return true; }).ok());
  armed = true;
  write("vol-1", 0, std::string(512, 'b'));
  EXPECT_FALSE(armed);
  EXPECT_EQ(read("vol-1", 0, 512), std::string(512, 'b'));
  EXPECT_EQ(files(), 1u);
}

TEST_F(StoreTest, ASnapshotOfAVolumeThatIsOpenElsewhereChangesNothing) {
  create("vol-1", 16_MiB);
  auto volume = disk(*store_, "vol-1");
  EXPECT_EQ(store_->begin_snapshots({{"vol-1", "snap-1"}}, closed).error().message(),
            "the volume vol-1 is open");
  EXPECT_EQ(store_->snapshot("snap-1").error().code(), ErrorCode::kNotFound);
  EXPECT_EQ(files(), 1u);
}

TEST_F(StoreTest, OthersWorkWhileSpaceIsGivenBack) {
  create("vol-1", 16_MiB);
  write("vol-1", 0, std::string(1_MiB, 'a'));
  snapshot("vol-1", "snap-1");
  write("vol-1", 0, std::string(1_MiB, 'b'));
  store_.reset();
  bool looked = false;
  store_ = open_store("store", "key", [&](const char* done) {
    if (std::string_view(done) != "a layer was punched") return;
    looked = true;
    EXPECT_EQ(store_->volumes().size(), 1u);
    EXPECT_TRUE(store_->create_volume({"vol-2", 1_MiB, "", false}).ok());
  });
  ASSERT_TRUE(store_->delete_snapshot("snap-1").ok());
  ASSERT_TRUE(store_->collect({}).ok());
  EXPECT_TRUE(looked);
}

TEST_F(StoreTest, LongWorkNoticesThatItIsToEnd) {
  create("vol-1", 128_MiB);
  write("vol-1", 0, std::string(64_MiB, 'a'));
  snapshot("vol-1", "snap-1");
  auto soon = [](unsigned percent) { return percent < 20; };
  EXPECT_EQ(store_->check("snap-1", {}, soon).error().code(), ErrorCode::kCancelled)
      << "within its one layer";
  UniqueFd out = open_file(folder_ / "out", O_RDWR | O_CREAT).value();
  EXPECT_EQ(store_->export_snapshot("snap-1", out.get(), ImageFormat::kRaw, soon).error().code(),
            ErrorCode::kCancelled);
  // The same percentage is told again and again: a percent of a large volume takes minutes.
  int told = 0;
  auto slow = paced([&](unsigned) { return ++told < 3; });
  auto begin = std::chrono::steady_clock::now();
  while (slow(1, 1000)) std::this_thread::sleep_for(std::chrono::milliseconds(5));
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(2));
}

}  // namespace
}  // namespace haneul::storage
