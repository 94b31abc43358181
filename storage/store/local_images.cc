// SPDX-License-Identifier: Apache-2.0
// Data in and out: images, raw and qcow2.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>

#include "base/checked.h"
#include "base/file.h"
#include "storage/store/local_store.h"
#include "storage/store/qcow2.h"
#include "storage/store/stack_reader.h"

namespace haneul::storage {
namespace {

constexpr uint64_t kChunk = 1 << 20;
constexpr uint64_t kBlock = 4096;

bool is_zero(std::span<const std::byte> bytes) {
  return std::all_of(bytes.begin(), bytes.end(), [](std::byte b) { return b == std::byte{0}; });
}

/// Calls `each` for the stretches of `data`, which begins at byte `start`, that are not zeroes, by whole blocks.
Status for_content(uint64_t start, std::span<std::byte> data,
                   const std::function<Status(uint64_t at, std::span<std::byte>)>& each) {
  auto end_of = [&](uint64_t from) {
    return std::min<uint64_t>(data.size(), align_down(start + from + kBlock, kBlock) - start);
  };
  auto zero = [&](uint64_t from) { return is_zero(data.subspan(from, end_of(from) - from)); };
  for (uint64_t at = 0; at < data.size();) {
    uint64_t end = end_of(at);
    if (zero(at)) {
      at = end;
      continue;
    }
    while (end < data.size() && !zero(end)) end = end_of(end);
    TRY(each(start + at, data.subspan(at, end - at)));
    at = end;
  }
  return {};
}

struct Buffer {
  Buffer() : memory(static_cast<std::byte*>(std::aligned_alloc(kBlock, kChunk)), &std::free) {
    CHECK(memory != nullptr);
  }
  std::span<std::byte> first(uint64_t bytes) const { return {memory.get(), bytes}; }
  std::unique_ptr<std::byte, decltype(&std::free)> memory;
};

/// Writes to a volume, one at a time: stretches that follow each other together, and no zeroes.
class Filling {
 public:
  static Result<Filling> open(Volume& volume) {
    auto ring = TRY(IoRing::create(8));
    auto channel = volume.open_channel(*ring);
    return Filling(std::move(ring), std::move(channel));
  }

  /// Calls go forwards.
  Status add(uint64_t at, std::span<const std::byte> data) {
    while (!data.empty()) {
      if (at != start_ + gathered_ || gathered_ == kChunk) {
        TRY(flush());
        start_ = at;
      }
      // Chunks end at multiples of themselves, so that blocks are written whole where they can be.
      const uint64_t room = std::min(kChunk - at % kChunk, kChunk - gathered_);
      auto piece = data.first(std::min<uint64_t>(data.size(), room));
      std::copy(piece.begin(), piece.end(),
                buffer_.first(kChunk).begin() + static_cast<ptrdiff_t>(gathered_));
      gathered_ += piece.size();
      at += piece.size();
      data = data.subspan(piece.size());
      if (at % kChunk == 0) TRY(flush());
    }
    return {};
  }
  Status flush() {
    TRY(for_content(start_, buffer_.first(gathered_),
                    [&](uint64_t at, std::span<std::byte> data) { return write(at, data); }));
    start_ += gathered_;
    gathered_ = 0;
    return {};
  }
  /// The volume's closing does not say what it could not write: all of it is durable before.
  Status finish() {
    TRY(flush());
    Request request;
    request.op = BlockOp::kFlush;
    return run(request).context("what was read of the image could not be made durable");
  }

 private:
  struct Request final : BlockRequest {
    void completed(BlockStatus result) override { status = result; }
    std::optional<BlockStatus> status;
  };
  Filling(std::unique_ptr<IoRing> ring, std::unique_ptr<BlockChannel> channel)
      : ring_(std::move(ring)), channel_(std::move(channel)) {}

  Status write(uint64_t offset, std::span<std::byte> data) {
    Request request;
    iovec piece{data.data(), data.size()};
    request.op = BlockOp::kWrite;
    request.offset = offset;
    request.length = data.size();
    request.data = std::span(&piece, 1);
    return run(request).context(fmt::format("writing of the volume at {} failed", offset));
  }

  Status run(Request& request) {
    channel_->submit(request);
    while (!request.status) TRY(ring_->run_once());
    if (*request.status == BlockStatus::kOk) return {};
    if (*request.status == BlockStatus::kNoSpace) return Error(ErrorCode::kNoSpace, "the disk is full");
    return Error(ErrorCode::kIo, "the disk has an error");
  }

  std::unique_ptr<IoRing> ring_;
  std::unique_ptr<BlockChannel> channel_;
  Buffer buffer_;
  uint64_t start_ = 0;
  uint64_t gathered_ = 0;
};

/// The stretches of a file that are not holes, at most kChunk at a time.
Status for_extents(int file, uint64_t size, const std::function<Status(uint64_t at, uint64_t length)>& each) {
  for (uint64_t at = 0; at < size;) {
    off_t data = ::lseek(file, static_cast<off_t>(at), SEEK_DATA);
    if (data < 0 && errno == ENXIO) return {};
    if (data >= 0) at = static_cast<uint64_t>(data) / kBlock * kBlock;
    off_t hole = data < 0 ? -1 : ::lseek(file, data, SEEK_HOLE);
    uint64_t end = hole < 0 ? size : std::min(size, static_cast<uint64_t>(hole));
    for (; at < end; at += std::min(kChunk, end - at)) TRY(each(at, std::min(kChunk, end - at)));
  }
  return {};
}

uint64_t bytes_on_disk(int file) {
  struct stat info {};
  return ::fstat(file, &info) == 0 ? static_cast<uint64_t>(info.st_blocks) * 512 : 0;
}

Status fill_raw(Filling& filling, int file, uint64_t size, const Progress& progress) {
  Buffer buffer;
  uint64_t total = std::max<uint64_t>(1, std::min(size, bytes_on_disk(file)));
  uint64_t done = 0;
  return for_extents(file, size, [&](uint64_t at, uint64_t length) -> Status {
    auto data = buffer.first(length);
    TRY(read_exact_at(file, at, data).context("reading the image"));
    TRY(filling.add(at, data));
    done = std::min(total, done + length);
    return progress(done, total) ? Status() : Error(ErrorCode::kCancelled, "the import was ended");
  });
}

Result<Qcow2Reader> open_qcow2(int file) {
  auto read = [file](uint64_t offset, std::span<std::byte> out) {
    return read_exact_at(file, offset, out).context("reading the image");
  };
  return Qcow2Reader::open(read, TRY(file_size(file)));
}

/// How long the disk in an image is.
Result<uint64_t> disk_bytes(int file, ImageFormat format) {
  if (format == ImageFormat::kQcow2) return TRY(open_qcow2(file)).size_bytes();
  const uint64_t bytes = TRY(file_size(file));
  if (bytes % 512 == 0) return bytes;
  return make_error(ErrorCode::kInvalidArgument,
                    "the image has {} bytes, which is not a whole number of sectors", bytes);
}

}  // namespace

// ---- In ----

Status LocalStore::fill_layer(const LayerRow& layer, int file, ImageFormat format, const Progress& note) {
  std::vector<StackDescriptor> stack;
  stack.push_back({TRY(open_layer(layer.id, O_RDWR)), TRY(key_of(layer))});
  auto volume = TRY(storage::open_volume(UniqueFd(), std::move(stack), VolumeOptions()));
  {
    Filling filling = TRY(Filling::open(*volume));
    auto half = [&](uint64_t done, uint64_t total) { return note(done, 2 * total); };
    if (format == ImageFormat::kQcow2) {
      Qcow2Reader image = TRY(open_qcow2(file));
      TRY(image.walk([&](uint64_t at, std::span<const std::byte> data) { return filling.add(at, data); },
                     [&](uint64_t at) { return half(at, image.size_bytes()); }));
    } else {
      TRY(fill_raw(filling, file, TRY(file_size(file)), half));
    }
    TRY(filling.finish());
  }
  volume.reset();
  TRY(freeze(layer.id));
  auto frozen = TRY(layer_file(layer.id, O_RDWR));
  return write_sums(*frozen, [&](uint64_t done, uint64_t total) { return note(total + done, 2 * total); });
}

Status LocalStore::import_snapshot(const std::string& id, int file, ImageFormat format, uint64_t size_bytes,
                                   bool encrypted, const StoreProgress& progress) {
  {
    std::lock_guard lock(mutex_);
    if (TRY(catalog_->snapshot(id))) return {};
  }
  const uint64_t size = align_up(std::max(size_bytes, TRY(disk_bytes(file, format))), 512);
  LayerRow layer = TRY(new_layer("", encrypted));
  TRY(make_layer(layer, size));
  Status made = fill_layer(layer, file, format, noting(id, progress));
  step("an image was read");
  std::lock_guard lock(mutex_);
  percent_.erase(id);
  if (made.ok()) {
    made = catalog_->transaction([&]() -> Status {
      TRY(catalog_->add_layer(layer));
      return catalog_->put_snapshot({id, layer.id, "", size, true, 100, ""});
    });
  }
  if (!made.ok()) drop_file(layer.id);
  return made;
}

// ---- Out ----

Status LocalStore::export_snapshot(const std::string& id, int file, ImageFormat format,
                                   const StoreProgress& progress) {
  Source source = TRY(source_of(id));
  Progress note = paced(progress);
  std::vector<ReadLayer> layers;
  for (const LayerRow& layer : source.layers) {
    TRY(need_sums(layer.id, [&](uint64_t, uint64_t) { return note(0, 1); }));
    layers.push_back({layer.id, TRY(layer_file(layer.id, O_RDONLY)), TRY(key_of(layer))});
  }
  const uint64_t size = source.snapshot.size_bytes;
  auto write = [file](uint64_t offset, std::span<const std::byte> data) {
    return write_all_at(file, offset, data).context("writing the image");
  };
  const bool raw = format == ImageFormat::kRaw;
  if (::ftruncate(file, 0) != 0 || (raw && ::ftruncate(file, static_cast<off_t>(size)) != 0))
    return errno_error("sizing the image");
  Qcow2Writer image(write, size);
  TRY(read_stack(
      layers,
      [&](uint64_t at, std::span<std::byte> data) -> Status {
        // The last block may end behind the volume's end.
        auto within = data.first(std::min<uint64_t>(data.size(), size - at));
        if (!raw) return image.add(at, within);
        return for_content(at, within, write);
      },
      note));
  if (!raw) TRY(image.finish());
  if (::fsync(file) != 0) return errno_error("syncing the image");
  return {};
}

}  // namespace haneul::storage
