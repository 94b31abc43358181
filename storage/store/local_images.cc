// SPDX-License-Identifier: Apache-2.0
// Data in and out: raw images, and copies between stores.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>

#include "base/file.h"
#include "storage/store/local_store.h"

namespace haneul::storage {
namespace {

constexpr uint64_t kChunk = 1 << 20;
constexpr uint64_t kBlock = 4096;

bool is_zero(std::span<const std::byte> bytes) {
  return std::all_of(bytes.begin(), bytes.end(), [](std::byte b) { return b == std::byte{0}; });
}

Status only_raw(ImageFormat format) {
  if (format == ImageFormat::kRaw) return {};
  return Error(ErrorCode::kUnsupported,
               "only raw images are imported and exported: qemu-img convert makes one of a qcow2");
}

/// Requests to a volume, one at a time.
class Transfer {
 public:
  static Result<Transfer> open(Volume& volume) {
    auto ring = TRY(IoRing::create(8));
    auto channel = volume.open_channel(*ring);
    return Transfer(std::move(ring), std::move(channel));
  }
  Status read(uint64_t offset, std::span<std::byte> data) { return move(BlockOp::kRead, offset, data); }
  Status write(uint64_t offset, std::span<std::byte> data) { return move(BlockOp::kWrite, offset, data); }

 private:
  struct Request final : BlockRequest {
    void completed(BlockStatus result) override { status = result; }
    std::optional<BlockStatus> status;
  };
  Transfer(std::unique_ptr<IoRing> ring, std::unique_ptr<BlockChannel> channel)
      : ring_(std::move(ring)), channel_(std::move(channel)) {}

  Status move(BlockOp op, uint64_t offset, std::span<std::byte> data) {
    Request request;
    iovec piece{data.data(), data.size()};
    request.op = op;
    request.offset = offset;
    request.length = data.size();
    request.data = std::span(&piece, 1);
    channel_->submit(request);
    while (!request.status) TRY(ring_->run_once());
    if (*request.status == BlockStatus::kOk) return {};
    bool full = *request.status == BlockStatus::kNoSpace;
    return make_error(full ? ErrorCode::kNoSpace : ErrorCode::kIo, "{} of the volume at {} failed{}",
                      op == BlockOp::kRead ? "reading" : "writing", offset, full ? ": the disk is full" : "");
  }

  std::unique_ptr<IoRing> ring_;
  std::unique_ptr<BlockChannel> channel_;
};

struct Buffer {
  Buffer() : memory(static_cast<std::byte*>(std::aligned_alloc(kBlock, kChunk)), &std::free) {
    CHECK(memory != nullptr);
  }
  std::span<std::byte> first(uint64_t bytes) const { return {memory.get(), bytes}; }
  std::unique_ptr<std::byte, decltype(&std::free)> memory;
};

/// Calls `each` for the stretches of `data` that are not zeroes, by whole blocks.
Status for_content(std::span<std::byte> data,
                   const std::function<Status(uint64_t at, std::span<std::byte>)>& each) {
  for (uint64_t at = 0; at < data.size();) {
    auto block = [&](uint64_t from) { return data.subspan(from, std::min(kBlock, data.size() - from)); };
    if (is_zero(block(at))) {
      at += kBlock;
      continue;
    }
    uint64_t end = at;
    while (end < data.size() && !is_zero(block(end))) end += kBlock;
    end = std::min<uint64_t>(end, data.size());
    TRY(each(at, data.subspan(at, end - at)));
    at = end;
  }
  return {};
}

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

Status fill(Volume& volume, int file, uint64_t size, const Progress& progress) {
  Transfer transfer = TRY(Transfer::open(volume));
  Buffer buffer;
  uint64_t total = std::max<uint64_t>(1, std::min(size, bytes_on_disk(file)));
  uint64_t done = 0;
  return for_extents(file, size, [&](uint64_t at, uint64_t length) -> Status {
    auto data = buffer.first(length);
    TRY(read_exact_at(file, at, data).context("reading the image"));
    TRY(for_content(data, [&](uint64_t inside, std::span<std::byte> piece) {
      return transfer.write(at + inside, piece);
    }));
    done = std::min(total, done + length);
    if (progress && !progress(done / 2, total)) return Error(ErrorCode::kCancelled, "the import was ended");
    return {};
  });
}

}  // namespace

Status LocalStore::import_snapshot(const std::string& id, int file, ImageFormat format, uint64_t size_bytes,
                                   bool encrypted, const StoreProgress& progress) {
  TRY(only_raw(format));
  const uint64_t image_bytes = TRY(file_size(file));
  const uint64_t size = (std::max(size_bytes, image_bytes) + 511) / 512 * 512;
  if (image_bytes % 512 != 0) {
    return make_error(ErrorCode::kInvalidArgument,
                      "the image has {} bytes, which is not a whole number of sectors", image_bytes);
  }
  LayerRow layer;
  {
    std::lock_guard lock(mutex_);
    if (TRY(catalog_->snapshot(id))) return {};
    layer = TRY(new_layer("", encrypted));
    TRY(make_layer(layer, size));
  }
  auto made = [&]() -> Status {
    std::vector<StackDescriptor> stack;
    stack.push_back({TRY(open_layer(layer.id, O_RDWR)), TRY(key_of(layer))});
    auto volume = TRY(storage::open_volume(UniqueFd(), std::move(stack), VolumeOptions()));
    TRY(fill(*volume, file, image_bytes, noting(id, progress)));
    volume.reset();
    TRY(freeze(layer.id));
    auto async = TRY(layer_file(layer.id, O_RDWR));
    auto note = noting(id, progress);
    return write_sums(*async, [&](uint64_t done, uint64_t total) { return note(total + done, 2 * total); });
  }();
  std::lock_guard lock(mutex_);
  percent_.erase(id);
  if (made.ok()) {
    made = catalog_->transaction([&]() -> Status {
      TRY(catalog_->add_layer(layer));
      return catalog_->put_snapshot({id, layer.id, "", size, true, 100, ""});
    });
  }
  if (!made.ok()) ::unlink(layer_path(layer.id).c_str());
  return made;
}

Status LocalStore::export_snapshot(const std::string& id, int file, ImageFormat format,
                                   const StoreProgress& progress) {
  TRY(only_raw(format));
  std::unique_ptr<Volume> volume;
  {
    std::lock_guard lock(mutex_);
    SnapshotRow row = TRY(need_snapshot(id));
    if (!row.completed) return make_error(ErrorCode::kBusy, "the snapshot {} is not completed yet", id);
    volume = TRY(open_to_read(TRY(stack_of(row.layer))));
  }
  const uint64_t size = volume->size_bytes();
  if (::ftruncate(file, 0) != 0 || ::ftruncate(file, static_cast<off_t>(size)) != 0)
    return errno_error("sizing the image");
  Transfer transfer = TRY(Transfer::open(*volume));
  Buffer buffer;
  for (uint64_t at = 0; at < size; at += kChunk) {
    auto data = buffer.first(std::min(kChunk, size - at));
    TRY(transfer.read(at, data));
    TRY(for_content(data, [&](uint64_t inside, std::span<std::byte> piece) {
      return write_all_at(file, at + inside, piece).context("writing the image");
    }));
    if (progress && !progress(static_cast<unsigned>((at + data.size()) * 100 / size))) {
      return Error(ErrorCode::kCancelled, "the export was ended");
    }
  }
  if (::fsync(file) != 0) return errno_error("syncing the image");
  return {};
}

// Byte for byte: a layer has the same id, and with the same key the same bytes, in every store.
Status LocalStore::copy_layer(LocalStore& from, const LayerRow& layer,
                              const std::function<bool(uint64_t, uint64_t)>& progress) {
  auto source = TRY(from.layer_file(layer.id, O_RDWR));
  TRY(write_sums(*source, {}));
  UniqueFd in = TRY(from.open_layer(layer.id, O_RDONLY));
  const uint64_t size = TRY(file_size(in.get()));
  const std::filesystem::path made = layer_path(layer.id + ".new");
  UniqueFd out = TRY(open_file(made, O_RDWR | O_CREAT | O_TRUNC));
  if (::ftruncate(out.get(), static_cast<off_t>(size)) != 0) return errno_error("sizing {}", made.string());
  Buffer buffer;
  uint64_t done = 0;
  const uint64_t total = std::max<uint64_t>(1, bytes_on_disk(in.get()));
  TRY(for_extents(in.get(), size, [&](uint64_t at, uint64_t length) -> Status {
    auto data = buffer.first(length);
    TRY(read_exact_at(in.get(), at, data).context("reading the layer"));
    TRY(write_all_at(out.get(), at, data).context("writing the copy"));
    done = std::min(total, done + length);
    if (!progress(done, total)) return Error(ErrorCode::kCancelled, "the copy was ended");
    return {};
  }));
  if (::fsync(out.get()) != 0) return errno_error("syncing {}", made.string());
  auto copy = make_async_file(std::move(out));
  std::vector<Fault> faults = TRY(check_layer(*copy, {}, {}));
  if (!faults.empty()) {
    return make_error(ErrorCode::kCorrupt, "layer {}: {}: {}", layer.id, faults.front().where,
                      faults.front().what);
  }
  std::lock_guard lock(mutex_);
  TRY(name_layer(layer.id));
  return catalog_->add_layer(layer);
}

Status LocalStore::copy_snapshot(Store& other, const std::string& source, const std::string& id,
                                 const StoreProgress& progress) {
  auto* from = dynamic_cast<LocalStore*>(&other);
  if (from == nullptr)
    return Error(ErrorCode::kUnsupported, "a snapshot is copied from a store of this machine only");
  SnapshotRow original;
  std::vector<LayerRow> layers;
  {
    std::lock_guard lock(from->mutex_);
    original = TRY(from->need_snapshot(source));
    if (!original.completed)
      return make_error(ErrorCode::kBusy, "the snapshot {} is not completed yet", source);
    layers = TRY(from->stack_of(original.layer));
  }
  bool encrypted = std::any_of(layers.begin(), layers.end(), [](const LayerRow& l) { return l.encrypted; });
  if (encrypted && TRY(from->store_key(false)) != TRY(store_key(false))) {
    return Error(ErrorCode::kUnsupported,
                 "an encrypted snapshot is copied only to a store with the same key");
  }
  if (this == from) {
    std::lock_guard lock(mutex_);
    if (TRY(catalog_->snapshot(id))) return {};
    return catalog_->put_snapshot({id, original.layer, "", original.size_bytes, true, 100, ""});
  }
  {
    std::lock_guard lock(mutex_);
    if (TRY(catalog_->snapshot(id))) return {};
    ++copies_;
  }
  auto copied = [&]() -> Status {
    auto note = noting(id, progress);
    for (size_t i = 0; i < layers.size(); ++i) {
      {
        std::lock_guard lock(mutex_);
        if (TRY(catalog_->layer(layers[i].id))) continue;
      }
      // Of all layers together, as if each had as much.
      TRY(copy_layer(*from, layers[i], [&](uint64_t done, uint64_t total) {
        return note(i * 1000 + done * 1000 / total, layers.size() * 1000);
      }));
    }
    return {};
  }();
  std::lock_guard lock(mutex_);
  --copies_;
  percent_.erase(id);
  TRY(std::move(copied));
  return catalog_->put_snapshot({id, original.layer, "", original.size_bytes, true, 100, ""});
}

}  // namespace haneul::storage
