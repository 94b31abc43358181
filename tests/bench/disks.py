# SPDX-License-Identifier: Apache-2.0
"""Block throughput inside a freestanding guest, which polls one queue of depth 32 with 4 KiB requests."""
import os
import statistics
import subprocess

import tools
from results import Measure, compare, summary
from tools import Missing, Output, folder, running, vmm

BYTES = 256 << 20
REQUESTS = 200_000
ROUNDS = 3
WORKLOADS = (("random 4 KiB reads", "write=0"), ("random 4 KiB writes", "write=1"))
NO_PEER = ("no peer: the guest drives a disk only where haneul-vmm puts it (configuration space at 0xe0000000, 64-bit "
           "boot protocol); QEMU starts it by PVH and has its devices elsewhere")


def names():
    return [f"disk, {workload}: {disk}" for workload, _ in WORKLOADS for disk in ("raw", "overlay / raw")]


def ticks_per_second():
    return float(subprocess.run([tools.STOPWATCH, "--ticks"], check=True, capture_output=True, text=True).stdout)


def requests_per_second(disk, option, ticks):
    with running(vmm("--disk", disk, command_line=f"block requests={REQUESTS} depth=32 {option}"), stdout=-1) as process:
        text = Output(process).until(b"done", 120)
    if "FAIL" in text:
        raise Missing(f"the guest says: {text.strip()}")
    numbers = dict(line.split("=") for line in text.replace("!", "").splitlines() if "=" in line)
    return REQUESTS * ticks / int(numbers["ticks"])


def measure(results):
    tools.need(tools.VMM, tools.GUEST, tools.STOPWATCH, tools.MAKE_OVERLAY)
    ticks = ticks_per_second()
    for workload, option in WORKLOADS:
        rows = [name for name in names() if workload in name]
        if not any(map(results.wanted, rows)):
            continue
        with folder() as work:
            for name in ("raw", "base"):
                with open(work / name, "wb") as disk:
                    for _ in range(BYTES >> 20):
                        disk.write(os.urandom(1 << 20))
            raw, overlay = [], []
            for turn in range(ROUNDS):
                made = work / f"overlay{turn}"
                subprocess.run([tools.MAKE_OVERLAY, made, work / "base"], check=True)
                raw.append(requests_per_second(f"file={work / 'raw'},id=vol1", option, ticks))
                layered = f"file={made},format=overlay,base={work / 'base'},id=vol1"
                overlay.append(requests_per_second(layered, option, ticks))
                made.unlink()
        why = "a fresh overlay for each run: its first writes allocate" if "writes" in workload else None
        results.add(Measure(rows[0], "req/s", statistics.median(raw), why=NO_PEER, details=summary(raw)),
                    compare(rows[1], "req/s", overlay, raw, "ours, raw", why=why))
