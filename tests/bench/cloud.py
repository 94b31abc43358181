# SPDX-License-Identifier: Apache-2.0
"""Through a daemon of our own: what `haneul run` adds to the VMM's start, and a hundred instances."""
import contextlib
import json
import os
import pathlib
import shutil
import signal
import statistics
import subprocess
import time

import tools
from results import Goal, Measure, compare, summary
from tools import Missing, folder, private_mib, running, stopwatch, vmm

DAEMON = tools.BIN / "haneuld"
CLI = tools.BIN / "haneul"
TYPE, TYPE_MIB = "t2.nano", 512
ROUNDS = 9
INSTANCES = 100
RUN = "haneul run until the guest is entered"
MANY = f"{INSTANCES} idle instances"


def names():
    many = ("running", "memory beyond the guest's, median", "memory beyond the guest's, most", "daemon's resident memory",
            "time until all run")
    return [RUN, *(f"{MANY}: {what}" for what in many)]


def register_guest(one, name, command_line):
    """An image without a disk, whose kernel is the freestanding guest."""
    path = one.work / name
    path.mkdir()
    shutil.copy(tools.GUEST, path / "kernel")
    (path / "image.json").write_text(json.dumps({"format": 1, "name": name, "kernel": "kernel", "cmdline": command_line}))
    one("image", "register", path)


class Cloud:
    """A daemon with its state in a temporary folder and a private network."""

    def __init__(self, work, process, log):
        self.work = work
        self.log = log
        self.process = process
        self.state = work / "state"
        self.environment = os.environ | {"HANEUL_SOCKET": str(work / "sock"), "XDG_CONFIG_HOME": str(work / "config")}

    def __call__(self, *words, seconds=120):
        done = subprocess.run([str(word) for word in (CLI, *words)], env=self.environment, capture_output=True, text=True,
                              stdin=subprocess.DEVNULL, timeout=seconds)
        if done.returncode != 0:
            raise Missing(f"haneul {words[0]}: {done.stderr.strip()[-300:]}")
        return done.stdout

    def wait_until_served(self):
        deadline = time.monotonic() + 30
        while True:
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise Missing(f"haneuld does not serve: {self.log.read_text().strip()[-300:]}")
            with contextlib.suppress(Missing):
                return self("status")
            time.sleep(0.1)

    def instances(self, *states):
        """Ids, of all or of those in one of these states."""
        found = []
        pending = [json.loads(self("ls", "--all", "--json"))]
        while pending:
            value = pending.pop()
            if isinstance(value, list):
                pending += value
            elif isinstance(value, dict):
                if "InstanceId" in value and "State" in value:
                    found.append(value)
                else:
                    pending += value.values()
        return [one["InstanceId"] for one in found if not states or one["State"]["Name"] in states]

    def vmms(self):
        """Process numbers of this daemon's VMMs."""
        found = []
        for entry in pathlib.Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            with contextlib.suppress(OSError, ValueError, IndexError):
                stat = (entry / "stat").read_text()
                parent = int(stat[stat.rindex(")") + 1:].split()[1])
                if parent == self.process.pid and "haneul-vmm" in (entry / "cmdline").read_text():
                    found.append(int(entry.name))
        return found

    def end(self):
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            self.end_instances_and_daemon()
        finally:
            signal.signal(signal.SIGINT, before)

    def end_instances_and_daemon(self):
        with contextlib.suppress(Missing, subprocess.TimeoutExpired):
            for state in ("running", "pending"):
                ids = self.instances(state)
                if ids:
                    self("terminate", *ids, "--wait", "--timeout", 60, seconds=90)
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(30)
        tools.end(self.process)
        # Instances that did not terminate, and what holds the private network for them.
        tools.end_orphans()


@contextlib.contextmanager
def cloud(log_level="warn"):
    tools.need(DAEMON, CLI, tools.VMM, tools.GUEST)
    tools.adopt_orphans()
    with folder() as work:
        log = work / "haneuld.log"
        command = [DAEMON, "--state", work / "state", "--socket", work / "sock", "--vmm", tools.VMM,
                   "--network", "private", "--terminate-timeout", "1", "--log-level", log_level]
        with open(log, "wb") as log_file, running(command, stdout=log_file, stderr=log_file) as process:
            one = Cloud(work, process, log)
            try:
                one.wait_until_served()
                register_guest(one, "guest", "0halt")
                yield one
            finally:
                one.end()


def entered(ring):
    """Whether the guest has written to its console: base/console_ring.h has the total at byte 16."""
    with contextlib.suppress(OSError):
        with open(ring, "rb") as file:
            return int.from_bytes(file.read(24)[16:24], "little") > 0
    return False


def run_once(one, image="guest"):
    """Milliseconds from the start of `haneul run` until the guest's first instruction was seen."""
    folder_of_instances = one.state / "instances"
    before = set(os.listdir(folder_of_instances)) if folder_of_instances.exists() else set()
    start = time.monotonic()
    with running([CLI, "run", image, "--type", TYPE], env=one.environment, stdout=subprocess.DEVNULL,
                 stderr=subprocess.PIPE) as process:
        ring = None
        while ring is None or not entered(ring):
            if process.poll() or time.monotonic() - start > 30:
                process.kill()
                raise Missing(f"haneul run did not start a guest in 30 s: {process.stderr.read().decode()[-300:]}")
            if ring is None and folder_of_instances.exists():
                new = set(os.listdir(folder_of_instances)) - before
                ring = folder_of_instances / new.pop() / "console" if new else None
            time.sleep(0.0005)
        took = (time.monotonic() - start) * 1000
        process.wait(30)
    # The guest may have been entered before the daemon says so.
    one("terminate", *one.instances("running", "pending"), "--wait", "--timeout", 60)
    return took


def measure_run(results):
    with cloud() as one:
        run_once(one)  # makes the default key pair
        through, alone = [], []
        for _ in range(ROUNDS):
            through.append(run_once(one))
            alone.append(stopwatch(vmm(memory_mib=TYPE_MIB, jail=True)))
    results.add(compare(RUN, "ms", through, alone, "haneul-vmm --jail alone", Goal("difference", 50)))


def measure_many(results):
    with cloud() as one:
        start = time.monotonic()
        one("run", "guest", "--type", TYPE, "--count", INSTANCES, "--wait", "--timeout", 240, seconds=270)
        took = time.monotonic() - start
        time.sleep(2)
        pids = one.vmms()
        running_count = len(one.instances("running"))
        status = pathlib.Path(f"/proc/{one.process.pid}/status").read_text()
        resident = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:")) / 1024
        each, why = [], None
        try:
            each = [private_mib(pid, TYPE_MIB)[0] for pid in pids]
        except Missing as missing:
            why = str(missing)
    rows = names()
    running_row = Measure(rows[1], "", ours=float(running_count), peer=float(INSTANCES), peer_name="asked for",
                          goal=Goal("least", 1))
    results.add(running_row,
                Measure(rows[2], "MiB", statistics.median(each) if each else None, goal=Goal("value", 3), why=why,
                        details=summary(each) if each else {}),
                Measure(rows[3], "MiB", max(each) if each else None, goal=Goal("value", 3), why=why,
                        details=summary(each) if each else {}),
                Measure(rows[4], "MiB", resident, goal=Goal("value", 50)),
                Measure(rows[5], "s", took))


def measure(results):
    rows = names()
    if results.wanted(rows[0]):
        measure_run(results)
    if any(map(results.wanted, rows[1:])):
        measure_many(results)
