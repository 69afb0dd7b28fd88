"""Fetches Debian's kernel and boots it.

Its root is this machine's file system, read-only, so that it runs this machine's programs. It has one emulated CPU, no
network outside, and its own clock; nothing about its timings means anything.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lab.namespaces import LabError

REPOSITORY: Final = Path(__file__).resolve().parents[2]
DIRECTORY: Final = REPOSITORY / ".cache" / "debian-kernel"
_EMULATOR: Final = "qemu-system-x86_64"
_BUILD_TOOLS: Final = ("apt-get", "dpkg-deb", "depmod", "modprobe", "busybox")

_START: Final = """#!/bin/sh
export PATH=/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin HOME=/ PYTHONDONTWRITEBYTECODE=1
export OUT={out} PYTHON={python} PYTHONPATH={repository}
mount -t proc proc /proc; mount -t sysfs sysfs /sys; mount -t devtmpfs devtmpfs /dev
mount -t tmpfs tmpfs /run; mkdir -p /run/netns
mount -t 9p -o trans=virtio,version=9p2000.L out $OUT
echo $OUT/modprobe > /proc/sys/kernel/modprobe
ip link set lo up
cd {repository}
bash $OUT/script > $OUT/log 2>&1 < /dev/null; echo $? > $OUT/status
echo o > /proc/sysrq-trigger; sleep 60
"""

# What the kernel runs for a module it wants, as any Debian does.
_MODPROBE: Final = """#!/bin/sh
exec /sbin/modprobe -d {directory}/modules "$@"
"""


@dataclass(frozen=True)
class Ended:
    """What a script left.

    Attributes:
        status: its exit status; None when the guest ended before it.
        files: what it wrote to `$OUT`, by name; `log` is what it printed, `console` what the kernel did.
    """

    status: int | None
    files: dict[str, str]


def missing_to_build() -> list[str]:
    """What this machine lacks to fetch the kernel, in words."""
    missing = [f"the program {name}" for name in _BUILD_TOOLS if shutil.which(name) is None]
    return missing + ([] if platform.machine() == "x86_64" else ["an x86-64 machine"])


def missing_to_boot() -> list[str]:
    """What this machine lacks to boot the kernel, in words."""
    missing = [] if (DIRECTORY / "build.sh").exists() else ["Debian's kernel, which `make guest` fetches"]
    if shutil.which(_EMULATOR) is None:
        missing.append(f"the program {_EMULATOR}")
    return missing


def build() -> None:
    """Fetch the kernel unless it is there as the script fetches it now.

    Raises:
        LabError: it cannot be had here.
    """
    script, used = Path(__file__).with_name("build.sh"), DIRECTORY / "build.sh"
    if used.exists() and used.read_bytes() == script.read_bytes():
        return
    if missing := missing_to_build():
        raise LabError("fetching Debian's kernel needs " + ", ".join(missing))
    done = subprocess.run([str(script), str(DIRECTORY)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise LabError(f"fetching Debian's kernel failed: {done.stderr.strip()[-2000:]}")


def run_script(script: str, *, seconds: float, memory: str = "1G") -> Ended:
    """Boot, run a bash script, power off.

    The script finds this repository as its working directory, `$PYTHON` to run Python with, `$OUT` to write files to,
    and every other place read-only but `/run`.

    Args:
        script: bash.
        seconds: until the guest is given up.
        memory: as QEMU takes it.

    Raises:
        LabError: this machine cannot boot the guest, or it runs on after `seconds`.
    """
    if missing := missing_to_boot():
        raise LabError("Debian's kernel needs " + ", ".join(missing))
    out = Path(tempfile.mkdtemp(prefix="isl-debian-"))
    try:
        places = {"out": out, "python": sys.executable, "repository": REPOSITORY, "directory": DIRECTORY}
        for name, text in (("start", _START), ("modprobe", _MODPROBE)):
            (out / name).write_text(text.format(**places))
            (out / name).chmod(0o755)
        (out / "script").write_text(script)
        _boot(out, seconds, memory)
        files = {path.name: path.read_text(errors="replace") for path in out.iterdir() if path.is_file()}
    finally:
        shutil.rmtree(out, ignore_errors=True)
    status = files.get("status", "").strip()
    return Ended(int(status) if status else None, files)


def _boot(out: Path, seconds: float, memory: str) -> None:
    share = "security_model=none,multidevs=remap"
    command = [
        *(_EMULATOR, "-nodefaults", "-no-reboot", "-display", "none", "-serial", f"file:{out}/console"),
        *("-accel", "tcg", "-cpu", "max", "-m", memory),
        *("-kernel", str(DIRECTORY / "vmlinuz"), "-initrd", str(DIRECTORY / "initrd")),
        *("-append", f"console=ttyS0 quiet panic=-1 start={out}/start"),
        *("-virtfs", f"local,path=/,mount_tag=root,readonly=on,{share}"),
        *("-virtfs", f"local,path={out},mount_tag=out,{share}"),
    ]
    try:
        subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "TMPDIR": str(out)},
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        said = (out / name for name in ("report", "log", "console"))
        left = "".join(path.read_text(errors="replace")[-3000:] for path in said if path.exists())
        raise LabError(f"the guest runs on after {seconds:g} s:\n{left}") from error
