"""How long a plan takes on one device, and a change of fifty relays in waves."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, Final

from lab.bench.manager_fleet import CREDENTIAL, Device, Usage, percentile
from lab.manager import Manager
from lab.namespaces import LabError
from relaymgr.domain.intent import RelayIntent
from relaymgr.drivers.iosxe import IosxeDriver
from relaymgr.drivers.junos import JunosDriver
from relaymgr.drivers.protocol import Driver, DriverContext

WAVES: Final = (1, 5, 44)
PLANS: Final = 10
_FINISHED: Final = frozenset({"succeeded", "failed", "aborted", "cancelled", "paused"})
_ROLLOUT_SECONDS: Final = 180.0
_FAMILY: Final = {"anycast_prefix": "192.0.2.0/25", "anycast_address": "192.0.2.1", "local_address": "198.51.100.7"}
INTENTS: Final[dict[str, dict[str, Any]]] = {
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


@dataclass(slots=True)
class Plans:
    """Plans made on one device, one after the other.

    Attributes:
        name: driver and transport.
        seconds: what each took, its login included.
        changed_lines: of the difference.
    """

    name: str
    seconds: list[float] = field(default_factory=list)
    changed_lines: int = 0

    def milliseconds(self, share: float) -> float:
        """A percentile."""
        return 1000 * percentile(self.seconds, share)


@dataclass(frozen=True, slots=True)
class Waves:
    """A rollout.

    Attributes:
        sizes: relays of each wave.
        error_budget: relays that may fail.
        counts: relays by how they ended.
        state: how the rollout ended.
        seconds: from the request to its end.
        threads: of the manager, most seen.
        idle_threads: of the manager before.
    """

    sizes: tuple[int, ...]
    error_budget: int
    counts: dict[str, int]
    state: str
    seconds: float
    threads: int
    idle_threads: int


def measure_plans(mx80: Device, iosxe: Device) -> list[Plans]:
    """Through PyEZ, through our own session, and on IOS-XE."""
    return asyncio.run(_measure_plans(mx80, iosxe))


async def _measure_plans(mx80: Device, iosxe: Device) -> list[Plans]:
    with ThreadPoolExecutor(2) as executor:
        context = DriverContext(executor)
        # With old algorithms allowed the driver does without PyEZ, which has none of them.
        own = replace(mx80.target, legacy_ssh=True)
        return [
            await _plan("Junos over PyEZ", JunosDriver(mx80.target, CREDENTIAL, context), "mx80"),
            await _plan("Junos over our own session", JunosDriver(own, CREDENTIAL, context), "mx80"),
            await _plan("IOS-XE", IosxeDriver(iosxe.target, CREDENTIAL, context), "iosxe"),
        ]


async def _plan(name: str, driver: Driver, kind: str) -> Plans:
    desired = driver.render(RelayIntent.model_validate(INTENTS[kind]), drained=False)
    found = Plans(name)
    try:
        for _ in range(PLANS):
            started = time.monotonic()
            plan = await driver.plan(desired)
            found.seconds.append(time.monotonic() - started)
            found.changed_lines = sum(line.startswith(("+", "-")) for line in plan.diff.splitlines())
    finally:
        await driver.close()
    return found


def measure_waves(
    manager: Manager, identifiers: dict[str, str], devices: Sequence[Device], sizes: Sequence[int]
) -> Waves:
    """Give each relay an intent and apply it in waves; the last one refuses every commit, which the budget allows.

    Raises:
        LabError: the rollout does not end.
    """
    devices[-1].fault("commit-refused")
    for name in identifiers.values():
        manager.put_intent(name, INTENTS["mx80"])
    budget = 1
    idle = threads = Usage.of(manager.process_id).threads
    order = {"name": "bench", "relay_ids": [identifiers[device.name] for device in devices], "sizes": list(sizes)}
    started = time.monotonic()
    rollout = manager.call("POST", "/rollouts", json=order | {"error_budget": budget, "comment": "bench"})
    while rollout["state"] not in _FINISHED:
        if time.monotonic() - started > _ROLLOUT_SECONDS:
            raise LabError(f"the rollout is {rollout['state']} after {_ROLLOUT_SECONDS:g} s: {rollout['counts']}")
        time.sleep(0.1)
        threads = max(threads, Usage.of(manager.process_id).threads)
        rollout = manager.call("GET", f"/rollouts/{rollout['id']}")
    seconds = time.monotonic() - started
    return Waves(tuple(sizes), budget, rollout["counts"], rollout["state"], seconds, threads, idle)
