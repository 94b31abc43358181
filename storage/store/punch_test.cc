// SPDX-License-Identifier: Apache-2.0
// Giving back what children hide, cut off after each of its writes: what is left is sound, and the next call frees what
// that one did not.
#include <sys/stat.h>

#include "storage/store/testing/store_fixture.h"

namespace haneul::storage {
namespace {

/// A file whose writes and erasures stop at some point, as a process that ends does.
class EndingFile final : public AsyncFile {
 public:
  EndingFile(std::unique_ptr<AsyncFile> file, int changes) : file_(std::move(file)), left_(changes) {}

  void read(IoRing& ring, IoOperation& op, std::span<const iovec> data, uint64_t offset) override {
    file_->read(ring, op, data, offset);
  }
  void write(IoRing& ring, IoOperation& op, std::span<const iovec> data, uint64_t offset) override {
    file_->write(ring, op, data, offset);
  }
  void sync(IoRing& ring, IoOperation& op) override { file_->sync(ring, op); }
  void erase(IoRing& ring, IoOperation& op, Erase how, uint64_t offset, uint64_t length) override {
    file_->erase(ring, op, how, offset, length);
  }
  Status read_now(uint64_t offset, std::span<std::byte> out) override { return file_->read_now(offset, out); }
  Status write_now(uint64_t offset, std::span<const std::byte> data) override {
    TRY(change());
    return file_->write_now(offset, data);
  }
  Status sync_now() override { return file_->sync_now(); }
  Status erase_now(Erase how, uint64_t offset, uint64_t length) override {
    TRY(change());
    return file_->erase_now(how, offset, length);
  }
  Result<uint64_t> size() override { return file_->size(); }
  Status grow(uint64_t size_bytes) override { return file_->grow(size_bytes); }
  Result<uint64_t> next_data(uint64_t offset, uint64_t limit) override {
    return file_->next_data(offset, limit);
  }

 private:
  Status change() { return left_-- > 0 ? Status() : Status(Error(ErrorCode::kInternal, "the end")); }
  std::unique_ptr<AsyncFile> file_;
  int left_;
};

class PunchTest : public testing::StoreTest {
 protected:
  static std::unique_ptr<AsyncFile> file(const std::string& path) {
    return make_async_file(open_file(path, O_RDWR).value());
  }
  /// Holes and all: a layer's file is long.
  static void copy_sparse(const std::string& from, const std::string& to) {
    UniqueFd in = open_file(from, O_RDONLY).value();
    UniqueFd out = open_file(to, O_RDWR | O_CREAT | O_TRUNC).value();
    ASSERT_EQ(::ftruncate(out.get(), static_cast<off_t>(file_size(in.get()).value())), 0);
    for (off_t at = ::lseek(in.get(), 0, SEEK_DATA); at >= 0; at = ::lseek(in.get(), at, SEEK_DATA)) {
      const off_t end = ::lseek(in.get(), at, SEEK_HOLE);
      std::vector<std::byte> data(static_cast<size_t>(end - at));
      ASSERT_TRUE(read_exact_at(in.get(), static_cast<uint64_t>(at), data).ok());
      ASSERT_TRUE(write_all_at(out.get(), static_cast<uint64_t>(at), data).ok());
      at = end;
    }
  }
  static uint64_t allocated(const std::string& path) {
    struct stat info {};
    EXPECT_EQ(::stat(path.c_str(), &info), 0);
    return static_cast<uint64_t>(info.st_blocks) * 512;
  }
};

TEST_F(PunchTest, CutOffAnywhereLeavesASoundLayer) {
  create("vol-1", 256_MiB);
  // In two map pages, in several stretches.
  for (uint64_t at : {0_MiB, 60_MiB, 61_MiB}) write("vol-1", at, std::string(512_KiB, 'a'));
  snapshot("vol-1", "snap-1");
  for (uint64_t at : {0_MiB, 60_MiB, 61_MiB}) write("vol-1", at + 64_KiB, std::string(64_KiB, 'b'));
  store_.reset();
  std::string parent;
  std::string child;
  for (const auto& entry : std::filesystem::directory_iterator(folder_ / "store/layers")) {
    bool frozen = read_layer_info(open_file(entry.path(), O_RDONLY).value().get()).value().frozen;
    (frozen ? parent : child) = entry.path();
  }
  copy_sparse(parent, folder_ / "whole");
  bool ended = true;
  for (int changes = 0; ended; ++changes) {
    ASSERT_LT(changes, 100);
    copy_sparse(folder_ / "whole", parent);
    EndingFile ending(file(parent), changes);
    auto above = file(child);
    bool told = false;
    auto before = [&]() -> Status {
      told = true;
      return {};
    };
    ended = !punch_hidden(ending, {above.get()}, before, {}).ok();
    EXPECT_TRUE(told);
    auto left = file(parent);
    for (const Fault& fault : check_layer(*left, {}, {}).value())
      ADD_FAILURE() << "after " << changes << " changes: " << fault.where << ": " << fault.what;
    ASSERT_TRUE(punch_hidden(*left, {above.get()}, {}, {}).ok());
    ASSERT_TRUE(punch_unused(*left, {}).ok());
    EXPECT_EQ(layer_use(*left).value().data_blocks, 3 * (512_KiB - 64_KiB) / 4096);
    EXPECT_LE(allocated(parent), 3 * (512_KiB - 64_KiB) + 64_KiB) << "after " << changes << " changes";
    EXPECT_TRUE(check_layer(*left, {}, {}).value().empty());
  }
  auto first = file(parent);
  auto above = file(child);
  auto never = []() -> Status { return Error(ErrorCode::kInternal, "there is nothing to punch any more"); };
  EXPECT_EQ(punch_hidden(*first, {above.get()}, never, {}).value(), 0u);
}

}  // namespace
}  // namespace haneul::storage
