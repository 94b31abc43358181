// SPDX-License-Identifier: Apache-2.0
#include "base/console_ring.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <vector>

#include "base/endian.h"
#include "base/file.h"

namespace haneul {
namespace {

constexpr char kMagic[8] = {'H', 'N', 'L', 'C', 'O', 'N', 'S', '1'};
constexpr size_t kTotalOffset = 16;
constexpr size_t kDataOffset = 64;
constexpr size_t kFileBytes = kDataOffset + kConsoleRingBytes;

bool valid(const std::byte* header) {
  return std::memcmp(header, kMagic, sizeof kMagic) == 0 &&
         load_le<uint64_t>(header + 8) == kConsoleRingBytes;
}

// The last `wanted` bytes, or as many as there are.
std::string unrolled(const std::byte* file, uint64_t wanted = kConsoleRingBytes) {
  uint64_t total = load_le<uint64_t>(file + kTotalOffset);
  uint64_t held = std::min({total, kConsoleRingBytes, wanted});
  const char* data = reinterpret_cast<const char*>(file + kDataOffset);
  uint64_t start = (total - held) % kConsoleRingBytes;
  uint64_t first = std::min(held, kConsoleRingBytes - start);
  std::string text(data + start, first);
  text.append(data, held - first);
  return text;
}

}  // namespace

Result<ConsoleRing> ConsoleRing::open(const UniqueFd& file) {
  if (::ftruncate(file.get(), kFileBytes) != 0) return errno_error("sizing the console ring");
  void* map = ::mmap(nullptr, kFileBytes, PROT_READ | PROT_WRITE, MAP_SHARED, file.get(), 0);
  if (map == MAP_FAILED) return errno_error("mapping the console ring");
  auto* bytes = static_cast<std::byte*>(map);
  if (!valid(bytes)) {
    std::memset(bytes, 0, kDataOffset);
    store_le<uint64_t>(bytes + 8, kConsoleRingBytes);
    std::memcpy(bytes, kMagic, sizeof kMagic);
  }
  return ConsoleRing(bytes);
}

ConsoleRing::ConsoleRing(ConsoleRing&& other) noexcept : map_(std::exchange(other.map_, nullptr)) {}

ConsoleRing::~ConsoleRing() {
  if (map_ != nullptr) ::munmap(map_, kFileBytes);
}

void ConsoleRing::append(std::span<const std::byte> data) {
  uint64_t total = load_le<uint64_t>(map_ + kTotalOffset);
  if (data.size() > kConsoleRingBytes) {
    total += data.size() - kConsoleRingBytes;
    data = data.last(kConsoleRingBytes);
  }
  uint64_t at = total % kConsoleRingBytes;
  uint64_t first = std::min<uint64_t>(data.size(), kConsoleRingBytes - at);
  std::memcpy(map_ + kDataOffset + at, data.data(), first);
  std::memcpy(map_ + kDataOffset, data.data() + first, data.size() - first);
  // A reader of the file must not see the count before the bytes. (x86 and aarch64 are little-endian.)
  static_assert(std::endian::native == std::endian::little);
  std::atomic_ref(*reinterpret_cast<uint64_t*>(map_ + kTotalOffset))
      .store(total + data.size(), std::memory_order_release);
}

std::string ConsoleRing::contents() const {
  return unrolled(map_);
}

uint64_t ConsoleRing::total() const {
  return load_le<uint64_t>(map_ + kTotalOffset);
}

std::string ConsoleRing::since(uint64_t position) const {
  return position < total() ? unrolled(map_, total() - position) : std::string();
}

Result<std::string> read_console_ring(int fd) {
  uint64_t size = TRY(file_size(fd));
  if (size == 0) return std::string();
  if (size != kFileBytes)
    return make_error(ErrorCode::kCorrupt, "a console ring has {} bytes, not {}", kFileBytes, size);
  // A copy: the writer may change the file meanwhile.
  std::vector<std::byte> copy(kFileBytes);
  TRY(read_exact_at(fd, 0, copy));
  if (!valid(copy.data())) return Error(ErrorCode::kCorrupt, "the console ring's header is not one");
  return unrolled(copy.data());
}

}  // namespace haneul
