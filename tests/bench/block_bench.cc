// SPDX-License-Identifier: Apache-2.0
// block_bench: requests against a disk, without a guest: raw files and volumes by the same code, so that what
// differs is the format. Prints the seconds it took as JSON.
#include <fcntl.h>
#include <fmt/format.h>
#include <getopt.h>

#include <chrono>
#include <cstdio>
#include <cstring>
#include <memory>
#include <vector>

#include "base/file.h"
#include "storage/block_backend.h"
#include "storage/raw.h"
#include "storage/volume/volume.h"

using namespace haneul;
using namespace haneul::storage;

namespace {

constexpr char kUsage[] =
    "Usage: block_bench [--base FILE] [--direct] [--depth N] [--bytes N] [--requests N] [--stride N]\n"
    "                   [--start N] [--flush] read|write raw|volume FILE...\n"
    "A volume's files are its layers, the lowest first. Request i goes to place (start + i) * stride.\n";

struct Options {
  std::string base;
  bool direct = false;
  bool flush = false;  ///< after each request, one at a time
  bool write = false;
  bool volume = false;
  unsigned depth = 32;
  uint64_t bytes = 4096;
  uint64_t requests = 100'000;
  /// Coprime to the number of places: every place comes once before one comes twice.
  uint64_t stride = 1;
  uint64_t start = 0;
  std::vector<std::string> files;
};

std::optional<Options> parse(int argc, char** argv) {
  Options o;
  const option known[] = {
      {"base", 1, nullptr, 'b'},  {"direct", 0, nullptr, 'd'},   {"depth", 1, nullptr, 'q'},
      {"bytes", 1, nullptr, 's'}, {"requests", 1, nullptr, 'n'}, {"stride", 1, nullptr, 't'},
      {"start", 1, nullptr, 'a'}, {"flush", 0, nullptr, 'f'},    {nullptr, 0, nullptr, 0}};
  for (int c; (c = ::getopt_long(argc, argv, "", known, nullptr)) != -1;) {
    uint64_t value = ::optarg != nullptr ? std::strtoull(::optarg, nullptr, 10) : 0;
    if (c == 'b') o.base = ::optarg;
    if (c == 'd') o.direct = true;
    if (c == 'q') o.depth = static_cast<unsigned>(value);
    if (c == 's') o.bytes = value;
    if (c == 'n') o.requests = value;
    if (c == 't') o.stride = value;
    if (c == 'a') o.start = value;
    if (c == 'f') o.flush = true;
    if (c == '?') return std::nullopt;
  }
  std::vector<std::string> words(argv + ::optind, argv + argc);
  if (words.size() < 3 || o.depth == 0 || o.bytes == 0 || o.bytes % 512 != 0) return std::nullopt;
  o.write = words[0] == "write";
  o.volume = words[1] == "volume";
  o.files.assign(words.begin() + 2, words.end());
  return o;
}

Result<std::unique_ptr<BlockBackend>> open(const Options& o) {
  const int direct = o.direct ? O_DIRECT : 0;
  if (!o.volume) {
    return open_raw(TRY(open_file(o.files[0], O_RDWR | direct)), RawOptions());
  }
  std::vector<StackDescriptor> layers;
  for (const std::string& file : o.files) {
    int access = &file == &o.files.back() ? O_RDWR : O_RDONLY;
    layers.push_back({TRY(open_file(file, access | direct)), std::nullopt});
  }
  UniqueFd base;
  if (!o.base.empty()) base = TRY(open_file(o.base, O_RDONLY | direct));
  std::unique_ptr<BlockBackend> volume =
      TRY(open_volume(std::move(base), std::move(layers), VolumeOptions()));
  return volume;
}

struct Memory {
  void operator()(void* memory) const { std::free(memory); }
};

class Load;

class Slot final : public BlockRequest {
 public:
  Slot(Load& load, uint64_t bytes)
      : load_(load),
        memory_(std::aligned_alloc(4096, (bytes + 4095) / 4096 * 4096)),
        piece_{memory_.get(), bytes} {
    std::memset(memory_.get(), 0x5a, bytes);
    data = std::span(&piece_, 1);
  }
  void completed(BlockStatus status) override;

 private:
  Load& load_;
  std::unique_ptr<void, Memory> memory_;
  iovec piece_;
};

/// Keeps `depth` requests under way until all are done.
class Load {
 public:
  Load(const Options& o, BlockBackend& disk, IoRing& ring)
      : o_(o), ring_(ring), places_(disk.size_bytes() / o.bytes), channel_(disk.open_channel(ring)) {
    for (unsigned i = 0; i < o.depth; ++i) slots_.push_back(std::make_unique<Slot>(*this, o.bytes));
  }

  bool run() {
    for (auto& slot : slots_) next(*slot);
    while (done_ < o_.requests && !failed_) {
      if (!ring_.run_once().ok()) return false;
    }
    while (ring_.in_flight() > 0 && ring_.run_once().ok()) {
    }
    return !failed_;
  }

  void finished(Slot& slot, BlockStatus status) {
    if (status != BlockStatus::kOk) failed_ = true;
    if (o_.flush && slot.op != BlockOp::kFlush) {
      slot.op = BlockOp::kFlush;
      return channel_->submit(slot);
    }
    ++done_;
    next(slot);
  }

 private:
  void next(Slot& slot) {
    if (sent_ == o_.requests || failed_) return;
    slot.op = o_.write ? BlockOp::kWrite : BlockOp::kRead;
    slot.offset = (o_.start + sent_++) * o_.stride % places_ * o_.bytes;
    slot.length = o_.bytes;
    channel_->submit(slot);
  }

  const Options& o_;
  IoRing& ring_;
  uint64_t places_;
  std::unique_ptr<BlockChannel> channel_;
  std::vector<std::unique_ptr<Slot>> slots_;
  uint64_t sent_ = 0;
  uint64_t done_ = 0;
  bool failed_ = false;
};

void Slot::completed(BlockStatus status) {
  load_.finished(*this, status);
}

Status run(const Options& o) {
  auto began = std::chrono::steady_clock::now();
  auto disk = TRY(open(o));
  std::chrono::duration<double> opened = std::chrono::steady_clock::now() - began;
  auto ring = TRY(IoRing::create(256));
  began = std::chrono::steady_clock::now();
  if (!Load(o, *disk, *ring).run()) return Error(ErrorCode::kIo, "a request failed");
  std::chrono::duration<double> took = std::chrono::steady_clock::now() - began;
  auto* volume = dynamic_cast<Volume*>(disk.get());
  fmt::print("{{\"requests\": {}, \"seconds\": {:.6f}, \"open_seconds\": {:.6f}, \"map_bytes\": {}}}\n",
             o.requests, took.count(), opened.count(), volume != nullptr ? volume->map_bytes() : 0);
  return {};
}

}  // namespace

int main(int argc, char** argv) {
  auto options = parse(argc, argv);
  if (!options) return std::fputs(kUsage, stderr), 2;
  Status done = run(*options);
  if (done.ok()) return 0;
  fmt::print(stderr, "block_bench: {}\n", done.error().message());
  return 1;
}
