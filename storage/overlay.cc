// SPDX-License-Identifier: Apache-2.0
#include "storage/overlay.h"

#include <fcntl.h>

#include <algorithm>
#include <array>

#include "base/checked.h"
#include "base/log.h"
#include "storage/overlay_disk.h"

namespace haneul::storage {

using overlay::Header;
using overlay::kBlockBytes;
using overlay::kDataOffset;
using overlay::kMapOffset;
using overlay::kPageBytes;
using overlay::Page;

namespace {

uint64_t file_bytes(uint64_t size_bytes) {
  return kDataOffset + align_up(size_bytes, kBlockBytes);
}

Status load_map(overlay::Disk& disk) {
  uint64_t map_end = kMapOffset + disk.map.pages() * 2 * kPageBytes;
  std::array<Page, 2> copies;
  for (uint64_t at = kMapOffset; at < map_end;) {
    at = TRY(disk.file->next_data(at, map_end));
    if (at >= map_end) break;
    uint64_t index = (at - kMapOffset) / (2 * kPageBytes);
    uint64_t place = overlay::map_page_offset(index, 0);
    TRY(disk.file->read_now(place, copies[0]).context("reading the overlay's map"));
    TRY(disk.file->read_now(place + kPageBytes, copies[1]).context("reading the overlay's map"));
    uint64_t blocks = std::min(overlay::kBlocksPerPage, disk.map.blocks() - index * overlay::kBlocksPerPage);
    disk.map.load(index, TRY(overlay::choose_map_page(index, blocks, copies[0], copies[1])));
    at = place + 2 * kPageBytes;
  }
  return {};
}

Status save_map(overlay::Disk& disk) {
  if (!disk.map.dirty()) return {};
  TRY(disk.file->sync_now());
  std::vector<uint64_t> pages;
  disk.map.take_dirty(pages);
  for (uint64_t index : pages) {
    overlay::MapPage states = disk.map.begin_write(index);
    Page page;
    overlay::encode_map_page(index, states, page);
    TRY(disk.file->write_now(overlay::map_page_offset(index, states.sequence), page));
  }
  return disk.file->sync_now();
}

class OverlayBackend final : public BlockBackend {
 public:
  OverlayBackend(std::unique_ptr<AsyncFile> file, std::unique_ptr<AsyncFile> base, const Header& header,
                 bool read_only)
      : disk_(std::move(file), std::move(base), header, read_only) {}
  ~OverlayBackend() override;

  Status load() { return load_map(disk_); }
  std::unique_ptr<BlockChannel> open_channel(IoRing& ring) override {
    return std::make_unique<overlay::Channel>(disk_, ring);
  }
  uint64_t size_bytes() const override { return disk_.size_bytes.load(); }
  bool read_only() const override { return disk_.read_only; }
  Status resize(uint64_t size_bytes) override;

 private:
  overlay::Disk disk_;
};

// A disk that is closed in order keeps what was written since the last flush, as a raw file does.
OverlayBackend::~OverlayBackend() {
  CHECK(disk_.locks.idle() && !disk_.round_active);
  if (disk_.sync_failed.load()) return;
  if (Status saved = save_map(disk_); !saved.ok()) {
    LOG_ERROR("an overlay was closed without its last unflushed writes: {}", saved.error().message());
  }
}

Status OverlayBackend::resize(uint64_t size_bytes) {
  if (disk_.read_only) return make_error(ErrorCode::kPermission, "the overlay is open for reading only");
  if (size_bytes < disk_.header.size_bytes) {
    return make_error(ErrorCode::kInvalidArgument, "a disk of {} bytes cannot become one of {}",
                      disk_.header.size_bytes, size_bytes);
  }
  TRY(overlay::validate_sizes(size_bytes, disk_.header.base_size_bytes));
  if (size_bytes == disk_.header.size_bytes) return {};
  // The file first: a header never speaks of bytes that are not there.
  TRY(disk_.file->grow(file_bytes(size_bytes)));
  TRY(disk_.file->sync_now());
  Header header = disk_.header;
  header.size_bytes = size_bytes;
  ++header.sequence;
  Page page;
  overlay::encode_header(header, page);
  TRY(disk_.file->write_now(overlay::header_offset(header.sequence), page));
  TRY(disk_.file->sync_now());
  std::lock_guard lock(disk_.mutex);
  disk_.header = header;
  disk_.map.grow((size_bytes + kBlockBytes - 1) / kBlockBytes);
  disk_.size_bytes.store(size_bytes);
  return {};
}

Status check_base(AsyncFile* base, const Header& header) {
  if (base == nullptr && header.base_size_bytes > 0) {
    return make_error(ErrorCode::kInvalidArgument,
                      "the overlay lies over a base of {} bytes, and none was given", header.base_size_bytes);
  }
  if (base == nullptr) return {};
  if (header.base_size_bytes == 0) {
    return make_error(ErrorCode::kInvalidArgument, "the overlay was made without a base, and one was given");
  }
  uint64_t size = TRY(base->size());
  if (size != header.base_size_bytes) {
    return make_error(ErrorCode::kInvalidArgument,
                      "the overlay was made over a base of {} bytes, and the one given has {}",
                      header.base_size_bytes, size);
  }
  return {};
}

}  // namespace

Status create_overlay_file(AsyncFile& file, uint64_t size_bytes, uint64_t base_size_bytes) {
  TRY(overlay::validate_sizes(size_bytes, base_size_bytes));
  if (TRY(file.size()) != 0) {
    return make_error(ErrorCode::kExists, "an overlay is made in an empty file, and this one is not");
  }
  TRY(file.grow(file_bytes(size_bytes)));
  Page page;
  overlay::encode_header(Header{0, size_bytes, base_size_bytes}, page);
  TRY(file.write_now(overlay::header_offset(0), page));
  return file.sync_now();
}

Result<std::unique_ptr<BlockBackend>> open_overlay_files(std::unique_ptr<AsyncFile> file,
                                                         std::unique_ptr<AsyncFile> base, bool read_only) {
  uint64_t size = TRY(file->size());
  if (size < kDataOffset) {
    return make_error(ErrorCode::kCorrupt, "the file is not an overlay: it has only {} bytes", size);
  }
  std::array<Page, 2> copies;
  TRY(file->read_now(0, copies[0]).context("reading the overlay's header"));
  TRY(file->read_now(kPageBytes, copies[1]).context("reading the overlay's header"));
  Header header = TRY(overlay::choose_header(copies[0], copies[1]));
  if (size < file_bytes(header.size_bytes)) {
    return make_error(ErrorCode::kCorrupt, "the overlay was cut short: its file has {} bytes, not {}", size,
                      file_bytes(header.size_bytes));
  }
  TRY(check_base(base.get(), header));
  auto backend = std::make_unique<OverlayBackend>(std::move(file), std::move(base), header, read_only);
  TRY(backend->load());
  return std::unique_ptr<BlockBackend>(std::move(backend));
}

Status create_overlay(int file, uint64_t size_bytes, uint64_t base_size_bytes) {
  UniqueFd own(::fcntl(file, F_DUPFD_CLOEXEC, 0));
  if (!own) return errno_error("duplicating a descriptor");
  return create_overlay_file(*make_async_file(std::move(own)), size_bytes, base_size_bytes);
}

Result<std::unique_ptr<BlockBackend>> open_overlay(UniqueFd file, UniqueFd base) {
  bool writable = TRY(is_writable(file.get()));
  TRY(lock_file(file.get(), writable));
  std::unique_ptr<AsyncFile> beneath;
  if (base) {
    TRY(lock_file(base.get(), false).context("the overlay's base"));
    beneath = make_async_file(std::move(base));
  }
  return open_overlay_files(make_async_file(std::move(file)), std::move(beneath), !writable);
}

}  // namespace haneul::storage
