// SPDX-License-Identifier: Apache-2.0
// make_volume FILE BASE: an empty layer over a raw image, for the measures.
#include <fcntl.h>

#include <cstdio>

#include "base/file.h"
#include "storage/volume/layer.h"

using namespace haneul;

namespace {

Status make(const char* path, const char* base_path) {
  UniqueFd base = TRY(open_file(base_path, O_RDONLY));
  UniqueFd file = TRY(open_file(path, O_RDWR | O_CREAT | O_EXCL));
  storage::NewLayer layer;
  layer.id = storage::random_layer_id();
  layer.raw_base_bytes = layer.size_bytes = TRY(file_size(base.get()));
  return storage::create_layer(file.get(), layer);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "Usage: make_volume FILE BASE\n");
    return 2;
  }
  Status made = make(argv[1], argv[2]);
  if (made.ok()) return 0;
  std::fprintf(stderr, "make_volume: %s\n", made.error().message().c_str());
  return 1;
}
