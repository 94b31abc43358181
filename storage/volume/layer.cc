// SPDX-License-Identifier: Apache-2.0
#include "storage/volume/layer.h"

#include <fcntl.h>
#include <sys/random.h>

#include "base/checked.h"
#include "storage/volume/crypt_file.h"
#include "storage/volume/recovery.h"

namespace haneul::storage {
namespace {

Result<UniqueFd> duplicate(int fd) {
  UniqueFd own(::fcntl(fd, F_DUPFD_CLOEXEC, 0));
  if (!own) return errno_error("duplicating a descriptor");
  return own;
}

int digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return -1;
}

}  // namespace

std::string to_string(const LayerId& id) {
  std::string text;
  for (uint8_t byte : id) text += fmt::format("{:02x}", byte);
  return text;
}

Result<LayerId> parse_layer_id(std::string_view text) {
  LayerId id{};
  bool good = text.size() == id.size() * 2;
  for (size_t i = 0; good && i < id.size(); ++i) {
    int high = digit(text[i * 2]);
    int low = digit(text[i * 2 + 1]);
    good = high >= 0 && low >= 0;
    if (good) id[i] = static_cast<uint8_t>(high * 16 + low);
  }
  if (!good) {
    return make_error(ErrorCode::kInvalidArgument, "a layer's id has 32 hexadecimal digits, and '{}' is none",
                      text.substr(0, 64));
  }
  return id;
}

LayerId random_layer_id() {
  LayerId id{};
  while (id == LayerId{}) CHECK(::getrandom(id.data(), id.size(), 0) == static_cast<ssize_t>(id.size()));
  return id;
}

Status create_layer(AsyncFile& file, const NewLayer& layer) {
  TRY(layer::validate_sizes(layer.size_bytes, layer.raw_base_bytes));
  if (layer.id == LayerId{} || layer.id == layer.parent) {
    return make_error(ErrorCode::kInvalidArgument, "a layer needs an id of its own, not {}",
                      to_string(layer.id));
  }
  if (layer.raw_base_bytes != 0 && layer.parent != LayerId{}) {
    return make_error(ErrorCode::kInvalidArgument,
                      "only the lowest layer lies on a raw base, and {} has a parent", to_string(layer.id));
  }
  if (TRY(file.size()) != 0) {
    return make_error(ErrorCode::kExists, "a layer is made in an empty file, and this one is not");
  }
  if (Status grown = file.grow(layer::file_bytes(layer.size_bytes)); !grown.ok()) {
    return std::move(grown).error().context(
        fmt::format("this file system has no files long enough for a volume of {} bytes", layer.size_bytes));
  }
  alignas(4096) layer::Page page;
  layer::encode_state({0, layer.size_bytes, 1, false, false}, page);
  TRY(file.write_now(layer::kStateOffset, page));
  // The header last, and the rest synced before: what begins with a header is a whole layer.
  TRY(file.sync_now());
  layer::Header header{layer.id, layer.parent, layer.raw_base_bytes, layer.key.has_value(), {}, {}};
  if (layer.key) {
    header.salt = layer.salt;
    header.check = layer_key_check(*layer.key);
  }
  layer::encode_header(header, page);
  TRY(file.write_now(layer::kHeaderOffset, page));
  return file.sync_now();
}

Result<LayerInfo> read_layer_info(AsyncFile& file) {
  layer::Start start = TRY(layer::read_start(file));
  return LayerInfo{
      start.header.id,    start.header.parent,       start.state.size_bytes, start.header.raw_base_bytes,
      start.state.frozen, start.state.sums_complete, start.header.encrypted, start.header.salt};
}

Status freeze_layer(AsyncFile& file) {
  if (TRY(layer::read_start(file)).state.frozen) return {};
  TRY(file.lock(AsyncFile::Lock::kExclusive).context("freezing a layer"));
  // Read again: until the lock was had, a volume may have written.
  auto frozen = [&]() -> Status {
    layer::Start start = TRY(layer::read_start(file));
    return layer::recover(file, start, layer::Freeze::kYes, {});
  }();
  Status unlocked = file.lock(AsyncFile::Lock::kNone);
  TRY(std::move(frozen));
  return unlocked;
}

Status create_layer(int fd, const NewLayer& layer) {
  return create_layer(*make_async_file(TRY(duplicate(fd))), layer);
}

Result<LayerInfo> read_layer_info(int fd) {
  return read_layer_info(*make_async_file(TRY(duplicate(fd))));
}

}  // namespace haneul::storage
