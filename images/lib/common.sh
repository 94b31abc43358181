# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
#
# What the build scripts of images/ share: messages, the cache, Debian packages. To be sourced.
# The script that does so sets `program` first, the name its messages begin with.

haneul_cache=${XDG_CACHE_HOME:-$HOME/.cache}/haneul

step() { printf '%s: %s\n' "${program:?}" "$*" >&2; }

fail() { # SENTENCE [STATUS]
  printf '%s: %s\n' "$program" "$1" >&2
  exit "${2:-1}"
}

# Names everything that is missing in one sentence, as the packages to install.
require_programs() { # PROGRAM:PACKAGE...
  local missing=() pair
  for pair in "$@"; do
    PATH=$PATH:/sbin:/usr/sbin command -v "${pair%%:*}" >/dev/null || missing+=("${pair##*:}")
  done
  [ ${#missing[@]} = 0 ] || fail "missing on this machine; install with: apt-get install --no-install-recommends $(printf '%s\n' "${missing[@]}" | sort -u | tr '\n' ' ')" 69
}

# Prints the path of each package's .deb in the cache, downloading what is not there yet.
# Without apt's package lists, or offline, what is already in the cache serves.
fetch_packages() { # PACKAGE...
  local folder=$haneul_cache/packages list uri file size name missing=() found
  mkdir -p "$folder"
  (
    flock 9
    cd "$folder" || exit
    list=$(apt-get download --print-uris "$@" 2>/dev/null) || list=
    if [ -n "$list" ]; then
      while read -r uri file size _; do
        [ -n "$uri" ] || continue
        [ "$(stat -c %s "$file" 2>/dev/null)" = "$size" ] || missing+=("${file%%_*}")
      done <<<"$list"
    else
      for name in "$@"; do compgen -G "${name}_*.deb" >/dev/null || missing+=("$name"); done
      [ ${#missing[@]} = 0 ] || fail "apt does not know the packages ${missing[*]}; run 'apt-get update' on a Debian 12 machine first" 69
    fi
    if [ ${#missing[@]} -gt 0 ]; then
      step "downloading ${#missing[@]} Debian packages"
      apt-get -o APT::Sandbox::User=root -qq download "${missing[@]}" >&2 ||
        fail "apt-get could not download ${missing[*]}; is the network up and 'apt-get update' recent?" 69
    fi
    for name in "$@"; do
      found=$(awk -v p="${name}_" 'index($2, p) == 1 {print $2; exit}' <<<"$list")
      [ -n "$found" ] || found=$(find . -maxdepth 1 -name "${name}_*.deb" -printf '%T@ %f\n' | sort -rn | awk 'NR == 1 {print $2}')
      printf '%s/%s\n' "$folder" "$found"
    done
  ) 9>"$folder/lock"
}

# Prints the name of the package with Debian's cloud kernel of today; offline, of the newest one in the cache.
debian_kernel_package() {
  local package
  package=$(apt-cache depends linux-image-cloud-amd64 2>/dev/null | awk '/Depends: linux-image-/ {print $2; exit}')
  if [ -z "$package" ]; then
    package=$(find "$haneul_cache/packages" -name 'linux-image-*-cloud-amd64_*.deb' -printf '%f\n' 2>/dev/null | sort -V | tail -1)
    package=${package%%_*}
  fi
  [ -n "$package" ] || fail "apt knows no package linux-image-cloud-amd64; run 'apt-get update' on a Debian 12 machine first" 69
  printf '%s\n' "$package"
}

# The names listed in a file, one a line, comments allowed.
listed() { sed 's/[[:space:]]*#.*//; /^[[:space:]]*$/d' "$1"; }
