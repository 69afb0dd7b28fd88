"""A synthetic device in memory with a confirm window and a timer, and processes of the manager that die on demand.

Time is the world's and only passes when told. A `Process` is one worker process: everything it does to the device or
the database goes through its `checkpoint`, where it may be killed; a dead process does nothing any more, not even
tidying up.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import Any

from relaymgr.domain.configuration import (
    Change,
    ChangeReading,
    Confirmation,
    DevicePlan,
    DiffSource,
    OwnedConfiguration,
)
from relaymgr.domain.differences import unified
from relaymgr.domain.intent import RelayIntent
from relaymgr.domain.observed import CommitRecord, Facts, Observation, PimNeighbor, Statistics
from relaymgr.domain.platforms import Capabilities, Capability, Platform
from relaymgr.drivers.errors import (
    ConfigurationChanged,
    ConfigurationRefused,
    ConfirmWindowOpen,
    DeviceBusy,
    DriverError,
    SessionLost,
    Unreachable,
)

START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


class Crash(BaseException):
    """The process was killed."""


class World:
    """Time, and what all processes see."""

    def __init__(self) -> None:
        self.now = START

    def clock(self) -> datetime:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    async def sleep(self, seconds: float) -> None:
        self.advance(seconds)
        await asyncio.sleep(0)


@dataclasses.dataclass
class OpenWindow:
    mark: str
    back_to: dict[str, str]
    until: datetime


class FakeDevice:
    """What is true on the device."""

    def __init__(self, world: World, *, tells: bool = True) -> None:
        self.world = world
        self.sections: dict[str, str] = {"hostname": "synthetic"}
        self.window: OpenWindow | None = None
        self.tells = tells
        """Whether it tells about confirm windows."""
        self.log: list[tuple[str, str]] = []
        """(event, mark): begun, confirmed, reverted, timer, foreign."""
        self.neighbors = [PimNeighbor(ip_address("192.0.2.2"), "ge-0/0/0.0")]
        self.neighbors_with_change = list(self.neighbors)
        self.capabilities = frozenset(Capability)
        self.reachable = True
        self.reachable_with_change = True
        self.users: set[object] = set()
        self.faults: dict[str, tuple[str, DriverError]] = {}
        """Method -> (before|after its effect, error), used once."""
        self.late_commit: float | None = None
        """A commit happens so many seconds after the session that asked for it was lost."""
        self._late: tuple[datetime, Callable[[], None]] | None = None
        self.on: dict[str, Callable[[], None]] = {}
        """Method -> called right after its effect, once: somebody else at the same time."""
        self.last_commit: CommitRecord | None = None
        self.saved: bool | None = None
        """Whether what it runs with also is what it starts with; None: it saves what is committed, as Junos does."""
        self.unsavable = False

    def settle(self) -> None:
        """What time brings."""
        if self._late is not None and self.world.now >= self._late[0]:
            late, self._late = self._late[1], None
            late()
        if self.window is not None and self.world.now >= self.window.until:
            self.log.append(("timer", self.window.mark))
            self.sections, self.window = self.window.back_to, None

    def owned(self, scope: tuple[str, ...]) -> OwnedConfiguration:
        self.settle()
        lines = [f"{name}: {self.sections[name]}\n" for name in sorted(scope) if name in self.sections]
        return OwnedConfiguration(tuple(sorted(scope)), "".join(lines))

    @property
    def fingerprint(self) -> str:
        return repr(sorted(self.sections.items()))

    def load(self, change: Change) -> None:
        wanted = dict(line.split(": ", 1) for line in change.desired.text.splitlines())
        for name in change.desired.scope:
            self.sections.pop(name, None)
        self.sections.update(wanted)

    def begin(self, change: Change) -> None:
        def commit() -> None:
            back_to = dict(self.sections)
            self.load(change)
            until = self.world.now + timedelta(minutes=change.confirm_minutes)
            self.window = OpenWindow(change.mark, back_to, until)
            self.saved = None if self.saved is None else False
            self.log.append(("begun", change.mark))

        if self.late_commit is not None:
            self._late = (self.world.now + timedelta(seconds=self.late_commit), commit)
            raise SessionLost("synthetic", "the session broke while committing")
        commit()

    def foreign(self, name: str, value: str, *, confirmed: bool = True, minutes: float = 10) -> None:
        """Somebody else commits; on this device, as on Junos, any commit confirms what waits."""
        back_to = dict(self.sections)
        self.sections[name] = value
        self.window = None
        if not confirmed:
            self.window = OpenWindow("somebody", back_to, self.world.now + timedelta(minutes=minutes))
        self.log.append(("foreign", name))
        self.last_commit = CommitRecord(user="somebody", at=self.world.now)

    def count(self, event: str, mark: str) -> int:
        return self.log.count((event, mark))


class FakeDriver:
    """A session of one process to the device."""

    platform = Platform.JUNOS

    def __init__(self, device: FakeDevice, checkpoint: Callable[[str], None]) -> None:
        self.device = device
        self._checkpoint = checkpoint

    def capabilities(self) -> Capabilities:
        return Capabilities(self.device.capabilities)

    def render(self, intent: RelayIntent, *, drained: bool) -> OwnedConfiguration:
        assert intent.inet is not None
        text = f"amt: local {intent.inet.local_address} limit {intent.tunnel_limit}\n"
        if not drained:
            text += f"anycast: {intent.inet.anycast_prefix}\n"
        return OwnedConfiguration(("amt", "anycast"), text)

    @asynccontextmanager
    async def _call(self, name: str) -> AsyncIterator[FakeDevice]:
        await asyncio.sleep(0)
        device = self.device
        device.settle()
        self._checkpoint(f"before {name}")
        changed = any(event == "begun" for event, _ in device.log) and device.window is not None
        if not device.reachable or (changed and not device.reachable_with_change):
            raise Unreachable("synthetic", "no route")
        when, error = device.faults.get(name, ("", None))
        if error is not None:
            del device.faults[name]
            if when == "before":
                raise error
        yield device
        if (also := device.on.pop(name, None)) is not None:
            also()
        self._checkpoint(f"after {name}")
        if error is not None:
            raise error

    async def facts(self) -> Facts:
        async with self._call("facts"):
            return Facts(hostname="synthetic")

    async def device_capabilities(self) -> Capabilities:
        async with self._call("device_capabilities"):
            return Capabilities(self.device.capabilities)

    async def observe(self) -> Observation:
        async with self._call("observe") as device:
            neighbors = device.neighbors_with_change if device.window is not None else device.neighbors
            return Observation(tunnels=(), channels=(), pim_neighbors=tuple(neighbors), statistics=Statistics())

    async def read_owned(self, scope: tuple[str, ...]) -> OwnedConfiguration:
        async with self._call("read_owned") as device:
            return device.owned(scope)

    async def read_configuration(self) -> str:
        async with self._call("read_configuration") as device:
            return "".join(f"{name}: {value}\n" for name, value in sorted(device.sections.items()))

    async def plan(self, desired: OwnedConfiguration) -> DevicePlan:
        async with self._call("plan") as device:
            if device.window is not None:
                assert device.window.mark == "somebody", "planning inside a window of our own"
                raise ConfirmWindowOpen("synthetic", "checking anything would confirm what waits")
            before = device.owned(desired.scope)
            diff = unified(before.text, desired.text)
            return DevicePlan(diff, DiffSource.DEVICE, desired.text, before, device.fingerprint)

    async def begin_change(self, change: Change) -> None:
        async with self._call("begin_change") as device:
            if device.window is not None:
                raise ConfirmWindowOpen("synthetic", "a commit waits for its confirmation")
            if device.fingerprint != change.device_fingerprint:
                raise ConfigurationChanged("synthetic", "not as planned")
            device.begin(change)

    async def read_change(self, change: Change) -> ChangeReading:
        async with self._call("read_change") as device:
            owned, window = device.owned(change.desired.scope), device.window
            if not device.tells:
                return ChangeReading(owned, Confirmation.UNKNOWN)
            if window is None:
                return ChangeReading(owned, Confirmation.NONE, last_commit=device.last_commit, saved=device.saved)
            left = int((window.until - device.world.now).total_seconds())
            return ChangeReading(owned, Confirmation.PENDING, window.mark == change.mark, left)

    async def confirm_change(self, change: Change) -> None:
        async with self._call("confirm_change") as device:
            unsaved = (
                device.window is None and device.saved is False and device.owned(change.desired.scope) == change.desired
            )
            if not unsaved:
                if device.window is None or device.window.mark != change.mark:
                    raise ConfigurationChanged("synthetic", "nothing of ours waits")
                device.window = None
                device.log.append(("confirmed", change.mark))
            if device.saved is False:
                self._checkpoint("confirmed, not saved")
                if device.unsavable:
                    raise ConfigurationRefused("synthetic", "not saved")
                device.saved = True

    async def revert_change(self, change: Change) -> None:
        async with self._call("revert_change") as device:
            if device.window is None or device.window.mark != change.mark:
                raise ConfigurationChanged("synthetic", "nothing of ours waits")
            device.sections, device.window = device.window.back_to, None
            device.log.append(("reverted", change.mark))

    async def close(self) -> None:
        pass


class FakeAccess:
    """The door of one process; trips over anybody who uses a device while another does."""

    def __init__(self, process: Process, devices: dict[str, FakeDevice]) -> None:
        self._process = process
        self._devices = devices

    @asynccontextmanager
    async def configuring(self, relay_id: str, *, urgent: bool = False) -> AsyncIterator[FakeDriver]:
        device = self._devices[relay_id]
        if device.users:
            raise DeviceBusy("synthetic", "two tasks of one process would wait; here none may meet")
        device.users.add(self)
        try:
            yield FakeDriver(device, self._process.checkpoint)
        finally:
            device.users.discard(self)

    monitoring = configuring

    def renew(self, relay_id: str) -> None:
        pass

    def forget(self, relay_id: str) -> None:
        pass


class DyingDatabase:
    """A database as a process sees it that may die before a transaction, before its commit, and after."""

    def __init__(self, database: Any, process: Process) -> None:
        self._database = database
        self._process = process
        self.dialect = database.dialect

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Any]:
        self._process.alive()
        async with self._database.session() as session:
            yield session

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[Any]:
        self._process.alive()
        async with self._database.begin() as session:
            yield session
            self._process.checkpoint("before commit")
        self._process.checkpoint("after commit")


class Process:
    """One process of the manager."""

    def __init__(self, database: Any, crash_at: int | None = None) -> None:
        self.crash_at = crash_at
        self.steps: list[str] = []
        self.dead = False
        self.database = DyingDatabase(database, self)
        self.woken: dict[str, datetime | None] = {}

    def alive(self) -> None:
        if self.dead:
            raise Crash

    def checkpoint(self, name: str) -> None:
        self.alive()
        self.steps.append(name)
        if self.crash_at is not None and len(self.steps) >= self.crash_at:
            self.dead = True
            raise Crash

    # a job engine that only remembers
    async def start(self, run: Any) -> None:
        pass

    async def wake(self, job_id: str, *, at: datetime | None = None) -> None:
        self.alive()
        self.woken[job_id] = at

    async def stop(self) -> None:
        pass


class Backwards:
    """Seals by turning around, so that a test sees what was sealed."""

    def seal(self, plain: bytes, _context: str) -> bytes:
        return plain[::-1]

    def open(self, sealed: bytes, _context: str) -> bytes:
        return sealed[::-1]


SEALER = Backwards()
