// SPDX-License-Identifier: Apache-2.0
#include "devices/virtio/block.h"

#include <cstring>
#include <optional>
#include <utility>
#include <vector>

#include "base/checked.h"
#include "devices/virtio/block_request.h"
#include "devices/virtio/io_worker.h"
#include "storage/pool.h"

namespace haneul::devices::virtio {
namespace {

constexpr unsigned kRingEntries = 256;
// New requests taken from one queue before others, and completions, get their turn.
constexpr int kBatch = 64;
constexpr uint32_t kSizeMax = 4u << 20;
constexpr uint8_t kPhysicalBlockExponent = 3;  // 8 sectors of 512 bytes
constexpr uint32_t kBlockSectors = 8;

class BlockDevice final : public Block, private IoWorker::Client, private block::Request::Owner {
 public:
  BlockDevice(BlockOptions options, std::unique_ptr<storage::BlockBackend> backend,
              std::unique_ptr<IoWorker> worker)
      : id_(std::move(options.id)),
        name_("block " + id_),
        read_only_(options.read_only || backend->read_only()),
        queue_sizes_(options.queues, options.queues == 1 ? kBlockQueueSize : kBlockQueueSizeOfMany),
        backend_(std::move(backend)),
        worker_(std::move(worker)),
        channel_(backend_->open_channel(worker_->ring())) {}
  ~BlockDevice() override { BlockDevice::reset(); }

  DeviceType type() const override { return DeviceType::kBlock; }
  std::string_view name() const override { return name_; }
  uint64_t features() const override;
  std::span<const uint16_t> queue_sizes() const override { return queue_sizes_; }
  uint32_t config_size() const override { return block::kConfigBytes; }
  void read_config(uint32_t offset, std::span<std::byte> data) override;
  void attach(DeviceHost& host) override { host_ = &host; }

  Status activate(Activation activation) override;
  void reset() override;
  void let_go() override { worker_->ask_to_halt(); }
  Status pause() override;
  Status resume() override;

  Status resize(uint64_t size_bytes) override;
  const BlockStatistics& statistics() const override { return statistics_; }

 private:
  struct Side {
    std::unique_ptr<Queue> queue;
    bool rang = true;
    bool answered = false;
  };

  void rang(size_t doorbell) override { sides_[doorbell].rang = true; }
  bool work() override;
  void stop() override { stopping_ = true; }
  bool idle() override { return requests_.used() == 0; }
  void answered(block::Request& request, uint32_t written) override;
  bool serve(size_t index);

  const std::string id_;
  const std::string name_;
  const bool read_only_;
  const std::vector<uint16_t> queue_sizes_;
  BlockStatistics statistics_;
  const std::unique_ptr<storage::BlockBackend> backend_;
  const std::unique_ptr<IoWorker> worker_;
  const std::unique_ptr<storage::BlockChannel> channel_;
  DeviceHost* host_ = nullptr;

  // The caller's while the worker does not run, the I/O thread's while it does.
  ThreadStarter* threads_ = nullptr;
  std::vector<Side> sides_;
  std::optional<block::RequestContext> context_;
  storage::Pool<block::Request> requests_;
  bool stopping_ = false;
};

uint64_t BlockDevice::features() const {
  uint64_t bits = block::kFeatureSizeMax | block::kFeatureSegMax | block::kFeatureBlockSize |
                  block::kFeatureFlush | block::kFeatureTopology;
  if (queue_sizes_.size() > 1) bits |= block::kFeatureMultiQueue;
  if (read_only_) return bits | block::kFeatureReadOnly;
  return bits | block::kFeatureDiscard | block::kFeatureWriteZeroes;
}

void BlockDevice::read_config(uint32_t offset, std::span<std::byte> data) {
  block::Config config;
  config.capacity = backend_->size_bytes() / storage::kSectorBytes;
  config.size_max = kSizeMax;
  config.seg_max = queue_sizes_[0] - 2u;
  config.blk_size = static_cast<uint32_t>(storage::kSectorBytes);
  config.physical_block_exp = kPhysicalBlockExponent;
  config.min_io_size = static_cast<uint16_t>(kBlockSectors);
  config.num_queues = static_cast<uint16_t>(queue_sizes_.size());
  config.max_discard_sectors = kMaxDiscardSectors;
  config.max_discard_seg = kMaxSegments;
  config.discard_sector_alignment = kBlockSectors;
  config.max_write_zeroes_sectors = kMaxWriteZeroesSectors;
  config.max_write_zeroes_seg = kMaxSegments;
  config.write_zeroes_may_unmap = 1;
  CHECK(range_within(offset, data.size(), block::kConfigBytes));
  std::memcpy(data.data(), reinterpret_cast<const std::byte*>(&config) + offset, data.size());
}

Status BlockDevice::activate(Activation activation) {
  CHECK(!worker_->running() && sides_.empty());
  threads_ = &activation.threads;
  for (auto& queue : activation.queues) sides_.push_back(Side{std::move(queue)});
  context_.emplace(block::RequestContext{.backend = *backend_,
                                         .channel = *channel_,
                                         .id = id_,
                                         .statistics = statistics_,
                                         .read_only = read_only_,
                                         .features = activation.features});
  Status running = resume();
  if (!running) sides_.clear();
  return running;
}

void BlockDevice::reset() {
  worker_->halt();
  sides_.clear();
}

Status BlockDevice::pause() {
  worker_->halt();
  return {};
}

Status BlockDevice::resume() {
  if (sides_.empty() || worker_->running()) return {};
  stopping_ = false;
  std::vector<const EventFd*> doorbells;
  for (Side& side : sides_) {
    side.rang = side.queue != nullptr;
    doorbells.push_back(side.queue != nullptr ? &side.queue->doorbell() : nullptr);
  }
  return worker_->start(*threads_, "blk " + id_, *this, std::move(doorbells));
}

Status BlockDevice::resize(uint64_t size_bytes) {
  TRY(backend_->resize(size_bytes).context(name_));
  if (host_ != nullptr) host_->config_changed();
  return {};
}

bool BlockDevice::work() {
  bool more = false;
  for (size_t i = 0; i < sides_.size(); ++i) {
    if (sides_[i].rang && !stopping_) more = serve(i) || more;
    if (std::exchange(sides_[i].answered, false)) sides_[i].queue->notify();
  }
  return more;
}

// Takes what is there, up to a batch; true if there may be more.
bool BlockDevice::serve(size_t index) {
  Side& side = sides_[index];
  side.rang = false;
  side.queue->disarm_doorbell();
  for (int i = 0; i < kBatch; ++i) {
    block::Request& request = requests_.take();
    request.queue = index;
    if (!side.queue->pop(request.chain)) {
      requests_.give_back(request);
      if (!side.queue->arm_doorbell()) return false;
      continue;
    }
    if (!request.start(*context_, *this)) {
      requests_.give_back(request);
      side.queue->fail("a block request without a header or a status");
      return false;
    }
  }
  side.rang = true;
  return true;
}

void BlockDevice::answered(block::Request& request, uint32_t written) {
  Side& side = sides_[request.queue];
  side.queue->push(request.chain.head(), written);
  side.answered = true;
  requests_.give_back(request);
}

}  // namespace

Result<std::unique_ptr<Block>> make_block(BlockOptions options,
                                          std::unique_ptr<storage::BlockBackend> backend) {
  if (options.id.empty() || options.queues == 0 || options.queues > kMaxBlockQueues) {
    return make_error(ErrorCode::kInvalidArgument, "a disk needs an id and 1 to {} queues", kMaxBlockQueues);
  }
  auto worker = TRY(IoWorker::create(kRingEntries).context("block " + options.id));
  return std::unique_ptr<Block>(
      std::make_unique<BlockDevice>(std::move(options), std::move(backend), std::move(worker)));
}

}  // namespace haneul::devices::virtio
