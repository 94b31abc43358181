// SPDX-License-Identifier: Apache-2.0
#include "storage/volume/crypt_file.h"

#include <gtest/gtest.h>

#include <random>

#include "storage/testing/sim_file.h"
#include "storage/testing/waiting_request.h"
#include "storage/volume/format.h"

namespace haneul::storage {
namespace {

using testing::Random;
using testing::SimFile;
using testing::SimMedium;
using Bytes = std::vector<std::byte>;

LayerKey counting_key() {
  LayerKey key;
  for (size_t i = 0; i < key.size(); ++i) key[i] = static_cast<uint8_t>(i);
  return key;
}

Bytes random_bytes(Random& random, size_t size) {
  Bytes bytes(size);
  for (auto& byte : bytes) byte = static_cast<std::byte>(random());
  return bytes;
}

std::string hex(std::span<const uint8_t> bytes) {
  std::string text;
  for (uint8_t byte : bytes) text += fmt::format("{:02x}", byte);
  return text;
}

std::vector<uint8_t> from_hex(std::string_view text) {
  std::vector<uint8_t> bytes;
  for (size_t at = 0; at < text.size(); at += 2) {
    bytes.push_back(static_cast<uint8_t>(std::stoul(std::string(text.substr(at, 2)), nullptr, 16)));
  }
  return bytes;
}

// IEEE 1619-2007, vector 10: AES-256-XTS of one data unit of 512 bytes, number 0xff.
TEST(SectorCipher, IsTheStandardsXts) {
  auto key_bytes = from_hex(
      "271828182845904523536028747135266249775724709369995957496696762731415926535897932384626433832795028841"
      "97"
      "169399375105820974944592");
  LayerKey key;
  std::copy(key_bytes.begin(), key_bytes.end(), key.begin());
  Bytes plain(512);
  for (size_t i = 0; i < plain.size(); ++i) plain[i] = static_cast<std::byte>(i);
  Bytes sealed(512);
  SectorCipher cipher(key);
  cipher.encrypt(0xff, plain, sealed.data());
  EXPECT_EQ(hex({reinterpret_cast<uint8_t*>(sealed.data()), 32}),
            "1c3b3a102f770386e4836c99e370cf9bea00803f5e482357a4ae12d414a3e63b");
  cipher.decrypt(0xff, sealed, sealed.data());
  EXPECT_EQ(sealed, plain);
}

TEST(LayerKeys, DifferBySaltAndByStoreKeyAndStayWhatTheyWere) {
  StoreKey store{};
  LayerSalt salt{};
  LayerKey key = derive_layer_key(store, salt);
  EXPECT_EQ(derive_layer_key(store, salt), key);
  salt[0] = 1;
  LayerKey other = derive_layer_key(store, salt);
  EXPECT_NE(other, key);
  store[31] = 1;
  EXPECT_NE(derive_layer_key(store, salt), other);
  EXPECT_NE(layer_key_check(key), layer_key_check(other));
  // What is on disks is opened with these for ever (computed apart, with Python's hmac and hashlib).
  EXPECT_EQ(hex(std::span(key).first(16)), "f48a5ef25807f3de9d6306d988e259e3");
  EXPECT_EQ(hex(layer_key_check(key)), "10abe23ee622216b727eeff802467968");
}

class CryptFileTest : public ::testing::Test {
 protected:
  Random random{7};
  std::shared_ptr<SimMedium> medium = std::make_shared<SimMedium>();
  SimFile beneath{medium, random};
  std::shared_ptr<BouncePool> pool = std::make_shared<BouncePool>();
  CryptFile file{beneath, counting_key(), pool};
  SectorCipher cipher{counting_key()};
};

TEST_F(CryptFileTest, BlockingCallsEncryptTheDataRegionAndNothingElse) {
  Bytes plain = random_bytes(random, 65536);
  ASSERT_TRUE(file.write_now(layer::kDataOffset + 4096, plain).ok());
  ASSERT_TRUE(file.write_now(4096, std::span(plain).first(4096)).ok());
  Bytes raw(plain.size());
  ASSERT_TRUE(beneath.read_now(layer::kDataOffset + 4096, raw).ok());
  EXPECT_NE(raw, plain);
  cipher.decrypt(8, raw, raw.data());
  EXPECT_EQ(raw, plain);
  ASSERT_TRUE(file.read_now(layer::kDataOffset + 4096, raw).ok());
  EXPECT_EQ(raw, plain);
  raw.resize(4096);
  ASSERT_TRUE(beneath.read_now(4096, raw).ok());
  EXPECT_TRUE(std::equal(raw.begin(), raw.end(), plain.begin()));
}

TEST_F(CryptFileTest, WhatWasPunchedReadsAsZeroes) {
  Bytes plain = random_bytes(random, 8192);
  ASSERT_TRUE(file.write_now(layer::kDataOffset, plain).ok());
  ASSERT_TRUE(file.erase_now(AsyncFile::Erase::kPunch, layer::kDataOffset + 512, 4096).ok());
  std::fill_n(plain.begin() + 512, 4096, std::byte{0});
  Bytes found(8192);
  ASSERT_TRUE(file.read_now(layer::kDataOffset, found).ok());
  EXPECT_EQ(found, plain);
}

struct WaitingTask final : FileTaskOwner {
  FileTask task;
  std::optional<int> error;
  void task_done(FileTask&, int its_error) override { error = its_error; }
};

// Cuts the bytes at random places: iovecs of any length, empty ones too.
std::vector<iovec> cut(Random& random, std::span<std::byte> bytes) {
  std::vector<iovec> pieces;
  while (!bytes.empty()) {
    size_t length = testing::below(random, std::min<size_t>(bytes.size(), 1500) + 1);
    pieces.push_back({bytes.data(), length});
    bytes = bytes.subspan(length);
  }
  return pieces;
}

TEST_F(CryptFileTest, RequestsInPiecesAndShortCountsAreWhole) {
  auto ring = std::move(IoRing::create(8)).value();
  beneath.faults.short_one_in = 2;
  Bytes model(1 << 20);
  ASSERT_TRUE(file.write_now(layer::kDataOffset, model).ok());
  for (int round = 0; round < 400; ++round) {
    size_t first = testing::below(random, 2048);
    size_t sectors = 1 + testing::below(random, std::min<size_t>(2048 - first, round % 10 == 0 ? 2048 : 40));
    Bytes bytes = random_bytes(random, sectors * 512);
    auto pieces = cut(random, bytes);
    WaitingTask wait;
    bool writing = testing::below(random, 2) == 0;
    if (writing) {
      std::copy(bytes.begin(), bytes.end(), model.begin() + static_cast<ptrdiff_t>(first * 512));
      wait.task.write(file, *ring, wait, pieces, layer::kDataOffset + first * 512);
    } else {
      wait.task.read(file, *ring, wait, pieces, layer::kDataOffset + first * 512);
    }
    while (!wait.error) {
      if (beneath.pending() > 0) beneath.step();
      ASSERT_TRUE(ring->run_once(false).ok());
    }
    ASSERT_EQ(*wait.error, 0);
    ASSERT_TRUE(std::equal(bytes.begin(), bytes.end(), model.begin() + static_cast<ptrdiff_t>(first * 512)));
  }
}

// A guest reads from another thread what its read has brought so far: it must never be the ciphertext. The file beneath is
// given memory of our own to read into.
TEST_F(CryptFileTest, CiphertextNeverLiesInTheCallersMemory) {
  auto ring = std::move(IoRing::create(8)).value();
  Bytes plain = random_bytes(random, 8192);
  ASSERT_TRUE(file.write_now(layer::kDataOffset, plain).ok());
  Bytes bytes(8192);
  iovec piece{bytes.data(), bytes.size()};
  WaitingTask wait;
  bool looked = false;
  beneath.faults.after_read = [&](std::span<const iovec> data) {
    looked = true;
    for (const iovec& each : data) {
      auto* at = static_cast<std::byte*>(each.iov_base);
      EXPECT_TRUE(at + each.iov_len <= bytes.data() || at >= bytes.data() + bytes.size());
    }
    EXPECT_EQ(bytes, Bytes(8192));
  };
  wait.task.read(file, *ring, wait, {&piece, 1}, layer::kDataOffset);
  while (beneath.pending() > 0) beneath.step();
  EXPECT_TRUE(looked);
  EXPECT_EQ(bytes, plain);
}

// More at once than there are buffers for, small ones and large ones, on two rings: all of them are done in the end, with
// no more memory than the pool's.
TEST_F(CryptFileTest, ManyAtOnceWaitForBuffers) {
  std::array<std::unique_ptr<IoRing>, 2> rings{std::move(IoRing::create(8)).value(),
                                               std::move(IoRing::create(8)).value()};
  constexpr size_t kEach = 200;
  constexpr size_t kLarge = 256 << 10;
  Bytes plain = random_bytes(random, kEach * 4096);
  std::vector<WaitingTask> waits(2 * kEach);
  std::vector<iovec> pieces(2 * kEach);
  Bytes large = random_bytes(random, kLarge);
  for (size_t i = 0; i < kEach; ++i) {
    pieces[i] = {plain.data() + i * 4096, 4096};
    waits[i].task.write(file, *rings[i % 2], waits[i], {&pieces[i], 1}, layer::kDataOffset + i * 4096);
    size_t other = kEach + i;
    pieces[other] = {large.data(), kLarge};
    waits[other].task.write(file, *rings[i % 2], waits[other], {&pieces[other], 1},
                            layer::kDataOffset + (16 << 20) + i * kLarge);
  }
  EXPECT_EQ(beneath.pending(), BouncePool::kSmallBuffers + BouncePool::kLargeBuffers);
  auto done = [&] { return std::all_of(waits.begin(), waits.end(), [](auto& w) { return w.error == 0; }); };
  while (!done()) {
    if (beneath.pending() > 0) beneath.step();
    for (auto& ring : rings) ASSERT_TRUE(ring->run_once(false).ok());
  }
  EXPECT_EQ(pool->bytes(), 4u << 20);
  Bytes found(plain.size());
  ASSERT_TRUE(file.read_now(layer::kDataOffset, found).ok());
  EXPECT_EQ(found, plain);
}

TEST_F(CryptFileTest, AnErrorBeneathIsTheCallers) {
  auto ring = std::move(IoRing::create(8)).value();
  beneath.faults.fail = [](char kind, uint64_t) { return kind == 'w' ? ENOSPC : EIO; };
  Bytes bytes(4096);
  iovec piece{bytes.data(), bytes.size()};
  for (bool writing : {true, false}) {
    WaitingTask wait;
    if (writing) {
      wait.task.write(file, *ring, wait, {&piece, 1}, layer::kDataOffset);
    } else {
      wait.task.read(file, *ring, wait, {&piece, 1}, layer::kDataOffset);
    }
    while (beneath.pending() > 0) beneath.step();
    EXPECT_EQ(wait.error, writing ? ENOSPC : EIO);
  }
}

}  // namespace
}  // namespace haneul::storage
