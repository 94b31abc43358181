// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>

#include "base/endian.h"
#include "storage/store/qcow2.h"

namespace haneul::storage {
namespace {

constexpr uint64_t kCluster = 65536;
constexpr uint64_t kPerTable = kCluster / 8;
constexpr uint64_t kPerRefcountBlock = kCluster / 2;
constexpr uint64_t kCopied = uint64_t{1} << 63;

uint64_t clusters_for(uint64_t bytes) {
  return (bytes + kCluster - 1) / kCluster;
}

bool is_zero(std::span<const std::byte> bytes) {
  return std::all_of(bytes.begin(), bytes.end(), [](std::byte b) { return b == std::byte{0}; });
}

}  // namespace

Qcow2Writer::Qcow2Writer(Qcow2Write write, uint64_t size_bytes)
    : write_(std::move(write)),
      size_(size_bytes),
      l1_((clusters_for(size_bytes) + kPerTable - 1) / kPerTable),
      table_(kCluster),
      data_(kCluster) {}

Status Qcow2Writer::add(uint64_t at, std::span<const std::byte> data) {
  while (!data.empty()) {
    const uint64_t index = at / kCluster;
    CHECK(index >= data_index_ && at + data.size() <= size_);
    if (index != data_index_) {
      TRY(flush_cluster());
      data_index_ = index;
    }
    auto piece = data.first(std::min<uint64_t>(data.size(), kCluster - at % kCluster));
    if (!is_zero(piece)) {
      std::copy(piece.begin(), piece.end(), data_.begin() + static_cast<ptrdiff_t>(at % kCluster));
      data_used_ = true;
    }
    at += piece.size();
    data = data.subspan(piece.size());
  }
  return {};
}

Status Qcow2Writer::flush_cluster() {
  if (!data_used_) return {};
  if (data_index_ / kPerTable != table_index_) {
    TRY(flush_table());
    table_index_ = data_index_ / kPerTable;
  }
  TRY(write_(next_ * kCluster, data_));
  store_be<uint64_t>(&table_[data_index_ % kPerTable * 8], next_ * kCluster | kCopied);
  ++next_;
  table_used_ = true;
  data_used_ = false;
  std::fill(data_.begin(), data_.end(), std::byte{0});
  return {};
}

Status Qcow2Writer::flush_table() {
  if (!table_used_) return {};
  TRY(write_(next_ * kCluster, table_));
  l1_[table_index_] = next_ * kCluster | kCopied;
  ++next_;
  table_used_ = false;
  std::fill(table_.begin(), table_.end(), std::byte{0});
  return {};
}

// Every cluster of the file is in use once, so the refcounts are all 1; their blocks count themselves.
Status Qcow2Writer::finish() {
  TRY(flush_cluster());
  TRY(flush_table());
  const uint64_t l1_at = next_;
  std::vector<std::byte> bytes(clusters_for(l1_.size() * 8) * kCluster);
  for (size_t i = 0; i < l1_.size(); ++i) store_be<uint64_t>(&bytes[i * 8], l1_[i]);
  TRY(write_(l1_at * kCluster, bytes));
  next_ += bytes.size() / kCluster;
  uint64_t blocks = 1;
  uint64_t tables = 1;
  while (next_ + tables + blocks > blocks * kPerRefcountBlock || tables < clusters_for(blocks * 8)) {
    ++blocks;
    tables = clusters_for(blocks * 8);
  }
  const uint64_t table_at = next_;
  const uint64_t end = table_at + tables + blocks;
  bytes.assign(tables * kCluster, std::byte{0});
  for (uint64_t i = 0; i < blocks; ++i) store_be<uint64_t>(&bytes[i * 8], (table_at + tables + i) * kCluster);
  TRY(write_(table_at * kCluster, bytes));
  bytes.resize(kCluster);
  for (uint64_t i = 0; i < blocks; ++i) {
    for (uint64_t k = 0; k < kPerRefcountBlock; ++k)
      store_be<uint16_t>(&bytes[k * 2], i * kPerRefcountBlock + k < end ? 1 : 0);
    TRY(write_((table_at + tables + i) * kCluster, bytes));
  }
  std::array<std::byte, 112> header{};  // the extensions' end is the last eight
  store_be<uint32_t>(&header[0], 0x514649fb);
  store_be<uint32_t>(&header[4], 3);
  store_be<uint32_t>(&header[20], 16);
  store_be<uint64_t>(&header[24], size_);
  store_be<uint32_t>(&header[36], static_cast<uint32_t>(l1_.size()));
  store_be<uint64_t>(&header[40], l1_at * kCluster);
  store_be<uint64_t>(&header[48], table_at * kCluster);
  store_be<uint32_t>(&header[56], static_cast<uint32_t>(tables));
  store_be<uint32_t>(&header[96], 4);
  store_be<uint32_t>(&header[100], 104);
  return write_(0, header);
}

}  // namespace haneul::storage
