"""Makes a topology out of network namespaces, runs programs in it, and leaves nothing behind.

A `Lab` is a context manager: on the way out, be it success, failure or Ctrl-C, it ends what it started and deletes the
namespaces. What a killed lab of the same prefix left is removed before a new one is made.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final, Self

from lab.topology import BORDER, TRANSLATED, Topology
from lab.wiring import WiringPlan, plan

NAMESPACE_DIRECTORY: Final = Path("/run/netns")
_STOP_SECONDS: Final = 5.0


class LabError(Exception):
    """The lab could not be made, or a program in it failed."""


def missing_for_namespaces() -> list[str]:
    """What this machine lacks for a lab, in words; empty when a lab can be made."""
    missing = [f"the program {name}" for name in ("ip", "nsenter", "sysctl", "nft") if shutil.which(name) is None]
    if os.geteuid() != 0:
        missing.append("root")
    if missing:
        return missing
    probe = f"isl-probe{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", probe], capture_output=True, text=True, check=False)
    if made.returncode != 0:
        return [f"network namespaces ({made.stderr.strip()})"]
    subprocess.run(["ip", "netns", "delete", probe], capture_output=True, check=False)
    return []


def delete_namespaces(prefix: str) -> list[str]:
    """Delete every namespace of the topology `prefix` with whatever runs in it; the names deleted."""
    pattern = re.compile(re.escape(prefix) + r"-(source|relay|internet|switch|(border|router|receiver)\d*)")
    names = [path.name for path in NAMESPACE_DIRECTORY.glob(f"{prefix}-*") if pattern.fullmatch(path.name)]
    for name in names:
        _end_processes_in(name)
        subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)
    return names


def delete_abandoned(prefix: str) -> None:
    """Delete the topologies `<prefix><pid>` whose process `pid` no longer lives."""
    for path in NAMESPACE_DIRECTORY.glob(f"{prefix}*-source"):
        owner = path.name.removeprefix(prefix).split("-", 1)[0]
        if owner.isdigit() and not Path(f"/proc/{owner}").exists():
            delete_namespaces(f"{prefix}{owner}")


def _end_processes_in(namespace: str) -> None:
    listed = subprocess.run(["ip", "netns", "pids", namespace], capture_output=True, text=True, check=False)
    for text in listed.stdout.split():
        if int(text) != os.getpid():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(text), signal.SIGKILL)


def in_namespace(namespace: str, command: Sequence[str]) -> list[str]:
    """The command line that runs `command` in `namespace`, keeping its process id.

    Not `ip netns exec`, nor `ip -n`: they remount /sys, which a chroot refuses.
    """
    return ["nsenter", f"--net={NAMESPACE_DIRECTORY / namespace}", "--", *command]


class Lab:
    """A running topology.

    Attributes:
        topology: names and sizes.
    """

    def __init__(self, topology: Topology | None = None) -> None:
        self.topology = topology if topology is not None else Topology()
        self._processes: list[subprocess.Popen[Any]] = []
        self._plan: WiringPlan = plan(self.topology)

    def __enter__(self) -> Self:
        """Remove what an earlier lab of this prefix left, then make this one.

        Raises:
            LabError: something is missing, or the kernel refused.
        """
        if missing := missing_for_namespaces():
            raise LabError("a lab needs " + ", ".join(missing))
        try:
            self._create()
        except BaseException:
            self.delete()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End every program started here and delete the namespaces."""
        self.delete()

    def _create(self) -> None:
        delete_namespaces(self.topology.prefix)
        for name in self.topology.namespaces:
            _run(["ip", "netns", "add", name])
            settings = [f"{key}={value}" for key, value in self._plan.sysctls[name].items()]
            _run(in_namespace(name, ["sysctl", "-q", "-w", *settings]))
        for link in self._plan.links:
            _run(link)
        for name, lines in self._plan.batches.items():
            self.run(name, "ip", "-batch", "-", text="\n".join(lines) + "\n")
            self._set_offloads(name)
        if self.topology.translate:
            self.translate_ports(40000, 44999)

    def delete(self) -> None:
        """End every program started here and delete the namespaces; safe to call twice."""
        for process in reversed(self._processes):
            stop(process)
        self._processes.clear()
        delete_namespaces(self.topology.prefix)

    def run(
        self, namespace: str, *command: str, check: bool = True, timeout: float = 60.0, text: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a program in a namespace to its end; `text` is its standard input.

        Raises:
            LabError: it failed and `check` is set, or ran longer than `timeout` seconds.
        """
        return _run(in_namespace(namespace, command), text=text, check=check, timeout=timeout)

    def start(
        self,
        namespace: str,
        *command: str,
        stdout: int | IO[Any] = subprocess.DEVNULL,
        stderr: int | IO[Any] = subprocess.DEVNULL,
        stdin: int | IO[Any] = subprocess.DEVNULL,
        environment: dict[str, str] | None = None,
    ) -> subprocess.Popen[str]:
        """Start a program in a namespace; it ends with the lab at the latest."""
        process = subprocess.Popen(
            in_namespace(namespace, command),
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            text=True,
            env=None if environment is None else {**os.environ, **environment},
            start_new_session=True,
        )
        self._processes.append(process)
        return process

    def translate_ports(self, low: int, high: int) -> None:
        """Translate the border's IPv4 to one outside address, to source ports low..high; forgets running flows.

        Called on a running stream, this is a NAT rebinding: the next packet of every flow leaves from a new port.
        """
        rules = f"""
            table ip lab {{}}
            delete table ip lab
            table ip lab {{
                chain translate {{
                    type nat hook postrouting priority srcnat
                    ip saddr {BORDER.ipv4} meta l4proto udp snat to {TRANSLATED}:{low}-{high} random
                    ip saddr {BORDER.ipv4} snat to {TRANSLATED}
                }}
            }}
        """
        self.run(self.topology.internet, "nft", "-f", "-", text=rules)
        self.run(self.topology.internet, "conntrack", "-F", check=False)

    def set_link(self, namespace: str, interface: str, *, up: bool) -> None:
        """Take an interface down or up; addresses and routes that a down lost are set again."""
        self.run(namespace, "ip", "link", "set", interface, "up" if up else "down")
        if up:
            self.configure(namespace)

    def recreate_link(self, namespace: str, interface: str) -> None:
        """Delete a link and make one of the same name and addresses: new index, new MAC address."""
        self.run(namespace, "ip", "link", "delete", interface)
        for link in self._plan.links_of(namespace, interface):
            _run(link)
        for name in self._plan.batches:
            self.configure(name)

    def configure(self, namespace: str) -> None:
        """Set every address and route of a namespace again; what is there already stays."""
        lines = self._plan.batches[namespace]
        self.run(namespace, "ip", "-force", "-batch", "-", text="\n".join(lines) + "\n", check=False)
        self._set_offloads(namespace)

    def _set_offloads(self, namespace: str) -> None:
        for name, interface, options in self._plan.offloads:
            if name == namespace:
                self.run(namespace, "ethtool", "-K", interface, *options, check=False)


def stop(process: subprocess.Popen[Any], seconds: float = _STOP_SECONDS) -> int:
    """End a program: SIGTERM, after `seconds` SIGKILL; its exit status."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            stream.close()
    return process.returncode


def wait_until(condition: Callable[[], object], seconds: float, what: str, interval: float = 0.05) -> None:
    """Poll `condition` until it holds.

    Raises:
        LabError: it does not hold after `seconds`.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise LabError(f"not within {seconds:g} s: {what}")
        time.sleep(interval)


def _run(
    command: Sequence[str], *, text: str | None = None, check: bool = True, timeout: float = 60.0
) -> subprocess.CompletedProcess[str]:
    try:
        done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired as error:
        raise LabError(f"longer than {timeout:g} s: {' '.join(command)}") from error
    if check and done.returncode != 0:
        raise LabError(f"{' '.join(command)}: status {done.returncode}: {done.stderr.strip()[-2000:]}")
    return done
