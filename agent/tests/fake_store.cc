// SPDX-License-Identifier: Apache-2.0
#include "agent/tests/fake_store.h"

#include <unistd.h>

#include <thread>

#include "base/file.h"

namespace haneul::agent::testing {
namespace {

constexpr std::string_view kQcow2Mark = "QFI\xfb";

storage::LayerId layer_of(const std::string& snapshot) {
  storage::LayerId id{};
  for (size_t i = 0; i < snapshot.size(); ++i) id[i % id.size()] ^= static_cast<uint8_t>(snapshot[i]);
  return id;
}

}  // namespace

FakeStore::FakeStore(std::filesystem::path folder) : file_(folder / "store.json") {
  std::filesystem::create_directories(folder);
  auto text = read_file(file_);
  if (!text.ok()) return;
  Json all = Json::parse(*text);
  volumes_ = all["volumes"];
  snapshots_ = all["snapshots"];
}

void FakeStore::save() {
  Json all{{"volumes", volumes_}, {"snapshots", snapshots_}};
  replace_file(file_, all.dump()).value();
}

Status FakeStore::usable() {
  if (broken.empty()) return {};
  return make_error(ErrorCode::kIo, "{}", broken);
}

Status FakeStore::work(const storage::StoreProgress& progress) {
  while (hold) {
    if (!progress(40)) return make_error(ErrorCode::kCancelled, "cancelled");
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  if (!progress(90)) return make_error(ErrorCode::kCancelled, "cancelled");
  return {};
}

Status FakeStore::create_volume(const NewVolume& wanted) {
  std::scoped_lock lock(mutex_);
  TRY(usable());
  Json volume{{"size", wanted.size_bytes},
              {"snapshot", wanted.snapshot},
              {"encrypted", wanted.encrypted},
              {"content", ""}};
  if (!wanted.snapshot.empty()) {
    if (!snapshots_.contains(wanted.snapshot))
      return make_error(ErrorCode::kNotFound, "there is no snapshot {}", wanted.snapshot);
    const Json& from = snapshots_[wanted.snapshot];
    volume["content"] = from["content"];
    volume["encrypted"] = wanted.encrypted || from["encrypted"];
    if (wanted.size_bytes == 0) volume["size"] = from["size"];
    if (volume["size"] < from["size"])
      return make_error(ErrorCode::kInvalidArgument, "{} is too small for {}", wanted.id, wanted.snapshot);
  }
  if (volume["size"] == 0 || volume["size"].get<uint64_t>() % 512 != 0)
    return make_error(ErrorCode::kInvalidArgument, "{} has no size that a volume can have", wanted.id);
  if (volumes_.contains(wanted.id)) {
    const Json& there = volumes_[wanted.id];
    if (there["snapshot"] == wanted.snapshot) return {};
    return make_error(ErrorCode::kExists, "there is another volume {}", wanted.id);
  }
  volumes_[wanted.id] = volume;
  save();
  return {};
}

Status FakeStore::delete_volume(const std::string& id) {
  std::scoped_lock lock(mutex_);
  TRY(usable());
  volumes_.erase(id);
  save();
  return {};
}

Result<storage::VolumeInfo> FakeStore::volume(const std::string& id) {
  std::scoped_lock lock(mutex_);
  if (!volumes_.contains(id)) return make_error(ErrorCode::kNotFound, "there is no volume {}", id);
  storage::VolumeInfo info;
  info.id = id;
  info.size_bytes = volumes_[id]["size"];
  info.encrypted = volumes_[id]["encrypted"];
  return info;
}

std::vector<storage::VolumeInfo> FakeStore::volumes() {
  std::scoped_lock lock(mutex_);
  std::vector<storage::VolumeInfo> all;
  for (const auto& [id, volume] : volumes_.items()) all.push_back(this->volume(id).value());
  return all;
}

Result<storage::OpenStack> FakeStore::open_volume(const std::string& id) {
  std::scoped_lock lock(mutex_);
  TRY(usable());
  if (!volumes_.contains(id)) return make_error(ErrorCode::kNotFound, "there is no volume {}", id);
  storage::OpenStack stack;
  stack.layers.push_back({.fd = TRY(make_memfd("layer")), .key = std::nullopt});
  return stack;
}

Status FakeStore::resize_volume(const std::string& id, uint64_t size_bytes) {
  std::scoped_lock lock(mutex_);
  TRY(usable());
  if (!volumes_.contains(id)) return make_error(ErrorCode::kNotFound, "there is no volume {}", id);
  if (volumes_[id]["size"].get<uint64_t>() > size_bytes)
    return make_error(ErrorCode::kInvalidArgument, "{} does not shrink", id);
  volumes_[id]["size"] = size_bytes;
  save();
  return {};
}

Status FakeStore::note_size(const std::string& id, uint64_t size_bytes) {
  return resize_volume(id, size_bytes);
}

Result<std::vector<storage::PreparedSnapshot>> FakeStore::begin_snapshots(
    const std::vector<SnapshotOf>& wanted, const std::function<bool(const std::string& volume)>& is_open) {
  std::scoped_lock lock(mutex_);
  TRY(usable());
  std::vector<storage::PreparedSnapshot> prepared;
  for (const SnapshotOf& one : wanted) {
    if (!volumes_.contains(one.volume))
      return make_error(ErrorCode::kNotFound, "there is no volume {}", one.volume);
    if (!snapshots_.contains(one.snapshot)) {
      snapshots_[one.snapshot] = Json{{"volume", one.volume},
                                      {"size", volumes_[one.volume]["size"]},
                                      {"encrypted", volumes_[one.volume]["encrypted"]},
                                      {"content", volumes_[one.volume]["content"]},
                                      {"pushed", !is_open(one.volume)},
                                      {"completed", false}};
    }
    if (snapshots_[one.snapshot]["pushed"] || !is_open(one.volume)) continue;
    storage::PreparedSnapshot top;
    top.volume = one.volume;
    top.snapshot = one.snapshot;
    top.layer = layer_of(one.snapshot);
    top.top.fd = TRY(make_memfd("layer"));
    prepared.push_back(std::move(top));
  }
  save();
  return prepared;
}

Status FakeStore::abandon_snapshots(const std::vector<SnapshotOf>& wanted) {
  std::scoped_lock lock(mutex_);
  for (const SnapshotOf& one : wanted) {
    if (snapshots_.contains(one.snapshot) && snapshots_[one.snapshot]["pushed"])
      return make_error(ErrorCode::kBusy, "the layer of {} is taken", one.snapshot);
  }
  for (const SnapshotOf& one : wanted) snapshots_.erase(one.snapshot);
  save();
  return {};
}

Status FakeStore::snapshot_pushed(const std::string& snapshot) {
  std::scoped_lock lock(mutex_);
  if (!snapshots_.contains(snapshot)) return make_error(ErrorCode::kNotFound, "no snapshot {}", snapshot);
  snapshots_[snapshot]["pushed"] = true;
  save();
  return {};
}

Status FakeStore::complete_snapshot(const std::string& snapshot, const storage::StoreProgress& progress) {
  TRY(work(progress));
  std::scoped_lock lock(mutex_);
  TRY(usable());
  if (!snapshots_.contains(snapshot)) return make_error(ErrorCode::kNotFound, "no snapshot {}", snapshot);
  if (!snapshots_[snapshot]["pushed"])
    return make_error(ErrorCode::kBusy, "the layer of {} is not frozen yet", snapshot);
  snapshots_[snapshot]["completed"] = true;
  save();
  return {};
}

Status FakeStore::delete_snapshot(const std::string& id) {
  std::scoped_lock lock(mutex_);
  TRY(usable());
  snapshots_.erase(id);
  save();
  return {};
}

Result<storage::SnapshotInfo> FakeStore::snapshot(const std::string& id) {
  std::scoped_lock lock(mutex_);
  if (!snapshots_.contains(id)) return make_error(ErrorCode::kNotFound, "there is no snapshot {}", id);
  storage::SnapshotInfo info;
  info.id = id;
  info.volume = snapshots_[id]["volume"];
  info.size_bytes = snapshots_[id]["size"];
  info.encrypted = snapshots_[id]["encrypted"];
  info.completed = snapshots_[id]["completed"];
  return info;
}

std::vector<storage::SnapshotInfo> FakeStore::snapshots() {
  std::scoped_lock lock(mutex_);
  std::vector<storage::SnapshotInfo> all;
  for (const auto& [id, one] : snapshots_.items()) all.push_back(snapshot(id).value());
  return all;
}

// A qcow2 image is its mark and the text here.
Status FakeStore::import_snapshot(const std::string& snapshot, int file, storage::ImageFormat format,
                                  uint64_t size, bool encrypted, const storage::StoreProgress& progress) {
  TRY(work(progress));
  std::scoped_lock lock(mutex_);
  TRY(usable());
  uint64_t length = TRY(file_size(file));
  std::string text(std::min<uint64_t>(length, 16 << 20), '\0');
  TRY(read_exact_at(file, 0, std::as_writable_bytes(std::span(text))));
  if (format == storage::ImageFormat::kQcow2) {
    if (!text.starts_with(kQcow2Mark))
      return make_error(ErrorCode::kInvalidArgument, "the file is not a qcow2 image");
    text.erase(0, kQcow2Mark.size());
    length = (text.size() + 511) / 512 * 512;
  }
  if (length % 512 != 0) return make_error(ErrorCode::kInvalidArgument, "the image has half a sector");
  size = std::max(size, length);
  text.resize(text.find_last_not_of('\0') + 1);
  snapshots_[snapshot] =
      Json{{"volume", ""},   {"size", size},     {"encrypted", encrypted}, {"content", to_base64(text)},
           {"pushed", true}, {"completed", true}};
  save();
  return {};
}

Status FakeStore::export_snapshot(const std::string& snapshot, int file, storage::ImageFormat format,
                                  const storage::StoreProgress& progress) {
  auto info = TRY(this->snapshot(snapshot));
  if (!info.completed) return make_error(ErrorCode::kBusy, "the snapshot {} is not completed yet", snapshot);
  TRY(work(progress));
  std::string text = read(snapshot);
  uint64_t size = info.size_bytes;
  if (format == storage::ImageFormat::kQcow2) {
    text.insert(0, kQcow2Mark);
    size = text.size();
  }
  if (::ftruncate(file, static_cast<off_t>(size)) != 0) return errno_error("ftruncate");
  return write_all_at(file, 0, std::as_bytes(std::span(text)));
}

Status FakeStore::copy_snapshot(Store& from, const std::string& source, const std::string& snapshot,
                                const storage::StoreProgress& progress) {
  auto& other = static_cast<FakeStore&>(from);
  auto info = TRY(other.snapshot(source));
  if (!info.completed) return make_error(ErrorCode::kBusy, "the snapshot {} is not completed yet", source);
  TRY(work(progress));
  std::string text = other.read(source);
  std::scoped_lock lock(mutex_);
  TRY(usable());
  snapshots_[snapshot] =
      Json{{"volume", info.volume},      {"size", info.size_bytes}, {"encrypted", info.encrypted},
           {"content", to_base64(text)}, {"pushed", true},          {"completed", true}};
  save();
  return {};
}

Status FakeStore::collect(const storage::StoreProgress&) {
  ++collected;
  return {};
}

Result<storage::StoreCheck> FakeStore::check(const std::string& id, storage::CheckOptions,
                                             const storage::StoreProgress& progress) {
  TRY(work(progress));
  TRY(usable());
  storage::StoreCheck found;
  found.layers = id.empty() ? volumes_.size() + snapshots_.size() : 1;
  for (const std::string& one : ids()) {
    if ((id.empty() || id == one) && read(one) == "damaged")
      found.faults.push_back({.subject = one, .fault = {.where = "block 0", .what = "its sum is wrong"}});
  }
  return found;
}

void FakeStore::write(const std::string& volume, const std::string& content) {
  std::scoped_lock lock(mutex_);
  CHECK(volumes_.contains(volume));
  volumes_[volume]["content"] = to_base64(content);
  save();
}

std::string FakeStore::read(const std::string& id) {
  std::scoped_lock lock(mutex_);
  if (!volumes_.contains(id) && !snapshots_.contains(id)) return "(nothing)";
  const Json& one = volumes_.contains(id) ? volumes_[id] : snapshots_[id];
  return from_base64(one["content"].get<std::string>()).value();
}

std::set<std::string> FakeStore::ids() {
  std::scoped_lock lock(mutex_);
  std::set<std::string> all;
  for (const auto& [id, one] : volumes_.items()) all.insert(id);
  for (const auto& [id, one] : snapshots_.items()) all.insert(id);
  return all;
}

FakeStore& FakeStores::store(const std::string& region) {
  std::scoped_lock lock(mutex_);
  auto& store = stores_[region];
  if (!store) store = std::make_unique<FakeStore>(state_ / "regions" / region);
  return *store;
}

}  // namespace haneul::agent::testing
