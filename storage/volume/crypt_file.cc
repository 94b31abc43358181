// SPDX-License-Identifier: Apache-2.0
#include "storage/volume/crypt_file.h"

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>
#include <openssl/params.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/checked.h"
#include "base/endian.h"
#include "storage/file_task.h"
#include "storage/volume/format.h"

namespace haneul::storage {
namespace {

constexpr uint64_t kUnitBytes = 512;

// No configuration file is read: a sandboxed process could not open it.
OSSL_LIB_CTX* library() {
  static OSSL_LIB_CTX* const context = [] {
    CHECK(::OPENSSL_init_crypto(OPENSSL_INIT_NO_LOAD_CONFIG, nullptr) == 1);
    return ::OSSL_LIB_CTX_new();
  }();
  CHECK(context != nullptr);
  return context;
}

EVP_CIPHER* xts() {
  static EVP_CIPHER* const cipher = ::EVP_CIPHER_fetch(library(), "AES-256-XTS", nullptr);
  CHECK(cipher != nullptr);
  return cipher;
}

OSSL_PARAM text_param(const char* name, const char* text) {
  return ::OSSL_PARAM_construct_utf8_string(name, const_cast<char*>(text), 0);
}

template <size_t N>
OSSL_PARAM bytes_param(const char* name, const std::array<uint8_t, N>& bytes) {
  return ::OSSL_PARAM_construct_octet_string(name, const_cast<uint8_t*>(bytes.data()), N);
}

struct CipherContext {
  explicit CipherContext(const LayerKey& key, bool encrypting) : raw(::EVP_CIPHER_CTX_new()) {
    CHECK(raw != nullptr);
    CHECK(::EVP_CipherInit_ex2(raw, xts(), key.data(), nullptr, encrypting ? 1 : 0, nullptr) == 1);
  }
  CipherContext(const CipherContext&) = delete;
  CipherContext& operator=(const CipherContext&) = delete;
  ~CipherContext() { ::EVP_CIPHER_CTX_free(raw); }

  void run(uint64_t unit, std::span<const std::byte> from, std::byte* to) {
    std::array<uint8_t, 16> tweak{};
    for (size_t at = 0; at < from.size(); at += kUnitBytes) {
      store_le<uint64_t>(tweak.data(), unit++);
      int length = 0;
      CHECK(::EVP_CipherInit_ex2(raw, nullptr, nullptr, tweak.data(), -1, nullptr) == 1);
      CHECK(::EVP_CipherUpdate(raw, reinterpret_cast<uint8_t*>(to + at), &length,
                               reinterpret_cast<const uint8_t*>(from.data() + at),
                               static_cast<int>(kUnitBytes)) == 1);
      CHECK(length == static_cast<int>(kUnitBytes));
    }
  }

  EVP_CIPHER_CTX* raw;
};

}  // namespace

LayerKey derive_layer_key(const StoreKey& store_key, const LayerSalt& salt) {
  EVP_KDF* kdf = ::EVP_KDF_fetch(library(), "HKDF", nullptr);
  CHECK(kdf != nullptr);
  EVP_KDF_CTX* context = ::EVP_KDF_CTX_new(kdf);
  CHECK(context != nullptr);
  static constexpr std::array<uint8_t, 12> kInfo{'h', 'a', 'n', 'e', 'u', 'l', ' ', 'l', 'a', 'y', 'e', 'r'};
  std::array<OSSL_PARAM, 5> params{text_param(OSSL_KDF_PARAM_DIGEST, "SHA512"),
                                   bytes_param(OSSL_KDF_PARAM_KEY, store_key),
                                   bytes_param(OSSL_KDF_PARAM_SALT, salt),
                                   bytes_param(OSSL_KDF_PARAM_INFO, kInfo), ::OSSL_PARAM_construct_end()};
  LayerKey key{};
  CHECK(::EVP_KDF_derive(context, key.data(), key.size(), params.data()) == 1);
  ::EVP_KDF_CTX_free(context);
  ::EVP_KDF_free(kdf);
  return key;
}

std::array<uint8_t, 16> layer_key_check(const LayerKey& key) {
  EVP_MAC* mac = ::EVP_MAC_fetch(library(), "HMAC", nullptr);
  CHECK(mac != nullptr);
  EVP_MAC_CTX* context = ::EVP_MAC_CTX_new(mac);
  CHECK(context != nullptr);
  std::array<OSSL_PARAM, 2> params{text_param(OSSL_MAC_PARAM_DIGEST, "SHA512"), ::OSSL_PARAM_construct_end()};
  static constexpr std::string_view kText = "haneul layer key check";
  std::array<uint8_t, 64> full{};
  size_t length = 0;
  CHECK(::EVP_MAC_init(context, key.data(), key.size(), params.data()) == 1);
  CHECK(::EVP_MAC_update(context, reinterpret_cast<const uint8_t*>(kText.data()), kText.size()) == 1);
  CHECK(::EVP_MAC_final(context, full.data(), &length, full.size()) == 1 && length == full.size());
  ::EVP_MAC_CTX_free(context);
  ::EVP_MAC_free(mac);
  std::array<uint8_t, 16> check{};
  std::copy_n(full.begin(), check.size(), check.begin());
  return check;
}

struct SectorCipher::Contexts {
  explicit Contexts(const LayerKey& key) : encrypting(key, true), decrypting(key, false) {}
  CipherContext encrypting;
  CipherContext decrypting;
};

SectorCipher::SectorCipher(const LayerKey& key) : contexts_(std::make_unique<Contexts>(key)) {}
SectorCipher::SectorCipher(SectorCipher&&) noexcept = default;
SectorCipher& SectorCipher::operator=(SectorCipher&&) noexcept = default;
SectorCipher::~SectorCipher() = default;

void SectorCipher::encrypt(uint64_t unit, std::span<const std::byte> from, std::byte* to) {
  contexts_->encrypting.run(unit, from, to);
}

void SectorCipher::decrypt(uint64_t unit, std::span<const std::byte> from, std::byte* to) {
  // A unit of zeroes was punched out: ciphertext is never that.
  auto punched = [&](size_t at) {
    return load_le<uint64_t>(from.data() + at) == 0 && layer::all_zero(from.subspan(at, kUnitBytes));
  };
  for (size_t at = 0; at < from.size();) {
    size_t end = at;
    while (end < from.size() && !punched(end)) end += kUnitBytes;
    if (end > at) contexts_->decrypting.run(unit + at / kUnitBytes, from.subspan(at, end - at), to + at);
    if (end < from.size()) std::memset(to + end, 0, kUnitBytes);
    at = end + kUnitBytes;
  }
}

// One read or write under way; reused.
class CryptFile::Transfer final : public BounceTransfer {
 public:
  explicit Transfer(CryptFile& owner) : owner_(owner) {}

  void start(IoRing& ring, IoOperation& caller, std::span<const iovec> data, uint64_t offset, bool writing) {
    ring_ = &ring;
    caller_ = &caller;
    data_ = data;
    offset_ = offset;
    writing_ = writing;
    length_ = std::min<uint64_t>(total_bytes(data), kMaxBytes);
    begin(*owner_.pool_, ring, length_);
  }

 private:
  uint64_t unit() const { return (offset_ - layer::kDataOffset) / kUnitBytes; }

  void begun() override {
    piece_ = {buffer(), length_};
    if (!writing_) return owner_.file_.read(*ring_, *this, std::span(&piece_, 1), offset_);
    gather(data_, buffer(), length_);
    owner_.with_cipher(
        [&](SectorCipher& cipher) { cipher.encrypt(unit(), std::span(buffer(), length_), buffer()); });
    owner_.file_.write(*ring_, *this, std::span(&piece_, 1), offset_);
  }

  // A short count ends with a whole unit, so that the rest is whole units too.
  void moved(int32_t result) override {
    if (result > 0) {
      size_t whole = align_down(static_cast<uint64_t>(result), kUnitBytes);
      result = whole > 0 ? static_cast<int32_t>(whole) : -EIO;
      if (!writing_ && whole > 0) {
        owner_.with_cipher(
            [&](SectorCipher& cipher) { cipher.decrypt(unit(), std::span(buffer(), whole), buffer()); });
        scatter(buffer(), data_, whole);
      }
    }
    end();
    IoOperation& caller = *caller_;
    owner_.give_back(*this);
    caller.completed(result);
  }

  CryptFile& owner_;
  IoRing* ring_ = nullptr;
  IoOperation* caller_ = nullptr;
  std::span<const iovec> data_;
  uint64_t offset_ = 0;
  size_t length_ = 0;
  bool writing_ = false;
  iovec piece_{};
};

CryptFile::CryptFile(AsyncFile& file, const LayerKey& key, std::shared_ptr<BouncePool> pool)
    : file_(file), key_(key), pool_(std::move(pool)) {}

CryptFile::~CryptFile() {
  ::OPENSSL_cleanse(key_.data(), key_.size());
}

CryptFile::Transfer& CryptFile::take() {
  std::scoped_lock lock(mutex_);
  if (free_.empty()) {
    transfers_.push_back(std::make_unique<Transfer>(*this));
    return *transfers_.back();
  }
  Transfer& transfer = *free_.back();
  free_.pop_back();
  return transfer;
}

void CryptFile::give_back(Transfer& transfer) {
  std::scoped_lock lock(mutex_);
  free_.push_back(&transfer);
}

template <typename Use>
void CryptFile::with_cipher(Use use) {
  std::unique_lock lock(mutex_);
  if (ciphers_.empty()) ciphers_.emplace_back(key_);
  SectorCipher cipher = std::move(ciphers_.back());
  ciphers_.pop_back();
  lock.unlock();
  use(cipher);
  lock.lock();
  ciphers_.push_back(std::move(cipher));
}

void CryptFile::read(IoRing& ring, IoOperation& op, std::span<const iovec> data, uint64_t offset) {
  if (offset < layer::kDataOffset) return file_.read(ring, op, data, offset);
  CHECK(offset % kUnitBytes == 0);
  take().start(ring, op, data, offset, false);
}

void CryptFile::write(IoRing& ring, IoOperation& op, std::span<const iovec> data, uint64_t offset) {
  if (offset < layer::kDataOffset) return file_.write(ring, op, data, offset);
  CHECK(offset % kUnitBytes == 0);
  take().start(ring, op, data, offset, true);
}

Status CryptFile::read_now(uint64_t offset, std::span<std::byte> out) {
  TRY(file_.read_now(offset, out));
  if (offset < layer::kDataOffset) return {};
  CHECK(offset % kUnitBytes == 0 && out.size() % kUnitBytes == 0);
  with_cipher([&](SectorCipher& cipher) {
    cipher.decrypt((offset - layer::kDataOffset) / kUnitBytes, out, out.data());
  });
  return {};
}

Status CryptFile::write_now(uint64_t offset, std::span<const std::byte> data) {
  if (offset < layer::kDataOffset) return file_.write_now(offset, data);
  CHECK(offset % kUnitBytes == 0 && data.size() % kUnitBytes == 0);
  SectorCipher cipher(key_);
  alignas(4096) std::array<std::byte, 16384> bounce;
  for (size_t at = 0; at < data.size(); at += bounce.size()) {
    auto piece = data.subspan(at, std::min(bounce.size(), data.size() - at));
    cipher.encrypt((offset + at - layer::kDataOffset) / kUnitBytes, piece, bounce.data());
    TRY(file_.write_now(offset + at, std::span(bounce).first(piece.size())));
  }
  return {};
}

}  // namespace haneul::storage
