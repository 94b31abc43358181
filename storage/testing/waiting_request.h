// SPDX-License-Identifier: Apache-2.0
// Block requests that tests wait for, and a seed that can be given again.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <optional>
#include <random>
#include <vector>

#include "storage/block_backend.h"

namespace haneul::storage::testing {

struct WaitingRequest final : BlockRequest {
  std::optional<BlockStatus> status;
  std::vector<iovec> iovecs;

  void set(BlockOp its_op, uint64_t its_offset, std::span<std::byte> bytes) {
    op = its_op;
    offset = its_offset;
    length = bytes.size();
    iovecs.assign(1, {bytes.data(), bytes.size()});
    data = iovecs;
    status.reset();
  }
  void set(BlockOp its_op, uint64_t its_offset = 0, uint64_t its_length = 0) {
    op = its_op;
    offset = its_offset;
    length = its_length;
    data = {};
    status.reset();
  }
  void completed(BlockStatus its_status) override { status = its_status; }
};

/// Submits, turns the ring until it is done, and gives the status.
inline BlockStatus run(IoRing& ring, BlockChannel& channel, WaitingRequest& request) {
  channel.submit(request);
  while (!request.status) CHECK(ring.run_once().ok());
  return *request.status;
}

inline BlockStatus run(IoRing& ring, BlockChannel& channel, BlockOp op, uint64_t offset,
                       std::span<std::byte> bytes) {
  WaitingRequest request;
  request.set(op, offset, bytes);
  return run(ring, channel, request);
}

inline BlockStatus run(IoRing& ring, BlockChannel& channel, BlockOp op, uint64_t offset = 0,
                       uint64_t length = 0, bool may_unmap = false) {
  WaitingRequest request;
  request.set(op, offset, length);
  request.may_unmap = may_unmap;
  return run(ring, channel, request);
}

/// A number from the environment, for longer or shorter runs.
inline uint64_t number_from(const char* name, uint64_t otherwise) {
  const char* text = std::getenv(name);  // NOLINT(concurrency-mt-unsafe)
  return text != nullptr ? std::strtoull(text, nullptr, 0) : otherwise;
}

/// HANEUL_SEED, or a fresh one; printed, so that a failure can be run again.
inline uint64_t seed() {
  const char* given = std::getenv("HANEUL_SEED");  // NOLINT(concurrency-mt-unsafe)
  uint64_t value = given != nullptr ? std::strtoull(given, nullptr, 0) : std::random_device{}();
  std::printf("HANEUL_SEED=%llu\n", static_cast<unsigned long long>(value));
  return value;
}

}  // namespace haneul::storage::testing
