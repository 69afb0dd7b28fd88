"""What the stories play on: routers of a simulator, the manager, and an independent look at the routers."""

from __future__ import annotations

import json
import os
import re
import secrets
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from lab.manager import USERNAME, Manager
from lab.namespaces import stop, wait_until
from relaymgr.cli import main as relaymgr

PASSWORD = secrets.token_urlsafe(16)
MINUTE_SECONDS = 6.0
"""What a minute of a confirm window lasts on the simulated routers; the manager sends real minutes."""

_CHANGES = re.compile(r"lock|load|commit|edit|copy|discard|config|write|reload|delete|kill")
PLATFORM = {"mx80": "junos", "iosxe": "iosxe", "ios": "ios"}
FAMILY = {"anycast_prefix": "192.0.2.0/25", "anycast_address": "192.0.2.1", "local_address": "198.51.100.7"}
INTENTS: dict[str, dict[str, Any]] = {
    "mx80": {
        "inet": FAMILY,
        "tunnel_limit": 5000,
        "accounting": True,
        "tunnel_services": {"fpc": 1, "pic": 0, "bandwidth_gbps": 1},
        "junos": {"tunnel_devices": ["ud-1/0/0"]},
    },
    "iosxe": {
        "inet": FAMILY,
        "pim_interfaces": [{"name": "GigabitEthernet1"}],
        "iosxe": {"tunnel_address": "10.226.8.1", "tunnel_prefix_length": 24},
    },
}


@dataclass(frozen=True)
class Router:
    """One simulated router; `order` is what its control socket understands."""

    kind: str
    index: int
    port: int
    netconf_port: int | None
    host_key: str
    wire: Path
    control: Path

    def order(self, **order: Any) -> dict[str, Any]:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(30.0)
            connection.connect(str(self.control))
            connection.sendall(json.dumps({"index": self.index, **order}).encode() + b"\n")
            answer: dict[str, Any] = json.loads(connection.makefile().readline())
        assert "error" not in answer, answer
        return answer

    def messages(self) -> list[dict[str, Any]]:
        """What the router was told so far."""
        lines = [json.loads(line) for line in self.wire.read_text().splitlines()] if self.wire.exists() else []
        return [line for line in lines if line["direction"] == "in"]

    def changes_sent(self) -> list[str]:
        """The messages so far that change, lock or begin to configure something."""
        return [line["kind"] for line in self.messages() if _CHANGES.match(line["kind"])]

    def configuration(self) -> str:
        """The whole configuration, read by a program that is not the manager's."""
        return _junos_text(self) if self.kind == "mx80" else _ios_text(self)


def _junos_text(router: Router) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from jnpr.junos import Device

        with Device(host="127.0.0.1", port=router.port, user=USERNAME, password=PASSWORD, gather_facts=False) as device:
            answer = device.rpc.get_config(options={"format": "text", "database": "committed"})
    return re.sub(r"(?m)^## Last .*\n", "", answer.text)


def _ios_text(router: Router) -> str:
    from netmiko import ConnectHandler

    with ConnectHandler(
        device_type="cisco_xe", host="127.0.0.1", port=router.port, username=USERNAME, password=PASSWORD
    ) as line:
        shown = str(line.send_command("show running-config", read_timeout=60))
    return re.sub(r"(?m)^(Current configuration|! Last configuration|! NVRAM|Building configuration).*\n", "", shown)


@contextmanager
def routers(kind: str, directory: Path, count: int, *options: str) -> Iterator[Iterator[Router]]:
    """`count` routers in one process, handed out one after the other, each to one story."""
    password, ready, control = (directory / f"{kind}.{end}" for end in ("password", "ready", "ctl"))
    password.write_text(PASSWORD)
    wire = directory / f"{kind}.wire"
    command = [sys.executable, "-m", "lab", "sim", kind, "--listen", "127.0.0.1:0", "--count", str(count)]
    command += ["--username", USERNAME, "--password-file", str(password), "--control", str(control)]
    command += ["--minute-seconds", str(MINUTE_SECONDS), "--tick-seconds", "1", "--ready-file", str(ready)]
    command += ["--log", str(wire), *options, *(("--netconf-port", "0") if kind == "iosxe" else ())]
    with (directory / f"{kind}.output").open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        wait_until(lambda: ready.exists() or process.poll() is not None, 60.0, f"the routers ({kind}) listen")
        assert process.poll() is None, (directory / f"{kind}.output").read_text()
        yield iter(
            [
                Router(
                    kind, index, place["port"], place.get("netconf_port"), place["host_key"],
                    wire.with_name(f"{wire.name}.{index}") if index else wire, control,
                )
                for index, place in enumerate(json.loads(ready.read_text()))
            ]
        )  # fmt: skip
    finally:
        stop(process)


@dataclass
class Noc:
    """An operator's desk: the manager, and routers nobody used yet."""

    manager: Manager
    spare: dict[str, Iterator[Router]]

    def router(self, kind: str) -> Router:
        return next(self.spare[kind])

    def credential(self) -> str:
        """The shared login of the routers."""
        found = self.manager.items("/credentials?name=routers")
        if found:
            return str(found[0]["id"])
        sealed = {"name": "routers", "username": USERNAME, "kind": "password", "source": "sealed", "secret": PASSWORD}
        return str(self.manager.call("POST", "/credentials", json=sealed)["id"])

    def enrol(self, router: Router, name: str, *, intent: bool = True, **more: Any) -> str:
        """Tell the manager of a router over REST; the relay's identifier."""
        relay = {
            "name": name, "platform": PLATFORM[router.kind], "host": "127.0.0.1", "port": router.port,
            "netconf_port": router.netconf_port, "host_key": router.host_key, "credential_id": self.credential(),
            "poll_interval_seconds": 5, "connect_timeout_seconds": 10, "rpc_timeout_seconds": 15,
            "commit_timeout_seconds": 20,
        }  # fmt: skip
        identifier = str(self.manager.call("POST", "/relays", json=relay | more)["id"])
        if intent:
            self.manager.put_intent(identifier, INTENTS[router.kind])
        return identifier

    def plan(self, relay: str, kind: str = "apply") -> dict[str, Any]:
        made: dict[str, Any] = self.manager.call("POST", f"/relays/{relay}/plan", json={"kind": kind})
        return made

    def start_apply(self, relay: str, minutes: int = 5, **more: Any) -> dict[str, Any]:
        """Plan and apply; the job as answered."""
        body = {"plan": self.plan(relay)["id"], "confirm_minutes": minutes, "comment": "acceptance", **more}
        job: dict[str, Any] = self.manager.call("POST", f"/relays/{relay}/apply", json=body)
        return job

    def apply(self, relay: str, minutes: int = 5) -> dict[str, Any]:
        """Plan and apply; the job when it ended."""
        return self.manager.wait_for_job(self.start_apply(relay, minutes)["id"])

    def change(self, relay: str, kind: str, **body: Any) -> dict[str, Any]:
        """Drain, undrain, roll back or restore; the job when it ended."""
        job = self.manager.call("POST", f"/relays/{relay}/{kind}", json={"confirm_minutes": 5, **body})
        return self.manager.wait_for_job(job["id"])

    def relay(self, relay: str) -> dict[str, Any]:
        found: dict[str, Any] = self.manager.call("GET", f"/relays/{relay}")
        return found

    def log_of(self, job: str) -> str:
        """What a job wrote, for messages of failing tests too."""
        return "\n".join(f"{row['phase']}: {row['message']}" for row in self.manager.items(f"/jobs/{job}/log"))

    def problem(self, method: str, path: str, **arguments: Any) -> tuple[int, dict[str, Any]]:
        """Status and problem of a request that is to be refused."""
        answer = self.manager.request(method, path, **arguments)
        return answer.status_code, answer.json()

    def cli(self, *arguments: str, status: int | tuple[int, ...] = 0, given: str | None = None) -> Any:
        """Run `relaymgr … --json`; what it printed."""
        # In this process: a program of its own takes a second to load, and the stories say a hundred commands.
        environment = self.manager.environment | {"HOME": os.devnull}
        done = CliRunner().invoke(relaymgr, [*arguments, "--json"], env=environment, input=given)
        expected = (status,) if isinstance(status, int) else status
        assert done.exit_code in expected, f"{arguments}: {done.exit_code}\n{done.stdout}\n{done.stderr}"
        return json.loads(done.stdout) if done.stdout else None


def statements(configuration: str) -> list[str]:
    """Lines of a configuration, sorted: a list entry of ours that went and came back may stand after its sister."""
    return sorted(configuration.splitlines())


def eventually(look: Callable[[], Any], seconds: float = 30.0) -> Any:
    """What `look` returns, once that is true; fails with the last thing seen."""
    deadline = time.monotonic() + seconds
    while not (seen := look()):
        assert time.monotonic() < deadline, f"not in {seconds:g} s; {seen!r}"
        time.sleep(0.1)
    return seen
