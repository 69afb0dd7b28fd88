"""State of one simulated router with IOS: configurations, archive, the timer of a confirmed change, its lines.

Messages follow public documentation and write-ups of IOS-XE; what those do not show is synthetic.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lab.sim.faults import FaultSwitch
from lab.sim.iosxe.configuration import Path as Section
from lab.sim.iosxe.configuration import RunningConfiguration
from lab.sim.iosxe.words import Refusal
from lab.sim.options import SimOptions
from lab.sim.population import Population
from lab.sim.wire_log import WireLog

_ARCHIVE_KEPT = 10


@dataclass(frozen=True, slots=True)
class Profile:
    """What kind of router it is."""

    platform: str
    """`iosxe` or `ios`."""
    version: str
    model: str
    features: frozenset[str]
    configuration: str
    """First configuration; `{username}` and `{hostname}` are filled in."""
    hostname: str
    core_interface: str
    """Where the PIM neighbours are."""
    access_interface: str | None = None
    """Where receivers report without AMT; None: they do so through the relay's tunnels."""

    @property
    def has_cli_rpc(self) -> bool:
        """Whether NETCONF has config-ios-cli-rpc (17.9 on)."""
        major, minor = (int(part) for part in self.version.split(".")[:2])
        return self.platform == "iosxe" and (major, minor) >= (17, 9)


@dataclass(slots=True)
class Revert:
    """A change that goes back by itself."""

    deadline: float
    """Seconds since the epoch."""
    minutes: int
    idle: bool
    user: str
    session: int
    name: str
    """File of the archive to go back to."""
    text: str
    configured_at: float
    warned: bool = False


@dataclass(slots=True)
class Startup:
    """A saved configuration and when it was saved."""

    text: str = ""
    saved_at: float = 0.0
    saved_by: str = ""


@dataclass(slots=True)
class Terminal:
    """A line somebody is logged in on."""

    number: int
    user: str
    host: str
    tell: Callable[[str], None]
    """Prints a message between the user's own commands."""


@dataclass(slots=True)
class _Stored:
    running: str
    startup: dict[str, Any]
    archive: list[list[str]]
    archived: int
    changed_at: float
    changed_by: str
    revert: dict[str, Any] | None = field(default=None)


class IosDevice:
    """One router.

    Args:
        profile: its kind.
        options: how it is started.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        profile: Profile,
        options: SimOptions,
        population: Population,
        faults: FaultSwitch,
        wire_log: WireLog,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.profile = profile
        self.options = options
        self.population = population
        self.faults = faults
        self.wire_log = wire_log
        self.clock = clock
        self.booted_at = clock()
        self.terminals: dict[int, Terminal] = {}
        self.archive: list[tuple[str, str]] = []
        self.archived = 0
        self.changed_at = self.booted_at
        self.changed_by = ""
        self.revert: Revert | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._sessions = 0
        text = options.configuration
        if text is None:
            text = profile.configuration.replace("{username}", options.username)
            text = text.replace("{hostname}", profile.hostname)
        self.running = RunningConfiguration.parsed(text, profile.features)
        if options.hostname is not None:
            self.running.apply(f"hostname {options.hostname}", ())
        self.startup = Startup(self.running.text(), self.booted_at, "")
        if options.state is not None and options.state.exists():
            self._load(options.state)

    # Sessions

    def next_session(self) -> int:
        """A number for a session of any kind, from 1."""
        self._sessions += 1
        return self._sessions

    def privilege_of(self, user: str) -> int:
        """Level a user logs in at: as configured, 15 otherwise; 1 for the read-only user."""
        if user == self.options.read_only_user:
            return 1
        for line in self.running.matching(f"username {user} "):
            words = line.text.split()
            if "privilege" in words:
                return int(words[words.index("privilege") + 1])
        return 15

    def may_configure(self, user: str) -> bool:
        """Whether `user` may change anything."""
        return user != self.options.read_only_user

    def time_text(self, at: float | None = None) -> str:
        """A moment as IOS prints it."""
        moment = datetime.fromtimestamp(self.clock() if at is None else at, UTC)
        return moment.strftime("%H:%M:%S UTC %a %b ") + f"{moment.day} {moment.year}"

    # Configuration

    def configure(self, line: str, path: Section, user: str, prompt_length: int = 0) -> Section:
        """Obey one configuration line; raises Refusal."""
        if not self.may_configure(user) or "commit-refused" in self.faults:
            raise Refusal("% Authorization failed.\n")
        after = self.running.apply(line, path, prompt_length=prompt_length)
        self.changed_at, self.changed_by = self.clock(), user
        self.save_state()
        return after

    def edit(self, lines: str, user: str = "operator") -> None:
        """Configure as somebody else on the router; raises Refusal at the first line that is not understood."""
        path: Section = ()
        for line in filter(None, map(str.strip, lines.splitlines())):
            path = self.configure(line, path, user)

    def printed_configuration(self, *, startup: bool = False) -> str:
        """`show running-config` or `show startup-config` in full."""
        text = self.startup.text if startup else self.running.text()
        version = ".".join(self.profile.version.partition("(")[0].split(".")[:2])
        body = f"!\nversion {version}\n{text}"
        if startup:
            return f"Using {len(body)} out of 33554432 bytes\n{self._stamps()}{body}"
        return f"Building configuration...\n\nCurrent configuration : {len(body)} bytes\n{self._stamps()}{body}"

    def _stamps(self) -> str:
        stamps = "!\n"
        if self.changed_by:
            stamps += f"! Last configuration change at {self.time_text(self.changed_at)} by {self.changed_by}\n"
        if self.startup.saved_by:
            stamps += (
                f"! NVRAM config last updated at {self.time_text(self.startup.saved_at)} by {self.startup.saved_by}\n"
            )
        return stamps

    def write_memory(self, user: str) -> None:
        """Copy the running to the startup configuration."""
        self.startup = Startup(self.running.text(), self.clock(), user)
        archive = self.running.section("archive")
        if archive is not None and any(line.text == "write-memory" for line in archive.children):
            self.archive_now()
        self.save_state()

    def archive_now(self) -> str:
        """Keep a copy of the running configuration; gives its name."""
        path = self.running.archive_path
        if path is None:
            raise Refusal(" Archive feature not enabled\n")
        name = f"{path}-{datetime.fromtimestamp(self.clock(), UTC):%b-%d-%H-%M-%S.%f}"[:-3] + f"-{self.archived}"
        self.archived += 1
        self.archive.append((name, self.running.text()))
        del self.archive[:-_ARCHIVE_KEPT]
        self.save_state()
        return name

    def replace(self, text: str, user: str) -> None:
        """Make the running configuration equal to `text` (configure replace)."""
        self.running = RunningConfiguration.parsed(text, self.profile.features)
        self.changed_at, self.changed_by = self.clock(), user
        self.save_state()

    # The timer of a confirmed change

    def begin_revert(self, minutes: int, user: str, session: int, *, idle: bool = False) -> str:
        """Start the timer over the running configuration; gives what IOS prints. Raises Refusal."""
        if self.running.archive_path is None:
            raise Refusal("%Turn config archive on before using Rollback Confirmed Change\n")
        if self.revert is not None:
            raise Refusal("%Rollback Confirmed Change already in progress\n")
        name = self.archive_now()
        now = self.clock()
        deadline = now + minutes * self.options.minute_seconds
        self.revert = Revert(deadline, minutes, idle, user, session, name, self.running.text(), now)
        self._schedule()
        self.save_state()
        return f"Rollback Confirmed Change: Backing up current running config to {name}\n\n"

    def change_timer(self, minutes: int, *, idle: bool = False) -> None:
        """Start the open timer again with another time; raises Refusal when none runs."""
        revert = self._pending()
        now = self.clock()
        revert.deadline = now + minutes * self.options.minute_seconds
        revert.minutes, revert.idle, revert.configured_at, revert.warned = minutes, idle, now, False
        self._schedule()
        self.save_state()

    def confirm(self) -> None:
        """Keep the change; raises Refusal when none waits."""
        self._pending()
        self.revert = None
        self._schedule()
        self.save_state()

    def revert_now(self, user: str) -> str:
        """Go back at once; gives what IOS prints. Raises Refusal when no change waits."""
        revert = self._pending()
        self.revert = None
        self._schedule()
        self.replace(revert.text, user)
        return f"Rollback Confirmed Change: rolling to:{revert.name}\n\nTotal number of passes: 1\nRollback Done\n\n"

    def touched(self, session: int) -> None:
        """A session typed something, which starts an idle timer of its own again."""
        revert = self.revert
        if revert is not None and revert.idle and revert.session == session:
            revert.deadline = self.clock() + revert.minutes * self.options.minute_seconds
            self._schedule()
            self.save_state()

    def _pending(self) -> Revert:
        if self.revert is None:
            raise Refusal("%No Rollback Confirmed Change pending\n")
        return self.revert

    def resume(self) -> None:
        """Let an open timer run on; call it in the event loop after the start."""
        self._schedule()

    def stop(self) -> None:
        """Stop the timer without an effect, as a loss of power of the simulator's host would."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _schedule(self) -> None:
        self.stop()
        if self.revert is None:
            return
        moment = self.revert.deadline - (0 if self.revert.warned else self.options.minute_seconds)
        with contextlib.suppress(RuntimeError):  # no event loop: `resume` comes later
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(max(0.0, moment - self.clock()), self._due)

    def _due(self) -> None:
        revert = self.revert
        if revert is None:
            return
        if self.clock() < revert.deadline:
            if not revert.warned and self.clock() >= revert.deadline - self.options.minute_seconds:
                revert.warned = True
                self._tell(
                    revert,
                    "Rollback Confirmed Change: Rollback will begin in one minute.\n"
                    'Enter "configure confirm" if you wish to keep what you\'ve configured\n',
                )
            self._schedule()
            return
        self.revert = None
        self.replace(revert.text, revert.user)
        self.wire_log.record("out", 0, "timer", "rolled back")
        self._tell(
            revert,
            f"\nRollback Confirmed Change: rolling to:{revert.name}\n\nTotal number of passes: 1\nRollback Done\n",
        )

    def _tell(self, revert: Revert, text: str) -> None:
        terminal = self.terminals.get(revert.session)
        if terminal is not None:
            terminal.tell(text)

    # State over a restart of the simulator

    def save_state(self) -> None:
        """Write the state file, if any, so that a kill at any moment leaves the old or the new one."""
        path = self.options.state
        if path is None:
            return
        stored = _Stored(
            self.running.text(),
            asdict(self.startup),
            [list(entry) for entry in self.archive],
            self.archived,
            self.changed_at,
            self.changed_by,
            asdict(self.revert) if self.revert else None,
        )
        partial = path.with_name(path.name + ".new")
        partial.write_text(json.dumps(asdict(stored)), encoding="utf-8")
        partial.replace(path)

    def _load(self, path: Path) -> None:
        stored = _Stored(**json.loads(path.read_text(encoding="utf-8")))
        self.running = RunningConfiguration.parsed(stored.running, self.profile.features)
        self.startup = Startup(**stored.startup)
        self.archive = [(name, text) for name, text in stored.archive]
        self.archived, self.changed_at, self.changed_by = stored.archived, stored.changed_at, stored.changed_by
        self.revert = Revert(**stored.revert) if stored.revert else None
