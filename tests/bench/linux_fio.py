#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Debian's fio in a Linux guest, on a disk of haneul-vmm's and of QEMU's by turns; a line of JSON for each. Runs where Linux
guests run: linux_fio.py IMAGE-FOLDER FIO-DISK ROUNDS MIB SECONDS. It begins no round when the seconds are over."""
import contextlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).parent))
import tools  # noqa: E402

MEMORY_MIB = 512
LIMIT_S = 150
BEGIN, END = "haneul-bench: begin", "haneul-bench: end"
# fio's options; the field of its terse output (version 3) with the requests a second.
READS, WRITES = 7, 48
WORKLOADS = {
    "first": ("--rw=randwrite --bs=4k", WRITES),
    "again": ("--rw=randwrite --bs=4k --randseed=7", WRITES),
    "read": ("--rw=randread --bs=4k --randseed=8", READS),
    "large": ("--rw=read --bs=1m", READS),
}


def archive(work, initrd, mib):
    """The image's initramfs; its last act is not to enter the root disk, which is fio's, but to run that."""
    tree = work / "tree"
    tree.mkdir()
    script = (tools.TOP / "images/tiny/initramfs/init").read_text().rstrip("\n").split("\n")
    assert script[-1].startswith("exec "), "the initramfs' last line does not enter /sbin/init any more"
    script[-1:] = ["$busybox mount -t tmpfs tmp /root/tmp", f"echo '{BEGIN}' >/root/dev/console"]
    for name, (options, _) in WORKLOADS.items():
        script.append(f"$busybox chroot /root /bin/fio --name={name} --filename=/dev/vdb --direct=1 --ioengine=libaio "
                      f"--iodepth=32 --size={mib}m {options} --minimal >/root/dev/console 2>&1")
    script += [f"echo '{END}' >/root/dev/console", "$busybox sleep 1", "$busybox poweroff -f", ""]
    (tree / "init").write_text("\n".join(script))
    (tree / "init").chmod(0o755)
    cpio = subprocess.run(["cpio", "-o", "-H", "newc", "--quiet", "-R", "0:0"], cwd=tree, input=b"init\n", capture_output=True,
                          check=True).stdout
    marked = work / "initrd"
    marked.write_bytes(initrd.read_bytes() + cpio)
    return marked


class Guests:
    def __init__(self, image, fio_disk, work, mib):
        self.work, self.mib = work, mib
        description = json.loads((image / "image.json").read_text())
        self.kernel = work / "kernel"
        shutil.copyfile(image / description["kernel"], self.kernel)
        self.initrd = archive(work, image / description["initrd"], mib)
        self.line = description["cmdline"].replace(" rw ", " ro ") + " init=/bin/fio"
        self.fio = work / "fio.img"
        shutil.copyfile(fio_disk, self.fio)
        self.base, self.disk = work / "base", work / "disk"
        with open(self.base, "wb") as file:
            for _ in range(mib):
                file.write(os.urandom(1 << 20))
        self.cpu = None

    def ours(self):
        subprocess.run([tools.MAKE_VOLUME, self.disk, self.base], check=True)
        return [tools.VMM, "--console", "--memory", f"{MEMORY_MIB}M", "--kernel", self.kernel, "--initrd", self.initrd,
                "--cmdline", self.line, "--disk", f"file={self.fio},id=fio,ro", "--disk",
                f"format=volume,layer={self.disk},base={self.base},id=data"]

    def qemus(self, form):
        if self.cpu is None:
            self.cpu = tools.qemu_cpu()
        if form == "raw":
            with open(self.disk, "wb") as file:
                file.truncate(self.mib << 20)
        else:
            subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", self.base, "-F", "raw", self.disk], check=True)
        devices = []
        for name, path, options in (("fio", self.fio, "format=raw,readonly=on"), ("data", self.disk, f"format={form}")):
            devices += ["-drive", f"if=none,id={name},file={path},{options},aio=io_uring,cache=writeback", "-device",
                        f"virtio-blk-pci,drive={name},disable-legacy=on,iothread=io"]
        return tools.qemu("q35", self.cpu, "-object", "iothread,id=io", "-initrd", self.initrd, *devices, kernel=self.kernel,
                          command_line=self.line, memory_mib=MEMORY_MIB)

    def run(self, name):
        self.disk.unlink(missing_ok=True)
        with tools.running(self.ours() if name == "ours" else self.qemus(name), stdout=-1) as process:
            text = tools.Output(process).until(END.encode(), LIMIT_S)
        found = {}
        for line in text.split(BEGIN)[-1].splitlines():
            fields = line.strip().split(";")
            if len(fields) > WRITES and fields[2] in WORKLOADS:
                found[fields[2]] = float(fields[WORKLOADS[fields[2]][1]])
        if set(found) != set(WORKLOADS):
            raise tools.Missing(f"fio says: {text.split(BEGIN)[-1][-300:]!r}")
        return found


def main():
    image, fio_disk = map(pathlib.Path, sys.argv[1:3])
    rounds, mib, seconds = int(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5])
    deadline = time.monotonic() + seconds
    with tools.folder() as work:
        guests = Guests(image, fio_disk, work, mib)
        with contextlib.suppress(tools.Missing):  # both programs are read from the disk before they are measured
            tools.stopwatch(tools.vmm())
        lost = set()
        for turn in range(rounds):
            for name in ("ours", "raw", "qcow2"):
                if name in lost or (turn > 0 and time.monotonic() > deadline):
                    continue
                try:
                    result = guests.run(name)
                except tools.Missing as missing:
                    lost.add(name)
                    result = {"why": str(missing)}
                print(json.dumps({"vmm": name} | result), flush=True)


if __name__ == "__main__":
    main()
