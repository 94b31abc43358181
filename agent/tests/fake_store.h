// SPDX-License-Identifier: Apache-2.0
// A block store without blocks: a volume's or snapshot's content is one text, zeroes follow, and everything
// is in one JSON file that is written anew with every change, so that it outlives the Cloud object and the
// process. It refuses what the real one refuses. Thread-safe.
#pragma once

#include <atomic>
#include <map>
#include <mutex>
#include <set>

#include "agent/cloud/seams.h"
#include "agent/ops/shape.h"

namespace haneul::agent::testing {

class FakeStore : public storage::Store {
 public:
  explicit FakeStore(std::filesystem::path folder);

  Status create_volume(const NewVolume& volume) override;
  Status delete_volume(const std::string& id) override;
  Result<storage::VolumeInfo> volume(const std::string& id) override;
  std::vector<storage::VolumeInfo> volumes() override;
  Result<storage::OpenStack> open_volume(const std::string& id) override;
  Status resize_volume(const std::string& id, uint64_t size_bytes) override;
  Status note_size(const std::string& id, uint64_t size_bytes) override;
  Result<std::vector<storage::PreparedSnapshot>> begin_snapshots(
      const std::vector<SnapshotOf>& wanted,
      const std::function<bool(const std::string& volume)>& is_open) override;
  Status abandon_snapshots(const std::vector<SnapshotOf>& wanted) override;
  Status snapshot_pushed(const std::string& snapshot) override;
  Status complete_snapshot(const std::string& snapshot, const storage::StoreProgress& progress) override;
  Status delete_snapshot(const std::string& id) override;
  Result<storage::SnapshotInfo> snapshot(const std::string& id) override;
  std::vector<storage::SnapshotInfo> snapshots() override;
  Status import_snapshot(const std::string& snapshot, int file, storage::ImageFormat format,
                         uint64_t size_bytes, bool encrypted,
                         const storage::StoreProgress& progress) override;
  Status export_snapshot(const std::string& snapshot, int file, storage::ImageFormat format,
                         const storage::StoreProgress& progress) override;
  Status copy_snapshot(Store& from, const std::string& source, const std::string& snapshot,
                       const storage::StoreProgress& progress) override;
  Status collect(const storage::StoreProgress& progress) override;
  Result<storage::StoreCheck> check(const std::string& id, storage::CheckOptions options,
                                    const storage::StoreProgress& progress) override;
  uint64_t allocated_bytes() override { return 0; }

  /// What a guest would write.
  void write(const std::string& volume, const std::string& content);
  std::string read(const std::string& volume_or_snapshot);
  std::set<std::string> ids();

  /// Every call fails with this; "" for none.
  std::string broken;
  /// Long work waits here until it is let go on, with 40 percent done.
  std::atomic<bool> hold{false};
  std::atomic<int> collected{0};

 private:
  void save();
  Status usable();
  Status work(const storage::StoreProgress& progress);

  std::filesystem::path file_;
  std::recursive_mutex mutex_;
  Json volumes_ = Json::object();
  Json snapshots_ = Json::object();
};

class FakeStores : public Stores {
 public:
  explicit FakeStores(std::filesystem::path state) : state_(std::move(state)) {}
  Result<storage::Store*> of(const std::string& region) override { return &store(region); }
  FakeStore& store(const std::string& region);

 private:
  std::filesystem::path state_;
  std::mutex mutex_;
  std::map<std::string, std::unique_ptr<FakeStore>> stores_;
};

}  // namespace haneul::agent::testing
