# SPDX-License-Identifier: Apache-2.0
"""Process start to first guest instruction: 128 MiB, one vCPU, a freestanding guest, on this machine's own KVM."""
import tools
from results import Goal, compare
from tools import MICROVM, Missing, folder, interleaved, qemu, stopwatch, vmm

NAME = "first instruction"
ROUNDS = 15
# A run longer than this is taken once.
SLOW_MS = 4000


def names():
    pairs = ("haneul-vmm / microvm", "haneul-vmm --jail / microvm", "haneul-vmm / floor", "haneul-vmm --jail / floor",
             "haneul-vmm / microvm's firmware", "haneul-vmm / q35", "haneul-vmm / q35's firmware")
    return [f"{NAME}: {pair}" for pair in pairs]


def make_firmware(path):
    """64 KiB, at whose last 16 bytes the processor begins: the same first instructions as the guest's."""
    # mov dx, 0x3f8; mov al, '!'; out dx, al; cli; hlt
    first = bytes([0xBA, 0xF8, 0x03, 0xB0, ord("!"), 0xEE, 0xFA, 0xF4])
    path.write_bytes(bytes(65536 - 16) + first.ljust(16, b"\xf4"))
    return path


def q35_command(cpu):
    """q35 as Debian has it, or, where a KVM interprets its firmware for minutes, with a smaller firmware."""
    stock = qemu("q35", cpu)
    try:
        took = stopwatch(stock, seconds=60)
        if took < SLOW_MS:
            return stock, "QEMU q35", None
        told = f"with its own firmware, SeaBIOS, it took {took / 1000:.0f} s on this KVM (one run)"
    except Missing:
        told = "with its own firmware, SeaBIOS, it took more than 60 s on this KVM"
    return [*stock, "-bios", tools.QBOOT], "QEMU q35 with qboot", told


def measure(results):
    tools.need(tools.VMM, tools.GUEST, tools.STOPWATCH, tools.FLOOR)
    with folder() as work:
        commands = {"ours": vmm(), "jail": vmm(jail=True), "floor": [tools.FLOOR]}
        why = q35_why = None
        q35_name = "QEMU q35"
        try:
            cpu = tools.qemu_cpu()
            firmware = make_firmware(work / "firmware")
            microvm = MICROVM + ",auto-kernel-cmdline=off"
            commands["microvm"] = qemu(microvm, cpu)
            commands["microvm firmware"] = qemu(microvm, cpu, "-bios", firmware)
            if any(map(results.wanted, names()[5:])):
                commands["q35"], q35_name, q35_why = q35_command(cpu)
                commands["q35 firmware"] = qemu("q35", cpu, "-bios", firmware)
        except Missing as missing:
            why = q35_why = str(missing)
        times = interleaved(commands, ROUNDS)
    get = lambda name: times.get(name, ())  # noqa: E731
    fast = Goal("ratio", 0.15)
    near = Goal("ratio", 4)
    rows = names()
    results.add(
        compare(rows[0], "ms", times["ours"], get("microvm"), "QEMU microvm", fast, why),
        compare(rows[1], "ms", times["jail"], get("microvm"), "QEMU microvm", fast, why),
        compare(rows[2], "ms", times["ours"], times["floor"], "the floor", near),
        compare(rows[3], "ms", times["jail"], times["floor"], "the floor", near),
        compare(rows[4], "ms", times["ours"], get("microvm firmware"), "QEMU microvm, reset vector", fast,
                why or "QEMU is stopped at its firmware's first instruction: it has not begun to load the kernel"),
        compare(rows[5], "ms", times["ours"], get("q35"), q35_name, None, q35_why),
        compare(rows[6], "ms", times["ours"], get("q35 firmware"), "QEMU q35, reset vector", None, why))
