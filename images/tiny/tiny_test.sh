#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Boots a tiny image in QEMU's software emulation, as the daemon would boot it, and checks what
# an instance promises: two boots, about a minute.
#
#   images/tiny/tiny_test.sh [IMAGE_DIR]     builds the image first when none is given
# shellcheck disable=SC2016 # commands in single quotes are for the instance's shell
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
work=$(mktemp -d)
qemu=''
trap '[ -z "$qemu" ] || kill "$qemu" 2>/dev/null || true; rm -rf "$work"' EXIT

# shellcheck source=../lib/checks.sh source-path=SCRIPTDIR
. "$here/../lib/checks.sh"
die() {
  echo "FAIL  $1; the console ends with:"
  tail -25 "$work/console"
  exit 1
}

if [ $# -gt 0 ]; then image=$1; else image=$work/tiny; "$here/build" --out "$image"; fi
field() { sed -n "s/^ *\"$1\": \"\(.*\)\",\{0,1\}\$/\1/p" "$image/image.json"; }

# ---- what the daemon adds: a second archive behind the initrd ----
ssh-keygen -q -t ed25519 -N '' -f "$work/key"
archive() { # INSTANCE_ID
  rm -rf "$work/extra"
  mkdir -p "$work/extra/etc/haneul"
  cat >"$work/extra/etc/haneul/instance.env" <<ENV
INSTANCE_ID='$1'
HOSTNAME='ip-172-31-3-7'
DOMAIN='ec2.internal'
ADDRESS='10.0.2.15/24'
GATEWAY='10.0.2.2'
DNS='10.0.2.3'
MAC='52:54:00:12:34:56'
ENV
  cp "$work/key.pub" "$work/extra/etc/haneul/authorized_keys"
  printf '#!/bin/sh\necho ran >>/var/lib/haneul/user-data-ran\necho "hello from user data"\n' >"$work/extra/etc/haneul/user-data"
  (cd "$work/extra" && find . | cpio -o -H newc --quiet -R 0:0) | cat "$image/$(field initrd)" - >"$work/initrd"
}

# The monitor reads commands from a pipe that this script holds open.
mkfifo "$work/monitor"
exec 7<>"$work/monitor"
start() {
  : >"$work/console"
  local tries
  for tries in 1 2 3 4 5; do
    port=$((20000 + RANDOM))
    qemu-system-x86_64 -M q35 -accel tcg -cpu max -m 256 -smp 1 -nodefaults -no-user-config -display none \
      -kernel "$image/$(field kernel)" -initrd "$work/initrd" -append "$(field cmdline) ${1:-}" \
      -serial "file:$work/console" -monitor stdio \
      -drive "if=none,id=root,format=raw,file=$work/root.img" \
      -device virtio-blk-pci,drive=root,serial=vol0123456789abcdef0,disable-legacy=on \
      -netdev "user,id=n,hostfwd=tcp:127.0.0.1:$port-:22" -device virtio-net-pci,netdev=n,mac=52:54:00:12:34:56,disable-legacy=on \
      -device virtio-rng-pci,disable-legacy=on -device pcie-root-port,id=port1 <&7 >"$work/monitor.log" 2>&1 &
    qemu=$!
    sleep 1
    kill -0 "$qemu" 2>/dev/null && return
    [ "$tries" -lt 5 ] || { cat "$work/monitor.log"; exit 1; }
  done
}
monitor() { echo "$1" >&7; }
wait_for() { # TEXT SECONDS
  local end=$((SECONDS + $2))
  until grep -q -e "$1" "$work/console"; do
    [ $SECONDS -lt $end ] || die "no '$1' on the console within $2 s"
    kill -0 "$qemu" 2>/dev/null || die "QEMU ended before '$1'"
    sleep 0.2
  done
}
wait_end() { # SECONDS
  local end=$((SECONDS + $1))
  while kill -0 "$qemu" 2>/dev/null; do
    [ $SECONDS -lt $end ] || return 1
    sleep 0.2
  done
  wait "$qemu" || true
  qemu=''
}
known() { # known_hosts, built from the console as a user's tool would
  tr -d '\r' <"$work/console" | sed -n '/BEGIN SSH HOST KEY KEYS/,/END SSH/p' | grep '^ssh-' |
    sed "s/^/[127.0.0.1]:$port /" >"$work/known_hosts"
}
on() { # COMMAND in the instance
  timeout 60 ssh -n -q -p "$port" -i "$work/key" -o BatchMode=yes -o IdentitiesOnly=yes -o StrictHostKeyChecking=yes \
    -o UserKnownHostsFile="$work/known_hosts" -o ConnectTimeout=30 "${user:-haneul}@127.0.0.1" "$@"
}
says() { # PATTERN COMMAND
  local pattern=$1
  shift
  on "$@" | tee "$work/said" | grep -q -e "$pattern" || { cat "$work/said"; return 1; }
}
not() { if "$@"; then return 1; fi; }

# ---- first boot ----
cp --sparse=always "$image/$(field root)" "$work/root.img"
truncate -s 2G "$work/root.img"
archive i-0123456789abcdef0
begun=$(date +%s%N)
start "loglevel=7"
wait_for 'ip-172-31-3-7 login:' 120
echo "      (login prompt after $((($(date +%s%N) - begun) / 1000000)) ms)"
sed -n 's/.*\[ *\([0-9.]*\)\] Run \/init as init.*/      (kernel to \/init: \1 s)/p' "$work/console"
known
check "the fingerprint is on the console" grep -qE '^256 SHA256:[A-Za-z0-9+/]{43} root@ip-172-31-3-7 \(ED25519\)' "$work/console"
check "ssh with the launch key and the key of the console" says Linux uname -a
on 'uname -a; df -h /; ip addr' 2>&1 | sed 's/^/      /'
check "the host is named" says '^ip-172-31-3-7$' hostname
check "haneul is user 1000" says '^1000$' id -u
check "sudo makes root" says '^0$' sudo -n id -u
check "the prompt says who and where" says 'haneul@ip-172-31-3-7:~\$' 'echo exit | sh -l -i 2>&1'
check "root cannot log in" not env user=root bash -c "$(declare -f on); port=$port work=$work; on true"
check "there is a default route" says 'default via 10.0.2.2' ip route
check "the name server is set" says '10.0.2.3' cat /etc/resolv.conf
check "the volume is found by its id" says '^/dev/vda$' readlink -f /dev/disk/by-id/virtio-vol0123456789abcdef0
wait_for 'user data ended' 30
check "user data ran as root" says '^ran$' cat /var/lib/haneul/user-data-ran
check "user data's output is on the console" grep -q 'user-data: hello' "$work/console"
check "the root file system has grown to its disk" says '^[12]\.[0-9]G$' "df -h / | awk 'NR == 2 {print \$2}'"
check "lsblk shows the disk" says 'vda .*disk /' lsblk
check "mkfs.ext4 works" on 'truncate -s 16M /tmp/d && sudo mkfs -t ext4 -q /tmp/d && rm /tmp/d'
echo hello >"$work/file"
check "sftp works" bash -c "echo put $work/file /tmp/put | timeout 60 sftp -q -b - -P $port -i $work/key -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null haneul@127.0.0.1"
on 'cat .ssh/authorized_keys' >"$work/keys-before" || true
cp "$work/known_hosts" "$work/known_before"
check "a file is written" on 'echo kept >kept'

# ---- a disk that comes while it runs ----
truncate -s 64M "$work/data.img"
monitor "drive_add 0 if=none,id=data,format=raw,file=$work/data.img"
monitor "device_add virtio-blk-pci,drive=data,id=data,serial=vol0fedcba987654321,disable-legacy=on,bus=port1"
check "an attached volume appears under its id" \
  on 'n=0; until [ -b /dev/disk/by-id/virtio-vol0fedcba987654321 ]; do n=$((n + 1)); [ $n -lt 20 ] || { ls -l /dev/disk/by-id; exit 1; }; sleep 1; done'
check "takes a file system and a file" \
  on 'd=$(readlink -f /dev/disk/by-id/virtio-vol0fedcba987654321); sudo mkfs -t ext4 -q $d && sudo mount $d /mnt && sudo touch /mnt/f && sudo umount /mnt'
monitor "device_del data"
check "and goes when it is detached" \
  on 'n=0; while [ -h /dev/disk/by-id/virtio-vol0fedcba987654321 ]; do n=$((n + 1)); [ $n -lt 20 ] || exit 1; sleep 1; done'

# ---- reboot, from inside ----
: >"$work/console"
on 'sudo reboot' || true
wait_for 'ip-172-31-3-7 login:' 120
known
check "reboot comes back with the same host key" cmp <(cut -d' ' -f2- "$work/known_hosts") <(cut -d' ' -f2- "$work/known_before")
check "and the file is there" says '^kept$' cat kept
check "the launch key is there once" says '^1$' "grep -c ssh- .ssh/authorized_keys"
check "user data ran once" says '^1$' "wc -l </var/lib/haneul/user-data-ran"

# ---- the power button ----
monitor system_powerdown
check "the power button ends it" wait_end 30
check "in order" grep -q 'going down' "$work/console"
check "with a clean file system" /sbin/e2fsck -fn "$work/root.img"

# ---- the same disk as another instance: a new machine ----
archive i-0aaaaaaaaaaaaaaaa
start
wait_for 'ip-172-31-3-7 login:' 120
known
check "a clone has host keys of its own" not cmp -s <(cut -d' ' -f3 "$work/known_hosts") <(cut -d' ' -f3 "$work/known_before")
wait_for 'user data ended' 30
check "and runs its user data" says '^2$' "wc -l </var/lib/haneul/user-data-ran"
on 'sudo poweroff' || true
check "poweroff from inside ends it" wait_end 30

conclude tiny_test
