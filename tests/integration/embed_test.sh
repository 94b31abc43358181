#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Installs everything into an empty prefix, looks for what a user expects there, builds tests/embed against the library as a
# stranger would, and runs it: as who we are, and, if we are root, as a user who may use /dev/kvm and nothing else.
#   embed_test.sh BUILD SOURCE
set -euo pipefail
build=$1 source=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
prefix=$work/prefix

quietly() { "$@" >"$work/log" 2>&1 || { cat "$work/log"; exit 1; }; }
quietly cmake --install "$build" --prefix "$prefix"
for file in bin/haneul bin/haneuld bin/haneul-vmm share/man/man1/haneul.1 share/man/man8/haneuld.8 share/man/man1/haneul-vmm.1 \
  lib/systemd/system/haneuld.service share/bash-completion/completions share/zsh/site-functions share/haneul/images/tiny/build; do
  [ -e "$prefix/$file" ] || { echo "nothing is installed as $file"; exit 1; }
done
for program in haneul haneuld haneul-vmm; do
  "$prefix/bin/$program" --version | grep -q "^$program [0-9]" || { echo "$program does not say its version"; exit 1; }
done
grep -q "^ExecStart=.*/bin/haneuld" "$prefix/lib/systemd/system/haneuld.service"

quietly cmake -S "$source/tests/embed" -B "$work/build" -DCMAKE_PREFIX_PATH="$prefix" -DCMAKE_BUILD_TYPE=Release
quietly cmake --build "$work/build"
truncate -s 1M "$work/disk"
echo something >"$work/initrd"
cp "$build/bin/guests/guest" "$work/guest"
"$work/build/boot_and_talk" "$work/guest" "$work/initrd" "$work/disk"

[ "$(id -u)" = 0 ] || exit 0
chmod 755 "$work"
chown 65534 "$work/disk"
echo "as user 65534:"
# In a mount namespace of our own, where that user may open /dev/kvm.
export work
export LD_LIBRARY_PATH=$prefix/lib/x86_64-linux-gnu:$prefix/lib
unshare -m bash -euo pipefail <<'USER'
mkdir "$work/dev"
mount -t tmpfs none "$work/dev"
cp -a /dev/kvm "$work/dev/kvm"
chown 65534 "$work/dev/kvm"
mount --bind "$work/dev/kvm" /dev/kvm
setpriv --reuid 65534 --regid 65534 --clear-groups --inh-caps=-all --bounding-set=-all \
  "$work/build/boot_and_talk" "$work/guest" "$work/initrd" "$work/disk"
USER
