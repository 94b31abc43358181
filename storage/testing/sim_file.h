// SPDX-License-Identifier: Apache-2.0
// SimFile: a file in memory that completes operations in any order, fails at will and loses power.
//
// Power loss: each 512-byte sector keeps what it had at the last completed sync that covers it, or any one of
// the contents it was given since, independently of every other sector and whether or not the operation had
// completed. That is every reordering and tearing that a disk can do. So it is with a file's size.
#pragma once

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <vector>

#include "storage/async_file.h"
#include "storage/file_task.h"

namespace haneul::storage::testing {

using Random = std::mt19937_64;

inline uint64_t below(Random& random, uint64_t limit) {
  return random() % limit;
}

class SimMedium {
 public:
  using Sector = std::array<std::byte, 512>;
  struct Version {
    uint64_t operation;
    uint64_t completed_at;  // the clock's time; 0: not yet
    Sector content;
  };
  struct Cell {
    Sector now{};
    Sector durable{};
    std::vector<Version> pending;  // what it was given since
  };

  std::map<uint64_t, Cell> cells;
  uint64_t size = 0;
  uint64_t durable_size = 0;
  std::vector<std::pair<uint64_t, uint64_t>> pending_sizes;  // the clock's time, and what it was then
  uint64_t clock = 1;
  /// Called between the steps of blocking calls, which are a crash's chance as well.
  std::function<void()> between;

  void grow(uint64_t to) {
    if (to <= size) return;
    size = to;
    pending_sizes.emplace_back(++clock, to);
  }

  void get(uint64_t offset, std::span<std::byte> out) const {
    for (size_t done = 0; done < out.size();) {
      uint64_t at = offset + done;
      size_t piece = std::min<size_t>(out.size() - done, 512 - at % 512);
      auto found = cells.find(at / 512);
      if (found == cells.end()) {
        std::memset(out.data() + done, 0, piece);
      } else {
        std::memcpy(out.data() + done, found->second.now.data() + at % 512, piece);
      }
      done += piece;
    }
  }
  /// What a write may leave after a crash, from the moment it is submitted.
  void promise(uint64_t operation, uint64_t offset, std::span<const std::byte> data) {
    for_sectors(offset, data, [&](Cell& cell, const Sector& content) {
      cell.pending.push_back({operation, 0, content});
    });
  }
  /// The operation is complete: this is what reads return now.
  void put(uint64_t operation, uint64_t offset, std::span<const std::byte> data) {
    ++clock;
    for_sectors(offset, data, [&](Cell& cell, const Sector& content) {
      cell.now = content;
      for (Version& version : cell.pending) {
        if (version.operation == operation) version.completed_at = clock;
      }
    });
    grow(offset + data.size());
  }
  /// What was complete at that time is durable.
  void settle(uint64_t time) {
    for (const auto& [at, length] : pending_sizes) {
      if (at <= time) durable_size = length;
    }
    std::erase_if(pending_sizes, [&](const auto& each) { return each.first <= time; });
    for (auto& [sector, cell] : cells) {
      uint64_t newest = 0;
      for (const Version& version : cell.pending) {
        if (version.completed_at <= newest || version.completed_at > time) continue;
        newest = version.completed_at;
        cell.durable = version.content;
      }
      std::erase_if(cell.pending, [&](const Version& version) {
        return version.completed_at != 0 && version.completed_at <= time;
      });
    }
  }
  enum class Keep { kAny, kNothing, kNewest };
  SimMedium after_power_loss(Random& random, Keep keep = Keep::kAny) const {
    SimMedium left;
    auto pick_of = [&](size_t pending) -> size_t {
      if (keep == Keep::kNothing) return 0;
      return keep == Keep::kNewest ? pending : below(random, pending + 1);
    };
    size_t length = pick_of(pending_sizes.size());
    left.size = left.durable_size = length == 0 ? durable_size : pending_sizes[length - 1].second;
    for (const auto& [sector, cell] : cells) {
      if (sector * 512 >= left.size) break;
      size_t pick = pick_of(cell.pending.size());
      Cell survivor;
      survivor.now = survivor.durable = pick == 0 ? cell.durable : cell.pending[pick - 1].content;
      left.cells.emplace(sector, survivor);
    }
    return left;
  }

 private:
  template <typename Each>
  void for_sectors(uint64_t offset, std::span<const std::byte> data, Each each) {
    CHECK(offset % 512 == 0 && data.size() % 512 == 0);
    for (size_t done = 0; done < data.size(); done += 512) {
      Sector content;
      std::memcpy(content.data(), data.data() + done, 512);
      each(cells[(offset + done) / 512], content);
    }
  }
};

/// One thread. Completions come from step(), in random order.
class SimFile final : public AsyncFile {
 public:
  struct Faults {
    /// Returns a positive errno to fail an operation: 'r', 'w', 's', 'e', 'g' (of the size) and its offset.
    std::function<int(char kind, uint64_t offset)> fail;
    /// Called when a read has brought its data, before it is complete.
    std::function<void(std::span<const iovec> data)> after_read;
    /// One in so many reads and writes is short; 0: none.
    unsigned short_one_in = 0;
  };

  SimFile(std::shared_ptr<SimMedium> medium, Random& random) : medium_(std::move(medium)), random_(random) {}
  ~SimFile() override { CHECK(pending_.empty()); }

  Faults faults;
  uint64_t blocking_calls = 0;

  size_t pending() const { return pending_.size(); }
  /// Completes one operation.
  void step() { step(below(random_, pending_.size())); }
  /// The one that was submitted last.
  void step_last() {
    if (!pending_.empty()) step(pending_.size() - 1);
  }
  void step(size_t pick) {
    auto action = std::move(pending_[pick]);
    pending_.erase(pending_.begin() + static_cast<ptrdiff_t>(pick));
    action();
  }

  void read(IoRing&, IoOperation& op, std::span<const iovec> data, uint64_t offset) override {
    pending_.push_back([this, &op, data, offset] {
      if (int error = failure('r', offset)) return op.completed(-error);
      uint64_t length = shortened(total_bytes(data));
      if (offset >= medium_->size) return op.completed(0);
      length = std::min(length, medium_->size - offset);
      std::vector<iovec> pieces;
      slice_iovecs(data, 0, length, pieces);
      uint64_t at = offset;
      for (const iovec& piece : pieces) {
        medium_->get(at, {static_cast<std::byte*>(piece.iov_base), piece.iov_len});
        at += piece.iov_len;
      }
      if (faults.after_read) faults.after_read(pieces);
      op.completed(static_cast<int32_t>(length));
    });
  }
  void write(IoRing&, IoOperation& op, std::span<const iovec> data, uint64_t offset) override {
    std::vector<std::byte> bytes;
    for (const iovec& piece : data) {
      auto* from = static_cast<const std::byte*>(piece.iov_base);
      bytes.insert(bytes.end(), from, from + piece.iov_len);
    }
    bytes.resize(shortened(bytes.size()));
    uint64_t number = ++medium_->clock;
    medium_->promise(number, offset, bytes);
    pending_.push_back([this, &op, bytes = std::move(bytes), offset, number] {
      // A failed write may have reached the medium in part all the same.
      if (int error = failure('w', offset)) return op.completed(-error);
      medium_->put(number, offset, bytes);
      op.completed(static_cast<int32_t>(bytes.size()));
    });
  }
  void sync(IoRing&, IoOperation& op) override {
    uint64_t covered = medium_->clock;
    pending_.push_back([this, &op, covered] {
      if (int error = failure('s', 0)) return op.completed(-error);
      medium_->settle(covered);
      op.completed(0);
    });
  }
  void erase(IoRing& ring, IoOperation& op, Erase, uint64_t offset, uint64_t length) override {
    if (int error = failure('e', offset)) {
      pending_.push_back([&op, error] { op.completed(-error); });
      return;
    }
    (void)ring;
    std::vector<std::byte> zeroes(length);
    uint64_t number = ++medium_->clock;
    medium_->promise(number, offset, zeroes);
    pending_.push_back([this, &op, offset, number, zeroes = std::move(zeroes)] {
      medium_->put(number, offset, zeroes);
      op.completed(0);
    });
  }

  Status read_now(uint64_t offset, std::span<std::byte> out) override {
    TRY(now('r', offset));
    if (offset + out.size() > medium_->size)
      return make_error(ErrorCode::kOutOfRange, "the file ends before byte {}", offset + out.size());
    medium_->get(offset, out);
    return {};
  }
  Status write_now(uint64_t offset, std::span<const std::byte> data) override {
    // As a page cache does: whole sectors, with the rest of them as it was.
    const uint64_t begin = offset / 512 * 512;
    std::vector<std::byte> whole((offset + data.size() + 511) / 512 * 512 - begin);
    medium_->get(begin, whole);
    std::copy(data.begin(), data.end(), whole.begin() + static_cast<ptrdiff_t>(offset - begin));
    uint64_t number = ++medium_->clock;
    medium_->promise(number, begin, whole);
    TRY(now('w', offset));
    medium_->put(number, begin, whole);
    return between();
  }
  Status sync_now() override {
    TRY(now('s', 0));
    medium_->settle(medium_->clock);
    return between();
  }
  Status erase_now(Erase, uint64_t offset, uint64_t length) override {
    TRY(now('e', offset));
    return write_now(offset, std::vector<std::byte>(length));
  }
  Result<uint64_t> size() override { return medium_->size; }
  Status grow(uint64_t size_bytes) override {
    TRY(now('g', size_bytes));
    medium_->grow(size_bytes);
    return between();
  }
  Result<uint64_t> next_data(uint64_t offset, uint64_t limit) override {
    auto found = medium_->cells.lower_bound(offset / 512);
    if (found == medium_->cells.end()) return limit;
    return std::clamp(found->first * 512, offset, limit);
  }

 private:
  int failure(char kind, uint64_t offset) { return faults.fail ? faults.fail(kind, offset) : 0; }
  Status now(char kind, uint64_t offset) {
    ++blocking_calls;
    if (int error = failure(kind, offset)) return Error::from_errno(error, "the simulated file");
    return {};
  }
  Status between() {
    if (medium_->between) medium_->between();
    return {};
  }
  uint64_t shortened(uint64_t length) {
    if (faults.short_one_in == 0 || length <= 512 || below(random_, faults.short_one_in) != 0) return length;
    return (1 + below(random_, length / 512)) * 512;
  }

  std::shared_ptr<SimMedium> medium_;
  Random& random_;
  std::vector<std::function<void()>> pending_;
};

}  // namespace haneul::storage::testing
