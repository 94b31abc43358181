# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# What quickstart and check share: packages, builds, and the choice of where Linux guests run. Sourced.

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
jobs=$(nproc)
# What one clone has compiled, the next one finds.
export CCACHE_DIR=${CCACHE_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/haneul/ccache} CCACHE_BASEDIR=$top CCACHE_NOHASHDIR=1

say() { printf '\033[1m==>\033[0m %s\n' "$*" >&2; }
die() { printf '%s: %s\n' "$(basename "$0")" "$*" >&2; exit 1; }

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"
  elif command -v sudo >/dev/null; then sudo "$@"
  else die "missing packages have to be installed as root, and there is no sudo: run as root: apt-get install $missing"
  fi
}

# install_packages FILE...: installs what is missing of the packages that the files list.
install_packages() {
  command -v apt-get >/dev/null || die "this needs Debian 12 (there is no apt-get here)"
  local package
  missing=
  # shellcheck disable=SC2013 # words, not lines, are wanted
  for package in $(sed 's/#.*//' "$@"); do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=" $package"
  done
  missing=${missing# }
  [ -n "$missing" ] || return 0
  say "Installing: $missing"
  as_root apt-get update -qq || die "apt-get update failed: see above"
  # A line for each package, on its way down and when it is set up: this may take minutes.
  # shellcheck disable=SC2086
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $missing >&2 ||
    die "apt-get could not install: $missing"
}

# build PRESET TARGET...: configures and builds into build/PRESET.
build() {
  local preset=$1 log; shift
  mkdir -p "$top/build"
  log=$top/build/$preset.log
  (cd "$top" && cmake --preset "$preset" >"$log" 2>&1) || { cat "$log" >&2; die "cmake failed: see above"; }
  say "Building $preset (${*:-everything}) with $jobs jobs"
  if [ -t 2 ]; then
    ninja -C "$top/build/$preset" -j "$jobs" "$@" >&2 || die "the build failed: see above"
    return
  fi
  # Without a terminal: a line every tenth of the way, and the end of the log if it fails.
  NINJA_STATUS='%p %f/%t ' ninja -C "$top/build/$preset" -j "$jobs" "$@" 2>&1 | tee "$log" |
    awk '/^ *[0-9]+% / { tenth = int($1 / 10); if (tenth != last) { print "    " $1 " of " $2; last = tenth; fflush() } }' >&2 ||
    { tail -60 "$log" >&2; die "the build failed: see above, and $log"; }
}

# image NAME [OPTION...]: builds an image into build/images/NAME if what it is made of changed since.
image() {
  local name=$1 folder=$top/build/images/${1}${3:+-$3}; shift
  if [ -e "$folder/image.json" ] &&
    [ -z "$(find "$top/images" -newer "$folder/image.json" -type f -print -quit)" ]; then return; fi
  say "Building the image $(basename "$folder")"
  "$top/images/$name/build" --out "$folder" "$@"
  touch "$folder/image.json"
}

# Whether this machine's /dev/kvm runs anything at all: the freestanding guest says hello.
kvm_is_here() {
  local bin=$top/build/release/bin
  [[ $(timeout 20 "$bin/haneul-vmm" --kernel "$bin/guests/guest" --cmdline hello --memory 64M --console 2>/dev/null) == *hello* ]]
}

# shellcheck disable=SC2034 # host is for those who source this
# choose_host: sets `host` to the command that runs its arguments where Linux guests run, and says which that is.
# HANEUL_TESTHOST_MIB and HANEUL_TESTHOST_SECONDS give the emulated host other limits (a test has its own seconds).
choose_host() {
  local verdict
  if verdict=$("$top/build/release/bin/haneul-vmm" --probe 2>&1); then
    say "Linux guests run on this machine's own KVM."
    host=()
    return
  fi
  say "Linux guests run in the emulated host (software emulation, slow), because: ${verdict#haneul-vmm: }"
  "$top/tests/testhost/testhost" --prepare
  host=("$top/tests/testhost/testhost" -m "${HANEUL_TESTHOST_MIB:-8192}" -t "${HANEUL_TESTHOST_SECONDS:-2700}" --)
}
