// SPDX-License-Identifier: Apache-2.0
// A qcow2 image that lies anywhere: it is read or refused, and never gives more than its file can hold. The input says
// what is written over a sound image, or is the image.
#include <algorithm>
#include <vector>

#include "base/checked.h"
#include "base/endian.h"
#include "storage/store/qcow2.h"
#include "tests/fuzz/input.h"

namespace haneul::storage {
namespace {

std::vector<std::byte> sound_image() {
  std::vector<std::byte> image;
  auto put = [&](uint64_t at, std::span<const std::byte> data) -> Status {
    image.resize(std::max<size_t>(image.size(), at + data.size()));
    std::copy(data.begin(), data.end(), image.begin() + static_cast<ptrdiff_t>(at));
    return {};
  };
  Qcow2Writer writer(put, 1_GiB);
  std::vector<std::byte> data(4096, std::byte{7});
  for (uint64_t at : {0_MiB, 1_MiB, 900_MiB}) CHECK(writer.add(at, data).ok());
  CHECK(writer.finish().ok());
  return image;
}

void read_image(const std::vector<std::byte>& image) {
  auto read = [&](uint64_t at, std::span<std::byte> out) -> Status {
    CHECK(range_within(at, out.size(), image.size()));
    std::copy_n(image.begin() + static_cast<ptrdiff_t>(at), out.size(), out.begin());
    return {};
  };
  auto reader = Qcow2Reader::open(read, image.size());
  if (!reader.ok()) return;
  uint64_t given = 0;
  uint64_t next = 0;
  auto each = [&](uint64_t at, std::span<const std::byte> data) -> Status {
    CHECK(at >= next && range_within(at, data.size(), reader->size_bytes()));
    next = at + data.size();
    given += data.size();
    return {};
  };
  (void)reader->walk(each, {}).ok();
  CHECK(given <= (uint64_t{image.size()} + (2 << 20)) * 1033);
}

}  // namespace
}  // namespace haneul::storage

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace haneul;
  static const std::vector<std::byte> sound = storage::sound_image();
  fuzz::Input input(data, size);
  if (input.below(4) == 0) {
    auto bytes = std::as_bytes(std::span(data + 1, size - (size > 0 ? 1 : 0)));
    if (size > 0) storage::read_image({bytes.begin(), bytes.end()});
    return 0;
  }
  std::vector<std::byte> image = sound;
  // Header, tables, and what they speak of are at the begin of some cluster.
  while (!input.empty()) {
    const uint64_t at =
        uint64_t{input.below(static_cast<uint32_t>(image.size() / 65536))} * 65536 + input.below(128);
    const auto value = input.take<uint64_t>() >> input.below(64);
    if (at + 8 <= image.size()) store_be<uint64_t>(&image[at], value);
  }
  storage::read_image(image);
  return 0;
}
