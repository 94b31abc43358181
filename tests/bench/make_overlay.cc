// SPDX-License-Identifier: Apache-2.0
// make_overlay FILE BASE: an empty overlay over a raw base, as large as the base.
#include <fcntl.h>
#include <sys/stat.h>

#include <cstdio>

#include "base/file.h"
#include "storage/overlay.h"

int main(int argc, char** argv) {
  if (argc != 3) return std::fputs("Usage: make_overlay FILE BASE\n", stderr), 2;
  struct stat base {};
  auto file = haneul::open_file(argv[1], O_RDWR | O_CREAT | O_EXCL);
  if (!file.ok() || ::stat(argv[2], &base) != 0) return std::perror("make_overlay"), 1;
  auto size = static_cast<uint64_t>(base.st_size);
  haneul::Status made = haneul::storage::create_overlay(file->get(), size, size);
  if (made.ok()) return 0;
  std::fprintf(stderr, "make_overlay: %s\n", made.error().message().c_str());
  return 1;
}
