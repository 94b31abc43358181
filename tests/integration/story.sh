# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# What the stories share: a cloud of their own, whose instances and files are gone when the story ends, and what they tell and
# ask. Sourced with the folder of programs as its argument.
set -euo pipefail
export PATH=$1:$PATH
state=$(mktemp -d "${TMPDIR:-/tmp}/haneul-story.XXXXXX")
export HANEUL_SOCKET=$state/sock XDG_CONFIG_HOME=$state/config
haneuld --state "$state/state" --socket "$HANEUL_SOCKET" --network private 2>"$state/log" &
daemon=$!
at_end=:  # a command of the story's: whether everything is as it was, when instances and daemon are gone
clean_up() {
  status=$?
  trap - EXIT
  for id in $(haneul ls --json | jq -r '.. | .InstanceId? // empty' | sort -u); do
    haneul terminate "$id" --wait >/dev/null 2>&1 || true
  done
  kill "$daemon" 2>/dev/null || true
  wait "$daemon" 2>/dev/null || true
  "$at_end" || status=1
  [ "$status" = 0 ] || tail -30 "$state/log" >&2
  rm -rf "$state"
  exit "$status"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
say() { printf '== %4d s  %s\n' "$SECONDS" "$*"; }
fail() { printf 'FAILED: %s\n' "$*" >&2; exit 1; }
# expect WANTED COMMAND...: its whole output.
expect() {
  local wanted=$1 found; shift
  found=$("$@") || fail "$*: exit status $?: $found"
  [ "$found" = "$wanted" ] || fail "$*: '$found' instead of '$wanted'"
}
# refused WORDS COMMAND...: it fails, and says the words.
refused() {
  local words=$1 said; shift
  if said=$("$@" 2>&1); then fail "$*: not refused: $said"; fi
  [[ $said == *"$words"* ]] || fail "$*: '$said' does not say '$words'"
}
guest() { local name=$1; shift; haneul ssh "$name" -- "$@"; }
# field KIND NAME MEMBER; the kind of an instance is ''.
field() { haneul ${1:+"$1"} show "$2" --json | jq -r ".. | .$3? // empty" | head -1; }
# until_field KIND NAME MEMBER WANTED: within two minutes.
until_field() {
  for _ in $(seq 400); do
    [ "$(field "$1" "$2" "$3")" != "$4" ] || return 0
    sleep 0.3
  done
  fail "$1 $2: $3 is '$(field "$1" "$2" "$3")' and never '$4'"
}
# disk_of VOLUME: its device in the guest, there within a second of being attached.
disk_of() {
  local id
  id=$(field volume "$1" VolumeId)
  echo "/dev/disk/by-id/virtio-vol${id#vol-}"
}
appears() { # INSTANCE DEVICE
  guest "$1" "for i in 1 2 3 4 5 6 7 8 9 10; do [ -e $2 ] && exit; sleep 0.1; done; exit 1" || fail "$2 does not appear in $1"
}
for _ in $(seq 300); do haneul ls >/dev/null 2>&1 && break; sleep 0.1; done
