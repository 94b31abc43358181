#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Checks what is in a debian-12 image, without booting it: a few seconds, as any user.
# (tests/integration/debian_story.sh boots one.)
#
#   images/debian-12/debian_test.sh [IMAGE_DIR]     builds the image first when none is given
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
PATH=$PATH:/sbin:/usr/sbin
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# shellcheck source=../lib/checks.sh source-path=SCRIPTDIR
. "$here/../lib/checks.sh"

if [ $# -gt 0 ]; then image=$1; else image=$work/debian-12; "$here/build" --out "$image"; fi
field() { sed -n "s/^ *\"$1\": \"\(.*\)\",\{0,1\}\$/\1/p" "$image/image.json"; }
root=$image/$(field root)

# debugfs says "File not found" and succeeds.
inspect() { debugfs -R "$1" "$root" 2>"$work/debugfs"; }
there() { inspect "stat $1" | tee "$work/stat" | grep -q '^Inode:'; }
absent() { if there "$1"; then return 1; else grep -q 'File not found' "$work/debugfs"; fi; }
is() { # PATH MODE USER GROUP
  there "$1" || return 1
  cat "$work/stat"
  grep -qE "Mode: +$2 " "$work/stat" && grep -qE "User: +$3 +Group: +$4 " "$work/stat"
}
empty_file() { there "$1" && grep -qE ' Size: 0$' "$work/stat" && grep -q 'Type: regular' "$work/stat"; }
names() { inspect "ls -p $1" | awk -F/ 'NF > 5 && $6 != "." && $6 != ".." {print $6}' | sort; }
has() { inspect "cat $1" | grep -qxF -e "$2"; }
lacks() { if inspect "cat $1" | tee "$work/said" | grep -E -e "$2"; then return 1; fi; [ -s "$work/said" ]; }
link_to() { inspect "stat $1" | tee "$work/stat" | grep -q "Fast link dest: \"$2\""; }
same() { [ "$1" = "$2" ] || { printf "'%s' is not '%s'\n" "$1" "$2"; return 1; }; }

# ---- the four files ----
check "the description is JSON that names its files" python3 - "$image" <<'PY'
import json, os, sys
image = json.load(open(sys.argv[1] + "/image.json"))
assert image["format"] == 1 and image["name"] == "debian-12" and image["user"] == "admin", image
assert all(os.path.getsize(os.path.join(sys.argv[1], image[name])) > 0 for name in ("kernel", "initrd", "root")), image
PY
version=$(field kernel_version)
check "the root disk is sparse" test "$(($(stat -c %b "$root") * 512))" -lt $((700 << 20))
check "the file system is clean" e2fsck -fn "$root"
check "it fills its disk" same "$(dumpe2fs -h "$root" 2>/dev/null | awk '/^Block count:/ {b = $3} /^Block size:/ {s = $3} END {printf "%.0f", b * s}')" \
  "$(stat -c %s "$root")"
check "it has its label" same "$(e2label "$root")" haneul-root

# ---- the kernel and the initrd ----
inspect "cat /boot/vmlinuz-$version" >"$work/vmlinuz"
check "the kernel is the one of Debian's package" cmp "$work/vmlinuz" "$image/$(field kernel)"
check "and of its checksum there" same "$(md5sum <"$work/vmlinuz" | cut -d' ' -f1)" \
  "$(inspect "cat /var/lib/dpkg/info/linux-image-$version.md5sums" | awk '$2 ~ /^boot\/vmlinuz/ {print $1}')"
inspect "cat /boot/initrd.img-$version" | gzip -dc >"$work/initrd"
check "the initrd is Debian's, unpacked" cmp -n "$(stat -c %s "$work/initrd")" "$work/initrd" "$image/$(field initrd)"
check "an archive can follow it" same $(($(stat -c %s "$image/$(field initrd)") % 512)) 0
cpio -it --quiet <"$image/$(field initrd)" >"$work/names"
for module in virtio_pci virtio_blk virtio_net; do check "it has $module" grep -q "/$module.ko" "$work/names"; done
check "it hands on what the daemon says" grep -qx scripts/init-bottom/haneul "$work/names"
check "it checks the root disk" grep -qx usr/sbin/e2fsck "$work/names"
check "it has nothing of an instance" bash -c "! grep -x 'etc/haneul.*' $work/names"

# ---- the system ----
for file in /usr/lib/systemd/systemd /usr/sbin/sshd /usr/bin/sudo /usr/sbin/resize2fs /usr/bin/growpart /usr/sbin/parted \
  /usr/sbin/fdisk /usr/bin/apt-get /usr/bin/python3 /usr/lib/udev/rules.d/60-persistent-storage.rules; do
  check "there is $file" there "$file"
done
check "it is Debian 12" has /usr/lib/os-release 'VERSION_CODENAME=bookworm'
check "sudo makes root" is /usr/bin/sudo 04755 0 0
check "/ is root's" is / 0755 0 0
check "/tmp is everybody's" is /tmp 01777 0 0
check "/etc/shadow is hidden" is /etc/shadow 0640 0 42
check "admin has a home" is /home/admin 0700 1000 1000
check "admin becomes root without a password" is /etc/sudoers.d/90-haneul 0440 0 0
check "nobody has a password" lacks /etc/shadow '^[^:]*:[^*!]'
check "it is grown at boot" lacks /etc/fstab '^/dev/vda / ext4 ([^ ]*,)?(noauto|ro)[, ]'
check "by systemd" grep -q x-systemd.growfs <(inspect 'cat /etc/fstab')
check "dpkg knows what is installed" grep -q '^Package: openssh-server$' <(inspect 'cat /var/lib/dpkg/status')
check "a way to Debian's archives" grep -qE '^deb .* bookworm main$' <(inspect 'cat /etc/apt/sources.list')
check "without a password in it" lacks /etc/apt/sources.list '://[^/ ]*@'
for unit in sysinit.target.wants/haneul-instance.service multi-user.target.wants/haneul-user-data.service \
  multi-user.target.wants/ssh.service multi-user.target.wants/systemd-networkd.service sysinit.target.wants/systemd-resolved.service; do
  check "systemd starts ${unit#*/}" there "/etc/systemd/system/$unit"
done
for program in apply user-data; do check "$program can be run" is /usr/lib/haneul/$program 0755 0 0; done

# ---- nothing of one machine ----
check "no host keys" same "$(names /etc/ssh | grep ^ssh_host)" ''
check "the machine's id is empty" empty_file /etc/machine-id
check "and nowhere else" absent /var/lib/dbus/machine-id
check "no random seed" absent /var/lib/systemd/random-seed
check "no instance was here" absent /var/lib/haneul/instance-id
check "nobody's key" absent /home/admin/.ssh
check "the name is not the builder's" has /etc/hostname debian
check "nor are the name servers" link_to /etc/resolv.conf ../run/systemd/resolve/stub-resolv.conf
check "nor is apt's configuration" same "$(names /etc/apt/apt.conf.d | grep mmdebstrap)" ''
check "no device files" same "$(names /dev)" ''
check "no downloads" same "$(names /var/cache/apt/archives | grep '\.deb$')" ''
check "no package lists" same "$(names /var/lib/apt/lists)" ''
check "the builder's scripts are gone" absent /root/customize

conclude debian_test
