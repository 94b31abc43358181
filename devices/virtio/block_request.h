// SPDX-License-Identifier: Apache-2.0
// One virtio-blk request on its way: taken from the queue, parsed, carried out in one step or more, answered.
// Not for use outside block*.cc.
#pragma once

#include <array>
#include <optional>
#include <vector>

#include "devices/virtio/block.h"
#include "devices/virtio/block_format.h"
#include "devices/virtio/queue.h"
#include "storage/block_backend.h"

namespace haneul::devices::virtio::block {

class Request;

/// What a request needs of its device. Called on the I/O thread.
struct RequestContext {
  storage::BlockBackend& backend;
  storage::BlockChannel& channel;
  const std::string& id;
  BlockStatistics& statistics;
  bool read_only = false;
  uint64_t features = 0;  // negotiated
};

/// Belongs to the I/O thread. Goes through: chain filled by Queue::pop -> start() -> [completed()]* ->
/// answered.
class Request final : private storage::BlockRequest {
 public:
  class Owner {
   public:
    /// The status byte is written; `written` bytes of the chain's writable part are. Reusable from within.
    virtual void answered(Request& request, uint32_t written) = 0;

   protected:
    ~Owner() = default;
  };

  Chain chain;
  size_t queue = 0;

  /// False: the chain has no room for a header and a status, and there is nothing to answer with. Otherwise
  /// answered() is called, perhaps from within.
  bool start(const RequestContext& context, Owner& owner);

 private:
  void start_transfer(bool write, uint64_t sector);
  void start_flush();
  void answer_id();
  void start_segments(bool discard);
  std::optional<RequestStatus> read_segments(bool discard);
  bool next_segment();
  void completed(storage::BlockStatus status) override;
  void answer(RequestStatus status, uint64_t data_written = 0);

  const RequestContext* context_ = nullptr;
  Owner* owner_ = nullptr;
  std::vector<iovec> iovecs_;
  std::array<Segment, kMaxSegments> segments_{};
  size_t segment_count_ = 0;
  size_t segment_next_ = 0;
  bool flush_follows_ = false;
};

}  // namespace haneul::devices::virtio::block
