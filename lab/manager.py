"""The relay manager as a process, and simulated routers as others: for the demonstration, crash tests and bench."""

from __future__ import annotations

import contextlib
import os
import random
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx

from lab.namespaces import LabError, stop, wait_until

PROGRAM: Final = str(Path(sys.executable).with_name("relaymgr"))
FINISHED: Final = frozenset({"succeeded", "failed", "rolled_back", "cancelled", "uncertain"})
_START_SECONDS: Final = 60.0
_PORTS: Final = range(20_000, 32_000)
USERNAME: Final = "isthmus"


def free_port() -> int:
    """A TCP port of the loopback interface that nobody uses now.

    Below those that Linux gives to outgoing connections: one of these could take it before it is listened on, or while
    who listens there is killed and started again.
    """
    for port in random.sample(_PORTS, 100):
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise LabError(f"no free TCP port from {_PORTS.start} up")


class Manager:
    """`relaymgr serve` on loopback, killed and started again as often as wanted; its database survives.

    Attributes:
        url: where it listens.
        log: file with what it printed, of all its lives.
        token: an administrator's API token, of the first life.
    """

    def __init__(self, directory: Path, *, database_url: str | None = None, options: tuple[str, ...] = ()) -> None:
        """`options` are further flags of `relaymgr serve`."""
        self._directory = directory
        self._options = options
        self.database_url = database_url or f"sqlite+aiosqlite:///{directory / 'relaymgr.db'}"
        self.url = f"http://127.0.0.1:{free_port()}"
        self.log = directory / "relaymgr.log"
        self.token = ""
        self._process: subprocess.Popen[bytes] | None = None
        self._client: httpx.Client | None = None

    @property
    def process_id(self) -> int:
        """Process id of the life that runs."""
        assert self._process is not None
        return self._process.pid

    @property
    def environment(self) -> dict[str, str]:
        """What the command line of the manager needs to reach this one."""
        own = {"ISTHMUS_DATABASE_URL": self.database_url, "ISTHMUS_URL": self.url, "ISTHMUS_TOKEN": self.token}
        return {name: value for name, value in os.environ.items() if not name.startswith("ISTHMUS_")} | own

    def start(self) -> None:
        """Start it and wait until it is ready.

        Raises:
            LabError: it ended, or is not ready in time.
        """
        listen = self.url.removeprefix("http://")
        command = [PROGRAM, "serve", "--listen", listen, "--database-url", self.database_url, *self._options]
        environment = {name: value for name, value in self.environment.items() if name != "ISTHMUS_TOKEN"}
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        wait_until(self._ready, _START_SECONDS, "the relay manager is ready")
        if not self.token:
            self.token = self._first_token()
        self._client = httpx.Client(
            base_url=f"{self.url}/api/v1", headers={"Authorization": f"Bearer {self.token}"}, timeout=60.0
        )

    def _ready(self) -> bool:
        assert self._process is not None
        if (status := self._process.poll()) is not None:
            raise LabError(f"relaymgr ended with status {status}\n{self.log_tail()}")
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(f"{self.url}/readyz").status_code == httpx.codes.OK
        return False

    def _first_token(self) -> str:
        command = [PROGRAM, "token", "create", "--role", "admin", "--name", "lab", "--quiet"]
        environment = {
            name: value for name, value in self.environment.items() if name not in {"ISTHMUS_URL", "ISTHMUS_TOKEN"}
        }
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise LabError(f"relaymgr token create: {done.stderr.strip()}")
        return done.stdout.strip()

    def kill(self) -> None:
        """SIGKILL."""
        assert self._process is not None
        self._hang_up()
        self._process.kill()
        self._process.wait()

    def stop(self) -> int:
        """SIGTERM, and the exit status."""
        self._hang_up()
        return 0 if self._process is None else stop(self._process, 20.0)

    def _hang_up(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    def request(self, method: str, path: str, **arguments: Any) -> httpx.Response:  # noqa: ANN401 - httpx's own
        """A request below /api/v1, whatever the answer."""
        assert self._client is not None
        return self._client.request(method, path, **arguments)

    def call(self, method: str, path: str, **arguments: Any) -> Any:  # noqa: ANN401 - JSON
        """What a request answers.

        Raises:
            LabError: it was refused.
        """
        answer = self.request(method, path, **arguments)
        if answer.is_error:
            raise LabError(f"{method} {path}: {answer.status_code} {answer.text[:1000]}")
        return answer.json() if answer.content else None

    def items(self, path: str) -> list[dict[str, Any]]:
        """The first page of a collection."""
        found: list[dict[str, Any]] = self.call("GET", path)["items"]
        return found

    def put_intent(self, relay_id: str, intent: dict[str, Any]) -> None:
        """Give a relay an intent, whatever it had."""
        etag = self.request("GET", f"/relays/{relay_id}/intent").headers["ETag"]
        self.call("PUT", f"/relays/{relay_id}/intent", json=intent, headers={"If-Match": etag})

    def wait_for_job(
        self, job_id: str, seconds: float = 120.0, until: Callable[[dict[str, Any]], bool] | None = None
    ) -> dict[str, Any]:
        """The job once it is finished, or `until` holds.

        Raises:
            LabError: not in time.
        """
        reached = until or (lambda job: job["state"] in FINISHED)
        deadline = time.monotonic() + seconds
        while not reached(job := self.call("GET", f"/jobs/{job_id}")):
            if time.monotonic() > deadline:
                raise LabError(
                    f"not within {seconds:g} s: job {job['kind']} ends; it is {job['state']}, {job['phase']}"
                )
            time.sleep(0.1)
        found: dict[str, Any] = job
        return found

    def log_tail(self) -> str:
        """The end of the log."""
        return self.log.read_text(errors="replace")[-4000:] if self.log.exists() else ""


@dataclass(frozen=True, slots=True)
class Simulated:
    """A simulated router that listens.

    Attributes:
        kind: mx80, iosxe or ios.
        port: SSH port (MX80: NETCONF) on 127.0.0.1.
        netconf_port: IOS-XE's NETCONF port.
        process: its process.
        log: file of its wire messages, JSON lines.
        state: file that keeps it over a restart.
    """

    kind: str
    port: int
    netconf_port: int | None
    process: subprocess.Popen[bytes]
    log: Path
    state: Path

    def messages(self) -> str:
        """Its wire messages so far."""
        return self.log.read_text() if self.log.exists() else ""


@contextlib.contextmanager
def simulated(kind: str, directory: Path, password: str, *options: str, name: str = "") -> Iterator[Simulated]:
    """Run `python -m lab sim KIND` until left; `options` are further flags.

    Raises:
        LabError: it ended, or does not listen in time.
    """
    name = name or kind
    port, netconf_port = free_port(), free_port() if kind == "iosxe" else None
    password_file = directory / f"{name}.password"
    password_file.touch(mode=0o600)
    password_file.write_text(password)
    log, state = directory / f"{name}.wire", directory / f"{name}.state"
    command = [sys.executable, "-m", "lab", "sim", kind, "--listen", f"127.0.0.1:{port}", "--username", USERNAME]
    command += ["--password-file", str(password_file), "--log", str(log), "--state", str(state), *options]
    if netconf_port is not None:
        command += ["--netconf-port", str(netconf_port)]
    output = directory / f"{name}.log"
    with output.open("ab") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out)
    try:
        wait_until(lambda: _listens(process, port, output), _START_SECONDS, f"the simulated {kind} listens")
        yield Simulated(kind, port, netconf_port, process, log, state)
    finally:
        stop(process)


def _listens(process: subprocess.Popen[bytes], port: int, output: Path) -> bool:
    if (status := process.poll()) is not None:
        raise LabError(f"the simulator ended with status {status}\n{output.read_text()[-2000:]}")
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1.0) as connection:
        return bool(re.match(rb"SSH-2", connection.recv(16)))
    return False
