"""Builds and boots the guest. Its root is this machine's file system, read-only, so it runs this machine's programs.

The guest's `vec0` is joined to a tap device in one of the lab's namespaces. It has one CPU and no IPv6 multicast
routing; only ratios of its timings mean anything.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from lab.namespaces import Lab, LabError, stop
from lab.topology import GUEST, GUEST_GATEWAY

REPOSITORY: Final = Path(__file__).resolve().parents[2]
DIRECTORY: Final = REPOSITORY / ".cache" / "kernel-amt"
TAP: Final = "guest0"
_BUILD_TOOLS: Final = ("apt-get", "dpkg", "flex", "bison", "bc", "xz", "gcc", "make", "depmod")
_BOOT_SECONDS: Final = 30.0

_INIT: Final = """#!/bin/sh
export PATH=/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin HOME=/ PYTHONDONTWRITEBYTECODE=1
export OUT={out} PYTHON={python} PYTHONPATH={repository}
mount -t proc proc /proc; mount -t sysfs sysfs /sys; mount -t tmpfs tmpfs /run; mkdir -p /run/netns
mount -t hostfs none -o $OUT $OUT
echo $OUT/modprobe > /proc/sys/kernel/modprobe
$OUT/modprobe -a amt veth bridge tun
ip link set lo up
sysctl -q -w net.ipv6.conf.default.accept_dad=0 net.ipv6.conf.all.accept_dad=0
ip address add {address_ipv4} dev vec0; ip address add {address_ipv6} dev vec0 nodad; ip link set vec0 up
ip route add default via {gateway_ipv4}; ip route add default via {gateway_ipv6}
cd {repository}
bash $OUT/script > $OUT/log 2>&1 < /dev/null; echo $? > $OUT/status
echo 1 > /proc/sys/kernel/sysrq; exec {directory}/halt
"""

# What the kernel runs for a module it wants, as any Debian does.
_MODPROBE: Final = """#!/bin/sh
exec /sbin/modprobe -d {directory}/modules "$@"
"""

_PRELUDE: Final = """
say() { touch "$OUT/said-$1"; }
hear() { until [ -e "$OUT/told-$1" ]; do sleep 0.05; done; }
"""


def missing_to_build() -> list[str]:
    """What this machine lacks to build the guest, in words."""
    missing = [f"the program {name}" for name in _BUILD_TOOLS if shutil.which(name) is None]
    return missing + ([] if os.geteuid() == 0 else ["root"])


def missing_to_boot() -> list[str]:
    """What this machine lacks to boot the guest, in words."""
    missing = [] if (DIRECTORY / "linux.uml").exists() else ["the User Mode Linux guest, which `make guest` builds"]
    if not _ptrace_works():
        missing.append("ptrace")
    if not Path("/dev/net/tun").exists():
        missing.append("/dev/net/tun")
    return missing


def build() -> None:
    """Build the guest unless it is there as the script makes it now.

    Raises:
        LabError: it cannot be built here.
    """
    script, used = Path(__file__).with_name("build.sh"), DIRECTORY / "build.sh"
    if used.exists() and used.read_bytes() == script.read_bytes():
        return
    if missing := missing_to_build():
        raise LabError("building the kernel AMT guest needs " + ", ".join(missing))
    done = subprocess.run([str(script), str(DIRECTORY)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise LabError(f"building the kernel AMT guest failed: {done.stderr.strip()[-2000:]}")


def _ptrace_works() -> bool:
    """Whether a child may ask to be traced, as every process of the guest does."""
    probe = "import ctypes, sys; sys.exit(ctypes.CDLL(None).ptrace(0, 0, 0, 0) != 0)"
    return subprocess.run([sys.executable, "-c", probe], capture_output=True, check=False).returncode == 0


class Guest:
    """One boot of the guest, running one script.

    The script is bash. `say NAME` in it ends a `wait_for(NAME)` out here, `tell(NAME)` here ends a `hear NAME` in it;
    files it writes to `$OUT` are read with `read`. `$PYTHON -m lab …` works inside.
    """

    def __init__(self, lab: Lab, namespace: str, script: str, memory: str = "512M") -> None:
        self._lab = lab
        self._namespace = namespace
        self._script = script
        self._memory = memory
        self._out = Path()
        self._process: subprocess.Popen[Any] | None = None

    def __enter__(self) -> Self:
        """Make the tap and boot.

        Raises:
            LabError: this machine cannot boot the guest.
        """
        if missing := missing_to_boot():
            raise LabError("the kernel AMT guest needs " + ", ".join(missing))
        self._out = Path(tempfile.mkdtemp(prefix="isl-guest-"))
        self._make_tap()
        self._write_program(
            "init",
            _INIT.format(
                out=self._out,
                python=sys.executable,
                repository=REPOSITORY,
                directory=DIRECTORY,
                address_ipv4=GUEST.with_prefix_ipv4,
                address_ipv6=GUEST.with_prefix_ipv6,
                gateway_ipv4=GUEST_GATEWAY.ipv4,
                gateway_ipv6=GUEST_GATEWAY.ipv6,
            ),
        )
        self._write_program("modprobe", _MODPROBE.format(directory=DIRECTORY))
        (self._out / "script").write_text(_PRELUDE + self._script)
        with (self._out / "console").open("w") as console:
            self._process = self._lab.start(
                self._namespace,
                str(DIRECTORY / "linux.uml"),
                f"mem={self._memory}",
                "rootfstype=hostfs",
                "rootflags=/",
                "ro",
                "quiet",
                f"init={self._out}/init",
                "con=null",
                "con0=null,fd:2",
                f"vec0:transport=tap,ifname={TAP},depth=128,gro=0",
                stderr=console,
                environment={"TMPDIR": str(self._out)},
            )
        return self

    def _write_program(self, name: str, text: str) -> None:
        path = self._out / name
        path.write_text(text)
        path.chmod(0o755)

    def _make_tap(self) -> None:
        lines = [
            f"tuntap add dev {TAP} mode tap",
            f"address add {GUEST_GATEWAY.with_prefix_ipv4} dev {TAP}",
            f"address add {GUEST_GATEWAY.with_prefix_ipv6} dev {TAP} nodad",
            f"link set {TAP} up",
        ]
        self._lab.run(self._namespace, "ip", "-batch", "-", text="\n".join(lines) + "\n")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End the guest and remove its tap and files."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            stop(self._process)
        self._lab.run(self._namespace, "ip", "link", "delete", TAP, check=False)
        shutil.rmtree(self._out, ignore_errors=True)

    def wait_for(self, name: str, seconds: float = _BOOT_SECONDS) -> None:
        """Wait until the script says `name`.

        Raises:
            LabError: it did not in time, or the guest ended before.
        """
        deadline = time.monotonic() + seconds
        while not (self._out / f"said-{name}").exists():
            ended = self._process is not None and self._process.poll() is not None
            if ended or time.monotonic() > deadline:
                raise LabError(f"the guest did not say {name!r} within {seconds:g} s:\n{self.log()}")
            time.sleep(0.05)

    def tell(self, name: str) -> None:
        """Let the script's `hear name` go on."""
        (self._out / f"told-{name}").touch()

    def read(self, name: str) -> str:
        """A file the script wrote to `$OUT`; empty when there is none."""
        path = self._out / name
        return path.read_text() if path.exists() else ""

    def log(self) -> str:
        """What script and console printed."""
        return self.read("log")[-4000:] + self.read("console")[-2000:]

    def finish(self, seconds: float = 30.0) -> int:
        """Wait for the script's end; its exit status.

        Raises:
            LabError: it runs on after `seconds`, or the guest died.
        """
        assert self._process is not None
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired as error:
            raise LabError(f"the guest runs on after {seconds:g} s:\n{self.log()}") from error
        status = self.read("status").strip()
        if not status:
            raise LabError(f"the guest died:\n{self.log()}")
        return int(status)
