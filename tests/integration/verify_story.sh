#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# fio in a Linux guest writes 4 to 64 KiB at a time at random places of a volume made of a snapshot, 16 jobs with 32 requests
# each, and reads everything back against its crc32c, while the host takes snapshots of the volume and deletes them:
#   verify_story.sh BIN-FOLDER IMAGE-FOLDER [MIB-OF-A-JOB [ROUNDS]]
# shellcheck disable=SC2016 # what is in single quotes is for the guest to expand
# shellcheck source=story.sh source-path=SCRIPTDIR
. "$(dirname "$0")/story.sh" "$1"
image=$2
# An emulated guest reads and writes about a hundred times slower.
if [ -n "${TESTHOST:-}" ]; then mib=${3:-2} rounds=${4:-3}; else mib=${3:-64} rounds=${4:-6}; fi
jobs=16

say "A guest with fio, and a volume made of a snapshot of random bytes"
haneul image register "$image" >/dev/null
"$(dirname "$0")/fio_disk.sh" "$state/fio"
haneul snapshot import "$state/fio" --format raw --name fio >/dev/null
head -c $((mib * jobs << 20)) /dev/urandom >"$state/bytes"
haneul snapshot import "$state/bytes" --format raw --name bytes >/dev/null
haneul run tiny --type t2.micro --name load --volume fio:/dev/sdf --wait >/dev/null
haneul volume create --zone us-east-1a --from bytes --name data >/dev/null
haneul volume attach data load --device /dev/sdg >/dev/null
data=$(disk_of data)
appears load "$data"
device=$(guest load "readlink -f $data")
guest load 'sudo mkdir -p /fio && for disk in /dev/vd[b-z]; do sudo mount -t ext4 -o ro $disk /fio 2>/dev/null && [ -e /fio/bin/fio ] && break; done
  sudo mount -o bind /dev /fio/dev && sudo mount -t proc proc /fio/proc && sudo mount -t tmpfs tmp /fio/tmp'
sum=$(guest load "sudo cat $device | md5sum")
[ "${sum%% *}" = "$(md5sum <"$state/bytes" | cut -d' ' -f1)" ] || fail "the volume is not what its snapshot is"

# load SEED OPTION...: one round. A place is written once in a round, and read back twice: soon after, and at the end.
load() {
  local seed=$1; shift
  guest load "sudo chroot /fio /bin/fio --name=verify --filename=$device --direct=1 --ioengine=libaio --thread \
    --numjobs=$jobs --size=${mib}m --offset_increment=${mib}m --iodepth=32 --rw=randwrite --bsrange=4k-64k \
    --verify=crc32c --verify_fatal=1 --verify_state_save=0 --randseed=$seed --group_reporting --minimal --output=/tmp/report \
    $* >/dev/null" || { guest load 'cat /fio/tmp/report' >&2 || true; fail "fio, round $seed: see above"; }
}

say "$rounds rounds of fio, $jobs jobs of $mib MiB"
for seed in $(seq "$rounds"); do
  load "$seed" --verify_backlog=64
done &
writer=$!
taken=0 deleted=0 kept=
while kill -0 "$writer" 2>/dev/null; do
  taken=$((taken + 1))
  haneul snapshot create data --name "point$taken" --wait >/dev/null || fail "snapshot $taken"
  kept+=" point$taken"
  # By turns the oldest, the newest, and one between; up to three stay.
  read -ra names <<<"$kept"
  if [ ${#names[@]} -gt 3 ]; then
    gone=${names[$((taken % ${#names[@]}))]}
    haneul snapshot rm "$gone" >/dev/null || fail "deleting snapshot $gone"
    deleted=$((deleted + 1))
    kept=" ${names[*]} "
    kept=${kept/ $gone / }
  fi
done
wait "$writer" || fail "fio"
say "$taken snapshots were taken of it and $deleted deleted meanwhile"
if [ "$taken" -lt 5 ] || [ "$deleted" -lt 2 ]; then fail "only $taken snapshots were taken and $deleted deleted meanwhile"; fi
haneul volume check data >/dev/null || fail "$(haneul volume check data)"

say "Without its snapshots it still holds what was written last"
read -ra names <<<"$kept"
haneul snapshot rm "${names[@]}" bytes >/dev/null
# Without a backlog: with one, fio 3.33 reads here and compares nothing.
load "$rounds" --verify_only
haneul volume check data >/dev/null || fail "$(haneul volume check data)"
haneul terminate load --wait >/dev/null
say end
