# SPDX-License-Identifier: Apache-2.0
"""Process start to /sbin/init and to the login prompt, with the fast kernel, where Linux guests run."""
import subprocess
import sys

import tools
from results import Goal, Measure, compare
from tools import Missing, say

SCRIPT = tools.TOP / "tests/bench/linux_boot.py"
ON_HARDWARE = "process start to /sbin/init, on hardware"
PEERS = (("microvm", "QEMU microvm"), ("q35", "QEMU q35"))


def names():
    places = ("/sbin/init", "login prompt")
    rows = [f"process start to {place}: haneul-vmm / {peer}" for place in places for peer, _ in PEERS]
    return [*rows, ON_HARDWARE]


def build_image():
    """The builder shows what it does; the first time it compiles a kernel, for up to ten minutes."""
    image = tools.BIN.parent / "bench-image"
    command = [tools.TOP / "images/tiny/build", "--out", image, "--kernel", "fast"]
    if subprocess.run(command, stdin=subprocess.DEVNULL).returncode != 0:
        raise Missing("the image could not be built: see above")
    return image


def boots(image, host):
    """Runs the boots where Linux guests run, telling each; {name: [boot]} and {name: why it has none}."""
    rounds, seconds = (3, 240) if host else (9, 120)
    command = [*host, sys.executable, SCRIPT, image, rounds, seconds]
    taken, lost = {}, {}
    lines = tools.ResultLines(command)
    for result in lines:
        name = result["vmm"]
        if "why" in result:
            lost[name] = result["why"]
            say(f"{name}: {result['why']}")
            continue
        taken.setdefault(name, []).append(result)
        say(f"{name}: /sbin/init after {result['init_ms']:.0f} ms, login after {result['login_ms']:.0f} ms")
    if lines.status != 0:
        why = f"the boots ended with status {lines.status}: see above"
        if not taken:
            raise Missing(why)
        lost = {name: why for name in ("ours", "microvm", "q35") if name not in taken} | lost
    return taken, lost


def measure(results, host):
    tools.need(tools.VMM, tools.STOPWATCH)
    taken, lost = boots(build_image(), host)
    of = lambda name, what: [boot[what] for boot in taken.get(name, [])]  # noqa: E731
    where = "in the emulated host" if host else None
    rows = iter(names())
    for what in ("init_ms", "login_ms"):
        for peer, peer_name in PEERS:
            goal = Goal("ratio", 0.8) if (what, peer) == ("init_ms", "microvm") else None
            why = lost.get("ours") or lost.get(peer) or where
            results.add(compare(next(rows), "ms", of("ours", what), of(peer, what), peer_name, goal, why))
    if host:
        results.add(Measure(ON_HARDWARE, "ms", goal=Goal("value", 125), why="Linux guests run in an emulated host here"))
    else:
        results.add(compare(ON_HARDWARE, "ms", of("ours", "init_ms"), goal=Goal("value", 125)))
