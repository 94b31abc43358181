# SPDX-License-Identifier: Apache-2.0
"""Through a daemon of our own, what does not depend on how much a volume holds: a snapshot, a volume of a snapshot, the root
volume of a launch. And how long a guest that writes waits for a snapshot."""
import base64
import http.client
import json
import os
import re
import socket
import statistics
import subprocess
import time

import tools
from cloud import cloud, register_guest, run_once
from disks import ticks_per_second
from results import Goal, Measure, compare, rounded, summary
from tools import Missing

MIB, GIB = 1 << 20, 1 << 30
ROUNDS = 9
LAUNCHES = 7
LIMIT_MS = 20
# Size, and the data in it: a MiB at the head of each piece of the volume, so that every part of the map has some.
SIZES = {"1 GiB": (1, 102), "100 GiB with 10 GiB of data": (100, 10 << 10), "1 TiB, sparse": (1024, 1)}
SHORT_MIB = 1 << 10  # of data, in a short run
KINDS = ("a snapshot", "a volume of a snapshot", "a launch: what its root volume adds")
HELD = "a snapshot during random writes over 8 GiB: changes held back"
WAIT = "a snapshot during random writes over 8 GiB: the guest's longest wait"
# So many places that all of the map is dirty, and no more: each becomes an extent of each layer's file, and a file of many
# extents takes long to remove where the file system is mounted with "discard".
BUSY_GIB, BUSY_PLACES, BUSY_REQUESTS, BUSY_SNAPSHOTS = 8, 8192, 600_000, 3
ZONE = "us-east-1a"


def row(kind, size):
    return f"{kind}, {size}"


def names():
    return [row(kind, size) for size in SIZES for kind in KINDS] + [HELD, WAIT]


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost", timeout=120)
        self.path = str(path)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class Api:
    """The daemon's operations over one connection, without a CLI's start."""

    def __init__(self, path):
        self.connection = UnixConnection(path)

    def __call__(self, operation, **request):
        self.connection.request("POST", "/" + operation, json.dumps(request), {"Content-Type": "application/json"})
        reply = self.connection.getresponse()
        text = reply.read()
        if reply.status != 200:
            raise Missing(f"{operation}: {text.decode(errors='replace')[:300]}")
        return json.loads(text)


def until(what, seconds, done):
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() > deadline:
            raise Missing(f"{what}: not within {seconds} s")
        time.sleep(0.0005)


def sparse_file(path, gib, data_mib):
    step = (gib << 10) // data_mib
    with open(path, "wb") as file:
        file.truncate(gib * GIB)
        for i in range(data_mib):
            file.seek(i * step * MIB)
            file.write(os.urandom(MIB))


class Sizes:
    """For each size a snapshot with the data, a volume of it, and an image."""

    def __init__(self, one, api, short):
        self.one, self.api, self.short = one, api, short
        self.snapshots, self.images, self.data_mib = {}, {}, {}

    def make(self, size):
        gib, mib = SIZES[size]
        mib = min(mib, SHORT_MIB) if self.short else mib
        free = os.statvfs(self.one.work)
        if free.f_bavail * free.f_frsize < 3 * mib * MIB:
            raise Missing(f"{self.one.work} has no room for {mib} MiB of data, twice")
        path, name = self.one.work / "file", f"root{gib}"
        sparse_file(path, gib, mib)
        self.one("snapshot", "import", path, "--format", "raw", "--name", name, seconds=900)
        path.unlink()
        self.one("image", "register", "--snapshot", name, "--name", name, "--kernel-of", "guest")
        shown = json.loads(self.one("snapshot", "show", name, "--json"))
        self.snapshots[size], self.images[size], self.data_mib[size] = shown["SnapshotId"], name, mib
        # What the data left to be written is not the snapshots' cost.
        subprocess.run(["sync", "-f", self.one.work], check=True)

    def why(self, size):
        mib = self.data_mib[size]
        return f"with {mib / 1024:g} GiB of data: a short run" if mib < SIZES[size][1] else None


def time_volume(api, snapshot):
    """Milliseconds until it is available; and its id."""
    begin = time.monotonic()
    volume = api("CreateVolume", AvailabilityZone=ZONE, SnapshotId=snapshot)["VolumeId"]
    until("a volume", 60, lambda: api("DescribeVolumes", VolumeIds=[volume])["Volumes"][0]["State"] == "available")
    return (time.monotonic() - begin) * 1000, volume


def time_snapshot(api, volume):
    """Milliseconds until the request is answered: the point in time is fixed, and the volume may go on."""
    begin = time.monotonic()
    snapshot = api("CreateSnapshot", VolumeId=volume)["SnapshotId"]
    took = (time.monotonic() - begin) * 1000
    until("a snapshot", 600, lambda: api("DescribeSnapshots", SnapshotIds=[snapshot])["Snapshots"][0]["State"] == "completed")
    return took


def measure_requests(results, sizes, api):
    """Volumes and snapshots, the sizes by turns."""
    snapshot_ms, volume_ms = {size: [] for size in sizes.snapshots}, {size: [] for size in sizes.snapshots}
    for turn in range(ROUNDS + 1):
        for size, snapshot in sizes.snapshots.items():
            took, volume = time_volume(api, snapshot)
            again = time_snapshot(api, volume)
            api("DeleteVolume", VolumeId=volume)
            if turn > 0:
                volume_ms[size].append(took)
                snapshot_ms[size].append(again)
    for size in sizes.snapshots:
        for kind, values in zip(KINDS, (snapshot_ms[size], volume_ms[size])):
            results.add(compare(row(kind, size), "ms", values, goal=Goal("value", LIMIT_MS), why=sizes.why(size)))


def measure_launches(results, sizes, one):
    images = {size: image for size, image in sizes.images.items() if results.wanted(row(KINDS[2], size))}
    if not images:
        return
    run_once(one)
    took = {None: []} | {size: [] for size in images}
    for _ in range(LAUNCHES):
        took[None].append(run_once(one))
        for size, image in images.items():
            took[size].append(run_once(one, image))
    for size in images:
        results.add(compare(row(KINDS[2], size), "ms", took[size], took[None], "a launch without a disk",
                            Goal("difference", LIMIT_MS), sizes.why(size)))


def console(api, instance):
    return base64.b64decode(api("GetConsoleOutput", InstanceId=instance, Latest=True).get("Output") or "").decode()


def write_over(one, api, snapshots):
    """A guest writes to random places of its root; meanwhile snapshots are taken, or not. Its longest wait, in ms."""
    made = json.loads(one("run", "busy", "--type", "t2.micro", "--wait", "--json"))
    instance = json.loads(re.search(r'"InstanceId": *("[^"]*")', json.dumps(made))[1])
    until("a writing guest", 30, lambda: "!" in console(api, instance))
    mappings = api("DescribeInstances", InstanceIds=[instance])["Reservations"][0]["Instances"][0]["BlockDeviceMappings"]
    time.sleep(0.5)  # every place was written by then
    taken = 0
    while "done" not in console(api, instance):
        state = api("DescribeInstances", InstanceIds=[instance])["Reservations"][0]["Instances"][0]
        if state["State"]["Name"] != "running":
            raise Missing(f"the writing guest is {state['State']['Name']}: {state.get('StateReason', {}).get('Message')}")
        if snapshots and taken < BUSY_SNAPSHOTS:
            api("CreateSnapshot", VolumeId=mappings[0]["Ebs"]["VolumeId"])
            taken += 1
        time.sleep(0.3)
    numbers = dict(line.split("=") for line in console(api, instance).replace("!", "").split() if "=" in line)
    one("terminate", instance, "--wait")
    return int(numbers["longest"]) / ticks_per_second() * 1000, taken


def measure_busy(results, one, api):
    path = one.work / "file"
    sparse_file(path, BUSY_GIB, 1)
    one("snapshot", "import", path, "--format", "raw", "--name", "busy")
    register_guest(one, "writer", f"block requests={BUSY_REQUESTS} among={BUSY_PLACES} depth=32 write=1 stay=1")
    one("image", "register", "--snapshot", "busy", "--name", "busy", "--kernel-of", "writer")
    alone, waits, taken = [], [], 0
    for _ in range(2):
        alone.append(write_over(one, api, snapshots=False)[0])
        longest, count = write_over(one, api, snapshots=True)
        waits.append(longest)
        taken += count
    held = [int(us) / 1000 for us in re.findall(r"held the guest's changes back for (\d+) us", one.log.read_text())]
    if not held:
        raise Missing("no snapshot was taken while the guest wrote")
    result = Measure(HELD, "ms", max(held), goal=Goal("value", LIMIT_MS), details=summary(held))
    result.details["median"] = rounded(statistics.median(held))
    result.why = f"the longest of {len(held)}; {BUSY_PLACES} blocks, in all parts of the volume, are written to again and again"
    results.add(result, compare(WAIT, "ms", waits, alone, "without snapshots", Goal("difference", LIMIT_MS)))


def measure(results):
    wanted = [size for size in SIZES if any(results.wanted(row(kind, size)) for kind in KINDS)]
    with cloud(log_level="info") as one:
        api = Api(one.work / "sock")
        if wanted:
            sizes = Sizes(one, api, results.short)
            for size in wanted:
                sizes.make(size)
            if any(results.wanted(row(kind, size)) for size in wanted for kind in KINDS[:2]):
                measure_requests(results, sizes, api)
            measure_launches(results, sizes, one)
        if results.wanted(HELD) or results.wanted(WAIT):
            measure_busy(results, one, api)
