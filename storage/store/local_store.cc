// SPDX-License-Identifier: Apache-2.0
// The folder, the layers' files, and volumes.
#include "storage/store/local_store.h"

#include <fcntl.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <set>

#include "base/file.h"

namespace haneul::storage {
namespace {

std::string hex(std::span<const uint8_t> bytes) {
  std::string text;
  for (uint8_t byte : bytes) text += fmt::format("{:02x}", byte);
  return text;
}

Result<LayerSalt> salt_of(const std::string& text) {
  LayerSalt salt{};
  LayerId low = TRY(parse_layer_id(std::string_view(text).substr(0, 32)));
  LayerId high = TRY(parse_layer_id(std::string_view(text).substr(32)));
  std::copy(low.begin(), low.end(), salt.begin());
  std::copy(high.begin(), high.end(), salt.begin() + 16);
  return salt;
}

Status check_name(const std::string& id) {
  bool good = !id.empty() && id.size() <= 64 && std::all_of(id.begin(), id.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-';
  });
  if (good) return {};
  return make_error(ErrorCode::kInvalidArgument, "'{}' is not a name: 1 to 64 of a-z, 0-9 and -",
                    id.substr(0, 64));
}

Status make_folder(const std::filesystem::path& folder) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) return Error::from_errno(error.value(), fmt::format("cannot make {}", folder.string()));
  return {};
}

Status sync_folder(const std::filesystem::path& folder) {
  UniqueFd fd = TRY(open_file(folder, O_RDONLY | O_DIRECTORY));
  if (::fsync(fd.get()) != 0) return errno_error("syncing {}", folder.string());
  return {};
}

uint64_t allocated(const std::filesystem::path& file) {
  struct stat info {};
  return ::stat(file.c_str(), &info) == 0 ? static_cast<uint64_t>(info.st_blocks) * 512 : 0;
}

}  // namespace

Result<std::unique_ptr<Store>> Store::open(const std::filesystem::path& folder, StoreOptions options) {
  std::unique_ptr<Store> store = TRY(LocalStore::open_folder(folder, std::move(options)));
  return store;
}

Result<std::unique_ptr<LocalStore>> LocalStore::open_folder(const std::filesystem::path& folder,
                                                            StoreOptions options) {
  TRY(make_folder(folder / "layers"));
  UniqueFd lock = TRY(open_file(folder / "lock", O_RDWR | O_CREAT));
  if (Status locked = lock_file(lock.get(), true); !locked.ok()) {
    if (locked.error().code() != ErrorCode::kBusy) return std::move(locked).error();
    return make_error(ErrorCode::kBusy, "the block store {} is open in another process", folder.string());
  }
  auto catalog = TRY(Catalog::open(folder / "catalog.db"));
  std::unique_ptr<LocalStore> store(
      new LocalStore(folder, std::move(options), std::move(lock), std::move(catalog)));
  TRY(store->remove_strangers());
  TRY(store->freeze_what_is_beneath());
  return store;
}

Status LocalStore::remove_strangers() {
  std::set<std::string> known;
  for (const LayerRow& layer : TRY(catalog_->layers())) known.insert(layer.id);
  for (const CopyRow& copy : TRY(catalog_->copies())) {
    if (copy.making.empty()) continue;
    known.insert(copy.making + ".new");
    // Named, and not recorded: the copy goes on with it.
    if (!known.contains(copy.making))
      ::rename(layer_path(copy.making).c_str(), layer_path(copy.making + ".new").c_str());
  }
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(folder_ / "layers", error)) {
    if (!known.contains(entry.path().filename().string())) std::filesystem::remove(entry.path(), error);
  }
  return {};
}

// What a crash between a snapshot's switch and its end left. A VMM that has the layer open freezes it itself. What
// cannot be frozen is refused when somebody opens it, and harms nobody else.
Status LocalStore::freeze_what_is_beneath() {
  for (const LayerRow& layer : TRY(catalog_->layers())) {
    if (!TRY(catalog_->children(layer.id)).empty()) (void)freeze(layer.id).ok();
  }
  return {};
}

Status LocalStore::freeze(const std::string& layer) {
  auto file = TRY(layer_file(layer, O_RDWR));
  auto info = read_layer_info(*file);
  if (info.ok() && info->frozen) return {};
  step("a layer is to be frozen");
  auto held = TRY(guards_.lock(layer, LayerGuards::Use::kAlone));
  {
    // A snapshot may have been taken back since: then the layer is a volume's top again, and whoever wanted the snapshot
    // finds none.
    std::lock_guard lock(mutex_);
    for (const VolumeRow& volume : TRY(catalog_->volumes())) {
      if (volume.layer == layer) return {};
    }
  }
  return freeze_layer(*file).context(fmt::format("layer {}", layer));
}

Result<UniqueFd> LocalStore::open_layer(const std::string& layer, int access) const {
  return open_file(layer_path(layer), access);
}

Result<std::unique_ptr<AsyncFile>> LocalStore::layer_file(const std::string& layer, int access) const {
  return make_async_file(TRY(open_layer(layer, access)));
}

Result<StoreKey> LocalStore::store_key(bool make) {
  StoreKey key{};
  auto bytes = std::as_writable_bytes(std::span(key));
  if (::access(options_.key_file.c_str(), F_OK) != 0 && make) {
    CHECK(::getrandom(key.data(), key.size(), 0) == static_cast<ssize_t>(key.size()));
    std::filesystem::path made = options_.key_file.string() + ".new";
    {
      UniqueFd file(::open(made.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
      if (!file) return errno_error("cannot make {}", made.string());
      TRY(write_all(file.get(), bytes));
      if (::fsync(file.get()) != 0) return errno_error("syncing {}", made.string());
    }
    if (::rename(made.c_str(), options_.key_file.c_str()) != 0)
      return errno_error("naming {}", options_.key_file.string());
    TRY(sync_folder(options_.key_file.parent_path()));
    return key;
  }
  UniqueFd file = TRY(open_file(options_.key_file, O_RDONLY).context("the key of the encrypted volumes"));
  TRY(read_exact_at(file.get(), 0, bytes).context("the key of the encrypted volumes"));
  return key;
}

Result<std::optional<LayerKey>> LocalStore::key_of(const LayerRow& layer) {
  if (!layer.encrypted) return std::optional<LayerKey>();
  return std::optional<LayerKey>(derive_layer_key(TRY(store_key(false)), TRY(salt_of(layer.salt))));
}

Result<LayerRow> LocalStore::new_layer(const std::string& parent, bool encrypted) {
  LayerRow row;
  row.id = to_string(random_layer_id());
  row.parent = parent;
  row.encrypted = encrypted;
  row.origin = row.id;
  if (encrypted) {
    TRY(store_key(true));
    LayerSalt salt{};
    CHECK(::getrandom(salt.data(), salt.size(), 0) == static_cast<ssize_t>(salt.size()));
    row.salt = hex(salt);
  }
  return row;
}

Status LocalStore::make_file(const LayerRow& row, uint64_t size_bytes) {
  NewLayer layer;
  layer.id = TRY(parse_layer_id(row.id));
  if (!row.parent.empty()) layer.parent = TRY(parse_layer_id(row.parent));
  layer.size_bytes = size_bytes;
  if (row.encrypted) layer.salt = TRY(salt_of(row.salt));
  layer.key = TRY(key_of(row));
  UniqueFd file = TRY(open_file(layer_path(row.id + ".new"), O_RDWR | O_CREAT | O_TRUNC));
  TRY(create_layer(file.get(), layer));
  step("a layer's file was made");
  return {};
}

Status LocalStore::make_layer(const LayerRow& row, uint64_t size_bytes) {
  Status made = make_file(row, size_bytes);
  if (made.ok()) made = name_layer(row.id);
  if (!made.ok()) drop_file(row.id);
  return made;
}

void LocalStore::drop_file(const std::string& layer) {
  ::unlink(layer_path(layer).c_str());
  ::unlink(layer_path(layer + ".new").c_str());
}

Status LocalStore::name_layer(const std::string& layer) {
  std::filesystem::path made = layer_path(layer + ".new");
  if (::rename(made.c_str(), layer_path(layer).c_str()) != 0)
    return errno_error("naming {}", layer_path(layer).string());
  TRY(sync_folder(folder_ / "layers"));
  step("a layer's file was named");
  return {};
}

Result<std::vector<LayerRow>> LocalStore::stack_of(const std::string& layer) {
  std::vector<LayerRow> stack;
  for (std::string at = layer; !at.empty();) {
    auto row = TRY(catalog_->layer(at));
    if (!row || stack.size() > 40'000)
      return make_error(ErrorCode::kCorrupt, "the catalog has no layer {}", at);
    at = row->parent;
    stack.push_back(std::move(*row));
  }
  std::reverse(stack.begin(), stack.end());
  return stack;
}

Result<OpenStack> LocalStore::open_stack(const std::vector<LayerRow>& layers, bool write_top) {
  OpenStack stack;
  const int direct = options_.direct ? O_DIRECT : 0;
  for (const LayerRow& layer : layers) {
    bool writing = write_top && &layer == &layers.back();
    stack.layers.push_back(
        {TRY(open_layer(layer.id, (writing ? O_RDWR : O_RDONLY) | direct)), TRY(key_of(layer))});
  }
  return stack;
}

Result<bool> LocalStore::is_used(const std::string& layer) {
  return guards_.pinned(layer) || !TRY(catalog_->users(layer)).empty();
}

Status LocalStore::release(std::string layer) {
  while (!layer.empty()) {
    auto row = TRY(catalog_->layer(layer));
    if (!row || TRY(is_used(layer)) || !TRY(catalog_->children(layer)).empty()) return {};
    TRY(catalog_->remove_layer(layer));
    changed_.erase(layer);
    step("a layer was forgotten");
    if (::unlink(layer_path(layer).c_str()) != 0 && errno != ENOENT)
      return errno_error("removing layer {}", layer);
    step("a layer's file was removed");
    layer = row->parent;
  }
  return {};
}

void LocalStore::unpin(const std::string& layer) {
  std::lock_guard lock(mutex_);
  guards_.unpin(layer);
  // What cannot be removed now is by the next start.
  (void)release(layer).ok();
}

Result<VolumeRow> LocalStore::need_volume(const std::string& id) {
  auto row = TRY(catalog_->volume(id));
  if (!row) return make_error(ErrorCode::kNotFound, "the store has no volume {}", id);
  return std::move(*row);
}

Result<SnapshotRow> LocalStore::need_snapshot(const std::string& id) {
  auto row = TRY(catalog_->snapshot(id));
  if (!row) return make_error(ErrorCode::kNotFound, "the store has no snapshot {}", id);
  return std::move(*row);
}

Status LocalStore::expect_closed(const VolumeRow& volume) {
  auto file = TRY(layer_file(volume.layer, O_RDWR));
  Status locked = file->lock(AsyncFile::Lock::kExclusive);
  if (locked.ok() || locked.error().code() != ErrorCode::kBusy) return locked;
  return make_error(ErrorCode::kBusy, "the volume {} is open", volume.id);
}

// ---- Volumes ----

Result<bool> LocalStore::volume_exists(const NewVolume& wanted, uint64_t size_bytes) {
  auto there = TRY(catalog_->volume(wanted.id));
  if (!there) return false;
  if (there->size_bytes == size_bytes && there->snapshot == wanted.snapshot) return true;
  return make_error(ErrorCode::kExists, "the store has another volume {}", wanted.id);
}

Status LocalStore::create_volume(const NewVolume& wanted) {
  TRY(check_name(wanted.id));
  std::string parent;
  uint64_t size = wanted.size_bytes;
  bool encrypted = wanted.encrypted;
  Pinned pin;
  {
    std::lock_guard lock(mutex_);
    uint64_t least = 0;
    if (!wanted.snapshot.empty()) {
      SnapshotRow from = TRY(need_snapshot(wanted.snapshot));
      parent = from.layer;
      least = from.size_bytes;
      auto layer = TRY(catalog_->layer(parent));
      encrypted = encrypted || (layer && layer->encrypted);
    }
    if (size == 0) size = least;
    if (TRY(volume_exists(wanted, size))) return {};
    if (size < least) {
      return make_error(ErrorCode::kInvalidArgument,
                        "a volume of {} bytes cannot hold the snapshot {}, which has {}", size,
                        wanted.snapshot, least);
    }
    if (!parent.empty()) pin = Pinned(*this, parent);
  }
  if (!parent.empty()) TRY(freeze(parent));
  LayerRow layer = TRY(new_layer(parent, encrypted));
  TRY(make_layer(layer, size));
  std::lock_guard lock(mutex_);
  auto recorded = [&]() -> Result<bool> {
    if (TRY(volume_exists(wanted, size))) return false;
    if (!wanted.snapshot.empty()) TRY(need_snapshot(wanted.snapshot));
    TRY(catalog_->transaction([&]() -> Status {
      TRY(catalog_->add_layer(layer));
      return catalog_->put_volume({wanted.id, layer.id, size, wanted.snapshot});
    }));
    step("a volume was recorded");
    return true;
  }();
  if (!recorded.ok() || !*recorded) drop_file(layer.id);
  return recorded.ok() ? Status() : Status(std::move(recorded).error());
}

Status LocalStore::delete_volume(const std::string& id) {
  std::lock_guard lock(mutex_);
  auto row = TRY(catalog_->volume(id));
  if (!row) return {};
  Status closed = expect_closed(*row);
  // One whose file is gone can go too.
  if (!closed.ok() && closed.error().code() != ErrorCode::kNotFound) return closed;
  TRY(catalog_->remove_volume(id));
  step("a volume was forgotten");
  return release(row->layer);
}

VolumeInfo LocalStore::info_of(const VolumeRow& row) {
  VolumeInfo info;
  info.id = row.id;
  info.size_bytes = row.size_bytes;
  info.snapshot = row.snapshot;
  if (auto stack = stack_of(row.layer); stack.ok()) {
    info.encrypted = stack->back().encrypted;
    info.layers = stack->size();
  }
  info.allocated_bytes = allocated(layer_path(row.layer));
  return info;
}

Result<VolumeInfo> LocalStore::volume(const std::string& id) {
  std::lock_guard lock(mutex_);
  return info_of(TRY(need_volume(id)));
}

std::vector<VolumeInfo> LocalStore::volumes() {
  std::lock_guard lock(mutex_);
  std::vector<VolumeInfo> infos;
  auto rows = catalog_->volumes();
  if (!rows.ok()) return infos;
  for (const VolumeRow& row : *rows) infos.push_back(info_of(row));
  return infos;
}

Result<OpenStack> LocalStore::open_volume(const std::string& id) {
  for (;;) {
    std::vector<LayerRow> layers;
    {
      std::lock_guard lock(mutex_);
      VolumeRow row = TRY(need_volume(id));
      TRY(expect_closed(row));
      layers = TRY(stack_of(row.layer));
    }
    for (size_t i = 0; i + 1 < layers.size(); ++i) TRY(freeze(layers[i].id));
    std::lock_guard lock(mutex_);
    VolumeRow row = TRY(need_volume(id));
    if (row.layer != layers.back().id) continue;  // it became a snapshot meanwhile
    TRY(expect_closed(row));
    return open_stack(layers, true);
  }
}

Status LocalStore::resize_volume(const std::string& id, uint64_t size_bytes) {
  OpenStack stack = TRY(open_volume(id));
  std::vector<StackDescriptor> layers;
  for (OpenLayer& layer : stack.layers) layers.push_back({std::move(layer.fd), layer.key});
  auto open = TRY(storage::open_volume(UniqueFd(), std::move(layers), VolumeOptions()));
  TRY(open->resize(size_bytes));
  return note_size(id, size_bytes);
}

Status LocalStore::note_size(const std::string& id, uint64_t size_bytes) {
  std::lock_guard lock(mutex_);
  VolumeRow row = TRY(need_volume(id));
  row.size_bytes = size_bytes;
  return catalog_->put_volume(row);
}

uint64_t LocalStore::allocated_bytes() {
  uint64_t total = allocated(folder_ / "catalog.db") + allocated(folder_ / "catalog.db-wal");
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(folder_ / "layers", error))
    total += allocated(entry.path());
  return total;
}

}  // namespace haneul::storage
