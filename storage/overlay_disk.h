// SPDX-License-Identifier: Apache-2.0
// What the parts of an open overlay share; not for use outside storage/.
#pragma once

#include <array>
#include <atomic>
#include <deque>
#include <memory>
#include <mutex>
#include <vector>

#include "storage/async_file.h"
#include "storage/block_backend.h"
#include "storage/file_task.h"
#include "storage/overlay_format.h"
#include "storage/overlay_map.h"
#include "storage/pool.h"
#include "storage/range_locks.h"

namespace haneul::storage::overlay {

class Channel;
class Job;
struct Disk;

/// One walk of the dirty map pages to the file. At most one is under way per disk; it belongs to the thread
/// of the flush that leads it and is handed on under the disk's lock.
///
/// In batches: copy the pages' states, sync (so that the data which these states speak of is durable), write
/// the copies over the older of each page's two places. After the last batch, sync.
class FlushRound final : private FileTaskOwner {
 public:
  explicit FlushRound(Disk& disk) : disk_(disk) {}
  void start(Job& leader);

 private:
  static constexpr size_t kBatch = 32;
  void next_batch();
  void task_done(FileTask& task, int error) override;
  void write_batch();
  void finish_batch();
  void finish(int error);

  Disk& disk_;
  Job* leader_ = nullptr;
  std::vector<Job*> followers_;
  std::vector<uint64_t> pages_;  // still to be copied
  size_t batch_count_ = 0;
  std::array<uint64_t, kBatch> batch_{};
  std::array<uint64_t, kBatch> sequence_{};
  std::array<int, kBatch> error_{};
  std::array<FileTask, kBatch> tasks_;
  std::array<iovec, kBatch> iovecs_{};
  std::unique_ptr<std::array<Page, kBatch>> buffers_;
  FileTask sync_;
  size_t outstanding_ = 0;
};

struct Disk {
  Disk(std::unique_ptr<AsyncFile> own, std::unique_ptr<AsyncFile> beneath, const Header& its_header, bool ro)
      : file(std::move(own)),
        base(std::move(beneath)),
        read_only(ro),
        header(its_header),
        size_bytes(its_header.size_bytes),
        map((its_header.size_bytes + kBlockBytes - 1) / kBlockBytes),
        round(*this) {}

  const std::unique_ptr<AsyncFile> file;
  const std::unique_ptr<AsyncFile> base;
  const bool read_only;
  Header header;  // resize() alone changes it; base_size_bytes never changes
  std::atomic<uint64_t> size_bytes;
  std::atomic<bool> sync_failed{false};

  std::mutex mutex;  // guards all that follows
  OverlayMap map;
  RangeLocks locks;
  bool round_active = false;
  std::vector<Job*> flush_waiting;
  FlushRound round;  // its leader's while round_active
};

/// Room to complete blocks that are written in part.
struct Scratch {
  Page head;
  Page tail;
  std::vector<iovec> iovecs;
};

/// One stretch of a read whose blocks lie in several places.
class ReadPart final : private FileTaskOwner {
 public:
  void start(Job& job, AsyncFile& file, uint64_t file_offset, uint64_t skip, uint64_t length);

 private:
  void task_done(FileTask& task, int error) override;
  Job* job_ = nullptr;
  FileTask task_;
  std::vector<iovec> iovecs_;
};

/// One BlockRequest on its way through an overlay. Belongs to its channel's thread.
class Job final : private IoOperation, private FileTaskOwner, public RangeLocks::Holder {
 public:
  explicit Job(Channel& channel) : channel_(channel) {}
  void start(BlockRequest& request);

  // From the lock or the flush round, which may run on another thread: goes on from this channel's ring.
  void resume_locked(Channel* from);
  void resume_leading(Channel* from);
  void resume_flushed(Channel* from, BlockStatus status);
  void flushed(BlockStatus status) { finish(status); }

  Channel& channel() { return channel_; }
  const BlockRequest& request() const { return *request_; }
  void pump_reads();
  void part_done(ReadPart& part, int error);
  void with_scratch();

 private:
  enum class Step { kFinish, kLocked, kLead, kWrite, kZeroHead, kZeroTail, kPunch };
  struct Piece {  // part of one block that becomes zeroes
    uint64_t offset = 0;
    uint64_t length = 0;
  };

  void completed(int32_t result) override;
  void task_done(FileTask& task, int error) override;
  void resume(Step step, Channel* from);
  void defer_finish(BlockStatus status);
  void finish(BlockStatus status);
  void finish_change(int error);

  void start_flush();
  void start_change();
  void locked();
  void plan_write();
  void write_filled();
  void fill(uint64_t block, Page& page, FileTask& task);
  void plan_zeroes();
  void next_zero_step();
  void zero_piece(const Piece& piece);
  void zero_piece_read();
  void punch();
  void punched();
  void want_scratch();

  Channel& channel_;
  BlockRequest* request_ = nullptr;
  BlockStatus status_ = BlockStatus::kOk;
  Step step_ = Step::kFinish;
  std::array<FileTask, 2> tasks_;
  size_t outstanding_ = 0;
  int error_ = 0;

  uint64_t next_ = 0;  // reads: the first byte not started
  std::vector<iovec> zero_iovecs_;

  Scratch* scratch_ = nullptr;
  bool fill_head_ = false;
  bool fill_tail_ = false;
  bool reading_ = false;  // the base, to complete a block
  std::array<Piece, 2> pieces_{};
  Piece piece_{};
  uint64_t punch_first_ = 0;
  uint64_t punch_end_ = 0;
  bool piece_allocated_ = false;
  iovec head_iovec_{};
  iovec tail_iovec_{};
};

class Channel final : public BlockChannel {
 public:
  Channel(Disk& disk, IoRing& ring) : disk_(disk), ring_(ring) {}
  ~Channel() override { CHECK(jobs_.used() == 0); }
  void submit(BlockRequest& request) override { jobs_.take(*this).start(request); }

 private:
  friend class Job;
  friend class FlushRound;
  friend class ReadPart;
  static constexpr size_t kMaxScratch = 16;
  static constexpr size_t kMaxParts = 32;

  Disk& disk_;
  IoRing& ring_;
  Pool<Job> jobs_;
  Pool<Scratch> scratch_;
  std::deque<Job*> scratch_waiting_;
  Pool<ReadPart> parts_;
  std::deque<Job*> part_waiting_;
};

}  // namespace haneul::storage::overlay
