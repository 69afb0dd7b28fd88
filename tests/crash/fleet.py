"""Simulated routers in a process of their own, each of which can be made to stand still after any wire message."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lab.manager import USERNAME
from lab.namespaces import stop, wait_until

PASSWORD = "synthetic-crash-password"
START_SECONDS = 60.0


@dataclass
class Fleet:
    """`count` routers of one kind. `start` may be called again after `stop`: ports, keys and state are kept."""

    kind: str
    directory: Path
    count: int = 1
    options: Sequence[str] = ()
    name: str = ""
    addresses: list[dict[str, Any]] = field(default_factory=list)
    _process: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        self.name = self.name or self.kind
        self.control = self.directory / f"{self.name}.ctl"

    def start(self) -> None:
        ready = self.directory / f"{self.name}.ready"
        ready.unlink(missing_ok=True)
        password = self.directory / f"{self.name}.password"
        password.write_text(PASSWORD)
        key = self.directory / f"{self.name}.key"
        if not key.exists():
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
        first = self.addresses[0] if self.addresses else {"port": 0, "netconf_port": 0}
        assert not self.addresses or self.count == 1, "only a single router comes back to its port"
        command = [sys.executable, "-m", "lab", "sim", self.kind, "--listen", f"127.0.0.1:{first['port']}"]
        command += ["--count", str(self.count), "--username", USERNAME, "--password-file", str(password)]
        command += ["--host-key", str(key), "--control", str(self.control), "--ready-file", str(ready)]
        command += ["--log", str(self._file("wire", 0)), "--state", str(self._file("state", 0)), *self.options]
        if self.kind == "iosxe":
            command += ["--netconf-port", str(first["netconf_port"])]
        output = self.directory / f"{self.name}.output"
        with output.open("ab") as out:
            self._process = subprocess.Popen(command, stdout=out, stderr=out)
        process = self._process
        wait_until(lambda: ready.exists() or process.poll() is not None, START_SECONDS, "the routers listen")
        assert process.poll() is None, output.read_text()
        self.addresses = json.loads(ready.read_text())

    def stop(self) -> None:
        if self._process is not None:
            stop(self._process)
            self._process = None

    def order(self, index: int | None = None, **order: Any) -> dict[str, Any]:
        """Have the control socket obey; `index` chooses one router."""
        if index is not None:
            order["index"] = index
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(self.control))
            connection.sendall(json.dumps(order).encode() + b"\n")
            answer: dict[str, Any] = json.loads(connection.makefile().readline())
        assert "error" not in answer, answer
        return answer

    def held(self) -> set[int]:
        """Which routers stand still."""
        return set(self.order().get("held", ()))

    def messages(self, index: int = 0) -> list[dict[str, Any]]:
        """Everything that went over the wire to and from a router; empty before the first message."""
        path = self._file("wire", index)
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def stored(self, index: int = 0) -> dict[str, Any] | None:
        """What a router keeps over a restart; None when nothing changed it so far."""
        path = self._file("state", index)
        text = path.read_text() if path.exists() else ""
        return json.loads(text) if text else None

    def configuration(self, index: int = 0) -> str | None:
        """All of its configuration, in whatever notation it is kept, without its own host name; None: the first one."""
        if (stored := self.stored(index)) is None:
            return None
        return _without_name(stored["commits"][0]["configuration"] if self.kind == "mx80" else stored["running"])

    def first_configuration(self, index: int = 0) -> str | None:
        """The oldest configuration that its history or archive keeps; None: it never had another."""
        if (stored := self.stored(index)) is None:
            return None
        return _without_name(stored["commits"][-1]["configuration"] if self.kind == "mx80" else stored["archive"][0][1])

    def saved(self, index: int = 0) -> bool:
        """Whether the router would start with the configuration it runs with."""
        stored = self.stored(index)
        return stored is None or self.kind == "mx80" or stored["startup"]["text"] == stored["running"]

    def window_open(self, index: int = 0) -> bool:
        """Whether a change waits for its confirmation."""
        stored = self.stored(index) or {}
        return bool(stored.get("deadline") if self.kind == "mx80" else stored.get("revert"))

    def commits(self, index: int, mark: str) -> list[str]:
        """Logs of the commits that carry `mark`, the latest first (MX80 only)."""
        commits = (self.stored(index) or {"commits": []})["commits"]
        return [str(one["log"]) for one in commits if mark in str(one["log"])]

    def _file(self, what: str, index: int) -> Path:
        return self.directory / (f"{self.name}.{what}" + (f".{index}" if index else ""))


def _without_name(configuration: str) -> str:
    return re.sub(r"<host-name>.*?</host-name>|^hostname .*$", "", configuration, flags=re.MULTILINE)


@contextlib.contextmanager
def running(fleet: Fleet) -> Iterator[Fleet]:
    """Have it run until left."""
    fleet.start()
    try:
        yield fleet
    finally:
        fleet.stop()
