// SPDX-License-Identifier: Apache-2.0
// Archive: snapshots on their way from pending to completed, the images that wait for them, files in and out,
// checks, and the work that deleting leaves behind.
//
// An operation records its intent and calls one of these; the work ends by recording its result, and
// resume() goes on with it after a restart of the daemon. Long work runs on an executor of its own, so that
// it never keeps an instance waiting.
//
// Thread-safe.
#pragma once

#include <atomic>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "agent/cloud/keeper.h"

namespace haneul::agent {

class Archive {
 public:
  Archive(Layout layout, Model& model, Keeper& keeper, Stores& stores, Supervisor& supervisor,
          Executor& background)
      : layout_(std::move(layout)),
        model_(model),
        keeper_(keeper),
        stores_(stores),
        supervisor_(supervisor),
        background_(background) {}

  /// Goes on with everything that is pending, and removes image folders that no record knows.
  void resume();
  /// Long work ends early, to be gone on with by the next daemon.
  void stop() { stopping_ = true; }

  /// Fixes the point in time of a group's snapshots: when this returns, what is written to their volumes is
  /// not in them. On failure there is nothing of them in the store.
  Status begin(const std::string& group);
  /// Begins the groups that waited for an instance's shutdown.
  void begin_after_shutdown(const std::string& instance_id);
  /// Goes on with a snapshot that is a copy or an import, or has begun.
  void finish(const std::string& snapshot_id);
  /// For a snapshot in state "deleting".
  void remove(const std::string& snapshot_id);
  /// The root snapshots that came with folders' images which are deregistered: each goes when nobody needs it any more.
  void remove_orphans();
  /// Gives the image its kernel: hard links to that of `kernel_from`.
  Status take_kernel(const std::string& image_id);
  void run(const std::string& task_id);
  void collect(const std::string& region);

  /// In percent, of a snapshot or task that is pending.
  int64_t progress(const std::string& id, int64_t recorded) const;

 private:
  Status begin_once(const std::vector<SnapshotRecord>& snapshots);
  static bool refused(const Error& error);
  bool awaits_answer(storage::Store& store, const std::vector<SnapshotRecord>& snapshots);
  void note_unanswered(const std::string& group, bool unanswered);
  void begin_later(const std::string& group);
  void fail_group(const std::string& group, const std::string& why);
  Status push(const std::vector<storage::PreparedSnapshot>& prepared);
  static Status all_pushed(storage::Store& store, const std::vector<storage::Store::SnapshotOf>& wanted);
  VolumeLocks::Held hold(const std::vector<std::string>& volumes);
  Result<std::vector<storage::PreparedSnapshot>> prepare(
      storage::Store& store, const std::vector<storage::Store::SnapshotOf>& wanted,
      const std::vector<std::string>& volumes);
  void run_finish(const std::string& id);
  Status work(const SnapshotRecord& snapshot, storage::Store& store);
  void record_finish(const std::string& id, const Status& done);
  void finish_image(const std::string& image_id);
  void run_remove(const std::string& id);
  void run_task(const std::string& id);
  Status export_file(const TaskRecord& task, storage::Store& store);
  Status check(TaskRecord& task, storage::Store& store);
  void remove_unknown_folders();
  void look_for_orphans();
  storage::StoreProgress watch(const std::string& id, std::function<bool()> wanted);

  const Layout layout_;
  Model& model_;
  Keeper& keeper_;
  Stores& stores_;
  Supervisor& supervisor_;
  Executor& background_;
  std::atomic<bool> stopping_{false};
  mutable std::mutex mutex_;
  std::map<std::string, unsigned> progress_;  ///< of what is pending
  std::set<std::string> unanswered_;  ///< groups whose layers a VMM may have, or get, that has not said so
};

/// Under the model's lock: what needs the snapshot to stay, "ami-…" or another id; "" for nothing.
std::string snapshot_user(Model& model, const SnapshotRecord& snapshot);

/// "raw" or "qcow2"; never guessed.
std::optional<storage::ImageFormat> image_format(const std::string& name);

}  // namespace haneul::agent
