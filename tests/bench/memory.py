# SPDX-License-Identifier: Apache-2.0
"""What a VMM costs beyond its guest's memory: private pages, with a disk and a network card."""
import os
import statistics
import time

import tools
from results import Goal, compare, rounded
from tools import MICROVM, Output, folder, private_mib, qemu, running, tap, vmm

NAME = "memory beyond the guest's"
ROUNDS = 3
GOAL = Goal("value", 3)


PEERS = ("microvm", "q35")


def names():
    return [f"{NAME}, {what} / {peer}" for what in ("guest idle", "under disk I/O") for peer in PEERS]


def settled(command, guest_memory, fds, wait_s):
    with running(command, stdout=-1, pass_fds=fds) as process:
        Output(process).until(b"!", 20)
        time.sleep(wait_s)
        return private_mib(process.pid, guest_memory)


def ours(work, line, wait_s):
    jail = os.geteuid() == 0  # only root can read a jailed process's pages
    with tap() as (fd, _):
        command = vmm("--disk", f"file={work / 'disk'},id=vol1", "--net", f"tap=fd:{fd}", command_line=line, jail=jail)
        return settled(command, tools.MEMORY_MIB, [fd], wait_s)


def peer(work, machine, cpu):
    """QEMU with the same two devices, on microvm's own bus or on PCI; its guest is idle."""
    whole, bus = (MICROVM, "device") if machine == "microvm" else ("q35", "pci")
    with tap() as (fd, _):
        command = qemu(whole + ",memory-backend=ram", cpu,
                       "-object", f"memory-backend-memfd,id=ram,size={tools.MEMORY_MIB}M,share=on",
                       "-drive", f"if=none,id=disk,format=raw,file={work / 'disk'},aio=io_uring,cache=writeback",
                       "-device", f"virtio-blk-{bus},drive=disk", "-netdev", f"tap,id=net,fd={fd},vhost=off",
                       "-device", f"virtio-net-{bus},netdev=net" + (",romfile=" if bus == "pci" else ""))
        return settled(command, "memory-backend-memfd", [fd], 1)


def measure(results):
    tools.need(tools.VMM, tools.GUEST)
    idle, busy, why = [], [], None
    theirs = {machine: [] for machine in PEERS}
    with folder() as work:
        with open(work / "disk", "wb") as disk:
            disk.write(os.urandom(64 << 20))
        try:
            cpu = tools.qemu_cpu()
        except tools.Missing as missing:
            cpu, why = None, str(missing)
        for _ in range(ROUNDS):
            idle.append(ours(work, "0halt", 1))
            busy.append(ours(work, "block requests=1000000000 depth=32 write=0", 2))
            for machine in PEERS if cpu else ():
                theirs[machine].append(peer(work, machine, cpu))
    rows = iter(names())
    for ours_taken in (idle, busy):
        for machine in PEERS:
            whole = compare(next(rows), "MiB", [all_of for all_of, _ in ours_taken], [all_of for all_of, _ in theirs[machine]],
                            f"QEMU {machine}, idle", GOAL, why)
            whole.details["dirty"] = rounded(statistics.median(dirty for _, dirty in ours_taken))
            if theirs[machine]:
                whole.details["peer_dirty"] = rounded(statistics.median(dirty for _, dirty in theirs[machine]))
            results.add(whole)
