# SPDX-License-Identifier: Apache-2.0
"""Exits to user space in steady state, for each block request and each network frame."""
import os
import time

import tools
from results import Goal, Measure
from tools import Control, Output, echo, folder, running, tap, vmm

GOAL = Goal("value", 0)
WINDOW_S = 1.5


def names():
    return ["exits to user space for a disk read", "exits to user space for a disk write",
            "exits to user space for a frame sent and received"]


def take(options, line, count_name, fds, work, count):
    """One guest that does `count` requests: exits between two moments well inside, and how many requests that was."""
    control = work / "control"
    control.unlink(missing_ok=True)
    with running(vmm("--control", f"{control}", *options, command_line=f"{line} {count_name}={count}"), stdout=-1,
                 pass_fds=fds) as process:
        connection = Control(control)
        try:
            output = Output(process)
            output.until(b"!", 20)
            begin = time.monotonic()
            time.sleep(0.3)
            first, first_at = connection.exits(), time.monotonic()
            time.sleep(WINDOW_S)
            second, second_at = connection.exits(), time.monotonic()
            if output.has(b"done"):
                return None
            output.until(b"done", 120)
            rate = count / (time.monotonic() - begin)
        finally:
            connection.close()
    return second - first, rate * (second_at - first_at)


def steady(name, options, line, count_name, fds, work):
    count = 10_000
    while True:
        taken = take_or_none(options, line, count_name, fds, work, count)
        if taken:
            break
        count *= 4
        if count > 1 << 32:
            raise tools.Missing("the guest never ran long enough")
    exits, requests = taken
    return Measure(name, "exits", ours=exits / requests, goal=GOAL,
                   details={"n": round(requests), "exits": exits, "requests_in_window": round(requests)})


def take_or_none(options, line, count_name, fds, work, count):
    try:
        return take(options, line, count_name, fds, work, count)
    except (OSError, ValueError):
        return None  # the guest had ended before the second look


def measure(results):
    tools.need(tools.VMM, tools.GUEST)
    rows = names()
    with folder() as work:
        with open(work / "disk", "wb") as disk:
            disk.write(os.urandom(64 << 20))
        disk = ("--disk", f"file={work / 'disk'},id=vol1")
        for row, write in ((rows[0], 0), (rows[1], 1)):
            if results.wanted(row):
                results.add(steady(row, disk, f"block depth=32 write={write}", "requests", [], work))
        if results.wanted(rows[2]):
            with tap() as (fd, wire), echo(wire):
                results.add(steady(rows[2], ("--net", f"tap=fd:{fd}"), "net", "frames", [fd], work))
