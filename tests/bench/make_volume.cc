// SPDX-License-Identifier: Apache-2.0
// make_volume FILE BASE: an empty layer over a raw image, for the measures.
// make_volume FILE --on LAYER: an empty layer on another, which is frozen.
#include <fcntl.h>

#include <cstdio>
#include <cstring>

#include "base/file.h"
#include "storage/volume/layer.h"

using namespace haneul;

namespace {

Status make_over_base(const char* path, const char* base_path) {
  UniqueFd base = TRY(open_file(base_path, O_RDONLY));
  UniqueFd file = TRY(open_file(path, O_RDWR | O_CREAT | O_EXCL));
  storage::NewLayer layer;
  layer.id = storage::random_layer_id();
  layer.raw_base_bytes = layer.size_bytes = TRY(file_size(base.get()));
  return storage::create_layer(file.get(), layer);
}

Status make_on_layer(const char* path, const char* parent_path) {
  auto parent = storage::make_async_file(TRY(open_file(parent_path, O_RDWR)));
  TRY(storage::freeze_layer(*parent));
  storage::LayerInfo info = TRY(storage::read_layer_info(*parent));
  UniqueFd file = TRY(open_file(path, O_RDWR | O_CREAT | O_EXCL));
  storage::NewLayer layer;
  layer.id = storage::random_layer_id();
  layer.parent = info.id;
  layer.size_bytes = info.size_bytes;
  return storage::create_layer(file.get(), layer);
}

}  // namespace

int main(int argc, char** argv) {
  bool on_layer = argc == 4 && std::strcmp(argv[2], "--on") == 0;
  if (argc != 3 && !on_layer) {
    std::fprintf(stderr, "Usage: make_volume FILE BASE | make_volume FILE --on LAYER\n");
    return 2;
  }
  Status made = on_layer ? make_on_layer(argv[1], argv[3]) : make_over_base(argv[1], argv[2]);
  if (made.ok()) return 0;
  std::fprintf(stderr, "make_volume: %s\n", made.error().message().c_str());
  return 1;
}
