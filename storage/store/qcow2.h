// SPDX-License-Identifier: Apache-2.0
// qcow2 images, read and written (QEMU's docs/interop/qcow2.txt). Only for going in and out of the store: no volume lies
// in one.
//
// Qcow2Reader goes once through an image from the first byte to the last. The file may be hostile: every offset and
// size is checked before it is used, each cluster is used at most once (so the guest's data is never more than the file's,
// or what zlib can make of it), and memory is bounded. Versions 2 and 3, clusters of 512 bytes to 2 MiB, zlib, zero
// clusters and subclusters are read; refused are backing files, external data files, encryption, zstd, images
// marked corrupt and features that are not known. Internal snapshots are left out. Refcounts are not looked at:
// nothing is allocated.
//
// Threads   one.
// Memory    the L1 table (at most 32 MiB), a bit for each cluster of the file (at most 64 MiB), an L2 table and three
//           clusters more (a compressed one may be as long as two); the L1 table twice while it is read.
// Errors    kInvalidArgument: not an image, or a damaged one; kUnsupported: a sound one that is not read; each with the
//           place. Those of `read`, and of `each`.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "base/result.h"

namespace haneul::storage {

/// Exactly that many bytes of the file; within it.
using Qcow2Read = std::function<Status(uint64_t offset, std::span<std::byte> out)>;

class Qcow2Reader {
 public:
  /// Of a file of that length.
  static Result<Qcow2Reader> open(Qcow2Read read, uint64_t file_bytes);

  /// Of the disk in it: a multiple of 512, at most 16 TiB.
  uint64_t size_bytes() const { return size_; }
  /// Of the file, how far a walk's end is; for progress.
  uint64_t file_bytes() const { return file_bytes_; }

  /// Each stretch of the disk that is not zeroes by the tables, in order; at most a cluster.
  using Each = std::function<Status(uint64_t at, std::span<const std::byte> data)>;
  /// `progress` is told how far the walk is on the disk, table by table too; false: kCancelled.
  Status walk(const Each& each, const std::function<bool(uint64_t at)>& progress);

 private:
  Qcow2Reader(Qcow2Read read, uint64_t file_bytes) : read_(std::move(read)), file_bytes_(file_bytes) {}
  Status read_header();
  Status read_header_3(std::span<const std::byte> header);
  Status read_l1(uint64_t offset, uint64_t entries);
  Status walk_table(uint64_t first, uint64_t l1_entry, const Each& each,
                    const std::function<bool(uint64_t at)>& progress);
  Status walk_entry(uint64_t at, uint64_t entry, uint64_t bitmap, const Each& each);
  Status standard(uint64_t at, uint64_t entry, uint64_t bitmap, const Each& each);
  Status compressed(uint64_t at, uint64_t entry, const Each& each);
  Status give(uint64_t at, std::span<const std::byte> data, const Each& each) const;
  /// Marks clusters as used: kInvalidArgument if one is already, or is not in the file.
  Status claim(const char* what, uint64_t offset, uint64_t bytes);
  uint64_t cluster() const { return uint64_t{1} << bits_; }
  uint64_t entry_bytes() const { return extended_ ? 16 : 8; }
  uint64_t clusters_per_table() const { return cluster() / entry_bytes(); }

  Qcow2Read read_;
  uint64_t file_bytes_;
  uint64_t size_ = 0;
  uint32_t version_ = 0;
  unsigned bits_ = 0;
  bool extended_ = false;
  uint64_t inflated_ = 0;  // bytes so far
  std::vector<uint64_t> l1_;
  std::vector<bool> used_;
  std::vector<std::byte> table_;
  std::vector<std::byte> data_;
  std::vector<std::byte> packed_;
};

using Qcow2Write = std::function<Status(uint64_t offset, std::span<const std::byte> data)>;

/// Writes version 3 with clusters of 64 KiB, into an empty file, from the front to the back.
class Qcow2Writer {
 public:
  Qcow2Writer(Qcow2Write write, uint64_t size_bytes);

  /// The disk's bytes from `at` on; calls go forwards. What is never given, or only as zeroes, takes no space.
  Status add(uint64_t at, std::span<const std::byte> data);
  /// Tables, refcounts and, last, the header.
  Status finish();

 private:
  Status flush_cluster();
  Status flush_table();

  Qcow2Write write_;
  uint64_t size_;
  uint64_t next_ = 1;  // cluster of the file
  std::vector<uint64_t> l1_;
  std::vector<std::byte> table_;
  uint64_t table_index_ = 0;
  bool table_used_ = false;
  std::vector<std::byte> data_;
  uint64_t data_index_ = 0;
  bool data_used_ = false;
};

}  // namespace haneul::storage
