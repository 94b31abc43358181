// SPDX-License-Identifier: Apache-2.0
// VolumeMachine: a volume over files in memory, a model of what each sector may hold, and the power that
// goes.
//
// Requests are random, many at once, and complete in random order. A probe asks: if the power went now, would
// every layer be sound, and every sector hold what it held at the last flush, or one of the contents it was given
// since? A crash goes on with what is left. Layers are pushed in between, sums are made, volumes are cloned from
// snapshots, both are deleted and their layers give back what nobody sees; what is beneath must never change again.
// With crash points on, each step of all that, and of making, opening and closing layers, is probed. One thread.
#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <map>
#include <memory>
#include <set>

#include "storage/testing/sim_file.h"
#include "storage/testing/waiting_request.h"
#include "storage/volume/volume.h"

namespace haneul::storage::testing {

using Tag = uint64_t;  // what a sector holds: its number repeated; 0 is zeroes

// The contents that each sector may have. `allowed` is what a read may return now, `after_crash` what may be
// there when the power goes. A request under way adds to both; when it is done and was alone, it decides.
struct Model {
  struct Sector {
    std::set<Tag> allowed{0};
    std::set<Tag> after_crash{0};
    unsigned changes = 0;  // under way
  };
  std::vector<Sector> sectors;
};

struct Request final : BlockRequest {
  bool under_way = false;
  std::vector<std::byte> bytes;
  std::vector<iovec> iovecs;
  Tag tag = 0;
  // Reads: what each sector might have held at some time since the read began.
  std::vector<std::set<Tag>> seen;
  // Flushes: what each sector might have held when the flush began.
  std::vector<std::set<Tag>> at_start;
  std::vector<unsigned> changes_at_start;
  uint64_t started = 0;
  std::function<void(Request&, BlockStatus)> done;
  void completed(BlockStatus status) override { done(*this, status); }
};

class VolumeMachine {
 public:
  struct Options {
    uint64_t sectors = 64;
    uint64_t base_sectors = 0;
    bool encrypted = false;
    /// One in so many steps of blocking work is probed; 0: none.
    unsigned crash_points_one_in = 0;
  };
  VolumeMachine(Random& random, Options options)
      : random_(random),
        options_(options),
        sectors_(options.sectors),
        ring_(std::move(IoRing::create(8)).value()),
        probe_ring_(std::move(IoRing::create(8)).value()) {
    const uint64_t sectors = options.sectors;
    const uint64_t base_sectors = options.base_sectors;
    base_medium_ = std::make_shared<SimMedium>();
    base_medium_->grow(base_sectors * 512);
    base_medium_->settle(base_medium_->clock);
    model_.sectors.resize(sectors);
    for (uint64_t sector = 0; sector < base_sectors; ++sector) {
      auto content = content_of(next_tag_);
      base_medium_->put(0, sector * 512, content);
      model_.sectors[sector].allowed = model_.sectors[sector].after_crash = {next_tag_++};
    }
    NewLayer lowest;
    lowest.size_bytes = sectors * 512;
    lowest.raw_base_bytes = base_sectors * 512;
    add_layer(lowest);
    open();
  }
  ~VolumeMachine() { close(); }

  void open() {
    // As the store does before it hands a volume over.
    CrashPoints points(*this);
    for (size_t i = 0; i + 1 < media_.size(); ++i) {
      SimFile file(media_[i], random_);
      Status frozen = freeze_layer(file);
      ASSERT_TRUE(frozen.ok()) << frozen.error().message();
    }
    auto opened = open_volume(stack(media_, keys_, &files_), VolumeOptions());
    ASSERT_TRUE(opened.ok()) << opened.error().message();
    volume_ = std::move(opened).value();
    channels_.push_back(volume_->open_channel(*ring_));
    channels_.push_back(volume_->open_channel(*ring_));
  }
  void close() {
    finish_all();
    channels_.clear();
    CrashPoints points(*this);
    volume_.reset();
    files_.clear();
  }
  void finish_all() {
    while (under_way_ > 0) step();
  }
  /// Until nothing is under way but what waits for something else.
  void finish_files() {
    auto busy = [](SimFile* file) { return file->pending() > 0; };
    for (int quiet = 0; quiet < 2; ++quiet) {
      if (std::any_of(files_.begin(), files_.end(), busy) || ring_->in_flight() > 0) quiet = -1;
      step();
    }
  }
  void reopen() {
    close();
    open();
  }

  /// What a power loss at this moment leaves.
  struct Wreck {
    std::vector<std::shared_ptr<SimMedium>> media;
    std::vector<std::set<Tag>> sectors;
  };
  Wreck wreck(SimMedium::Keep keep = SimMedium::Keep::kAny) {
    Wreck left;
    for (const auto& medium : media_)
      left.media.push_back(std::make_shared<SimMedium>(medium->after_power_loss(random_, keep)));
    for (const auto& sector : model_.sectors) left.sectors.push_back(sector.after_crash);
    return left;
  }
  void crash() { crash(wreck()); }
  void crash(Wreck left) {
    // What was under way is lost, but the objects have to end in order: let them, on the media that are gone.
    close();
    media_ = std::move(left.media);
    ++epoch_;
    for (uint64_t sector = 0; sector < sectors_; ++sector)
      model_.sectors[sector].after_crash = left.sectors[sector];
    open();
    if (::testing::Test::HasFatalFailure()) return;
    // What is there now is what stays there.
    for (uint64_t sector = 0; sector < sectors_; ++sector) {
      Tag found = read_one(sector);
      ASSERT_TRUE(left.sectors[sector].contains(found))
          << "sector " << sector << " holds " << found << " after a crash";
      model_.sectors[sector].allowed = model_.sectors[sector].after_crash = {found};
      model_.sectors[sector].changes = 0;
    }
    // A snapshot that was not frozen yet has what the crash left of it.
    if (unfrozen_) snapshots_.back() = contents(media_.size() - 1);
    unfrozen_ = false;
  }

  /// Opens what a power loss would leave now, and looks at all of it.
  void probe(SimMedium::Keep keep = SimMedium::Keep::kAny) {
    Wreck left = wreck(keep);
    for (const auto& medium : left.media) expect_sound(medium);
    for (size_t i = 0; i + 1 < left.media.size(); ++i) {
      SimFile file(left.media[i], random_);
      Status frozen = freeze_layer(file);
      ASSERT_TRUE(frozen.ok()) << frozen.error().message();
    }
    std::vector<Tag> found = read_all(left.media, keys_, false);
    ASSERT_GE(found.size(), left.sectors.size()) << "a size that was answered";
    for (uint64_t sector = 0; sector < left.sectors.size(); ++sector) {
      ASSERT_TRUE(left.sectors[sector].contains(found[sector]))
          << "sector " << sector << " would hold " << found[sector] << " after a crash";
    }
    for (uint64_t sector = left.sectors.size(); sector < found.size(); ++sector) ASSERT_EQ(found[sector], 0u);
    ++probes_;
  }

  /// A snapshot, with requests in between and, sometimes, a power loss at one of its steps.
  void push() {
    finish_all();
    uint64_t lost_at = below(random_, 12);
    NewLayer next;
    next.parent = volume_->top();
    next.size_bytes = sectors_ * 512;
    add_layer(next);  // the catalog names it from here on
    if (lost_at == 0) {
      crash();
      snapshots_.push_back(contents(media_.size() - 1));
      return;
    }
    if (below(random_, 2) == 0) {
      CrashPoints points(*this);
      ASSERT_TRUE(volume_->sync_top().ok());
    }
    auto file = std::make_unique<SimFile>(media_.back(), random_);
    file->faults.short_one_in = 8;
    files_.push_back(file.get());
    Status begun = volume_->begin_push({std::move(file), keys_.back()});
    ASSERT_TRUE(begun.ok()) << begun.error().message();
    for (uint64_t i = below(random_, 8); i > 0; --i) random_request();
    for (uint64_t i = below(random_, 8); i > 0; --i) step();
    volume_->hold_changes();
    for (uint64_t i = below(random_, 5); i > 0; --i) random_request();
    finish_files();
    snapshots_.emplace_back();
    for (const auto& sector : model_.sectors) snapshots_.back().push_back(sector.allowed);
    volume_->wait_for_changes();
    volume_->switch_top();
    volume_->release_changes();
    unfrozen_ = true;
    for (uint64_t i = below(random_, 8); i > 0; --i) random_request();
    for (uint64_t i = below(random_, 8); i > 0; --i) step();
    std::optional<Wreck> left;
    if (lost_at == 1) left = wreck();
    if (below(random_, 4) == 0) probe();
    Status finished;
    {
      CrashPoints points(*this);
      finished = volume_->finish_push();
    }
    ASSERT_TRUE(finished.ok()) << finished.error().message();
    if (left) return crash(std::move(*left));
    unfrozen_ = false;
    ASSERT_EQ(volume_->layers(), media_.size());
  }

  /// Every snapshot and every clone holds what it held.
  void check_snapshots() {
    for (size_t i = 0; i < snapshots_.size(); ++i) {
      if (deleted_.contains(i)) continue;
      std::vector<std::set<Tag>> now = contents(i + 1);
      for (uint64_t sector = 0; sector < now.size(); ++sector) {
        Tag found = *now[sector].begin();
        ASSERT_TRUE(snapshots_[i][sector].contains(found))
            << "snapshot " << i << ", sector " << sector << ": " << found;
      }
      snapshots_[i] = std::move(now);  // it may not choose again
    }
    for (const Clone& clone : clones_) {
      auto [media, keys] = stack_of(clone);
      std::vector<Tag> found = read_all(media, keys, true);
      ASSERT_EQ(found, clone.content) << "a clone of snapshot " << clone.parent;
    }
  }

  /// A volume from a snapshot: written to, and closed.
  void clone() {
    if (snapshots_.empty()) return;
    size_t parent = below(random_, snapshots_.size());
    if (deleted_.contains(parent) || unfrozen_) return;
    Clone made{parent, std::make_shared<SimMedium>(), {}, {}};
    SimFile beneath(media_[parent], random_);
    LayerInfo info = read_layer_info(beneath).value();
    NewLayer layer;
    layer.parent = info.id;
    layer.size_bytes = info.size_bytes;
    made.key = create(made.medium, layer);
    auto [media, keys] = stack_of(made);
    made.content = read_all(media, keys, false, [&](uint64_t sectors, auto write) {
      for (int i = 0; i < 12; ++i) {
        uint64_t start = below(random_, sectors);
        uint64_t count = 1 + below(random_, std::min<uint64_t>(20, sectors - start));
        write(start, count, below(random_, 3) == 0 ? 0 : next_tag_++);
      }
    });
    clones_.push_back(std::move(made));
  }
  /// A snapshot or a clone goes.
  void delete_one() {
    if (!clones_.empty() && below(random_, 2) == 0) {
      clones_.erase(clones_.begin() + static_cast<ptrdiff_t>(below(random_, clones_.size())));
    } else if (!snapshots_.empty()) {
      deleted_.insert(below(random_, snapshots_.size()));
    }
  }
  /// Layers that nobody stands on any more give back what none of their children shows.
  void collect() {
    if (unfrozen_) return;
    CrashPoints points(*this);
    for (size_t i : deleted_) {
      if (i + 1 >= media_.size()) continue;
      std::vector<std::unique_ptr<SimFile>> files;
      files.push_back(std::make_unique<SimFile>(media_[i + 1], random_));
      for (const Clone& clone : clones_) {
        if (clone.parent == i) files.push_back(std::make_unique<SimFile>(clone.medium, random_));
      }
      std::vector<AsyncFile*> children;
      for (const auto& file : files) children.push_back(file.get());
      SimFile file(media_[i], random_);
      auto punched = punch_hidden(file, children, {}, {});
      ASSERT_TRUE(punched.ok()) << punched.error().message();
      Status unused = punch_unused(file, {});
      ASSERT_TRUE(unused.ok()) << unused.error().message();
      given_back_ += *punched;
    }
  }
  void make_sums() {
    if (snapshots_.empty() || unfrozen_) return;
    CrashPoints points(*this);
    SimFile file(media_[below(random_, snapshots_.size())], random_);
    Status made = write_sums(file, {});
    ASSERT_TRUE(made.ok()) << made.error().message();
  }

  void resize() {
    finish_all();
    uint64_t more = sectors_ + 1 + below(random_, 200);
    Status resized;
    {
      CrashPoints points(*this);
      resized = volume_->resize(more * 512);
    }
    ASSERT_TRUE(resized.ok()) << resized.error().message();
    sectors_ = more;
    model_.sectors.resize(more);
  }

  void random_request() {
    if (under_way_ >= 24) return step();
    Request& request = fresh();
    uint64_t kind = below(random_, 100);
    if (kind < 8) return flush(request);
    uint64_t start = below(random_, sectors_);
    uint64_t most = below(random_, 4) == 0 ? 128 : 12;
    uint64_t count = 1 + below(random_, std::min(most, sectors_ - start));
    if (kind < 40) return read(request, start, count);
    if (kind < 80) return change(request, BlockOp::kWrite, start, count);
    if (kind < 90) return change(request, BlockOp::kWriteZeroes, start, count);
    change(request, BlockOp::kDiscard, start, count);
  }

  void step() {
    std::vector<SimFile*> busy;
    for (SimFile* file : files_) {
      if (file->pending() > 0) busy.push_back(file);
    }
    if (!busy.empty()) busy[below(random_, busy.size())]->step();
    ASSERT_TRUE(ring_->run_once(false).ok());
  }

  uint64_t operations() const { return operations_; }
  uint64_t probes() const { return probes_; }
  size_t layers() const { return media_.size(); }
  uint64_t given_back() const { return given_back_; }

 private:
  static std::array<std::byte, 512> content_of(Tag tag) {
    std::array<std::byte, 512> content;
    for (size_t at = 0; at < 512; at += 8) std::memcpy(&content[at], &tag, 8);
    return content;
  }
  struct Clone {
    size_t parent;
    std::shared_ptr<SimMedium> medium;
    std::optional<LayerKey> key;
    std::vector<Tag> content;
  };
  using Media = std::vector<std::shared_ptr<SimMedium>>;
  using Keys = std::vector<std::optional<LayerKey>>;
  std::pair<Media, Keys> stack_of(const Clone& clone) {
    auto end = static_cast<ptrdiff_t>(clone.parent + 1);
    std::pair<Media, Keys> whole{{media_.begin(), media_.begin() + end},
                                 {keys_.begin(), keys_.begin() + end}};
    whole.first.push_back(clone.medium);
    whole.second.push_back(clone.key);
    return whole;
  }

  /// While it lives, steps of blocking calls are crash points.
  class CrashPoints {
   public:
    explicit CrashPoints(VolumeMachine& machine) : machine_(machine) {
      if (machine.options_.crash_points_one_in == 0) return;
      for (const auto& medium : machine.media_) medium->between = [&machine] { machine.between(); };
    }
    CrashPoints(const CrashPoints&) = delete;
    CrashPoints& operator=(const CrashPoints&) = delete;
    ~CrashPoints() {
      for (const auto& medium : machine_.media_) medium->between = {};
    }

   private:
    VolumeMachine& machine_;
  };
  void between() {
    if (::testing::Test::HasFatalFailure() || below(random_, options_.crash_points_one_in) != 0) return;
    probe();
  }
  void expect_sound(const std::shared_ptr<SimMedium>& medium) {
    SimFile file(medium, random_);
    auto faults = check_layer(file, {}, {});
    ASSERT_TRUE(faults.ok()) << faults.error().message();
    for (const Fault& fault : *faults) FAIL() << fault.where << ": " << fault.what;
  }

  void add_layer(NewLayer layer) {
    auto medium = std::make_shared<SimMedium>();
    keys_.push_back(create(medium, layer));
    media_.push_back(medium);
  }
  /// What a power loss leaves of a layer that is being made is one whole, or none that anybody takes for one.
  std::optional<LayerKey> create(const std::shared_ptr<SimMedium>& medium, NewLayer layer) {
    for (uint8_t& byte : layer.id) byte = static_cast<uint8_t>(random_());
    if (options_.encrypted) {
      layer.salt.fill(static_cast<uint8_t>(random_()));
      layer.key = derive_layer_key(StoreKey{1}, layer.salt);
    }
    if (options_.crash_points_one_in != 0) {
      medium->between = [&] {
        auto left = std::make_shared<SimMedium>(medium->after_power_loss(random_));
        left->between = {};
        SimFile file(left, random_);
        auto info = read_layer_info(file);
        if (info.ok()) {
          EXPECT_EQ(info->id, layer.id);
          EXPECT_EQ(info->size_bytes, layer.size_bytes);
          EXPECT_FALSE(info->frozen);
          expect_sound(left);
        }
        ++probes_;
      };
    }
    SimFile file(medium, random_);
    Status made = create_layer(file, layer);
    medium->between = {};
    EXPECT_TRUE(made.ok()) << made.error().message();
    return layer.key;
  }
  /// Files over these media; all of them are noted in `files`.
  Stack stack(std::span<const std::shared_ptr<SimMedium>> media,
              std::span<const std::optional<LayerKey>> keys, std::vector<SimFile*>* files) {
    Stack made;
    if (base_medium_->size > 0) {
      auto base = std::make_unique<SimFile>(base_medium_, random_);
      files->push_back(base.get());
      made.raw_base = std::move(base);
    }
    for (size_t i = 0; i < media.size(); ++i) {
      auto file = std::make_unique<SimFile>(media[i], random_);
      file->faults.short_one_in = 8;
      files->push_back(file.get());
      made.layers.push_back({std::move(file), keys[i]});
    }
    return made;
  }
  /// All of a volume, through files of its own; after `changes`, if there are any, which the files then hold.
  using Write = std::function<void(uint64_t start, uint64_t count, Tag tag)>;
  std::vector<Tag> read_all(std::span<const std::shared_ptr<SimMedium>> media,
                            std::span<const std::optional<LayerKey>> keys, bool read_only,
                            const std::function<void(uint64_t sectors, Write write)>& changes = {}) {
    std::vector<SimFile*> files;
    VolumeOptions options;
    options.read_only = read_only;
    auto opened = open_volume(stack(media, keys, &files), options);
    std::vector<Tag> tags;
    EXPECT_TRUE(opened.ok()) << opened.error().message();
    if (!opened.ok()) return tags;
    auto channel = (*opened)->open_channel(*probe_ring_);
    auto run = [&](BlockOp op, uint64_t offset, std::vector<std::byte>& bytes) {
      Request request;
      request.op = op;
      request.offset = offset;
      request.length = bytes.size();
      iovec piece{bytes.data(), bytes.size()};
      request.data = std::span(&piece, 1);
      bool done = false;
      request.done = [&done](Request&, BlockStatus status) {
        EXPECT_EQ(status, BlockStatus::kOk);
        done = true;
      };
      channel->submit(request);
      while (!done) {
        for (SimFile* file : files) {
          if (file->pending() > 0) file->step();
        }
        EXPECT_TRUE(probe_ring_->run_once(false).ok());
      }
    };
    const uint64_t size = (*opened)->size_bytes();
    if (changes) {
      changes(size / 512, [&](uint64_t start, uint64_t count, Tag tag) {
        std::vector<std::byte> bytes;
        auto content = content_of(tag);
        for (uint64_t i = 0; i < count; ++i) bytes.insert(bytes.end(), content.begin(), content.end());
        run(tag == 0 ? BlockOp::kWriteZeroes : BlockOp::kWrite, start * 512, bytes);
      });
    }
    std::vector<std::byte> bytes(size, std::byte{0xee});
    run(BlockOp::kRead, 0, bytes);
    for (uint64_t at = 0; at < size; at += 512) tags.push_back(tag_of(bytes.data() + at));
    return tags;
  }
  /// What the lowest layers, so many of them, hold.
  std::vector<std::set<Tag>> contents(size_t layers) {
    std::vector<std::set<Tag>> sets;
    auto tags = read_all(std::span(media_).first(layers), std::span(keys_).first(layers), true);
    for (Tag tag : tags) sets.push_back({tag});
    return sets;
  }

  static Tag tag_of(const std::byte* sector) {
    Tag tag = 0;
    std::memcpy(&tag, sector, 8);
    for (size_t at = 0; at < 512; at += 8) {
      EXPECT_EQ(std::memcmp(sector + at, &tag, 8), 0) << "a torn sector";
    }
    return tag;
  }

  Request& fresh() {
    for (auto& request : requests_) {
      if (!request->under_way) return *request;
    }
    requests_.push_back(std::make_unique<Request>());
    return *requests_.back();
  }

  void submit(Request& request) {
    ++operations_;
    ++under_way_;
    request.under_way = true;
    // Cut into iovecs of any size.
    request.iovecs.clear();
    for (size_t at = 0; at < request.bytes.size();) {
      size_t piece = std::min<size_t>(request.bytes.size() - at, 1 + below(random_, 3000));
      request.iovecs.push_back({request.bytes.data() + at, piece});
      at += piece;
    }
    request.data = request.iovecs;
    request.started = epoch_;
    channels_[below(random_, channels_.size())]->submit(request);
  }
  void ended(Request& request) {
    request.under_way = false;
    --under_way_;
  }

  void read(Request& request, uint64_t start, uint64_t count) {
    request.op = BlockOp::kRead;
    request.offset = start * 512;
    request.length = count * 512;
    request.bytes.assign(request.length, std::byte{0xee});
    request.seen.clear();
    for (uint64_t i = 0; i < count; ++i) request.seen.push_back(model_.sectors[start + i].allowed);
    reads_.insert(&request);
    request.done = [this, start, count](Request& self, BlockStatus status) {
      reads_.erase(&self);
      EXPECT_EQ(status, BlockStatus::kOk);
      for (uint64_t i = 0; i < count; ++i) {
        Tag found = tag_of(self.bytes.data() + i * 512);
        EXPECT_TRUE(self.seen[i].contains(found)) << "sector " << start + i << " reads " << found;
      }
      ended(self);
    };
    submit(request);
  }

  void change(Request& request, BlockOp op, uint64_t start, uint64_t count) {
    request.op = op;
    request.may_unmap = below(random_, 2) == 0;
    request.offset = start * 512;
    request.length = count * 512;
    Tag tag = op == BlockOp::kWrite ? next_tag_++ : 0;
    request.bytes.clear();
    if (op == BlockOp::kWrite) {
      auto content = content_of(tag);
      for (uint64_t i = 0; i < count; ++i) {
        request.bytes.insert(request.bytes.end(), content.begin(), content.end());
      }
    }
    std::vector<bool> alone;
    for (uint64_t i = 0; i < count; ++i) {
      auto& sector = model_.sectors[start + i];
      sector.allowed.insert(tag);
      sector.after_crash.insert(tag);
      ++sector.changes;
      ++sector_version(start + i);
      for (Request* reader : reads_) {
        uint64_t first = reader->offset / 512;
        if (start + i >= first && start + i < first + reader->seen.size()) {
          reader->seen[start + i - first].insert(tag);
        }
      }
    }
    std::vector<uint64_t> versions;
    for (uint64_t i = 0; i < count; ++i) versions.push_back(sector_version(start + i));
    std::vector<bool> was_alone;
    for (uint64_t i = 0; i < count; ++i) was_alone.push_back(model_.sectors[start + i].changes == 1);
    request.done = [this, op, start, count, tag, versions, was_alone](Request& self, BlockStatus status) {
      EXPECT_EQ(status, BlockStatus::kOk);
      if (self.started == epoch_) {
        for (uint64_t i = 0; i < count; ++i) {
          auto& sector = model_.sectors[start + i];
          --sector.changes;
          // Nothing else touched the sector meanwhile: it holds this now. A discard promises nothing.
          bool decided = was_alone[i] && versions[i] == sector_version(start + i) && op != BlockOp::kDiscard;
          if (decided) sector.allowed = {tag};
        }
      }
      ended(self);
    };
    submit(request);
  }

  void flush(Request& request) {
    request.op = BlockOp::kFlush;
    request.offset = request.length = 0;
    request.bytes.clear();
    request.at_start.clear();
    for (auto& sector : model_.sectors) request.at_start.push_back(sector.allowed);
    std::vector<uint64_t> versions;
    for (uint64_t i = 0; i < sectors_; ++i) versions.push_back(sector_version(i));
    request.done = [this, versions](Request& self, BlockStatus status) {
      EXPECT_EQ(status, BlockStatus::kOk);
      if (self.started == epoch_) {
        for (uint64_t i = 0; i < sectors_; ++i) {
          auto& sector = model_.sectors[i];
          // With nothing newer, only what might have been there when the flush began can come back.
          if (versions[i] == sector_version(i)) {
            std::set<Tag> kept;
            for (Tag tag : sector.after_crash) {
              if (self.at_start[i].contains(tag)) kept.insert(tag);
            }
            sector.after_crash = kept;
          }
        }
      }
      ended(self);
    };
    submit(request);
  }

  Tag read_one(uint64_t sector) {
    Tag found = 0;
    Request& request = fresh();
    request.op = BlockOp::kRead;
    request.offset = sector * 512;
    request.length = 512;
    request.bytes.assign(512, std::byte{0xee});
    request.done = [&](Request& self, BlockStatus status) {
      EXPECT_EQ(status, BlockStatus::kOk);
      found = tag_of(self.bytes.data());
      ended(self);
    };
    submit(request);
    finish_all();
    return found;
  }

  uint64_t& sector_version(uint64_t sector) {
    versions_.resize(sectors_);
    return versions_[sector];
  }

  Random& random_;
  const Options options_;
  uint64_t sectors_;
  std::unique_ptr<IoRing> ring_;
  std::unique_ptr<IoRing> probe_ring_;  // what is looked at beside the volume
  std::shared_ptr<SimMedium> base_medium_;
  Media media_;  // of the layers, the lowest first
  Keys keys_;
  std::vector<SimFile*> files_;  // the volume's
  std::unique_ptr<Volume> volume_;
  std::vector<std::unique_ptr<BlockChannel>> channels_;
  Model model_;
  std::vector<uint64_t> versions_;
  std::vector<std::unique_ptr<Request>> requests_;
  std::set<Request*> reads_;
  size_t under_way_ = 0;
  uint64_t epoch_ = 0;
  uint64_t operations_ = 0;
  uint64_t probes_ = 0;
  /// What each may hold.
  std::vector<std::vector<std::set<Tag>>> snapshots_;
  std::set<size_t> deleted_;  // of them
  std::vector<Clone> clones_;
  uint64_t given_back_ = 0;
  bool unfrozen_ = false;
  Tag next_tag_ = 1;
};

}  // namespace haneul::storage::testing
