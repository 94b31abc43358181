#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Installs the library into an empty prefix, builds tests/embed against it as a stranger would, and runs it.
#   embed_test.sh BUILD SOURCE
set -euo pipefail
build=$1 source=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

cmake --install "$build" --prefix "$work/prefix" --component Unspecified >"$work/log" || { cat "$work/log"; exit 1; }
cmake -S "$source/tests/embed" -B "$work/build" -DCMAKE_PREFIX_PATH="$work/prefix" -DCMAKE_BUILD_TYPE=Release \
  >"$work/log" || { cat "$work/log"; exit 1; }
cmake --build "$work/build" >"$work/log" || { cat "$work/log"; exit 1; }
truncate -s 1M "$work/disk"
"$work/build/boot_and_talk" "$build/bin/guests/guest" "$work/disk"
