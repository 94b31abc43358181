// SPDX-License-Identifier: Apache-2.0
// What the parts of an open volume share; not for use outside storage/volume. ../FORMAT.md has the rules.
//
// Threads   jobs and channels belong to their ring's thread; Disk's members are guarded by its mutex where it says so.
//           One party at a time has the *turn*: a commit (of the thread that leads it), a resize, or a push
//           of a layer (on the caller's thread). Only who has the turn writes journal, map and state.
#pragma once

#include <array>
#include <atomic>
#include <condition_variable>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <vector>

#include "storage/async_file.h"
#include "storage/block_backend.h"
#include "storage/file_task.h"
#include "storage/pool.h"
#include "storage/range_locks.h"
#include "storage/volume/crypt_file.h"
#include "storage/volume/format.h"
#include "storage/volume/recovery.h"
#include "storage/volume/volume.h"
#include "storage/volume/volume_map.h"

namespace haneul::storage::volume {

using layer::BlockState;
using layer::kBlockBytes;
using layer::Page;

class Channel;
class Job;
struct Disk;

struct alignas(4096) AlignedPage {
  Page page;
};

/// One layer's file: as it is, and with its data decrypted.
struct OpenLayer {
  LayerId id{};
  std::unique_ptr<AsyncFile> file;
  std::unique_ptr<CryptFile> crypt;  // of an encrypted one
  AsyncFile& data() const { return crypt ? *crypt : *file; }
};

/// Changes of state that no commit has yet: few enough for one journal record, or too many.
class FreshRuns {
 public:
  static constexpr size_t kMaxRuns = 32;
  struct Run {
    uint64_t first = 0;
    uint64_t count = 0;
    BlockState state = BlockState::kData;
    /// Of the blocks' bytes in the file, where it is known without reading them back.
    std::optional<uint32_t> crc;
  };
  void add(const Run& run);
  void clear() { *this = FreshRuns(); }
  /// These came before.
  void prepend(const FreshRuns& before);
  bool any() const { return used_ > 0 || too_many_; }
  /// Whether a record may have them: FORMAT.md's limits.
  bool fit_a_record() const;
  std::span<const Run> runs() const { return std::span(runs_).first(used_); }
  /// These blocks (first to last, inclusive) were written again.
  void forget_crcs(uint64_t first, uint64_t last);
  bool full() const { return too_many_ || used_ == kMaxRuns; }
  /// Whether a run in state 1 has one of these blocks (first to last, inclusive).
  bool data_overlaps(uint64_t first, uint64_t last) const;

 private:
  std::array<Run, kMaxRuns> runs_{};
  size_t used_ = 0;
  bool too_many_ = false;
};

/// One commit: by the journal or by the map. At most one is under way; it belongs to the thread of the
/// channel that leads it.
class Commit final : private FileTaskOwner {
 public:
  explicit Commit(Disk& disk) : disk_(disk) {}
  /// With the turn taken for it. Answers the flushes that wait by now, and wakes the changes that wait for a
  /// seal.
  void start(Channel& channel);

 private:
  static constexpr size_t kBatch = 64;  // map pages
  enum class Step { kReadBack, kWriteRecord, kSyncRecord, kSyncData, kWritePages, kSyncPages, kSyncOnly };

  void choose();
  void by_journal();
  void write_record();
  void next_batch();
  void write_batch();
  AsyncFile& file();
  void sync(Step step);
  void old_top_done();
  void old_top_failed(BlockStatus status);
  void task_done(FileTask& task, int error) override;
  void stepped(int error);
  void finish(int error);

  Disk& disk_;
  Channel* channel_ = nullptr;
  std::vector<Job*> flushes_;
  Step step_ = Step::kSyncOnly;
  int error_ = 0;
  size_t outstanding_ = 0;
  std::array<FileTask, kBatch> tasks_;
  std::array<iovec, kBatch> iovecs_{};
  // By the journal.
  FreshRuns record_;
  AlignedPage record_page_{};
  // By the map.
  bool old_ = false;  // of the old top, which a push could not freeze; the top's own commit follows
  std::vector<uint64_t> pages_;  // still to be copied
  std::vector<uint64_t> batch_;  // being written
  /// The batch's pages, or the blocks read back.
  std::vector<AlignedPage> buffers_;
};

/// What was the top, from a push's switch until it is frozen. Its map pages are written when the new top takes
/// changes already, so what they were at the switch is kept where it changes.
struct OldTop {
  /// Of copied pages; changes that want more wait.
  static constexpr size_t kMaxCopies = 1024;

  size_t layer = 0;
  AsyncFile* file = nullptr;
  layer::State state;
  uint64_t last_sequence = 0;
  std::set<uint64_t> pages;                                 // of its map, that the file does not have
  std::map<uint64_t, std::unique_ptr<AlignedPage>> copies;  // of those whose blocks have changed since
  bool durable = false;                                     // all that the map says
  BlockStatus stuck = BlockStatus::kOk;                     // how writing it failed
};

struct Disk {
  Disk(std::vector<OpenLayer> stack, std::unique_ptr<AsyncFile> base, layer::Start top, uint64_t base_size,
       bool ro, std::shared_ptr<BouncePool> pool)
      : read_only(ro),
        bounce(std::move(pool)),
        raw_base(std::move(base)),
        base_bytes(base_size),
        size_bytes(top.state.size_bytes),
        depth(stack.size()),
        layers(std::move(stack)),
        start(top),
        last_sequence(top.state.journal_start - 1),
        first_sequence(top.state.journal_start),
        map(layer::blocks_of(top.state.size_bytes)),
        commit(*this) {}

  const bool read_only;
  const std::shared_ptr<BouncePool> bounce;  // of all layers, encrypted or O_DIRECT
  const std::unique_ptr<AsyncFile> raw_base;
  const uint64_t base_bytes;
  std::atomic<uint64_t> size_bytes;
  std::atomic<bool> sync_failed{false};
  std::atomic<size_t> depth;  // of the stack, for who has not the mutex

  std::mutex mutex;               // guards all that follows, but for what the turn guards
  std::vector<OpenLayer> layers;  // only grows; the files stay in place
  layer::Start start;             // of the top; changed with the turn and the mutex
  uint64_t last_sequence;         // of the journal, spent
  uint64_t first_sequence;        // the first that counts
  VolumeMap map;
  RangeLocks locks;
  std::set<uint64_t> dirty;  // map pages of the top that the file does not have
  FreshRuns fresh;
  FreshRuns committing;  // in a record that is being made
  FreshRuns unsealed;    // in the last record
  bool by_map_next = false;

  // The turn.
  bool turn_taken = false;
  size_t turn_wanted = 0;  // by callers that block
  std::condition_variable turned;
  Commit commit;  // its leader's, with the turn
  std::vector<Job*> flush_waiting;
  std::vector<Job*> seal_waiting;  // changes that met `committing` or `unsealed`

  // Pushing a layer.
  bool held = false;
  std::vector<Job*> held_waiting;
  std::unique_ptr<OldTop> old_top;
  std::vector<Job*> copy_waiting;  // changes that wait for room in its copies

  size_t top() const { return layers.size() - 1; }
  AsyncFile& top_file() const { return *layers.back().file; }
  AsyncFile& top_data() const { return layers.back().data(); }
  /// Whether a block that this owner holds reads as zeroes.
  bool reads_zero(Owner owner, uint64_t block) const {
    return owner.is_zero() || (owner.nobody() && block * kBlockBytes >= base_bytes);
  }
  /// With the mutex: blocks of the top in a new state.
  void changed(uint64_t first, uint64_t count, BlockState state, std::optional<uint32_t> crc = {});
  /// With the mutex: a map page as this layer has it now.
  void encode_page(uint64_t index, size_t layer, uint64_t sequence, Page& out);
  uint64_t pages_encoded = 0;

  /// With the mutex: the next page of the old top that is to be written, as it was at the switch. False: no more.
  bool next_old_page(uint64_t& index, Page& out);
  /// With the mutex: that page could not be written.
  void keep_old_page(uint64_t index, const Page& page);
  /// With the mutex: whether flushes have to see to the old top first.
  bool old_top_is_behind() const { return old_top && !old_top->durable; }
  /// With the mutex: whether a change of these blocks (first to last, inclusive) has to wait for room.
  bool no_room_for_copies(uint64_t first, uint64_t last) const;
  /// The old top's writing has come further (changes that waited for it go on), or has failed (they fail).
  void old_top_advanced(Channel* from);
  void old_top_stuck(Channel* from, BlockStatus status);

  void take_turn();  // blocks
  /// Gives the turn to whoever waits for it. `from`: the channel of the calling thread, or null.
  void end_turn(Channel* from);
};

/// A layer's file as the stack's next, its key tried.
Result<OpenLayer> take_layer(StackLayer from, const layer::Header& header,
                             const std::shared_ptr<BouncePool>& pool);

/// The steps of a push, on its caller's thread: see volume.h.
class LayerPush {
 public:
  explicit LayerPush(Disk& disk) : disk_(disk) {}
  Status sync_top();
  Status begin(StackLayer layer);
  void cancel();
  void hold();
  void wait_for_changes();
  void switch_top();
  void release();
  Status finish();

 private:
  Status commit_map(AsyncFile& file);
  Status check(StackLayer layer);
  Status write_old_pages(OldTop& old);
  Status freeze(OldTop& old);
  Status sync(AsyncFile& file);

  Disk& disk_;
  bool has_turn_ = false;
  std::optional<OpenLayer> next_;
  layer::Start next_start_;
};

/// Room to complete blocks that are written in part.
struct Scratch {
  AlignedPage head;
  AlignedPage tail;
  std::vector<iovec> iovecs;
  /// A small first write goes through here: its CRC is that of what is written, whatever the guest does
  /// meanwhile.
  static constexpr size_t kCopyBlocks = 4;
  std::array<AlignedPage, kCopyBlocks> copy;
};

/// Blocks that are being read, and who held them when that began.
struct Stretch {
  Owner owner;
  uint64_t first = 0;
  uint64_t count = 0;
};

/// One stretch of a read whose blocks lie in several places.
class ReadPart final : private FileTaskOwner {
 public:
  void start(Job& job, AsyncFile& file, const Stretch& stretch, uint64_t file_offset, uint64_t skip,
             uint64_t length);
  const Stretch& stretch() const { return stretch_; }

 private:
  void task_done(FileTask& task, int error) override;
  Job* job_ = nullptr;
  Stretch stretch_;
  FileTask task_;
  std::vector<iovec> iovecs_;
};

/// One BlockRequest on its way through a volume. Belongs to its channel's thread.
class Job final : private IoOperation, private FileTaskOwner, public RangeLocks::Holder {
 public:
  explicit Job(Channel& channel) : channel_(channel) {}
  void start(BlockRequest& request);

  // From another job or a commit, which may be on another thread: goes on from this channel's ring. `from` is
  // the channel of the calling thread, or null.
  void resume_locked(Channel* from);
  void resume_change(Channel* from);
  void resume_leading(Channel* from);
  void resume_flushed(Channel* from, BlockStatus status);

  Channel& channel() { return channel_; }
  const BlockRequest& request() const { return *request_; }
  void pump_reads();
  void part_done(ReadPart& part, int error);
  void with_scratch();

 private:
  enum class Step { kFinish, kChange, kLocked, kLead, kWrite, kZeroHead, kZeroTail, kPunch };
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

  void reads_done();
  bool stands(const Stretch& stretch) const;
  void start_flush();
  void start_change();
  void locked();
  void plan_write();
  void write_filled();
  void copy_out(std::vector<iovec>& pieces);
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
  Stretch stretch_;    // of a read that is one
  bool stale_ = false;
  std::vector<iovec> zero_iovecs_;

  Scratch* scratch_ = nullptr;
  bool fill_head_ = false;
  bool fill_tail_ = false;
  bool copying_ = false;
  std::optional<uint32_t> crc_;
  bool reading_ = false;  // from beneath, to complete a block
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
  IoRing& ring() { return ring_; }

 private:
  friend class Job;
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

}  // namespace haneul::storage::volume
