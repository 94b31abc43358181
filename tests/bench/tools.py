# SPDX-License-Identifier: Apache-2.0
"""What the measures share: programs and their ends, QEMU's options, a network of one's own, private memory."""
import contextlib
import ctypes
import fcntl
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import threading
import time

TOP = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ.get("HANEUL_BIN") or TOP / "build/release/bin").absolute()
VMM = BIN / "haneul-vmm"
GUEST = BIN / "guests/guest"
STOPWATCH = BIN / "bench/stopwatch"
FLOOR = BIN / "bench/floor"
MAKE_VOLUME = BIN / "bench/make_volume"
QEMU = shutil.which("qemu-system-x86_64")
MEMORY_MIB = 128


class Missing(Exception):
    """A measure cannot be taken; the sentence says why."""


def say(text):
    print(f"    {text}", flush=True)


def need(*programs):
    for program in programs:
        if not os.access(program, os.X_OK):
            raise Missing(f"{program} is not there: build it first")


def need_qemu():
    if QEMU is None:
        raise Missing("qemu-system-x86_64 is not installed")


# ---- processes ----

def end(process):
    """Ends what was started here, and waits for it."""
    if process.poll() is None:
        process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream:
            stream.close()


def die_with_parent():
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


@contextlib.contextmanager
def running(command, **options):
    """The command, until the end of the block. In a session of its own: a Ctrl-C is for the harness, which ends things in
    order."""
    options.setdefault("stdin", subprocess.DEVNULL)
    process = subprocess.Popen([str(word) for word in command], preexec_fn=die_with_parent, start_new_session=True,
                               **options)
    try:
        yield process
    finally:
        end(process)


class ResultLines:
    """The lines of JSON that a command prints, as objects, as they come; then `status` is the command's."""

    def __init__(self, command):
        self.command = [str(word) for word in command]
        self.status = None

    def __iter__(self):
        with subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
                              env=os.environ | {"HANEUL_BIN": str(BIN)}) as process:
            try:
                for line in process.stdout:
                    if line.startswith("{"):
                        yield json.loads(line)
            except BaseException:
                process.terminate()
                raise
        self.status = process.returncode


def stopwatch(command, texts=("!",), seconds=20):
    """Milliseconds from the command's start until each of the texts was on its standard output."""
    words = [str(word) for word in (STOPWATCH, "-t", seconds, *texts, "--", *command)]
    # SIGTERM, so that the stopwatch can end what it started.
    done = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        output, errors = done.communicate(timeout=seconds + 30)
    except BaseException:
        done.terminate()
        done.wait()
        raise
    if done.returncode != 0:
        raise Missing(f"{pathlib.Path(command[0]).name}: {' '.join(errors.split())[-300:]}")
    times = [int(word) / 1000 for word in output.split()]
    return times[0] if len(texts) == 1 else times


def interleaved(commands, rounds, warm_up=1, take=stopwatch):
    """A B A B: {name: command} to {name: values}. The first rounds fill caches and are not counted."""
    values = {name: [] for name in commands}
    for turn in range(rounds + warm_up):
        for name, command in commands.items():
            value = take(command)
            if turn >= warm_up:
                values[name].append(value)
    return values


def adopt_orphans():
    """What a daemon of ours leaves becomes our child, so that nothing can be lost sight of."""
    ctypes.CDLL(None).prctl(36, 1)  # PR_SET_CHILD_SUBREAPER


def end_orphans():
    """Ends all children; to be called when every process begun by running() has ended."""
    while True:
        children = pathlib.Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        if not children:
            return
        for child in map(int, children):
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


class Output:
    """What a process writes to its standard output, a pipe."""

    def __init__(self, process):
        self.process = process
        self.seen = b""
        os.set_blocking(process.stdout.fileno(), False)

    def has(self, text):
        part = self.process.stdout.read()
        self.seen += part or b""
        return text in self.seen

    def until(self, text, seconds):
        """Waits for the text and returns all output so far; Missing if it does not come."""
        deadline = time.monotonic() + seconds
        while True:
            ended = self.process.poll() is not None
            if self.has(text):
                return self.seen.decode(errors="replace")
            if ended or time.monotonic() > deadline:
                why = "it ended" if ended else f"{seconds} s passed"
                raise Missing(f"{why} before {text.decode()!r}; the output's end: {self.seen[-200:]!r}")
            time.sleep(0.001)


@contextlib.contextmanager
def folder():
    path = pathlib.Path(tempfile.mkdtemp(prefix="haneul-bench."))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


# ---- virtual machines ----

def vmm(*options, command_line="0halt", memory_mib=MEMORY_MIB, jail=False):
    command = [VMM, "--kernel", GUEST, "--cmdline", command_line, "--memory", f"{memory_mib}M", "--console", *options]
    return [*command, "--jail"] if jail else command


# Everything a small guest does not need is off, as QEMU's documentation of microvm advises; without ACPI its
# firmware is qboot, the fastest that it has.
MICROVM = "microvm,isa-serial=on,acpi=off,pit=off,pic=off,rtc=off,x-option-roms=off"
QBOOT = pathlib.Path("/usr/share/qemu/qboot.rom")


def qemu(machine, cpu, *options, kernel=GUEST, command_line="0halt", memory_mib=MEMORY_MIB):
    return [QEMU, "-M", machine, "-accel", "kvm", "-cpu", cpu, "-m", str(memory_mib), "-smp", "1", "-nodefaults",
            "-no-user-config", "-display", "none", "-no-reboot", "-serial", "stdio", "-kernel", kernel, "-append",
            command_line, *options]


def qemu_with_disk(cpu, drive, command_line):
    """As haneul-vmm has it: modern virtio-pci, an I/O thread of its own. microvm has a PCI bus only with ACPI."""
    machine = MICROVM.replace("acpi=off", "acpi=on") + ",pcie=on,auto-kernel-cmdline=off"
    return qemu(machine, cpu, "-bios", QBOOT, "-object", "iothread,id=io", "-drive", drive, "-device",
                "virtio-blk-pci,drive=disk,disable-legacy=on,iothread=io", command_line=command_line)


def qemu_cpu():
    """The processor model under which QEMU starts on this KVM: some refuse an MSR that QEMU wants to set."""
    need_qemu()
    for cpu in ("host", "host,-arch-capabilities"):
        try:
            stopwatch(qemu(MICROVM + ",auto-kernel-cmdline=off", cpu), seconds=20)
            return cpu
        except Missing as missing:
            why = missing
    raise Missing(f"QEMU cannot start the guest on this KVM: {why}")


class Control:
    """A connection to haneul-vmm's control socket."""

    def __init__(self, path, seconds=10):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.settimeout(10)
        deadline = time.monotonic() + seconds
        while True:
            try:
                return self.socket.connect(str(path))
            except OSError:
                if time.monotonic() > deadline:
                    raise Missing(f"no VMM serves {path}") from None
                time.sleep(0.01)

    def exits(self):
        """Exits to user space so far, of all vCPUs and kinds."""
        self.socket.send(b'{"op":"statistics"}')
        reply = json.loads(self.socket.recv(1 << 16))
        if not reply.get("ok"):
            raise Missing(f"the VMM gives no statistics: {reply.get('error')}")
        statistics = reply["statistics"]
        if isinstance(statistics, str):
            statistics = json.loads(statistics)
        return sum(sum(vcpu.values()) for vcpu in statistics["vcpus"])

    def close(self):
        self.socket.close()


# ---- memory ----

MAPPING = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) \S+ \S+ \S+ \S+ *(.*)$")


def private_mib(pid, guest_memory):
    """Private pages of all mappings but the guest's memory, known by its size in MiB or by its name: (all, those of them that
    are dirty). The clean ones are the program's own file, which is shared as soon as a second process runs it."""
    total = dirty = 0
    counted = True
    try:
        text = pathlib.Path(f"/proc/{pid}/smaps").read_text()
    except OSError as error:
        raise Missing(f"the memory of the VMM cannot be read: {error.strerror} (root can)") from None
    for line in text.splitlines():
        mapping = MAPPING.match(line)
        if mapping:
            size = int(mapping[2], 16) - int(mapping[1], 16)
            counted = size != guest_memory << 20 if isinstance(guest_memory, int) else guest_memory not in mapping[3]
        elif counted and line.startswith(("Private_Clean:", "Private_Dirty:", "Private_Hugetlb:")):
            total += int(line.split()[1])
            dirty += 0 if line.startswith("Private_Clean:") else int(line.split()[1])
    return total / 1024, dirty / 1024


# ---- a network of one's own ----

TUNSETIFF = 0x400454CA
IFF_TAP, IFF_NO_PI, IFF_VNET_HDR = 0x0002, 0x1000, 0x4000
SIOCGIFFLAGS, SIOCSIFFLAGS = 0x8913, 0x8914
CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
EXPERIMENTS = 0x88B5  # the EtherType for local experiments, which the guest sends


def enter_network():
    spaces = CLONE_NEWNET if os.geteuid() == 0 else CLONE_NEWNET | CLONE_NEWUSER
    uid, gid = os.geteuid(), os.getegid()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(spaces) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    if spaces & CLONE_NEWUSER:
        for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
            pathlib.Path("/proc/self", name).write_text(text)


def make_tap():
    tap = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(tap, TUNSETIFF, struct.pack("16sH22x", b"tap0", IFF_TAP | IFF_NO_PI | IFF_VNET_HDR))
    wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(EXPERIMENTS))
    wire.bind(("tap0", EXPERIMENTS))
    request = struct.pack("16sH22x", b"tap0", 0)
    flags = struct.unpack_from("H", fcntl.ioctl(wire, SIOCGIFFLAGS, request), 16)[0]
    fcntl.ioctl(wire, SIOCSIFFLAGS, struct.pack("16sH22x", b"tap0", flags | 1))  # IFF_UP
    return tap, wire


@contextlib.contextmanager
def tap():
    """A tap in a network namespace that lives as long as its descriptors, and a socket at its other end."""
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        try:
            enter_network()
            fd, wire = make_tap()
            socket.send_fds(theirs, [b"+"], [fd, wire.fileno()])
        except OSError as error:
            theirs.send(f"no tap in a network namespace: {error}".encode())
        finally:
            os._exit(0)
    theirs.close()
    text, fds, _, _ = socket.recv_fds(ours, 4096, 2)
    ours.close()
    os.waitpid(pid, 0)
    if len(fds) != 2:
        raise Missing(text.decode() or "no tap in a network namespace")
    wire = socket.socket(fileno=fds[1])
    try:
        yield fds[0], wire
    finally:
        os.close(fds[0])
        wire.close()


@contextlib.contextmanager
def echo(wire):
    """Sends back every frame that the guest sends."""
    stop = threading.Event()

    def work():
        wire.settimeout(0.1)
        while not stop.is_set():
            try:
                wire.send(wire.recv(65536))
            except OSError:
                continue

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
