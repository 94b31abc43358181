# SPDX-License-Identifier: Apache-2.0
"""Disks as Linux has them: Debian's kernel and fio in a guest, in haneul-vmm over a volume and in QEMU over raw and qcow2, by
turns. linux_fio.py does it inside the host where Linux guests run."""
import shutil
import subprocess
import sys

import tools
from linux import build_image
from results import Goal, compare
from tools import Missing, say

SCRIPT = tools.TOP / "tests/bench/linux_fio.py"
MAKE_DISK = tools.TOP / "tests/integration/fio_disk.sh"
# As linux_fio.py has them.
WORKLOADS = {"first": "4 KiB random writes, first", "again": "4 KiB random writes, again", "read": "4 KiB random reads",
             "large": "sequential 1 MiB reads"}
PEERS = ("raw", "qcow2")


def row(workload, peer):
    return f"Linux and fio: {WORKLOADS[workload]}: our volume / QEMU's {peer}"


def names():
    return [row(workload, peer) for workload in WORKLOADS for peer in PEERS]


def run(image, disk, host):
    """{name: {workload: [requests a second]}}, and {name: why it has none}."""
    rounds, mib, seconds = (2, 8, 420) if host else (5, 512, 300)
    command = [*host, sys.executable, SCRIPT, image, disk, rounds, mib, seconds]
    taken, lost = {}, {}
    lines = tools.ResultLines(command)
    for result in lines:
        name = result.pop("vmm")
        if "why" in result:
            lost[name] = result["why"]
            say(f"{name}: {result['why']}")
            continue
        for workload, value in result.items():
            taken.setdefault(name, {}).setdefault(workload, []).append(value)
        say(f"{name}: " + ", ".join(f"{workload} {value:.0f}/s" for workload, value in result.items()))
    if lines.status != 0 and not taken:
        raise Missing(f"fio in the guests ended with status {lines.status}: see above")
    return taken, lost


def measure(results, host):
    tools.need(tools.VMM, tools.MAKE_VOLUME)
    if shutil.which("fio") is None:
        raise Missing("fio is not installed")
    image = build_image()
    disk = tools.BIN.parent / "bench-image/fio.img"
    subprocess.run([MAKE_DISK, disk], check=True)
    taken, lost = run(image, disk, host)
    for workload in WORKLOADS:
        for peer in PEERS:
            # An emulated processor is what is measured in an emulated host: nothing is promised there.
            goal = None if host else Goal("least", 1)
            why = lost.get("ours") or lost.get(peer) or ("in the emulated host" if host else None)
            results.add(compare(row(workload, peer), "req/s", taken.get("ours", {}).get(workload, []),
                                taken.get(peer, {}).get(workload, []), f"QEMU's {peer}", goal, why))
