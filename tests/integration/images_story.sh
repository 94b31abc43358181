#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Images made of an instance, of a snapshot and of a file, and what a launch can ask for, on a real Linux guest:
#   images_story.sh BIN-FOLDER IMAGE-FOLDER
# shellcheck disable=SC2016 # what is in single quotes is for the guest to expand
# shellcheck source=story.sh source-path=SCRIPTDIR
. "$(dirname "$0")/story.sh" "$1"
image=$2

# rebooted INSTANCE BOOT-ID: it has come up again, since that boot.
rebooted() {
  local now
  for _ in $(seq 200); do
    now=$(guest "$1" 'cat /proc/sys/kernel/random/boot_id' 2>/dev/null) || now=
    [ -z "$now" ] || [ "$now" = "$2" ] || return 0
    sleep 0.5
  done
  fail "$1 was not rebooted"
}

say "An instance with two volumes, one of them encrypted"
haneul image register "$image" >/dev/null
haneul volume create --zone us-east-1a --size 1G --name old >/dev/null
haneul run tiny --name one --volume 1G:/dev/sdf:delete --volume 1G:/dev/sdg:encrypted:delete --wait >/dev/null
guest one 'for disk in vdb vdc; do sudo mke2fs -q -t ext4 /dev/$disk && sudo mkdir -p /$disk && sudo mount /dev/$disk /$disk; done
  sudo chmod 777 /vdb /vdc; echo secret-of-the-guest >/vdc/secret; sync'
! grep -rqa secret-of-the-guest "$state/state" || fail "what the guest wrote to the encrypted volume can be read in the store"

say "An image of it while it writes: all volumes at one point in time"
# A number goes to the first volume, then to the second, durably each; so at any point the first is ahead by one at most.
cat >"$state/count" <<'COUNT'
i=0
while [ -e /vdb/go ]; do
  i=$((i + 1))
  for disk in vdb vdc; do echo $i | dd of=/$disk/count conv=fsync 2>/dev/null; done
done
touch /vdb/gone
COUNT
guest one 'cat >/tmp/count; touch /vdb/go; setsid sh /tmp/count </dev/null >/dev/null 2>&1 & while [ ! -e /vdc/count ]; do usleep 100000; done' \
  <"$state/count"
haneul image create one --name running --no-reboot --wait >/dev/null
guest one 'rm /vdb/go; while [ ! -e /vdb/gone ]; do usleep 100000; done'

say "An image of it by default: its guest is shut down for it"
guest one 'cat /proc/sys/kernel/random/boot_id >mark; echo whole >/vdb/whole'
mark=$(guest one 'cat mark')
haneul image create one --name rested --wait >/dev/null
rebooted one "$mark"
haneul terminate one --wait >/dev/null

say "Launched, each has its root and both volumes"
haneul run running --name two --wait >/dev/null
haneul run rested --name three --wait >/dev/null
for name in two three; do
  guest $name 'for disk in vdb vdc; do sudo mkdir -p /$disk && sudo mount /dev/$disk /$disk; done'
done
first='' second=''
read -r first second < <(guest two 'echo $(cat /vdb/count /vdc/count)')
say "the volumes were taken at $first and $second"
[[ $first =~ ^[1-9][0-9]*$ && $second =~ ^[0-9]+$ ]] || fail "the volumes hold '$first' and '$second', no numbers"
case $((first - second)) in 0 | 1) ;; *) fail "not one point in time: the volumes hold $first and $second" ;; esac
expect secret-of-the-guest guest two 'cat /vdc/secret'
expect "$mark whole secret-of-the-guest" guest three 'echo $(cat mark /vdb/whole /vdc/secret)'
encrypted=$(haneul volume ls --json | jq '[.. | objects | select(.Encrypted? == true)] | length')
[ "$encrypted" = 2 ] || fail "$encrypted volumes are encrypted, not 2"
haneul terminate three --wait >/dev/null

say "An image of a snapshot; a file and back"
root=$(haneul show two --json | jq -r '[.. | objects | select(.DeviceName? == "/dev/xvda" or .DeviceName? == "/dev/vda") | .Ebs.VolumeId] | first')
guest two 'echo of-the-root >mark; sync'
haneul snapshot create "$root" --name root --wait >/dev/null
haneul image register --snapshot root --name registered --kernel-of tiny >/dev/null
haneul image export registered "$state/file" --format raw >/dev/null
[ "$(du -m "$state/file" | cut -f1)" -lt 200 ] || fail "the exported file is not sparse: $(du -h "$state/file")"
haneul image import "$state/file" --format raw --name imported --kernel-of tiny >/dev/null
rm "$state/file"

say "Pulled out by force, with a file system mounted"
haneul volume attach old two --device /dev/sdh >/dev/null
disk=$(disk_of old)
guest two "while [ ! -e $disk ]; do usleep 100000; done
  sudo mke2fs -q -t ext4 $disk && sudo mkdir -p /old && sudo mount $disk /old && sudo touch /old/here && sync"
haneul volume detach old --force >/dev/null
until_field volume old State available
# From here on whoever in the guest waits for that disk waits for ever (Linux 6.1); the others go on.
expect alive guest two 'echo alive'
haneul snapshot create old --name old --wait >/dev/null
haneul terminate two --wait >/dev/null

say "Launched with a volume to keep, one of a snapshot, and instance store"
haneul run imported --name four --volume 1G:/dev/sdf:keep --volume old:/dev/sdg --volume ephemeral0:1G --wait >/dev/null
expect of-the-root guest four 'cat mark'
guest four 'sudo mount -o ro /dev/vdc /mnt && ls /mnt/here >/dev/null && sudo umount /mnt' || fail "the snapshot's file is not there"
expect "1073741824" guest four 'sudo blockdev --getsize64 /dev/vdd'
guest four 'echo kept | sudo dd of=/dev/vdb conv=fsync 2>/dev/null; echo instance-store | sudo dd of=/dev/vdd conv=fsync 2>/dev/null'
boot=$(guest four 'cat /proc/sys/kernel/random/boot_id')
haneul reboot four >/dev/null
rebooted four "$boot"
expect "kept instance-store" guest four 'for disk in vdb vdd; do sudo head -n 1 /dev/$disk; done | tr "\n" " " | sed "s/ \$//"'
say "kept on reboot"
haneul stop four --wait >/dev/null
haneul start four --wait >/dev/null
expect kept guest four 'sudo head -n 1 /dev/vdb'
expect 0 guest four 'sudo head -c 1048576 /dev/vdd | tr -d "\\000" | wc -c'
say "lost on stop"
volumes() { haneul volume ls --json | jq -r '.. | objects | select(.VolumeId? and .Attachments?) | .VolumeId' | sort -u | wc -l; }
expect 4 volumes # old, the root, the one to keep, the one of the snapshot
haneul terminate four --wait >/dev/null
for _ in $(seq 100); do [ "$(volumes)" = 4 ] || break; sleep 0.1; done
expect 3 volumes # its root is gone, and what it was to keep is not

say "Everything is sound"
haneul volume check >/dev/null || fail "$(haneul volume check)"
say end
