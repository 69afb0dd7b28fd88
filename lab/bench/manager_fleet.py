"""Simulated routers by the hundred, in processes of their own, and their enrolment in a manager."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lab.manager import USERNAME, Manager
from lab.namespaces import LabError, stop, wait_until
from relaymgr.domain.platforms import Platform
from relaymgr.drivers.protocol import Credential, DeviceTarget

PASSWORD: Final = "synthetic-bench"
CREDENTIAL: Final = Credential(USERNAME, PASSWORD)
PLATFORMS: Final = {"mx80": "junos", "iosxe": "iosxe"}
ADS: Final = 16
_A_PROCESS: Final = 250
_BULK: Final = 250
_START_SECONDS: Final = 120.0
_NETWORK: Final = "198.51.100"
"""Where the simulators' gateways are: 16 ADs of 8 addresses hold the first 127."""


@dataclass(frozen=True, slots=True)
class Device:
    """One simulated router.

    Attributes:
        name: unique in the fleet.
        kind: mx80 or iosxe.
        port: SSH (MX80: NETCONF) on 127.0.0.1.
        netconf_port: IOS-XE's.
        host_key: as in known_hosts.
        control: socket of its process.
        index: its place in that process.
        process: that process.
    """

    name: str
    kind: str
    port: int
    netconf_port: int | None
    host_key: str
    control: Path
    index: int
    process: subprocess.Popen[bytes]

    @property
    def target(self) -> DeviceTarget:
        """What a driver is made from."""
        return DeviceTarget(
            self.name, Platform(PLATFORMS[self.kind]), "127.0.0.1", self.port, self.netconf_port, self.host_key
        )

    def fault(self, fault: str | None) -> None:
        """Switch a fault on, or all off. Raises LabError."""
        with socket.socket(socket.AF_UNIX) as control:
            control.connect(str(self.control))
            control.sendall(json.dumps({"index": self.index, "fault": fault}).encode() + b"\n")
            answer = json.loads(control.makefile().readline())
        if "error" in answer:
            raise LabError(f"{self.name}: {answer['error']}")


@contextmanager
def simulators(kind: str, count: int, *options: str, name: str = "") -> Iterator[list[Device]]:
    """Run `count` simulators until left; `options` are further flags of `python -m lab sim KIND`.

    Raises:
        LabError: they do not start.
    """
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="isl-fleet-")))
        password = directory / "password"
        password.touch(mode=0o600)
        password.write_text(PASSWORD)
        started = [
            (size, *_start(stack, kind, size, directory / str(number), password, options))
            for number, size in enumerate(sizes(count, _A_PROCESS))
        ]
        devices: list[Device] = []
        for size, process, base in started:
            ready = base.with_suffix(".ready")
            wait_until(lambda: ready.exists() or process.poll() is not None, _START_SECONDS, f"{size} {kind} listen")  # noqa: B023
            if not ready.exists():
                raise LabError(f"the simulators ended\n{base.with_suffix('.log').read_text()[-2000:]}")
            control = base.with_suffix(".control")
            devices += [
                Device(
                    f"{name or kind}-{len(devices) + index}",
                    kind,
                    one["port"],
                    one["netconf_port"],
                    one["host_key"],
                    control,
                    index,
                    process,
                )
                for index, one in enumerate(json.loads(ready.read_text()))
            ]
        yield devices


def sizes(count: int, most: int) -> list[int]:
    """`count` cut into as equal parts as there must be, none above `most`."""
    parts = -(-count // most)
    return [count // parts + (number < count % parts) for number in range(parts)] if parts else []


def _start(
    stack: ExitStack, kind: str, size: int, base: Path, password: Path, options: Sequence[str]
) -> tuple[subprocess.Popen[bytes], Path]:
    command = [sys.executable, "-m", "lab", "sim", kind, "--listen", "127.0.0.1:0", "--count", str(size)]
    command += ["--username", USERNAME, "--password-file", str(password), "--configured"]
    command += ["--ready-file", str(base.with_suffix(".ready")), "--control", str(base.with_suffix(".control"))]
    with base.with_suffix(".log").open("ab") as log:
        process = subprocess.Popen([*command, *options], stdout=subprocess.DEVNULL, stderr=log)
    stack.callback(stop, process)
    return process, base


def enrol(manager: Manager, devices: Sequence[Device], interval: int) -> dict[str, str]:
    """Make the relays with ADs and a credential, by bulk; name -> id.

    Raises:
        LabError: the manager refused one.
    """
    ads = [
        manager.call(
            "POST", "/ads", json={"name": f"AD {n}", "asn": 64500 + n, "prefixes": [f"{_NETWORK}.{8 * n}/29"]}
        )["id"]
        for n in range(ADS)
    ]
    credential = {"name": "fleet", "username": USERNAME, "kind": "password", "source": "sealed", "secret": PASSWORD}
    credential_id = manager.call("POST", "/credentials", json=credential)["id"]
    relays = [
        {
            "name": device.name,
            "platform": PLATFORMS[device.kind],
            "host": "127.0.0.1",
            "port": device.port,
            "netconf_port": device.netconf_port,
            "host_key": device.host_key,
            "credential_id": credential_id,
            "poll_interval_seconds": interval,
            "ad_id": ads[number % ADS],
        }
        for number, device in enumerate(devices)
    ]
    identifiers: dict[str, str] = {}
    for start in range(0, len(relays), _BULK):
        answer = manager.call("POST", "/relays/bulk", json={"relays": relays[start : start + _BULK]})
        if answer["failed"]:
            raise LabError(f"the manager refused relays: {answer['items'][0]}")
        identifiers |= {item["name"]: item["id"] for item in answer["items"]}
    return identifiers


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process has used so far.

    Attributes:
        processor_seconds: user and system time.
        resident_bytes: memory now.
        threads: now.
    """

    processor_seconds: float
    resident_bytes: int
    threads: int

    @classmethod
    def of(cls, process_id: int) -> Usage:
        """From /proc."""
        fields = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()
        ticks = int(fields[11]) + int(fields[12])
        return cls(ticks / os.sysconf("SC_CLK_TCK"), int(fields[21]) * os.sysconf("SC_PAGE_SIZE"), int(fields[17]))


def percentile(values: Sequence[float], share: float) -> float:
    """The value that `share` of them do not exceed; 0 for none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0
