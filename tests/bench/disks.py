# SPDX-License-Identifier: Apache-2.0
"""Disks as a guest has them: the freestanding guest polls one virtio-blk queue, in haneul-vmm and in QEMU, over the same kinds
of files on the same file system, in turns. Buffered, what is compared is the way of a request; with O_DIRECT, the machine's disk
takes part, so a short run leaves that out."""
import contextlib
import os
import subprocess

import tools
from results import Goal, compare
from tools import Missing, Output, folder, running, vmm

BYTES = 256 << 20
ROUNDS = 3
QEMU_IMG = tools.shutil.which("qemu-img")

# What the guest does, how often, and whether it begins with a disk that nobody wrote to.
WORKLOADS = {
    "random 4 KiB reads": ("write=0 depth=32", 200_000, False),
    "random 4 KiB writes, first": ("write=1 depth=32", 50_000, True),
    "random 4 KiB writes, again": ("write=1 depth=32", 200_000, False),
    "4 KiB write and flush": ("write=1 flush=1", 1000, True),
    "sequential 1 MiB reads": ("write=0 depth=16 bytes=1048576 sequential=1", 2048, False),
    "sequential 1 MiB writes": ("write=1 depth=16 bytes=1048576 sequential=1", 1024, False),
}
# Ours, QEMU's: "raw" stands alone, the others on an image of random bytes.
PAIRS = (("raw", "raw"), ("volume", "raw"), ("volume", "qcow2"), ("volume", "qcow2, extended L2"))
MODES = ("buffered", "O_DIRECT")
# With O_DIRECT a request may take the machine's disk a hundred times longer.
DIRECT_SHARE = 10


def row(workload, mode, pair):
    return f"disk, {mode}: {workload}: our {pair[0]} / QEMU's {pair[1]}"


def names():
    return [row(workload, mode, pair) for mode in MODES for workload in WORKLOADS for pair in PAIRS]


class Files:
    """The disks of one workload. Before each run they are on the disk and out of the page cache, and for reads in it again:
    the kernel keeps what came in large pieces in large folios, and small writes to those are slow (ext4, Linux 6.18), so
    what an earlier run left there would be measured too."""

    def __init__(self, work):
        self.work = work
        self.base = work / "base"
        with open(self.base, "wb") as file:
            for _ in range(BYTES >> 20):
                file.write(os.urandom(1 << 20))
            settle(file)

    def path(self, kind, owner):
        return self.work / f"{owner} {kind}".replace(",", "").replace(" ", "-")

    def make(self, kind, owner):
        path = self.path(kind, owner)
        path.unlink(missing_ok=True)
        if kind == "raw":
            with open(path, "wb") as file:
                file.truncate(BYTES)
        elif kind == "volume":
            subprocess.run([tools.MAKE_VOLUME, path, self.base], check=True)
        else:
            options = "extended_l2=on,cluster_size=128k" if "extended" in kind else "cluster_size=64k"
            subprocess.run([QEMU_IMG, "create", "-q", "-f", "qcow2", "-o", options, "-b", self.base, "-F", "raw", path],
                           check=True)

    @contextlib.contextmanager
    def ours(self, kind, mode):
        """The option, and the descriptors that it names: how they were opened says what they are good for."""
        direct = os.O_DIRECT if mode == "O_DIRECT" else 0
        fds = [os.open(self.path(kind, "ours"), os.O_RDWR | direct)]
        try:
            if kind == "raw":
                yield f"file=fd:{fds[0]},id=vol1", fds
            else:
                fds.append(os.open(self.base, os.O_RDONLY | direct))
                yield f"format=volume,layer=fd:{fds[0]},base=fd:{fds[1]},id=vol1", fds
        finally:
            for fd in fds:
                os.close(fd)

    def qemus(self, kind, mode):
        form, cache = "raw" if kind == "raw" else "qcow2", "none" if mode == "O_DIRECT" else "writeback"
        return f"file={self.path(kind, 'qemu')},format={form},if=none,id=disk,aio=io_uring,cache={cache}"


def settle(file):
    file.flush()
    os.fsync(file.fileno())
    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def warm(path):
    """Into the page cache: what is in the file, not its holes."""
    with open(path, "rb") as file:
        at, end = 0, os.fstat(file.fileno()).st_size
        while at < end:
            try:
                at = os.lseek(file.fileno(), at, os.SEEK_DATA)
                hole = os.lseek(file.fileno(), at, os.SEEK_HOLE)
            except OSError:  # nothing but a hole from here on
                return
            while at < hole:
                at += len(os.pread(file.fileno(), min(1 << 20, hole - at), at))


def requests_per_second(command, requests, ticks, fds=()):
    with running(command, stdout=-1, stderr=-1, pass_fds=fds) as process:
        text = Output(process).until(b"done", 180)
    if "FAIL" in text:
        raise Missing(f"the guest says: {text.strip()}")
    numbers = dict(line.split("=") for line in text.replace("!", "").splitlines() if "=" in line)
    return requests * ticks / int(numbers["ticks"])


def ticks_per_second():
    return float(subprocess.run([tools.STOPWATCH, "--ticks"], check=True, capture_output=True, text=True).stdout)


class Bench:
    def __init__(self, files, mode, ticks, cpu):
        self.files, self.mode, self.ticks, self.cpu = files, mode, ticks, cpu

    def run(self, owner, kind, options, requests, mode=None):
        mode = mode or self.mode
        text = f"block requests={requests} {options} stay=1"
        if owner == "ours":
            with self.files.ours(kind, mode) as (disk, fds):
                return requests_per_second(vmm("--disk", disk, command_line=text), requests, self.ticks, fds)
        return requests_per_second(tools.qemu_with_disk(self.cpu, self.files.qemus(kind, mode), text), requests, self.ticks)

    def series(self, workload, disks):
        """{(owner, kind): requests per second}, in turns."""
        options, requests, fresh = WORKLOADS[workload]
        if self.mode == "O_DIRECT" and requests > 1000:
            requests //= DIRECT_SHARE
        values = {disk: [] for disk in disks}
        for owner, kind in disks:
            self.files.make(kind, owner)
            if not fresh:  # every block written once, in small pieces
                self.run(owner, kind, "write=1 depth=32 sequential=1", BYTES // 4096, "buffered")
        for _ in range(ROUNDS):
            for owner, kind in disks:
                if fresh:
                    self.files.make(kind, owner)
                path = self.files.path(kind, owner)
                with open(path, "rb+") as file:
                    settle(file)
                if "reads" in workload and self.mode == "buffered":
                    warm(path)
                values[owner, kind].append(self.run(owner, kind, options, requests))
        return values


def measure_workload(results, workload, mode, ticks, cpu):
    pairs = [pair for pair in PAIRS if results.wanted(row(workload, mode, pair))]
    if not pairs:
        return
    disks = [("ours", kind) for kind in dict.fromkeys(ours for ours, _ in pairs)]
    disks += [("qemu", kind) for kind in dict.fromkeys(theirs for _, theirs in pairs)]
    with folder() as work:
        values = Bench(Files(work), mode, ticks, cpu).series(workload, disks)
    for pair in pairs:
        results.add(compare(row(workload, mode, pair), "req/s", values["ours", pair[0]], values["qemu", pair[1]],
                            f"QEMU's {pair[1]}", Goal("least", 1)))


def measure(results):
    tools.need(tools.VMM, tools.GUEST, tools.STOPWATCH)
    if QEMU_IMG is None:
        raise Missing("qemu-img is not installed")
    cpu, ticks = tools.qemu_cpu(), ticks_per_second()
    for mode in MODES[:1] if results.short else MODES:
        for workload in WORKLOADS:
            measure_workload(results, workload, mode, ticks, cpu)
