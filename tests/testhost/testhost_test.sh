#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Checks what testhost promises. Two boots of the emulated host, under a minute.
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failures=0

expect() { # WHAT WANTED GOT
  if [ "$2" = "$3" ]; then
    echo "ok    $1"
  else
    echo "FAIL  $1: wanted '$2', got '$3'"
    failures=$((failures + 1))
  fi
}
status_of() {
  local status=0
  "$@" || status=$?
  echo "$status"
}

mkdir "$work/bare"
ln -s "$(command -v dirname)" "$(command -v readlink)" "$work/bare/"

# ---- wrong usage is refused without booting anything ----
expect "no command is wrong usage" 64 "$(status_of "$here/testhost" 2>/dev/null)"
expect "an unknown option is wrong usage" 64 "$(status_of "$here/testhost" -x true 2>/dev/null)"
expect "a memory size must be a number" "testhost: -m needs a whole number, not 'much'" \
  "$("$here/testhost" -m much true 2>&1 || true)"
expect "a missing package is named" 69 "$(status_of env PATH="$work/bare" /bin/bash "$here/testhost" true 2>/dev/null)"

# ---- one boot ----
mkdir -p "$work/kept"
echo before >"$work/overlaid"
cat >"$work/job" <<'JOB'
set -u
exec 3>&1 >"$TESTHOST_OUT/facts"
echo "kvm=$([ -c /dev/kvm ] && ls /sys/module | grep -x kvm_amd)"
echo "npt=$(cat /sys/module/kvm_amd/parameters/npt)"
echo "before=$(cat "$1/overlaid")"
echo after >"$1/overlaid"
touch "$1/stray"
echo "after=$(cat "$1/overlaid")"
echo "folder=$PWD"
echo "argument=$2"
echo "user=$(id -u)"
echo "links=$(ls /sys/class/net | tr '\n' ' ')"
echo "controllers=$(tr ' ' '\n' </sys/fs/cgroup/cgroup.subtree_control | grep -cxE 'cpu|memory|pids|io')"
ip link add b0 type bridge && ip tuntap add t0 mode tap && ip link set t0 master b0 && echo "net=works"
nft add table inet t && nft add chain inet t c '{ type filter hook input priority 0; }' &&
  nft add rule inet t c ct state established accept && echo "nft=works"
echo 4 >/proc/sys/vm/nr_hugepages && echo "hugepages=$(cat /proc/sys/vm/nr_hugepages)"
echo "first line" >&3
echo "on stderr" >&2
exit 137
JOB
started=$SECONDS
status=0
(cd "$work" && TESTHOST_OUT=$work/kept "$here/testhost" -t 120 -- \
  bash "$work/job" "$work" "two words" >"$work/out" 2>"$work/err") || status=$?
echo "      (first boot and job: $((SECONDS - started)) s)"
expect "the exit status passes through, above 127 too" 137 "$status"
expect "standard output arrives alone" "first line" "$(cat "$work/out")"
expect "standard error arrives alone" "on stderr" "$(cat "$work/err")"
fact() { sed -n "s/^$1=//p" "$work/kept/facts" 2>/dev/null; }
expect "/dev/kvm is kvm_amd" kvm_amd "$(fact kvm)"
expect "with nested paging" Y "$(fact npt)"
expect "files of this machine are seen" before "$(fact before)"
expect "and can be written there" after "$(fact after)"
expect "but are unchanged here" before "$(cat "$work/overlaid")"
expect "and nothing is left here" no "$([ -e "$work/stray" ] && echo yes || echo no)"
expect "the folder is the caller's" "$work" "$(fact folder)"
expect "arguments keep their blanks" "two words" "$(fact argument)"
expect "the command is root" 0 "$(fact user)"
expect "there is no way out but loopback" "lo " "$(fact links)"
expect "cgroup v2 controllers are on" 4 "$(fact controllers)"
expect "bridges and taps work" works "$(fact net)"
expect "nftables with conntrack works" works "$(fact nft)"
expect "huge pages can be had" 4 "$(fact hugepages)"

# ---- a second boot that never ends ----
status=0
"$here/testhost" -t 3 sleep 1000 >"$work/out" 2>"$work/err" || status=$?
expect "out of time is 124" 124 "$status"
expect "and is said" "testhost: no end after 3 s, stopped; the host's console ends with:" "$(head -1 "$work/err")"

# ---- interrupted: everything of ours is gone ----
mkdir "$work/tmp"
TMPDIR=$work/tmp "$here/testhost" -t 100 sleep 1000 >/dev/null 2>&1 &
runner=$!
sleep 2
expect "a run has its folder" 1 "$(find "$work/tmp" -mindepth 1 -maxdepth 1 | wc -l)"
kill -TERM "$runner"
status=0
wait "$runner" || status=$?
expect "a terminated run says so" 143 "$status"
expect "and leaves no file" 0 "$(find "$work/tmp" -mindepth 1 -maxdepth 1 | wc -l)"
expect "and no QEMU" 0 "$(pgrep -cf "path=$work/tmp" || true)"

[ $failures = 0 ] || { echo "testhost_test: $failures failed"; exit 1; }
echo "testhost_test: all passed"
