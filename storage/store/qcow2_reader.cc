// SPDX-License-Identifier: Apache-2.0
#include <zlib.h>

#include <algorithm>
#include <array>

#include "base/checked.h"
#include "base/endian.h"
#include "storage/store/qcow2.h"

namespace haneul::storage {
namespace {

constexpr uint32_t kMagic = 0x514649fb;  // "QFI\xfb"
constexpr size_t kHeader2Bytes = 72;
constexpr size_t kHeader3Bytes = 104;
constexpr uint64_t kMaxSize = uint64_t{1} << 44;
constexpr uint64_t kMaxL1Entries = (uint64_t{32} << 20) / 8;
constexpr uint64_t kMaxClusters = (uint64_t{64} << 20) * 8;
/// More than that zlib cannot make of its input.
constexpr uint64_t kMaxInflation = 1032;

constexpr uint64_t kOffsetMask = 0x00ff'ffff'ffff'fe00;
constexpr uint64_t kCopied = uint64_t{1} << 63;
constexpr uint64_t kCompressed = uint64_t{1} << 62;
constexpr uint64_t kZero = 1;
constexpr unsigned kSubclusters = 32;

enum Incompatible : uint64_t {
  kDirty = 1,  // its refcounts may be wrong, which nobody here needs
  kCorrupt = 2,
  kExternalData = 4,
  kCompressionType = 8,
  kExtendedL2 = 16,
  kKnown = 31,
};

template <typename... Args>
Error damaged(fmt::format_string<Args...> format, Args&&... args) {
  return make_error(ErrorCode::kInvalidArgument, "the qcow2 image is damaged: {}",
                    fmt::format(format, std::forward<Args>(args)...));
}
template <typename... Args>
Error refused(fmt::format_string<Args...> format, Args&&... args) {
  return make_error(ErrorCode::kUnsupported, "the qcow2 image {}",
                    fmt::format(format, std::forward<Args>(args)...));
}

struct Inflate {
  Inflate() { CHECK(::inflateInit2(&stream, -15) == Z_OK); }
  Inflate(const Inflate&) = delete;
  Inflate& operator=(const Inflate&) = delete;
  ~Inflate() { ::inflateEnd(&stream); }
  z_stream stream{};
};

}  // namespace

Result<Qcow2Reader> Qcow2Reader::open(Qcow2Read read, uint64_t file_bytes) {
  Qcow2Reader reader(std::move(read), file_bytes);
  TRY(reader.read_header());
  return reader;
}

Status Qcow2Reader::read_header() {
  std::array<std::byte, kHeader3Bytes + 8> header{};
  if (file_bytes_ < kHeader2Bytes) {
    return make_error(ErrorCode::kInvalidArgument, "the file is not a qcow2 image: it has only {} bytes",
                      file_bytes_);
  }
  TRY(read_(0, std::span(header).first(std::min<uint64_t>(header.size(), file_bytes_))));
  if (load_be<uint32_t>(&header[0]) != kMagic) {
    return Error(ErrorCode::kInvalidArgument,
                 "the file is not a qcow2 image: it does not begin with its mark; is it raw?");
  }
  version_ = load_be<uint32_t>(&header[4]);
  if (version_ != 2 && version_ != 3) return refused("has version {}, and 2 and 3 are known", version_);
  if (load_be<uint64_t>(&header[8]) != 0)
    return refused("has a backing file: make one image of both with qemu-img convert");
  const auto bits = load_be<uint32_t>(&header[20]);
  if (bits < 9 || bits > 21) return damaged("its clusters have 2^{} bytes, not 2^9 to 2^21", bits);
  bits_ = bits;
  size_ = load_be<uint64_t>(&header[24]);
  if (size_ == 0 || size_ % 512 != 0 || size_ > kMaxSize)
    return refused("holds a disk of {} bytes, not a multiple of 512 up to 16 TiB", size_);
  if (load_be<uint32_t>(&header[32]) != 0) return refused("is encrypted: decrypt it with qemu-img convert");
  if (version_ == 3) TRY(read_header_3(header));
  const uint64_t clusters = file_bytes_ / cluster() + 1;
  if (clusters > kMaxClusters) return refused("has {} clusters, more than {}", clusters, kMaxClusters);
  used_.assign(clusters, false);
  TRY(claim("the header", 0, std::min(cluster(), file_bytes_)));
  return read_l1(load_be<uint64_t>(&header[40]), load_be<uint32_t>(&header[36]));
}

Status Qcow2Reader::read_header_3(std::span<const std::byte> header) {
  if (file_bytes_ < kHeader3Bytes) return damaged("its header is cut off");
  const auto incompatible = load_be<uint64_t>(&header[72]);
  if ((incompatible & kExternalData) != 0)
    return refused("has its data in another file: make one image of both with qemu-img convert");
  if ((incompatible & kCorrupt) != 0) return refused("is marked corrupt: try qemu-img check -r all");
  if ((incompatible & ~uint64_t{kKnown}) != 0)
    return refused("needs features that are not known: {:#x}", incompatible & ~uint64_t{kKnown});
  const auto length = load_be<uint32_t>(&header[100]);
  if (length < kHeader3Bytes || length % 8 != 0 || length > cluster() || length > file_bytes_)
    return damaged("its header has {} bytes", length);
  const bool typed = (incompatible & kCompressionType) != 0;
  const unsigned type = length > kHeader3Bytes ? std::to_integer<unsigned>(header[104]) : 0;
  if (typed != (type != 0)) return damaged("its header contradicts itself on the compression type");
  if (type != 0) return refused("is compressed otherwise than by zlib (type {})", type);
  extended_ = (incompatible & kExtendedL2) != 0;
  if (extended_ && bits_ < 14) return damaged("it has subclusters, and clusters of only {} bytes", cluster());
  return {};
}

Status Qcow2Reader::read_l1(uint64_t offset, uint64_t entries) {
  const uint64_t per_entry = cluster() * clusters_per_table();
  const uint64_t needed = (size_ + per_entry - 1) / per_entry;
  if (needed > kMaxL1Entries || entries > kMaxL1Entries)
    return refused("has an L1 table of {} entries, more than {}", std::max(needed, entries), kMaxL1Entries);
  if (entries < needed) return damaged("its L1 table has {} entries, and its disk needs {}", entries, needed);
  TRY(claim("the L1 table", offset, entries * 8));
  std::vector<std::byte> bytes(needed * 8);
  TRY(read_(offset, bytes));
  l1_.resize(needed);
  for (size_t i = 0; i < needed; ++i) {
    l1_[i] = load_be<uint64_t>(&bytes[i * 8]);
    if ((l1_[i] & ~(kOffsetMask | kCopied)) != 0)
      return damaged("L1 entry {} has bits that mean nothing: {:#x}", i, l1_[i]);
  }
  return {};
}

Status Qcow2Reader::claim(const char* what, uint64_t offset, uint64_t bytes) {
  if (!is_aligned(offset, cluster())) return damaged("{} at {} is not at a cluster's begin", what, offset);
  if (bytes == 0 || !range_within(offset, bytes, file_bytes_))
    return damaged("{} at {} is not within the file", what, offset);
  for (uint64_t at = offset >> bits_; at <= (offset + bytes - 1) >> bits_; ++at) {
    if (used_[at]) return damaged("{} at {} lies on something else", what, offset);
    used_[at] = true;
  }
  return {};
}

Status Qcow2Reader::walk(const Each& each, const std::function<bool(uint64_t at)>& progress) {
  const uint64_t per_table = cluster() * clusters_per_table();
  for (size_t i = 0; i < l1_.size(); ++i) {
    if (progress && !progress(i * per_table)) return Error(ErrorCode::kCancelled, "the import was ended");
    if ((l1_[i] & kOffsetMask) != 0) TRY(walk_table(i * per_table, l1_[i], each, progress));
  }
  return {};
}

Status Qcow2Reader::walk_table(uint64_t first, uint64_t l1_entry, const Each& each,
                               const std::function<bool(uint64_t at)>& progress) {
  const uint64_t offset = l1_entry & kOffsetMask;
  TRY(claim("the L2 table", offset, cluster()));
  table_.resize(cluster());
  TRY(read_(offset, table_));
  for (uint64_t i = 0; i < clusters_per_table(); ++i) {
    const uint64_t at = first + i * cluster();
    const auto entry = load_be<uint64_t>(&table_[i * entry_bytes()]);
    const uint64_t bitmap = extended_ ? load_be<uint64_t>(&table_[i * entry_bytes() + 8]) : 0;
    if (entry == 0 && bitmap == 0) continue;
    if (at >= size_) return damaged("its tables go beyond the end of its disk");
    TRY(walk_entry(at, entry, bitmap, each));
    if (progress && !progress(at)) return Error(ErrorCode::kCancelled, "the import was ended");
  }
  return {};
}

Status Qcow2Reader::walk_entry(uint64_t at, uint64_t entry, uint64_t bitmap, const Each& each) {
  if ((entry & kCompressed) == 0) return standard(at, entry, bitmap, each);
  if (bitmap != 0) return damaged("the compressed cluster of byte {} has subclusters", at);
  return compressed(at, entry, each);
}

Status Qcow2Reader::standard(uint64_t at, uint64_t entry, uint64_t bitmap, const Each& each) {
  const uint64_t zero = version_ == 3 && !extended_ ? kZero : 0;
  if ((entry & ~(kOffsetMask | kCopied | zero)) != 0)
    return damaged("the L2 entry of byte {} has bits that mean nothing: {:#x}", at, entry);
  const uint64_t offset = entry & kOffsetMask;
  const auto allocated = static_cast<uint32_t>(bitmap);
  const auto zeroes = static_cast<uint32_t>(bitmap >> 32);
  if ((allocated & zeroes) != 0 || (offset == 0 && allocated != 0))
    return damaged("the subclusters of byte {} contradict themselves", at);
  if (offset == 0) return {};
  // The last cluster of a file may be cut short: the rest of it was never written.
  const uint64_t there = offset < file_bytes_ ? std::min(cluster(), file_bytes_ - offset) : 0;
  TRY(claim("a cluster", offset, there));
  if ((entry & zero) != 0 || (extended_ && allocated == 0)) return {};
  data_.assign(cluster(), std::byte{0});
  TRY(read_(offset, std::span(data_).first(there)));
  if (extended_) {
    const uint64_t bytes = cluster() / kSubclusters;
    for (unsigned i = 0; i < kSubclusters; ++i) {
      if ((allocated >> i & 1) == 0)
        std::fill_n(data_.begin() + static_cast<ptrdiff_t>(i * bytes), bytes, std::byte{0});
    }
  }
  return give(at, data_, each);
}

Status Qcow2Reader::compressed(uint64_t at, uint64_t entry, const Each& each) {
  const unsigned size_bit = 62 - (bits_ - 8);
  const uint64_t rest = entry & ~(kCompressed | kCopied);
  const uint64_t offset = rest & ((uint64_t{1} << size_bit) - 1);
  const uint64_t sectors = (rest >> size_bit) + 1;
  if (offset >= file_bytes_) return damaged("the compressed cluster of byte {} is not within the file", at);
  const uint64_t bytes = std::min(sectors * 512 - offset % 512, file_bytes_ - offset);
  inflated_ += cluster();
  if (inflated_ > file_bytes_ * kMaxInflation + cluster())
    return damaged("its compressed clusters hold more than zlib can have made of its {} bytes", file_bytes_);
  packed_.resize(bytes);
  TRY(read_(offset, packed_));
  data_.resize(cluster());
  Inflate inflate;
  inflate.stream.next_in = reinterpret_cast<Bytef*>(packed_.data());
  inflate.stream.avail_in = static_cast<uInt>(packed_.size());
  inflate.stream.next_out = reinterpret_cast<Bytef*>(data_.data());
  inflate.stream.avail_out = static_cast<uInt>(data_.size());
  const int ended = ::inflate(&inflate.stream, Z_FINISH);
  if ((ended != Z_STREAM_END && ended != Z_BUF_ERROR) || inflate.stream.avail_out != 0)
    return damaged("the compressed cluster of byte {} is not what zlib makes", at);
  return give(at, data_, each);
}

Status Qcow2Reader::give(uint64_t at, std::span<const std::byte> data, const Each& each) const {
  return each(at, data.first(std::min<uint64_t>(data.size(), size_ - at)));
}

}  // namespace haneul::storage
