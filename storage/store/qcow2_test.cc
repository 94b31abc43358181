// SPDX-License-Identifier: Apache-2.0
// qcow2 in and out, with QEMU's own tools as the judge; and images that lie.
#include "storage/store/qcow2.h"

#include <gmock/gmock.h>

#include <random>

#include "base/endian.h"
#include "storage/store/testing/store_fixture.h"

namespace haneul::storage {
namespace {

using ::testing::HasSubstr;

constexpr uint64_t kSize = 9_MiB + 512;  // no whole number of clusters

class Qcow2Test : public testing::StoreTest {
 protected:
  Qcow2Test() : random_(testing::seed()) {
    std::string disk(kSize, '\0');
    auto fill = [&](uint64_t at, uint64_t bytes, bool text) {
      for (uint64_t i = at; i < at + bytes; ++i)
        disk[i] = static_cast<char>(text ? 'a' + i / 100 % 7 : random_());
    };
    for (int i = 0; i < 60; ++i) {
      uint64_t bytes = 1 + random_() % (i % 3 == 0 ? 200'000 : 3000);
      fill(random_() % (kSize - bytes), bytes, i % 2 == 0);
    }
    fill(kSize - 700, 700, false);
    raw_ = folder_.file("disk.raw", disk);
  }

  static std::string message(const Status& status) { return status.ok() ? "ok" : status.error().message(); }
  /// A tool's run; its words are in the file "said".
  bool shell(const std::string& command) {
    return std::system(("cd " + folder_.path().string() + " && { " + command + "; } > said 2>&1").c_str()) ==
           0;
  }
  std::string said() { return read_file(folder_ / "said").value(); }
  std::string import(const std::string& file, const std::string& id) {
    UniqueFd fd = open_file(folder_ / file, O_RDONLY).value();
    return message(store_->import_snapshot(id, fd.get(), ImageFormat::kQcow2, 0, false, {}));
  }
  void save(const std::string& id, const std::string& file, ImageFormat format) {
    UniqueFd fd = open_file(folder_ / file, O_RDWR | O_CREAT | O_TRUNC, 0644).value();
    ASSERT_EQ(message(store_->export_snapshot(id, fd.get(), format, {})), "ok");
  }

  std::mt19937_64 random_;
  std::string raw_;
};

TEST_F(Qcow2Test, WhatQemuWritesIsReadAsQemuReadsIt) {
  int number = 0;
  for (const char* options :
       {"-o compat=0.10", "-o compat=0.10,cluster_size=512", "-c -o compat=0.10,cluster_size=4096",
        "-o compat=1.1", "-o cluster_size=512", "-o cluster_size=2M", "-c", "-c -o cluster_size=512",
        "-c -o cluster_size=2M", "-o lazy_refcounts=on", "-o preallocation=metadata",
        "-o extended_l2=on,cluster_size=128k", "-o extended_l2=on,cluster_size=16k", "-o refcount_bits=1",
        "-S 0"}) {
    ASSERT_TRUE(shell(fmt::format("qemu-img convert -f raw -O qcow2 {} disk.raw image", options)))
        << options << ": " << said();
    // Zero clusters, and data on and beside them, discarded in part.
    ASSERT_TRUE(
        shell("qemu-io -f qcow2 -c 'write -z 1M 1M' -c 'write -P 7 1600k 5k' -c 'discard 3M 1M' "
              "-c 'write -P 9 3333k 33k' image"))
        << options << ": " << said();
    std::string id = fmt::format("snap-{}", number++);
    ASSERT_EQ(import("image", id), "ok") << options;
    save(id, "again.raw", ImageFormat::kRaw);
    EXPECT_TRUE(shell("qemu-img compare -f qcow2 -F raw image again.raw")) << options << ": " << said();
    EXPECT_EQ(store_->snapshot(id).value().size_bytes, kSize);
    store_->delete_snapshot(id).value();
  }
}

TEST_F(Qcow2Test, WhatIsWrittenIsWhatQemuAccepts) {
  UniqueFd fd = open_file(raw_, O_RDONLY).value();
  // With sizes that need one and several L2 tables.
  for (uint64_t size : {kSize, 3 * 512_MiB + 4096}) {
    std::string id = fmt::format("snap-{}", size);
    ASSERT_EQ(message(store_->import_snapshot(id, fd.get(), ImageFormat::kRaw, size, false, {})), "ok");
    create("vol", 0, id);
    write("vol", size - 512, std::string(512, 'e'));
    snapshot("vol", id + "-end");
    save(id + "-end", "image", ImageFormat::kQcow2);
    save(id + "-end", "again.raw", ImageFormat::kRaw);
    EXPECT_TRUE(shell("qemu-img check -f qcow2 image")) << said();
    EXPECT_THAT(said(), HasSubstr("No errors were found"));
    EXPECT_TRUE(shell("qemu-img compare -f qcow2 -F raw image again.raw")) << said();
    EXPECT_LT(std::filesystem::file_size(folder_ / "image"), 12_MiB);
    ASSERT_EQ(import("image", id + "-back"), "ok");
    store_->delete_volume("vol").value();
  }
  create("empty", 1_TiB);
  snapshot("empty", "nothing");
  save("nothing", "image", ImageFormat::kQcow2);
  EXPECT_TRUE(shell("qemu-img check -f qcow2 image")) << said();
  EXPECT_LT(std::filesystem::file_size(folder_ / "image"), 1_MiB);
  EXPECT_EQ(import("image", "empty-back"), "ok");
}

TEST_F(Qcow2Test, WhatIsNotReadIsRefusedWithOneSentence) {
  struct Refused {
    const char* make;
    const char* sentence;
  };
  for (Refused each : {
           Refused{"qemu-img create -f qcow2 -b disk.raw -F raw image",
                   "the qcow2 image has a backing file: make one image of both with qemu-img convert"},
           Refused{
               "qemu-img create -f qcow2 -o data_file=other,data_file_raw=on image 1M",
               "the qcow2 image has its data in another file: make one image of both with qemu-img convert"},
           Refused{"qemu-img create -f qcow2 --object secret,id=s,data=x -o encrypt.format=luks,"
                   "encrypt.key-secret=s,encrypt.iter-time=10 image 1M",
                   "the qcow2 image is encrypted: decrypt it with qemu-img convert"},
           Refused{"qemu-img create -f qcow2 -o compression_type=zstd image 1M",
                   "the qcow2 image is compressed otherwise than by zlib (type 1)"},
           Refused{"cp disk.raw image",
                   "the file is not a qcow2 image: it does not begin with its mark; is it raw?"},
           Refused{"head -c 60 disk.raw > image", "the file is not a qcow2 image: it has only 60 bytes"},
       }) {
    std::filesystem::remove(folder_ / "image");
    ASSERT_TRUE(shell(each.make)) << said();
    EXPECT_EQ(import("image", "snap"), each.sentence);
    EXPECT_EQ(files(), 0u);
  }
}

/// An image in memory, to lie in.
class HostileTest : public ::testing::Test {
 protected:
  HostileTest() {
    Qcow2Writer writer([this](uint64_t at, std::span<const std::byte> data) { return put(at, data); }, 1_GiB);
    std::vector<std::byte> data(65536, std::byte{7});
    CHECK(writer.add(0, data).ok() && writer.add(131072, data).ok() && writer.add(900_MiB, data).ok());
    CHECK(writer.finish().ok());
    good_ = image_;
    l1_ = get(40);
    l2_ = get(l1_) & 0xffffffffffff;
  }
  Status put(uint64_t at, std::span<const std::byte> data) {
    image_.resize(std::max<size_t>(image_.size(), at + data.size()));
    std::copy(data.begin(), data.end(), image_.begin() + static_cast<ptrdiff_t>(at));
    return {};
  }
  uint64_t get(uint64_t at) { return load_be<uint64_t>(&image_[at]); }
  template <typename T>
  void set(uint64_t at, T value) {
    store_be<T>(&image_[at], value);
  }
  std::string read() {
    given_ = 0;
    auto from = [this](uint64_t at, std::span<std::byte> out) -> Status {
      CHECK(range_within(at, out.size(), image_.size()));
      std::copy_n(image_.begin() + static_cast<ptrdiff_t>(at), out.size(), out.begin());
      return {};
    };
    auto reader = Qcow2Reader::open(from, image_.size());
    if (!reader.ok()) return reader.error().message();
    auto each = [this](uint64_t, std::span<const std::byte> data) -> Status {
      given_ += data.size();
      return {};
    };
    Status walked = reader->walk(each, {});
    return walked.ok() ? "ok" : walked.error().message();
  }

  std::vector<std::byte> image_;
  std::vector<std::byte> good_;
  uint64_t l1_ = 0;
  uint64_t l2_ = 0;
  uint64_t given_ = 0;
};

TEST_F(HostileTest, EachLieHasItsSentence) {
  ASSERT_EQ(read(), "ok");
  EXPECT_EQ(given_, 3 * 65536u);
  auto lie = [&](uint64_t at, auto value) {
    image_ = good_;
    set(at, value);
    return read();
  };
  const std::string damaged = "the qcow2 image is damaged: ";
  EXPECT_EQ(lie(4, uint32_t{4}), "the qcow2 image has version 4, and 2 and 3 are known");
  EXPECT_EQ(lie(20, uint32_t{8}), damaged + "its clusters have 2^8 bytes, not 2^9 to 2^21");
  EXPECT_EQ(lie(20, uint32_t{63}), damaged + "its clusters have 2^63 bytes, not 2^9 to 2^21");
  EXPECT_EQ(lie(24, ~uint64_t{0}),
            "the qcow2 image holds a disk of 18446744073709551615 bytes, not a multiple of 512 up to 16 TiB");
  EXPECT_EQ(lie(24, uint64_t{16_TiB}), damaged + "its L1 table has 2 entries, and its disk needs 32768");
  EXPECT_EQ(lie(36, uint32_t{0xffffffff}),
            "the qcow2 image has an L1 table of 4294967295 entries, more than 4194304");
  EXPECT_EQ(lie(36, uint32_t{0x400000}),
            damaged + fmt::format("the L1 table at {} is not within the file", l1_));
  EXPECT_EQ(lie(40, uint64_t{0}), damaged + "the L1 table at 0 lies on something else");
  EXPECT_EQ(lie(40, uint64_t{l1_ + 8}),
            damaged + fmt::format("the L1 table at {} is not at a cluster's begin", l1_ + 8));
  EXPECT_EQ(lie(40, uint64_t{1} << 62),
            damaged + "the L1 table at 4611686018427387904 is not within the file");
  EXPECT_EQ(lie(72, uint64_t{2}), "the qcow2 image is marked corrupt: try qemu-img check -r all");
  EXPECT_EQ(lie(72, uint64_t{1} << 40), "the qcow2 image needs features that are not known: 0x10000000000");
  EXPECT_EQ(lie(100, uint32_t{12}), damaged + "its header has 12 bytes");
  EXPECT_EQ(lie(l1_, uint64_t{l1_}), damaged + fmt::format("the L2 table at {} lies on something else", l1_));
  EXPECT_EQ(lie(l1_ + 8, l2_), damaged + fmt::format("the L2 table at {} lies on something else", l2_));
  EXPECT_EQ(lie(l1_, uint64_t{1}), damaged + "L1 entry 0 has bits that mean nothing: 0x1");
  EXPECT_EQ(lie(l1_, uint64_t{1} << 50), damaged + "the L2 table at 1125899906842624 is not within the file");
  EXPECT_EQ(lie(l2_, uint64_t{2}), damaged + "the L2 entry of byte 0 has bits that mean nothing: 0x2");
  EXPECT_EQ(lie(l2_ + 8, uint64_t{65536}), damaged + "a cluster at 65536 lies on something else");
  EXPECT_EQ(lie(l2_ + 8, l2_), damaged + fmt::format("a cluster at {} lies on something else", l2_));
  EXPECT_EQ(lie(l2_, uint64_t{1} << 55), damaged + "a cluster at 36028797018963968 is not within the file");
  const uint64_t compressed = uint64_t{1} << 62;
  EXPECT_EQ(lie(l2_, compressed | 0x0fffffff),
            damaged + "the compressed cluster of byte 0 is not within the file");
  EXPECT_EQ(lie(l2_, compressed | 65536),
            damaged + "the compressed cluster of byte 0 is not what zlib makes");
}

TEST_F(HostileTest, AnyNumberInAnyPlaceIsReadOrRefused) {
  std::mt19937_64 random(testing::seed());
  for (int run = 0; run < 3000; ++run) {
    image_ = good_;
    if (random() % 8 == 0) image_.resize(random() % image_.size());
    for (int change = 0; change < 4; ++change) {
      const uint64_t near = std::array<uint64_t, 3>{0, l1_, l2_}[random() % 3] + random() % 112;
      if (near + 8 <= image_.size()) set(near / 4 * 4, random() >> random() % 64);
    }
    (void)read();
    EXPECT_LE(given_, uint64_t{image_.size()} * 1100);
  }
}

}  // namespace
}  // namespace haneul::storage
