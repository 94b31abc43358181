# SPDX-License-Identifier: Apache-2.0
"""Volumes beside raw files and qcow2, without a guest, on one file system, buffered and with O_DIRECT. Raw files and volumes are
driven by block_bench, the same code for both, to the same places in the same order; raw files once more by fio, in an order of
its own; qcow2 by qemu-img bench."""
import json
import os
import re
import shutil
import subprocess

import tools
from disks import QEMU_IMG, settle, warm
from results import Goal, compare
from tools import Missing, folder

MIB = 1 << 20
BYTES = 1 << 30
TEN_GIB = (10 << 30) / BYTES
PLACES = BYTES // 4096
# Odd, so that every place comes before one comes twice.
STRIDE = 104_729
ROUNDS = 3
SHORT_SHARE = 4  # of the first writes, in a short run
BLOCK_BENCH = tools.BIN / "bench/block_bench"
FIO = shutil.which("fio")
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
BY_FIO = "raw, by fio"
GOALS |= {(workload, BY_FIO): goal for (workload, peer), goal in GOALS.items() if peer == "raw"}
MAP = "volume: memory of the map for 10 GiB of random writes"


def row(workload, mode, peer):
    return f"volume, {mode}: {workload} / {peer}"


def map_row(spread):
    return f"{MAP}, 64 layers, {spread}"


def names():
    rows = [row(workload, mode, peer) for mode in MODES for workload, peer in GOALS]
    return rows + [row(f"{DEEP}, {spread}", mode, "1 layer") for mode in MODES for spread in SPREADS] + \
        [MAP, *map(map_row, SPREADS)]


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


def fio(path, mode, operation, options, requests):
    """Seconds. The same sizes and depth; every place once, at random."""
    if FIO is None:
        raise Missing("fio is not installed")
    values = dict(zip(options[::2], options[1::2])) if "--flush" not in options else {"--depth": 1, "--stride": STRIDE}
    size = values.get("--bytes", 4096)
    words = (FIO, "--name=raw", f"--filename={path}", "--ioengine=io_uring", f"--direct={int(mode == 'O_DIRECT')}",
             f"--rw={'rand' if '--stride' in values else ''}{operation}", f"--bs={size}", f"--iodepth={values.get('--depth', 32)}",
             f"--size={BYTES}", f"--io_size={requests * size}", f"--fdatasync={int('--flush' in options)}", "--fallocate=none",
             "--invalidate=0", "--thread", "--output-format=json")
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Missing(f"fio: {(done.stderr or done.stdout).strip()[-300:]}")
    job = json.loads(done.stdout[done.stdout.index("{"):])["jobs"][0][operation]
    if job["total_ios"] != requests:
        raise Missing(f"fio did {job['total_ios']} requests instead of {requests}")
    return job["runtime"] / 1000


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
        if kind in ("raw", BY_FIO):
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
        return ("volume" if kind == "volume" else "raw", path)

    def run(self, kind, path, mode, operation, options, requests):
        base = ("--base", self.base) if kind == "volume" else ()
        return bench(*MODES[mode][2], *base, "--requests", requests, *options, operation, *self.words(kind, path))["seconds"]


def ready(path, cached):
    with open(path, "rb+") as file:
        settle(file)
    if cached:
        warm(path)


def series(files, workload, mode, kinds, share=1):
    """{kind: requests per second, or for flushes microseconds}, in turns."""
    operation, options, requests = WORKLOADS[workload]
    fresh = workload in (FIRST, FLUSH)
    requests //= share if workload == FIRST else 1
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
            elif kind == BY_FIO:
                seconds = fio(paths[kind], mode, operation, options, requests)
            else:
                seconds = files.run(kind, paths[kind], mode, operation, options, requests)
            values[kind].append(seconds * 1e6 / requests if workload == FLUSH else requests / seconds)
    for path in paths.values():
        path.unlink()
    return values


class Deep:
    """The same blocks, spread over 64 layers and in one."""

    def __init__(self, files, spread):
        self.files, self.paths = files, []
        each = PLACES // SPREADS[spread]
        for i in range(64):
            path = files.work / f"layer{i}"
            subprocess.run([tools.MAKE_VOLUME, path, *(("--on", self.paths[-1]) if self.paths else (files.base,))], check=True)
            self.paths.append(path)
            # The lowest: all of it, or its part.
            first, count = (0, PLACES - 63 * each) if i == 0 else (PLACES - (64 - i) * each, each)
            bench("--base", files.base, "--requests", count, "--start", first, *RANDOM, "write", "volume", *self.paths)
        self.flat = files.fresh("volume")
        bench("--base", files.base, "--requests", PLACES, *RANDOM, "write", "volume", self.flat)

    def reads(self, stack, mode, requests=100_000):
        return bench(*MODES[mode][2], "--base", self.files.base, "--requests", requests, "--stride", STRIDE + 2, "read", "volume",
                     *stack)

    def remove(self):
        for path in (*self.paths, self.flat):
            path.unlink()


def measure_deep(files, results, spread):
    deep = Deep(files, spread)
    for mode in MODES:
        if not results.wanted(row(f"{DEEP}, {spread}", mode, "1 layer")):
            continue
        values = {"deep": [], "flat": []}
        for path in (*deep.paths, deep.flat):
            ready(path, mode == "buffered")
        for _ in range(ROUNDS):
            for name, stack in (("deep", deep.paths), ("flat", [deep.flat])):
                done = deep.reads(stack, mode)
                values[name].append(done["requests"] / done["seconds"])
        results.add(compare(row(f"{DEEP}, {spread}", mode, "1 layer"), "req/s", values["deep"], values["flat"], "one layer",
                            Goal("least", 0.95)))
    if results.wanted(map_row(spread)):
        # What was written is in other layers than the base: all of it, once, and in a history its 63 small parts again.
        done = deep.reads(deep.paths, "buffered", 1)
        results.add(compare(map_row(spread), "MiB", [done["map_bytes"] / MIB * TEN_GIB], goal=Goal("value", 1)))
    deep.remove()


def measure_map(files, results):
    path = files.fresh("volume")
    done = bench("--base", files.base, "--requests", PLACES, *RANDOM, "write", "volume", path)
    path.unlink()
    results.add(compare(MAP, "MiB", [done["map_bytes"] / MIB * TEN_GIB], goal=Goal("value", 1),
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
                values = series(files, workload, mode, ["volume", *peers], SHORT_SHARE if results.short else 1)
                unit = "us" if workload == FLUSH else "req/s"
                for peer in peers:
                    results.add(compare(row(workload, mode, peer), unit, values["volume"], values[peer], peer,
                                        GOALS[workload, peer]))
        for spread in SPREADS:
            rows = [row(f"{DEEP}, {spread}", mode, "1 layer") for mode in MODES] + [map_row(spread)]
            if any(map(results.wanted, rows)):
                measure_deep(files, results, spread)
        if results.wanted(MAP):
            measure_map(files, results)
