// SPDX-License-Identifier: Apache-2.0
// SimVolume: a volume over files in memory, for tests that say step by step what happens. One thread turns it.
#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <vector>

#include "storage/testing/sim_file.h"
#include "storage/testing/waiting_request.h"
#include "storage/volume/volume.h"

namespace haneul::storage::testing {

class SimVolume {
 public:
  explicit SimVolume(uint64_t size_bytes) : size_bytes_(size_bytes) {
    make_layer();
    open();
  }
  ~SimVolume() { close(); }

  std::unique_ptr<Volume> volume;
  std::vector<std::shared_ptr<SimMedium>> media;
  std::vector<SimFile*> files;  // the open volume's, the lowest first

  /// An empty layer on the last, in a medium of its own.
  LayerId make_layer() {
    NewLayer made;
    made.id = random_layer_id();
    made.parent = ids_.empty() ? LayerId{} : ids_.back();
    made.size_bytes = size_bytes_;
    ids_.push_back(made.id);
    media.push_back(std::make_shared<SimMedium>());
    SimFile file(media.back(), random_);
    EXPECT_TRUE(create_layer(file, made).ok());
    return made.id;
  }
  /// The last layer was given up before it was pushed; its medium is the caller's to drop.
  void forget_last() { ids_.pop_back(); }
  const LayerId& id(size_t layer) const { return ids_[layer]; }
  /// A file on a layer's medium; failing() of it holds from the start.
  StackLayer layer_file(size_t layer) {
    auto file = std::make_unique<SimFile>(media[layer], random_);
    if (files.size() <= layer) files.resize(layer + 1);
    files[layer] = file.get();
    return {std::move(file), std::nullopt};
  }
  /// A file of nobody's on the medium, to look at it.
  std::unique_ptr<SimFile> look(size_t layer) { return std::make_unique<SimFile>(media[layer], random_); }

  Status try_open() {
    Stack stack;
    for (size_t i = 0; i < media.size(); ++i) stack.layers.push_back(layer_file(i));
    volume = TRY(open_volume(std::move(stack), {}));
    channel_ = volume->open_channel(*ring_);
    return {};
  }
  void open() {
    Status opened = try_open();
    ASSERT_TRUE(opened.ok()) << opened.error().message();
  }
  void close() {
    channel_.reset();
    volume.reset();
    files.clear();
  }
  /// The power goes: what was not synced is as it was before.
  void lose_power() {
    for (auto& medium : media) {
      auto left = std::make_shared<SimMedium>(*medium);
      left->size = left->durable_size;
      left->pending_sizes.clear();
      for (auto& [sector, cell] : left->cells) {
        cell.now = cell.durable;
        cell.pending.clear();
      }
      lost_.push_back(std::exchange(medium, left));
    }
    close();
  }
  Status freeze_beneath() {
    for (size_t i = 0; i + 1 < media.size(); ++i) TRY(freeze_layer(*look(i)));
    return {};
  }
  Status push(size_t layer) {
    Push push{volume.get(), layer_file(layer)};
    auto pushed = push_layers(std::span(&push, 1));
    return pushed.ok() ? Status() : Status(pushed.error());
  }

  void submit(WaitingRequest& request) { channel_->submit(request); }
  /// One turn of the ring, and one operation of each file.
  void turn() {
    for (SimFile* file : files) {
      if (file != nullptr && file->pending() > 0) file->step();
    }
    turn_ring();
  }
  void turn_ring() { ASSERT_TRUE(ring_->run_once(false).ok()); }
  /// Until nothing moves any more.
  void settle() {
    for (int i = 0; i < 50; ++i) turn();
  }
  BlockStatus run(WaitingRequest& request) {
    submit(request);
    while (!request.status) turn();
    return *request.status;
  }
  BlockStatus write(uint64_t block, char value, uint64_t blocks = 1) {
    std::vector<std::byte> bytes(blocks * 4096, static_cast<std::byte>(value));
    WaitingRequest request;
    request.set(BlockOp::kWrite, block * 4096, bytes);
    return run(request);
  }
  BlockStatus flush() {
    WaitingRequest request;
    request.set(BlockOp::kFlush);
    return run(request);
  }
  BlockStatus change(BlockOp op, uint64_t block, uint64_t blocks = 1) {
    WaitingRequest request;
    request.set(op, block * 4096, blocks * 4096);
    request.may_unmap = true;
    return run(request);
  }
  /// The byte that fills the block; '?' if there is no one, '!' for an error.
  char read(uint64_t block) {
    std::vector<std::byte> bytes(4096, std::byte{'?'});
    WaitingRequest request;
    request.set(BlockOp::kRead, block * 4096, bytes);
    if (run(request) != BlockStatus::kOk) return '!';
    bool same = std::all_of(bytes.begin(), bytes.end(), [&](std::byte b) { return b == bytes[0]; });
    return same ? static_cast<char>(bytes[0]) : '?';
  }

 private:
  Random random_{1};
  uint64_t size_bytes_;
  std::vector<LayerId> ids_;
  std::vector<std::shared_ptr<SimMedium>> lost_;  // files of what is closed later still point at them
  std::unique_ptr<IoRing> ring_ = std::move(IoRing::create(8)).value();
  std::unique_ptr<BlockChannel> channel_;
};

}  // namespace haneul::storage::testing
