// SPDX-License-Identifier: Apache-2.0
// Copies between stores: layer by layer from the highest one up that is here and whole.
//
// What stands beneath a whole layer is good for it, whatever was punched there; so only the highest one counts. A layer
// that was punched, here or where it came from, is good only for those that stand on it already: another copy
// brings it anew. FORMAT.md, "Copying", has the argument.
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <thread>

#include "base/file.h"
#include "storage/store/layer_copy.h"
#include "storage/store/local_store.h"

namespace haneul::storage {
namespace {

constexpr auto kWait = std::chrono::milliseconds(50);

}  // namespace

/// What is to be done next for a copy.
struct LocalStore::CopyStep {
  enum class Kind { kDone, kWait, kCopy } kind = Kind::kDone;
  size_t index = 0;  ///< in the source's stack
  LayerRow from;
  LayerRow making;
};

Result<LocalStore::Source> LocalStore::source_of(const std::string& id) {
  std::lock_guard lock(mutex_);
  Source source;
  source.snapshot = TRY(need_snapshot(id));
  if (!source.snapshot.completed)
    return make_error(ErrorCode::kBusy, "the snapshot {} is not completed yet", id);
  source.layers = TRY(stack_of(source.snapshot.layer));
  source.pin = Pinned(*this, source.snapshot.layer);
  return source;
}

// One writer a layer: whoever needs one that is being copied waits for it, and looks again.
Result<LocalStore::CopyStep> LocalStore::next_copy_step(LocalStore& from, const Source& source,
                                                        const std::string& id) {
  std::lock_guard lock(mutex_);
  CopyStep next;
  if (TRY(catalog_->snapshot(id))) return next;
  CopyRow copy = TRY(catalog_->copy(id)).value_or(CopyRow{id, "", "", "", ""});
  std::string highest;
  std::string own_origin;
  if (!copy.layer.empty()) own_origin = TRY(catalog_->layer(copy.layer)).value_or(LayerRow()).origin;
  for (next.index = source.layers.size(); next.index > 0; --next.index) {
    const std::string& origin = source.layers[next.index - 1].origin;
    std::vector<LayerRow> whole = TRY(catalog_->whole_of(origin));
    highest = origin == own_origin ? copy.layer : whole.empty() ? "" : whole.front().id;
    if (!highest.empty()) break;
  }
  const std::string before = std::exchange(copy.layer, highest);
  if (next.index == source.layers.size()) {
    TRY(catalog_->transaction([&]() -> Status {
      TRY(catalog_->remove_copy(id));
      return catalog_->put_snapshot({id, highest, "", source.snapshot.size_bytes, true, 100, ""});
    }));
    step("a copy was recorded");
    if (!copy.making.empty()) drop_file(copy.making);
    TRY(release(before));
    return next;
  }
  next.from = source.layers[next.index];
  next.kind = copying_.contains(next.from.origin) ? CopyStep::Kind::kWait : CopyStep::Kind::kCopy;
  std::string dropped;
  if (next.kind == CopyStep::Kind::kCopy && copy.origin != next.from.origin) {
    dropped = copy.making;
    LayerRow made = TRY(new_layer(highest, next.from.encrypted));
    const bool same_key = next.from.encrypted && TRY(from.store_key(false)) == TRY(store_key(false));
    copy.making = made.id;
    copy.origin = next.from.origin;
    copy.salt = same_key ? next.from.salt : made.salt;
  }
  TRY(catalog_->put_copy(copy));
  step("a copy's step was recorded");
  if (!dropped.empty()) drop_file(dropped);
  if (before != highest) TRY(release(before));
  next.making = {copy.making, highest, next.from.encrypted, copy.salt, copy.origin, LayerRow::Punched::kNo};
  if (next.kind == CopyStep::Kind::kCopy) copying_.insert(copy.origin);
  return next;
}

Status LocalStore::copy_one(LocalStore& from, const CopyStep& next, const Progress& progress) {
  TRY(from.need_sums(next.from.id, progress));
  auto held = TRY(
      from.guards_.lock(next.from.id, LayerGuards::Use::kRead, [&] { return !progress || progress(0, 1); }));
  auto source = TRY(from.layer_file(next.from.id, O_RDONLY));
  LayerInfo info = TRY(read_layer_info(*source).context(fmt::format("layer {}", next.from.id)));
  const std::string making = next.making.id + ".new";
  // What an earlier call left, if it is on the same layer; else anew.
  auto there = layer_file(making, O_RDWR);
  auto old = there.ok() ? read_layer_info(**there) : Result<LayerInfo>(there.error());
  const bool goes_on = old.ok() && old->size_bytes == info.size_bytes &&
                       (old->parent == LayerId{} ? "" : to_string(old->parent)) == next.making.parent;
  if (!goes_on) TRY(make_file(next.making, info.size_bytes));
  auto target = TRY(layer_file(making, O_RDWR));
  std::optional<LayerKeys> keys;
  if (next.from.encrypted && next.from.salt != next.making.salt)
    keys = LayerKeys{TRY(from.key_of(next.from)).value(), TRY(key_of(next.making)).value()};
  TRY(copy_layer(*source, *target, keys, progress).context(fmt::format("layer {}", next.from.id)));
  step("a layer was copied");
  std::vector<Fault> faults = TRY(check_layer(*target, {}, progress));
  if (faults.empty()) return {};
  return make_error(ErrorCode::kCorrupt, "the copy of layer {}: {}: {}", next.from.id, faults.front().where,
                    faults.front().what);
}

Status LocalStore::record_copied(const CopyStep& next, const std::string& id) {
  std::lock_guard lock(mutex_);
  auto copy = TRY(catalog_->copy(id));
  if (!copy || copy->making != next.making.id) return Error(ErrorCode::kCancelled, "the copy was given up");
  TRY(name_layer(next.making.id));
  TRY(catalog_->transaction([&]() -> Status {
    TRY(catalog_->add_layer(next.making));
    return catalog_->put_copy({id, next.making.id, "", "", ""});
  }));
  step("a copied layer was recorded");
  return {};
}

Status LocalStore::copy_snapshot(Store& other, const std::string& source_id, const std::string& id,
                                 const StoreProgress& progress) {
  auto* from = dynamic_cast<LocalStore*>(&other);
  if (from == nullptr)
    return Error(ErrorCode::kUnsupported, "a snapshot is copied from a store of this machine only");
  {
    std::lock_guard lock(mutex_);
    if (TRY(catalog_->snapshot(id))) return {};
  }
  Source source = TRY(from->source_of(source_id));
  if (from == this) {
    std::lock_guard lock(mutex_);
    return catalog_->put_snapshot({id, source.snapshot.layer, "", source.snapshot.size_bytes, true, 100, ""});
  }
  Status copied = copy_layers(*from, source, id, noting(id, progress));
  forget_progress(id);
  return copied;
}

Status LocalStore::copy_layers(LocalStore& from, const Source& source, const std::string& id,
                               const Progress& note) {
  const size_t layers = source.layers.size();
  for (;;) {
    CopyStep next = TRY(next_copy_step(from, source, id));
    if (next.kind == CopyStep::Kind::kDone) return {};
    // Of all layers together, as if each had as much.
    auto part = [&](uint64_t done, uint64_t total) {
      return note(next.index * 1000 + done * 1000 / std::max<uint64_t>(1, total), layers * 1000);
    };
    if (next.kind == CopyStep::Kind::kWait) {
      if (!part(0, 1)) return Error(ErrorCode::kCancelled, "the copy was ended");
      std::this_thread::sleep_for(kWait);
      continue;
    }
    Status copied = copy_one(from, next, part);
    if (copied.ok()) {
      // Asked afterwards: if it is not marked by now, nothing was missing while it was read.
      auto punched = from.is_punched(next.from.id);
      if (!punched.ok()) copied = std::move(punched).error();
      if (copied.ok() && *punched) next.making.punched = LayerRow::Punched::kYes;
    }
    if (copied.ok()) copied = record_copied(next, id);
    std::lock_guard lock(mutex_);
    copying_.erase(next.from.origin);
    if (!copied.ok()) drop_given_up(next, id);
    TRY(std::move(copied));
  }
}

Result<bool> LocalStore::is_punched(const std::string& layer) {
  std::lock_guard lock(mutex_);
  auto row = TRY(catalog_->layer(layer));
  return !row || row->punched != LayerRow::Punched::kNo;
}

// With the lock: a file that was made after the copy had been given up.
void LocalStore::drop_given_up(const CopyStep& step, const std::string& id) {
  auto copy = catalog_->copy(id);
  auto layer = catalog_->layer(step.making.id);
  if (!copy.ok() || !layer.ok() || *layer) return;
  if (!*copy || (*copy)->making != step.making.id) drop_file(step.making.id);
}

// With the lock.
Status LocalStore::give_up_copy(const std::string& id) {
  auto copy = TRY(catalog_->copy(id));
  if (!copy) return {};
  TRY(catalog_->remove_copy(id));
  step("a copy was given up");
  if (!copy->making.empty()) drop_file(copy->making);
  return release(copy->layer);
}

}  // namespace haneul::storage
