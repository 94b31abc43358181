#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Debian 12 as a guest, with systemd, udev and openssh: debian_story.sh BIN-FOLDER IMAGE-FOLDER
# Where it is emulated a connection takes ten seconds, so what is asked at one moment is asked in one.
# shellcheck source=story.sh source-path=SCRIPTDIR
. "$(dirname "$0")/story.sh" "$1"
image=$2

say "Debian boots"
haneul image register "$image" >/dev/null
haneul volume create --size 1G --zone us-east-1a --name data --encrypted >/dev/null
haneul run debian-12 --type t2.small --size 6 --name deb --wait >/dev/null
hostname=$(field '' deb PrivateDnsName | cut -d. -f1)
# shellcheck disable=SC2016 # it is the guest's to expand
expect "admin bookworm $hostname 0 ext4 /dev/vda grown" guest deb '. /etc/os-release; echo $(id -un) $VERSION_CODENAME $(hostname) \
  $(sudo id -u) $(findmnt -n -o FSTYPE,SOURCE /) $([ $(df --output=size -BM / | tail -1 | tr -dc 0-9) -gt 5000 ] && echo grown)'
say "its user is let in, its root is on the volume and fills it"
expect "" guest deb 'systemctl --failed --no-legend --plain'

say "A file system on an attached volume, found by udev"
haneul volume attach data deb --device /dev/sdf >/dev/null
disk=$(disk_of data)
sum='cd /mnt && sudo find etc -type f -print0 | sort -z | sudo xargs -0 cat | md5sum'
before=$(guest deb "for i in 1 2 3 4 5 6 7 8 9 10; do [ ! -e $disk ] || break; sleep 0.1; done
  sudo mkfs.ext4 -q $disk && sudo mount $disk /mnt && sudo cp -a /etc /mnt/ && sudo sync -f /mnt && $sum") ||
  fail "$disk does not appear, or takes no file system"
haneul snapshot create data --name files --wait >/dev/null
haneul volume resize data 2G >/dev/null
expect grown guest deb "sudo resize2fs $disk >/dev/null 2>&1; size=\$(df --output=size -BM /mnt | tail -1 | tr -dc 0-9)
  sudo umount /mnt; [ \$size -gt 1800 ] && echo grown"
haneul volume detach data >/dev/null
haneul volume create --zone us-east-1a --from files --name copy >/dev/null
haneul volume attach copy deb --device /dev/sdg >/dev/null
expect "$before" guest deb "for i in 1 2 3 4 5 6 7 8 9 10; do [ ! -e $(disk_of copy) ] || break; sleep 0.1; done
  sudo mount $(disk_of copy) /mnt && $sum"

say "It is shut down in order"
haneul stop deb --wait >/dev/null
instance=$(field '' deb InstanceId)
curl -sS --unix-socket "$HANEUL_SOCKET" http://localhost/GetConsoleOutput -d "{\"InstanceId\": \"$instance\"}" |
  jq -r .Output | base64 -d | grep -a 'reboot: Power down' >/dev/null || fail "the console does not tell of an orderly shutdown"
haneul volume check >/dev/null || fail "$(haneul volume check)"
haneul terminate deb --wait >/dev/null
say end
