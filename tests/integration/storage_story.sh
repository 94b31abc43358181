#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Volumes, snapshots and images on a real Linux guest, as a user has them: storage_story.sh BIN-FOLDER IMAGE-FOLDER
# shellcheck source=story.sh source-path=SCRIPTDIR
. "$(dirname "$0")/story.sh" "$1"
image=$2
no_group_stays() { [ ! -e "${group:-none}" ]; }
at_end=no_group_stays

say "An instance, with a mark on its root volume"
haneul image register "$image" >/dev/null
haneul run tiny --type t2.micro --name web --wait >/dev/null
guest web 'echo first >mark && sync'

# The limits of a t2.micro's VMM, where this host has cgroups and we may use them.
group=$(echo /sys/fs/cgroup/haneul-*/"$(field '' web InstanceId)")
if [ -e "$group" ]; then
  expect "200000 100000" cat "$group/cpu.max"
  expect "$(((1024 + 256 + 128 + 30 * 64) << 20))" cat "$group/memory.max"
  expect 548 cat "$group/pids.max"
  [ -n "$(cat "$group/cgroup.procs")" ] || fail "nobody is in $group"
  say "the VMM is in its cgroup"
fi

say "A volume appears in the running guest, by its id"
haneul volume create --size 1G --zone us-east-1a --name data >/dev/null
volume=$(field volume data VolumeId)
haneul volume attach data web --device /dev/sdf >/dev/null
disk=/dev/disk/by-id/virtio-vol${volume#vol-}
guest web "for i in 1 2 3 4 5 6 7 8 9 10; do [ -e $disk ] && exit; sleep 0.1; done; exit 1" || fail "$disk does not appear"
guest web "sudo mke2fs -q -t ext4 $disk && sudo mkdir -p /data && sudo mount $disk /data"
guest web 'sudo dd if=/dev/urandom of=/data/file bs=1M count=16 2>/dev/null && sync'
sum=$(guest web 'md5sum </data/file')

say "A snapshot of it while it is mounted and written to"
# shellcheck disable=SC2016
guest web 'sudo sh -c "i=0; while [ \$i -lt 300 ]; do echo \$i >>/data/log; i=\$((i+1)); done; sync"' &
writer=$!
haneul snapshot create data --wait >/dev/null
wait "$writer"
snapshot=$(haneul snapshot ls --json | jq -r --arg v "$volume" '.. | objects | select(.VolumeId? == $v) | .SnapshotId' | head -1)
stalled=$(sed -n 's/.*held the guest.s changes back for \([0-9]*\) us/\1/p' "$state/log" | tail -1)
say "the guest's writes were held back for $stalled us"
guest web 'sudo dd if=/dev/zero of=/data/file bs=1M count=16 conv=notrunc 2>/dev/null && sync'

say "It grows in use"
haneul volume resize data 2G >/dev/null
guest web "sudo resize2fs $disk >/dev/null 2>&1"
expect 2G guest web "df -h /data | awk 'END { print (\$2 >= \"1.9\" ? \"2G\" : \$2) }'"

say "What a volume from the snapshot holds, in another instance made of an image of the first"
haneul image create web --name second --no-reboot >/dev/null
for _ in $(seq 300); do [ "$(field image second State)" = available ] && break; sleep 0.1; done
haneul run second --name copy --wait >/dev/null
expect first guest copy 'cat mark'
haneul volume create --zone us-east-1a --from "$snapshot" --name old >/dev/null
old=$(field volume old VolumeId)
haneul volume attach old copy --device /dev/sdh >/dev/null
guest copy "sudo mkdir -p /old && sudo mount /dev/disk/by-id/virtio-vol${old#vol-} /old"
[ "$(guest copy 'md5sum </old/file')" = "$sum" ] || fail "the snapshot's file is another one"

say "Detached, attached elsewhere: the data is there"
guest web 'sudo umount /data'
haneul volume detach data >/dev/null
for _ in $(seq 300); do [ "$(field volume data State)" = available ] && break; sleep 0.1; done
haneul volume attach data copy --device /dev/sdi >/dev/null
guest copy "sudo mkdir -p /data && sudo mount /dev/disk/by-id/virtio-vol${volume#vol-} /data"
expect 300 guest copy 'wc -l </data/log'

say "Another region, a file and back"
haneul snapshot copy "$snapshot" --to-region eu-west-1 >/dev/null
haneul snapshot export "$snapshot" "$state/image" --format raw >/dev/null
[ "$(stat -c %s "$state/image")" = 1073741824 ] || fail "the exported image has $(stat -c %s "$state/image") bytes"
haneul image import "$state/image" --format raw --name imported --kernel-of tiny >/dev/null

say "Everything is sound"
haneul doctor | grep -E '^[a-z]+ +store us-east-1 .*all is well' >/dev/null || fail "$(haneul doctor)"
haneul terminate web copy --wait >/dev/null
say end
