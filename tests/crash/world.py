"""The real service and simulated routers as processes; what one does with them, many at a time."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from crash.fleet import PASSWORD, Fleet

from lab.manager import FINISHED, USERNAME, Manager
from lab.namespaces import LabError, wait_until

PLATFORM = {"mx80": "junos", "iosxe": "iosxe"}
CONFIRM_MINUTES = 5
COMMIT_SECONDS = 20.0
_FAMILY = {"anycast_prefix": "192.0.2.0/25", "anycast_address": "192.0.2.1", "local_address": "198.51.100.7"}
INTENTS: dict[str, dict[str, Any]] = {
    "mx80": {
        "inet": _FAMILY,
        "tunnel_limit": 5000,
        "accounting": True,
        "tunnel_services": {"fpc": 1, "pic": 0, "bandwidth_gbps": 1},
        "junos": {"tunnel_devices": ["ud-1/0/0"]},
    },
    "iosxe": {
        "inet": _FAMILY,
        "pim_interfaces": [{"name": "GigabitEthernet1"}],
        "iosxe": {"tunnel_address": "10.226.8.1", "tunnel_prefix_length": 24},
    },
}
CHANGED: dict[str, dict[str, Any]] = {
    "mx80": INTENTS["mx80"] | {"tunnel_limit": 4000},
    "iosxe": INTENTS["iosxe"] | {"iosxe": {"tunnel_address": "10.226.9.1", "tunnel_prefix_length": 24}},
}
YEARS = "315360000"
"""Interval of what is not to come between: each relay has its own moment in it, and every one is then far away."""
SERVE = (
    "--no-poll",
    "--job-lease-seconds",
    "6",
    "--workers",
    "200",
    "--device-threads",
    "200",
    "--drift-interval-seconds",
    YEARS,
    "--backup-interval-seconds",
    YEARS,
)

Item = TypeVar("Item")
Result = TypeVar("Result")


def side_by_side(work: Callable[[Item], Result], items: Iterable[Item], at_a_time: int = 12) -> list[Result]:
    """Results of `work`, in the order of `items`."""
    with ThreadPoolExecutor(at_a_time) as pool:
        return list(pool.map(work, items))


@dataclass(frozen=True)
class Enrolled:
    """A router the manager knows."""

    fleet: Fleet
    index: int
    id: str


@contextlib.contextmanager
def managed(directory: Path, *options: str, database_url: str | None = None) -> Iterator[Manager]:
    """A manager that runs until left."""
    manager = Manager(directory, database_url=database_url, options=(*SERVE, *options))
    try:
        manager.start()
        sealed = {"name": "routers", "username": USERNAME, "kind": "password", "source": "sealed", "secret": PASSWORD}
        manager.call("POST", "/credentials", json=sealed)
        yield manager
    finally:
        manager.stop()


def enrol(manager: Manager, fleet: Fleet, indices: Iterable[int] | None = None, **more: Any) -> list[Enrolled]:
    """Tell the manager of routers, each with its intent."""
    credential = manager.items("/credentials")[0]["id"]

    def one(index: int) -> Enrolled:
        address = fleet.addresses[index]
        relay = {
            "name": f"{fleet.name}-{index}", "platform": PLATFORM[fleet.kind], "host": "127.0.0.1",
            "port": address["port"], "netconf_port": address["netconf_port"], "host_key": address["host_key"],
            "credential_id": credential, "rpc_timeout_seconds": 300, "connect_timeout_seconds": 300,
            "commit_timeout_seconds": COMMIT_SECONDS,
        }  # fmt: skip
        identifier = manager.call("POST", "/relays", json=relay | more)["id"]
        manager.put_intent(identifier, INTENTS[fleet.kind])
        return Enrolled(fleet, index, identifier)

    return [one(index) for index in (range(fleet.count) if indices is None else indices)]


def backed_up(manager: Manager, relays: list[Enrolled]) -> None:
    """Wait for the manager's first backup of each new relay, which could come between the messages of a change."""
    for relay in relays:
        wait_until(lambda: backups(manager, relay), 120.0, "the first backup", 0.2)  # noqa: B023


def checked(manager: Manager, relay: Enrolled) -> None:
    """Look for drift, which the manager else does of its own accord as soon as a change was applied."""
    job = str(manager.call("POST", f"/relays/{relay.id}/check-drift")["id"])
    finished(manager, [job], 60.0)


def backups(manager: Manager, relay: Enrolled, reason: str = "") -> list[dict[str, Any]]:
    """Those of a relay, taken for `reason` if one is given."""
    return manager.items(f"/backups?relay_id={relay.id}" + (f"&reason={reason}" if reason else ""))


def plan(manager: Manager, relay: Enrolled) -> dict[str, Any]:
    """A plan of an apply."""
    made: dict[str, Any] = manager.call("POST", f"/relays/{relay.id}/plan", json={"kind": "apply"})
    return made


def apply(manager: Manager, relay: Enrolled, plan_id: str, minutes: int = CONFIRM_MINUTES) -> str:
    """Start to carry out a plan; the job's id."""
    body = {"plan": plan_id, "confirm_minutes": minutes, "comment": "crash test"}
    return str(manager.call("POST", f"/relays/{relay.id}/apply", json=body)["id"])


def finished(manager: Manager, jobs: Iterable[str], seconds: float) -> dict[str, dict[str, Any]]:
    """The jobs by id, once all have ended."""
    deadline, waiting, ended = time.monotonic() + seconds, list(jobs), {}
    while waiting:
        for job_id in list(waiting):
            job = manager.call("GET", f"/jobs/{job_id}")
            if job["state"] in FINISHED:
                ended[job_id] = job
                waiting.remove(job_id)
        if waiting and time.monotonic() > deadline:
            raise LabError(f"{len(waiting)} jobs do not end; one is {job['state']}, {job['phase']}\n{job}")
        time.sleep(0.2 if waiting else 0)
    return ended


def change_again(manager: Manager, relay: Enrolled) -> None:
    """Another change of the relay goes well."""
    manager.put_intent(relay.id, CHANGED[relay.fleet.kind])
    job = apply(manager, relay, plan(manager, relay)["id"])
    assert finished(manager, [job], 60.0)[job]["state"] == "succeeded"
