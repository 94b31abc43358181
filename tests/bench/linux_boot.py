#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Boots a Linux image in haneul-vmm and in QEMU by turns, and prints a line of JSON for each boot. Runs where Linux
guests run: linux_boot.py IMAGE-FOLDER ROUNDS SECONDS. It stops beginning rounds when the seconds are over."""
import contextlib
import json
import pathlib
import shutil
import subprocess
import sys
import time

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).parent))
import tools  # noqa: E402

INIT, LOGIN = "haneul-bench: init", "login: "
MEMORY_MIB = 128
LIMIT_S = 90


def archive_with_marked_init(work, initrd):
    """The image's initramfs with one line more: its last act, entering /sbin/init, is announced on the console."""
    tree = work / "tree"
    tree.mkdir()
    script = (tools.TOP / "images/tiny/initramfs/init").read_text().rstrip("\n").split("\n")
    assert script[-1].startswith("exec "), "the initramfs' last line does not enter /sbin/init any more"
    script.insert(-1, f"echo '{INIT}' >/root/dev/console")
    (tree / "init").write_text("\n".join(script) + "\n")
    (tree / "init").chmod(0o755)
    archive = subprocess.run(["cpio", "-o", "-H", "newc", "--quiet", "-R", "0:0"], cwd=tree, input=b"init\n",
                             capture_output=True, check=True).stdout
    marked = work / "initrd"
    marked.write_bytes(initrd.read_bytes() + archive)
    return marked


def commands(image, work):
    description = json.loads((image / "image.json").read_text())
    kernel = work / "kernel"
    shutil.copyfile(image / description["kernel"], kernel)
    initrd = archive_with_marked_init(work, image / description["initrd"])
    line, disk = description["cmdline"], work / "root.img"
    # Both programs are read from the disk before the first boot: QEMU to find its processor model.
    with contextlib.suppress(tools.Missing):
        tools.stopwatch(tools.vmm())
    yield "ours", [tools.VMM, "--console", "--memory", f"{MEMORY_MIB}M", "--kernel", kernel, "--initrd", initrd,
                   "--cmdline", line, "--disk", f"file={disk},id=vol1"]
    try:
        cpu = tools.qemu_cpu()
    except tools.Missing as missing:
        print(json.dumps({"vmm": "microvm", "why": str(missing)}))
        print(json.dumps({"vmm": "q35", "why": str(missing)}))
        return
    drive = ["-initrd", initrd, "-drive", f"if=none,id=root,format=raw,file={disk},aio=io_uring,cache=writeback"]
    options = {"kernel": kernel, "command_line": line, "memory_mib": MEMORY_MIB}
    yield "microvm", tools.qemu(tools.MICROVM, cpu, *drive, "-global", "virtio-mmio.force-legacy=false", "-device",
                                "virtio-blk-device,drive=root", "-device", "virtio-rng-device", **options)
    yield "q35", tools.qemu("q35", cpu, *drive, "-device", "virtio-blk-pci,drive=root,disable-legacy=on", "-device",
                            "virtio-rng-pci,disable-legacy=on", **options)


def boot(name, command, source, disk):
    # Every boot is a first boot: from the same disk, with a new host key.
    subprocess.run(["cp", "--sparse=always", source, disk], check=True)
    try:
        init, login = tools.stopwatch(command, (INIT, LOGIN), LIMIT_S)
        return {"vmm": name, "init_ms": init, "login_ms": login}
    except tools.Missing as missing:
        return {"vmm": name, "why": str(missing)}


def main():
    image, rounds, seconds = pathlib.Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    root = image / json.loads((image / "image.json").read_text())["root"]
    deadline = time.monotonic() + seconds
    with tools.folder() as work:
        source = work / "source.img"
        subprocess.run(["cp", "--sparse=always", root, source], check=True)
        all_commands = list(commands(image, work))
        lost = set()
        for turn in range(rounds):
            for name, command in all_commands:
                if name in lost or (turn > 0 and time.monotonic() > deadline):
                    continue
                result = boot(name, command, source, work / "root.img")
                if "why" in result:
                    lost.add(name)
                print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
