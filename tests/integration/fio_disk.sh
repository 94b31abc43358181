#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Debian's fio and the libraries that it is linked with, as a disk to chroot into in a guest that has none:
# fio_disk.sh FILE
set -euo pipefail
PATH=$PATH:/sbin:/usr/sbin
file=$1
fio=$(command -v fio) || { echo "fio_disk.sh: fio is missing; install with: apt-get install --no-install-recommends fio" >&2; exit 1; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/root
mkdir -p "$root"/{bin,dev,lib,lib64,proc,run,sys,tmp}
cp -L "$fio" "$root/bin/fio"
# "NAME => PATH (ADDRESS)", and the loader without a name. All libraries into one folder, where the loader looks.
ldd "$fio" | awk '$3 ~ /^\// { print $3 }' | sort -u | xargs cp -L -t "$root/lib"
cp -L /lib64/ld-linux-x86-64.so.2 "$root/lib64/"
mib=$(du -sm "$root" | cut -f1)
rm -f "$work/disk"
truncate -s $(((mib + 32) / 16 * 16 + 16))M "$work/disk"
# Mounted read-only: a journal would be of no use.
fakeroot mke2fs -q -F -t ext4 -O ^has_journal -m 0 -E lazy_itable_init=0,root_owner=0:0 -d "$root" "$work/disk"
mkdir -p "$(dirname "$file")"
cp --sparse=always "$work/disk" "$file.new"
mv "$file.new" "$file"
