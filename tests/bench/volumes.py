# SPDX-License-Identifier: Apache-2.0
"""Volumes beside raw files and qcow2, without a guest, on one file system, buffered and with O_DIRECT. Raw files and volumes are
driven by block_bench, the same code for both; qcow2 by qemu-img bench. All go to the same places in the same order."""
import json
import os
import re
import subprocess

import tools
from disks import QEMU_IMG, settle, warm
from results import Goal, compare
from tools import Missing, folder

BYTES = 1 << 30
PLACES = BYTES // 4096
# Odd, so that every place comes before one comes twice.
STRIDE = 104_729
ROUNDS = 3
BLOCK_BENCH = tools.BIN / "bench/block_bench"
MODES = {"buffered": ("-t", "writeback", ()), "O_DIRECT": ("-t", "none", ("--direct",))}
RANDOM = ("--stride", STRIDE)
LARGE = ("--bytes", 1 << 20, "--depth", 8)

FIRST = "first 4 KiB writes into a clone"
AGAIN = "4 KiB writes, again"
FLUSH = "4 KiB write and flush"
SEQUENTIAL_READ, SEQUENTIAL_WRITE = "sequential 1 MiB reads", "sequential 1 MiB writes"
DEEP = "4 KiB reads through 64 layers"
# Of the blocks, how many each layer above the lowest holds; the lowest holds the rest.
SPREADS = {"a history: each rewrote 1/640": 640, "scattered: each holds 1/64": 64}
# What is done, how, and how often.
WORKLOADS = {
    FIRST: ("write", RANDOM, 100_000),
    AGAIN: ("write", RANDOM, 200_000),
    FLUSH: ("write", (*RANDOM, "--depth", 1, "--flush"), 1000),
    SEQUENTIAL_READ: ("read", LARGE, BYTES >> 20),
    SEQUENTIAL_WRITE: ("write", LARGE, BYTES >> 20),
}
GOALS = {
    (FIRST, "raw"): Goal("least", 0.9), (FIRST, "qcow2"): Goal("least", 4), (FIRST, "qcow2, extended L2"): Goal("least", 1.3),
    (AGAIN, "raw"): Goal("least", 0.95), (FLUSH, "raw"): Goal("ratio", 1.3),
    (SEQUENTIAL_READ, "raw"): Goal("least", 0.95), (SEQUENTIAL_WRITE, "raw"): Goal("least", 0.95),
}
MAP = "volume: memory of the map for 10 GiB of random writes"


def row(workload, mode, peer):
    return f"volume, {mode}: {workload} / {peer}"


def names():
    rows = [row(workload, mode, peer) for mode in MODES for workload, peer in GOALS]
    return rows + [row(f"{DEEP}, {spread}", mode, "1 layer") for mode in MODES for spread in SPREADS] + [MAP]


def bench(*words):
    done = subprocess.run([str(word) for word in (BLOCK_BENCH, *words)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Missing(done.stderr.strip() or "block_bench failed")
    return json.loads(done.stdout)


def qemu_bench(path, mode, requests):
    if QEMU_IMG is None:
        raise Missing("qemu-img is not installed")
    words = (QEMU_IMG, "bench", "-w", "-f", "qcow2", "-i", "io_uring", *MODES[mode][:2], "-d", 32, "-s", 4096, "-c", requests,
             "-S", STRIDE * 4096 % BYTES, path)
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False)
    found = re.search(r"completed in ([0-9.]+) seconds", done.stdout)
    if done.returncode != 0 or not found:
        raise Missing(f"qemu-img bench: {done.stderr.strip()}")
    return float(found[1])


class Files:
    def __init__(self, work):
        self.work, self.base = work, work / "base"
        with open(self.base, "wb") as file:
            for _ in range(BYTES >> 20):
                file.write(os.urandom(1 << 20))
            settle(file)

    def fresh(self, kind):
        path = self.work / kind.replace(",", "").replace(" ", "-")
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
        return path

    def words(self, kind, path):
        return ("raw", path) if kind == "raw" else ("volume", path)

    def run(self, kind, path, mode, operation, options, requests):
        base = ("--base", self.base) if kind == "volume" else ()
        return bench(*MODES[mode][2], *base, "--requests", requests, *options, operation, *self.words(kind, path))["seconds"]


def ready(path, cached):
    with open(path, "rb+") as file:
        settle(file)
    if cached:
        warm(path)


def series(files, workload, mode, kinds):
    """{kind: requests per second, or for flushes microseconds}, in turns."""
    operation, options, requests = WORKLOADS[workload]
    fresh = workload in (FIRST, FLUSH)
    values = {kind: [] for kind in kinds}
    paths = {kind: files.fresh(kind) for kind in kinds}
    if not fresh:
        for kind in kinds:
            files.run(kind, paths[kind], mode, "write", LARGE, BYTES >> 20)
    for _ in range(ROUNDS):
        for kind in kinds:
            if fresh:
                paths[kind] = files.fresh(kind)
            ready(paths[kind], operation == "read" and mode == "buffered")
            if kind.startswith("qcow2"):
                seconds = qemu_bench(paths[kind], mode, requests)
            else:
                seconds = files.run(kind, paths[kind], mode, operation, options, requests)
            values[kind].append(seconds * 1e6 / requests if workload == FLUSH else requests / seconds)
    for path in paths.values():
        path.unlink()
    return values


def measure_deep(files, results, mode, spread):
    """The same blocks, spread over 64 layers and in one."""
    paths = []
    each = PLACES // SPREADS[spread]
    for i in range(64):
        path = files.work / f"layer{i}"
        subprocess.run([tools.MAKE_VOLUME, path, *(("--on", paths[-1]) if paths else (files.base,))], check=True)
        paths.append(path)
        # The lowest: all of it, or its part.
        first, count = (0, PLACES - 63 * each) if i == 0 else (PLACES - (64 - i) * each, each)
        bench("--base", files.base, "--requests", count, "--start", first, *RANDOM, "write", "volume", *paths)
    flat = files.fresh("volume")
    bench("--base", files.base, "--requests", PLACES, *RANDOM, "write", "volume", flat)
    values = {"deep": [], "flat": []}
    stacks = {"deep": paths, "flat": [flat]}
    for path in (*paths, flat):
        ready(path, mode == "buffered")
    for _ in range(ROUNDS):
        for name, stack in stacks.items():
            done = bench(*MODES[mode][2], "--base", files.base, "--requests", 100_000, "--stride", STRIDE + 2, "read", "volume",
                         *stack)
            values[name].append(done["requests"] / done["seconds"])
    for path in (*paths, flat):
        path.unlink()
    results.add(compare(row(f"{DEEP}, {spread}", mode, "1 layer"), "req/s", values["deep"], values["flat"], "one layer",
                        Goal("least", 0.95)))


def measure_map(files, results):
    path = files.fresh("volume")
    done = bench("--base", files.base, "--requests", PLACES, *RANDOM, "write", "volume", path)
    path.unlink()
    results.add(compare(MAP, "MiB", [done["map_bytes"] / (1 << 20) * ((10 << 30) / BYTES)], goal=Goal("value", 1),
                        why="every block of a volume of 1 GiB, in random order; ten times that"))


def measure(results):
    tools.need(BLOCK_BENCH, tools.MAKE_VOLUME)
    with folder() as work:
        files = Files(work)
        for mode in MODES:
            for workload in WORKLOADS:
                peers = [peer for of, peer in GOALS if of == workload and results.wanted(row(workload, mode, peer))]
                if not peers:
                    continue
                values = series(files, workload, mode, ["volume", *peers])
                unit = "us" if workload == FLUSH else "req/s"
                for peer in peers:
                    results.add(compare(row(workload, mode, peer), unit, values["volume"], values[peer], peer,
                                        GOALS[workload, peer]))
            for spread in SPREADS:
                if results.wanted(row(f"{DEEP}, {spread}", mode, "1 layer")):
                    measure_deep(files, results, mode, spread)
        if results.wanted(MAP):
            measure_map(files, results)
