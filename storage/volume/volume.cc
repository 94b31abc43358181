// SPDX-License-Identifier: Apache-2.0
#include "storage/volume/volume.h"

#include <algorithm>

#include "base/checked.h"
#include "storage/volume/direct_file.h"
#include "storage/volume/volume_disk.h"

namespace haneul::storage {
namespace volume {
namespace {

class OpenVolume final : public Volume {
 public:
  explicit OpenVolume(std::unique_ptr<Disk> disk) : disk_(std::move(disk)) {}
  ~OpenVolume() override {
    if (disk_->read_only) return;
    (void)finish_push();
    (void)close();
  }

  std::unique_ptr<BlockChannel> open_channel(IoRing& ring) override {
    return std::make_unique<Channel>(*disk_, ring);
  }
  uint64_t size_bytes() const override { return disk_->size_bytes.load(); }
  bool read_only() const override { return disk_->read_only; }
  Status resize(uint64_t size_bytes) override;

  Status sync_top() override { return push_.sync_top(); }
  Status begin_push(StackLayer layer) override { return push_.begin(std::move(layer)); }
  void cancel_push() override { push_.cancel(); }
  void hold_changes() override { push_.hold(); }
  void wait_for_changes() override { push_.wait_for_changes(); }
  void switch_top() override { push_.switch_top(); }
  void release_changes() override { push_.release(); }
  Status finish_push() override { return push_.finish(); }

  std::shared_ptr<BouncePool> bounce() const override { return disk_->bounce; }
  bool holds(const LayerId& id) const override {
    std::lock_guard lock(disk_->mutex);
    return std::any_of(disk_->layers.begin(), disk_->layers.end(),
                       [&id](const OpenLayer& each) { return each.id == id; });
  }
  LayerId top() const override {
    std::lock_guard lock(disk_->mutex);
    return disk_->start.header.id;
  }
  size_t layers() const override {
    std::lock_guard lock(disk_->mutex);
    return disk_->layers.size();
  }
  size_t map_bytes() const override {
    std::lock_guard lock(disk_->mutex);
    return disk_->map.bytes();
  }
  uint64_t pages_encoded() const override {
    std::lock_guard lock(disk_->mutex);
    return disk_->pages_encoded;
  }

 private:
  Status close();
  Status resize_with_turn(uint64_t size_bytes);

  std::unique_ptr<Disk> disk_;
  LayerPush push_{*disk_};
};

Status OpenVolume::resize(uint64_t size_bytes) {
  if (disk_->read_only)
    return Error(ErrorCode::kPermission, "a volume that is open for reading only keeps its size");
  disk_->take_turn();
  Status resized = resize_with_turn(size_bytes);
  disk_->end_turn(nullptr);
  return resized;
}

Status OpenVolume::resize_with_turn(uint64_t size_bytes) {
  const uint64_t now = disk_->size_bytes.load();
  if (size_bytes < now) {
    return make_error(ErrorCode::kInvalidArgument, "a disk of {} bytes cannot become one of {}", now,
                      size_bytes);
  }
  TRY(layer::validate_sizes(size_bytes, 0));
  AsyncFile& file = disk_->top_file();
  if (Status grown = file.grow(layer::file_bytes(size_bytes)); !grown.ok()) {
    return std::move(grown).error().context(
        fmt::format("this file system has no files long enough for a volume of {} bytes", size_bytes));
  }
  // A sync that failed is final, whoever asked for it.
  auto sync = [&]() -> Status {
    Status synced = file.sync_now();
    if (!synced.ok()) disk_->sync_failed.store(true);
    return synced;
  };
  TRY(sync());
  layer::State state = disk_->start.state;
  state.size_bytes = size_bytes;
  TRY(layer::put_state(file, state));
  TRY(sync());
  std::lock_guard lock(disk_->mutex);
  disk_->start.state = state;
  disk_->map.grow(layer::blocks_of(size_bytes));
  disk_->size_bytes.store(size_bytes);
  return {};
}

// Blocking, with nobody else there: a commit by the map, and a state with an empty journal.
Status OpenVolume::close() {
  Disk& disk = *disk_;
  if (disk.sync_failed.load()) return Error(ErrorCode::kIo, "a sync had failed");
  layer::State state = disk.start.state;
  if (disk.dirty.empty() && disk.last_sequence + 1 == state.journal_start) return {};
  AsyncFile& file = disk.top_file();
  TRY(file.sync_now());
  auto page = std::make_unique<AlignedPage>();
  for (uint64_t index : disk.dirty) {
    disk.encode_page(index, disk.top(), disk.last_sequence, page->page);
    TRY(file.write_now(layer::map_page_offset(index), page->page));
  }
  TRY(file.sync_now());
  state.journal_start = disk.last_sequence + 1;
  return layer::write_state(file, state);
}

// ---- Opening ----

Status check_key(const LayerId& id, bool encrypted, const std::optional<LayerKey>& key) {
  if (encrypted == key.has_value()) return {};
  return make_error(ErrorCode::kInvalidArgument, "layer {} is {}encrypted, and there is {} key for it",
                    to_string(id), encrypted ? "" : "not ", encrypted ? "no" : "a");
}

void note_page(VolumeMap& map, size_t layer, uint64_t index, const layer::MapPage& page) {
  uint64_t at = index * layer::kBlocksPerMapPage;
  for (const layer::MapSector& sector : page) {
    for (uint64_t block = 0; block < layer::kBlocksPerSector;) {
      BlockState state = sector.states.get(block);
      uint64_t count = sector.states.run(block, layer::kBlocksPerSector - block);
      if (state == BlockState::kData) map.set(at + block, count, Owner::data(layer));
      if (state == BlockState::kZero) map.set(at + block, count, Owner::zero(layer));
      block += count;
    }
    at += layer::kBlocksPerSector;
  }
}

Status check_place(const layer::Start& start, const layer::Start* below, bool top, bool read_only) {
  std::string id = to_string(start.header.id);
  LayerId expected = below != nullptr ? below->header.id : LayerId{};
  if (start.header.parent != expected) {
    return make_error(ErrorCode::kInvalidArgument, "layer {} was made for {}, and here it is on {}", id,
                      to_string(start.header.parent), to_string(expected));
  }
  if (below != nullptr && start.state.size_bytes < below->state.size_bytes) {
    return make_error(ErrorCode::kInvalidArgument, "layer {} has {} bytes, and the one beneath it more: {}",
                      id, start.state.size_bytes, below->state.size_bytes);
  }
  if (!top && !start.state.frozen) {
    return make_error(ErrorCode::kInvalidArgument, "layer {} is beneath another and not frozen", id);
  }
  if (top && start.state.frozen && !read_only) {
    return make_error(ErrorCode::kInvalidArgument, "layer {} is frozen: it is part of a snapshot", id);
  }
  return {};
}

Status check_base(AsyncFile* base, uint64_t recorded) {
  if (base == nullptr && recorded == 0) return {};
  if (base == nullptr) {
    return make_error(ErrorCode::kInvalidArgument,
                      "the volume has a raw base of {} bytes, and none was given", recorded);
  }
  if (recorded == 0)
    return Error(ErrorCode::kInvalidArgument, "the volume has no raw base, and one was given");
  uint64_t size = TRY(base->size());
  if (size < recorded) {
    return make_error(ErrorCode::kInvalidArgument,
                      "the raw base had {} bytes when the volume was made, and now it has {}", recorded,
                      size);
  }
  return {};
}

}  // namespace

Result<OpenLayer> take_layer(StackLayer from, const layer::Header& header,
                             const std::shared_ptr<BouncePool>& pool) {
  TRY(check_key(header.id, header.encrypted, from.key));
  OpenLayer open;
  open.id = header.id;
  open.file = std::move(from.file);
  if (from.key) {
    if (layer_key_check(*from.key) != header.check) {
      return make_error(ErrorCode::kInvalidArgument, "the key is not that of layer {}", to_string(header.id));
    }
    open.crypt = std::make_unique<CryptFile>(*open.file, *from.key, pool);
  }
  return open;
}

}  // namespace volume

Result<std::unique_ptr<Volume>> open_volume(Stack stack, VolumeOptions options) {
  using namespace volume;
  if (stack.layers.empty()) return Error(ErrorCode::kInvalidArgument, "a volume has at least one layer");
  if (stack.layers.size() > kMaxLayers) {
    return make_error(ErrorCode::kInvalidArgument, "a volume has at most {} layers, not {}", kMaxLayers,
                      stack.layers.size());
  }
  AsyncFile& top_file = *stack.layers.back().file;
  if (!options.read_only) {
    TRY(top_file.lock(AsyncFile::Lock::kExclusive));
  } else if (auto info = read_layer_info(top_file); !info.ok() || !info->frozen) {
    // Not a frozen one: it never changes, and who pushed a layer onto it has its lock as long as the volume is open.
    TRY(top_file.lock(AsyncFile::Lock::kShared));
  }
  std::vector<layer::Start> starts;
  for (const StackLayer& each : stack.layers) {
    layer::Start start =
        TRY(layer::read_start(*each.file).context(fmt::format("layer {} of the stack", starts.size())));
    TRY(check_place(start, starts.empty() ? nullptr : &starts.back(),
                    starts.size() + 1 == stack.layers.size(), options.read_only));
    starts.push_back(start);
  }
  TRY(check_base(stack.raw_base.get(), starts.front().header.raw_base_bytes));

  auto pool = stack.bounce ? stack.bounce : std::make_shared<BouncePool>();
  std::vector<OpenLayer> layers;
  for (size_t i = 0; i < starts.size(); ++i) {
    layers.push_back(TRY(take_layer(std::move(stack.layers[i]), starts[i].header, pool)));
  }
  layer::Start& top = starts.back();
  const size_t last = starts.size() - 1;
  if (!options.read_only) TRY(layer::recover(top_file, top, layer::Freeze::kNo, {}));
  auto disk = std::make_unique<Disk>(std::move(layers), std::move(stack.raw_base), top,
                                     starts.front().header.raw_base_bytes, options.read_only, pool);
  for (size_t i = 0; i <= last; ++i) {
    auto note = [&](uint64_t index, const layer::MapPage& page, bool) -> Status {
      note_page(disk->map, i, index, page);
      return {};
    };
    AsyncFile& file = *disk->layers[i].file;
    layer::Journal journal;
    if (i == last && options.read_only) journal = TRY(layer::read_journal(file, starts[i].state));
    TRY(layer::read_map(file, starts[i].state, journal, note)
            .context(fmt::format("layer {}", to_string(starts[i].header.id))));
  }
  std::unique_ptr<Volume> opened = std::make_unique<OpenVolume>(std::move(disk));
  return opened;
}

Result<std::unique_ptr<Volume>> open_volume(UniqueFd raw_base, std::vector<StackDescriptor> layers,
                                            VolumeOptions options) {
  Stack stack;
  auto pool = stack.bounce = std::make_shared<BouncePool>();
  if (raw_base) stack.raw_base = TRY(make_file(std::move(raw_base), pool));
  for (StackDescriptor& each : layers) {
    bool top = &each == &layers.back();
    if (top && !options.read_only && !TRY(is_writable(each.fd.get()))) {
      return Error(ErrorCode::kPermission, "the file of the volume's top layer is open for reading only");
    }
    stack.layers.push_back({TRY(make_file(std::move(each.fd), pool)), each.key});
  }
  return open_volume(std::move(stack), options);
}

}  // namespace haneul::storage
