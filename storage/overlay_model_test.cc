// SPDX-License-Identifier: Apache-2.0
// The overlay against a model: random requests, many at once, completing in random order; then the power
// goes, and every sector must hold what it held at the last flush or one of the contents it was given since.
#include <gtest/gtest.h>

#include <cstring>
#include <map>
#include <memory>
#include <set>

#include "storage/overlay.h"
#include "storage/testing/sim_file.h"
#include "storage/testing/waiting_request.h"

namespace haneul::storage {
namespace {

using testing::below;
using testing::Random;
using testing::SimFile;
using testing::SimMedium;

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

class Machine {
 public:
  Machine(Random& random, uint64_t sectors, uint64_t base_sectors)
      : random_(random), sectors_(sectors), ring_(std::move(IoRing::create(8)).value()) {
    base_medium_ = std::make_shared<SimMedium>();
    base_medium_->size = base_sectors * 512;
    model_.sectors.resize(sectors);
    for (uint64_t sector = 0; sector < base_sectors; ++sector) {
      auto content = content_of(next_tag_);
      base_medium_->put(0, sector * 512, content);
      model_.sectors[sector].allowed = model_.sectors[sector].after_crash = {next_tag_++};
    }
    medium_ = std::make_shared<SimMedium>();
    {
      SimFile file(medium_, random_);
      EXPECT_TRUE(create_overlay_file(file, sectors * 512, base_sectors * 512).ok());
    }
    open();
  }
  ~Machine() { close(); }

  void open() {
    auto file = std::make_unique<SimFile>(medium_, random_);
    file_ = file.get();
    file_->faults.short_one_in = 8;
    std::unique_ptr<SimFile> base;
    if (base_medium_->size > 0) base = std::make_unique<SimFile>(base_medium_, random_);
    base_ = base.get();
    auto opened = open_overlay_files(std::move(file), std::move(base), false);
    ASSERT_TRUE(opened.ok()) << opened.error().message();
    backend_ = std::move(opened).value();
    channels_.push_back(backend_->open_channel(*ring_));
    channels_.push_back(backend_->open_channel(*ring_));
  }
  void close() {
    finish_all();
    channels_.clear();
    backend_.reset();
  }
  void finish_all() {
    while (under_way_ > 0) step();
  }
  void reopen() {
    close();
    open();
  }

  void crash() {
    auto left = std::make_shared<SimMedium>(medium_->after_power_loss(random_));
    // What was under way is lost, but the objects have to end in order: let them, on the medium that is gone.
    auto expected = model_;
    close();
    medium_ = left;
    model_ = std::move(expected);
    for (auto& sector : model_.sectors) {
      sector.allowed = sector.after_crash;
      sector.changes = 0;
    }
    ++epoch_;
    open();
    // What is there now is what stays there.
    for (uint64_t sector = 0; sector < sectors_; ++sector) {
      Tag found = read_one(sector);
      ASSERT_TRUE(model_.sectors[sector].after_crash.contains(found))
          << "sector " << sector << " holds " << found << " after a crash";
      model_.sectors[sector].allowed = model_.sectors[sector].after_crash = {found};
    }
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
    size_t own = file_->pending();
    size_t beneath = base_ != nullptr ? base_->pending() : 0;
    if (own + beneath > 0) {
      (below(random_, own + beneath) < own ? file_ : base_)->step();
    }
    ASSERT_TRUE(ring_->run_once(false).ok());
  }

  SimFile& file() { return *file_; }
  uint64_t operations() const { return operations_; }

 private:
  static std::array<std::byte, 512> content_of(Tag tag) {
    std::array<std::byte, 512> content;
    for (size_t at = 0; at < 512; at += 8) std::memcpy(&content[at], &tag, 8);
    return content;
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
  uint64_t sectors_;
  std::unique_ptr<IoRing> ring_;
  std::shared_ptr<SimMedium> base_medium_;
  std::shared_ptr<SimMedium> medium_;
  SimFile* file_ = nullptr;
  SimFile* base_ = nullptr;
  std::unique_ptr<BlockBackend> backend_;
  std::vector<std::unique_ptr<BlockChannel>> channels_;
  Model model_;
  std::vector<uint64_t> versions_;
  std::vector<std::unique_ptr<Request>> requests_;
  std::set<Request*> reads_;
  size_t under_way_ = 0;
  uint64_t epoch_ = 0;
  uint64_t operations_ = 0;
  Tag next_tag_ = 1;
};

TEST(OverlayModel, SurvivesRandomRequestsAndCrashes) {
  uint64_t first_seed = testing::seed();
  const char* scale = std::getenv("HANEUL_MODEL_ROUNDS");  // NOLINT(concurrency-mt-unsafe)
  uint64_t rounds = scale != nullptr ? std::strtoull(scale, nullptr, 0) : 60;
  uint64_t operations = 0;
  uint64_t crashes = 0;
  for (uint64_t round = 0; round < rounds; ++round) {
    SCOPED_TRACE(::testing::Message() << "HANEUL_SEED=" << first_seed + round);
    Random random(first_seed + round);
    uint64_t sectors = 64 + below(random, 600);
    uint64_t base_sectors = below(random, 3) == 0 ? 0 : below(random, sectors + 1);
    Machine machine(random, sectors, base_sectors);
    for (unsigned life = 0; life < 12; ++life) {
      uint64_t requests = below(random, 120);
      for (uint64_t i = 0; i < requests; ++i) {
        machine.random_request();
        for (uint64_t steps = below(random, 4); steps > 0; --steps) machine.step();
      }
      if (below(random, 6) == 0) {
        machine.reopen();
      } else {
        machine.crash();
        ++crashes;
      }
      if (::testing::Test::HasFailure()) return;
    }
    operations += machine.operations();
  }
  std::printf("%llu operations, %llu crashes\n", static_cast<unsigned long long>(operations),
              static_cast<unsigned long long>(crashes));
}

}  // namespace
}  // namespace haneul::storage
