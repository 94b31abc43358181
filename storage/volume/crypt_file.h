// SPDX-License-Identifier: Apache-2.0
// Encryption of a layer's data: FORMAT.md, "Encryption". SectorCipher works on memory; CryptFile is the file
// of an encrypted layer as a volume wants to see it: what is read from the data region is decrypted, what is
// written there encrypted, all before it is as it is.
//
// Threads   a SectorCipher belongs to one thread at a time. CryptFile as AsyncFile.
// Lifetime  the file given to a CryptFile outlives it; a CryptFile goes when none of its operations is under
//           way.
// Units     data in multiples of 512 bytes at multiples of 512 bytes, in iovecs of any alignment and length.
// Bounds    a transfer is at most BounceTransfer::kMaxBytes at once and is short otherwise; it goes through a buffer of
//           the pool, and waits if there is none. What is encrypted or decrypted is that copy, never memory that a guest
//           may change meanwhile. Beside buffers a transfer costs some hundred bytes.
// Cost      see storage/README.md.
// System calls  those of the file beneath, and brk or mmap for buffers.
#pragma once

#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "storage/async_file.h"
#include "storage/volume/bounce.h"
#include "storage/volume/layer.h"

namespace haneul::storage {

/// What a header keeps to recognise the key: the first 16 bytes of HMAC-SHA-512(key, "haneul layer key
/// check").
std::array<uint8_t, 16> layer_key_check(const LayerKey& key);

class SectorCipher {
 public:
  explicit SectorCipher(const LayerKey& key);
  SectorCipher(SectorCipher&&) noexcept;
  SectorCipher& operator=(SectorCipher&&) noexcept;
  ~SectorCipher();

  /// `unit` is the number on the volume of the first 512 bytes. `to` may be `from`, and is as long.
  void encrypt(uint64_t unit, std::span<const std::byte> from, std::byte* to);
  void decrypt(uint64_t unit, std::span<const std::byte> from, std::byte* to);

 private:
  struct Contexts;
  std::unique_ptr<Contexts> contexts_;
};

class CryptFile final : public AsyncFile {
 public:
  /// Files of one disk share a pool.
  CryptFile(AsyncFile& file, const LayerKey& key, std::shared_ptr<BouncePool> pool);
  ~CryptFile() override;

  void read(IoRing& ring, IoOperation& op, std::span<const iovec> data, uint64_t offset) override;
  void write(IoRing& ring, IoOperation& op, std::span<const iovec> data, uint64_t offset) override;
  void sync(IoRing& ring, IoOperation& op) override { file_.sync(ring, op); }
  void erase(IoRing& ring, IoOperation& op, Erase how, uint64_t offset, uint64_t length) override {
    file_.erase(ring, op, how, offset, length);
  }
  Status read_now(uint64_t offset, std::span<std::byte> out) override;
  Status write_now(uint64_t offset, std::span<const std::byte> data) override;
  Status sync_now() override { return file_.sync_now(); }
  Status erase_now(Erase how, uint64_t offset, uint64_t length) override {
    return file_.erase_now(how, offset, length);
  }
  Result<uint64_t> size() override { return file_.size(); }
  Status grow(uint64_t size_bytes) override { return file_.grow(size_bytes); }
  Status lock(Lock how) override { return file_.lock(how); }
  Result<uint64_t> next_data(uint64_t offset, uint64_t limit) override {
    return file_.next_data(offset, limit);
  }

 private:
  class Transfer;
  Transfer& take();
  void give_back(Transfer& transfer);
  /// With a cipher that nobody else uses meanwhile.
  template <typename Use>
  void with_cipher(Use use);

  AsyncFile& file_;
  LayerKey key_;
  std::shared_ptr<BouncePool> pool_;
  std::mutex mutex_;
  std::vector<std::unique_ptr<Transfer>> transfers_;
  std::vector<Transfer*> free_;
  std::vector<SectorCipher> ciphers_;  // one for each thread that ever used one with others
};

}  // namespace haneul::storage
