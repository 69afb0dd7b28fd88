"""The simulated MX80 as a whole: sessions, lock, candidate, commits and the timer of a confirmed commit."""

from __future__ import annotations

import asyncio
import copy
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from importlib.resources import files
from typing import Any, Final

from lxml import etree

from lab.sim.faults import FaultSwitch
from lab.sim.mx80.checks import check
from lab.sim.mx80.commits import MOST_ROLLBACKS, Commit, CommitHistory
from lab.sim.mx80.compare import compare
from lab.sim.mx80.merge import Loaded, LoadProblem, merge, prune
from lab.sim.mx80.render import as_set, as_text
from lab.sim.mx80.schema import root
from lab.sim.mx80.statements import parse_command, parse_text
from lab.sim.netconf_server import BASE_1_0, BASE_1_1, NetconfSession, RpcFailed, local
from lab.sim.options import SimOptions
from lab.sim.population import Population
from lab.sim.wire_log import WireLog

VERSION: Final = "18.4R3.3"
_RELAY: Final = """\
set chassis fpc 0 pic 0 tunnel-services bandwidth 1g
set interfaces lo0 unit 0 family inet address 198.18.0.1/32
set protocols amt relay family inet anycast-prefix 198.18.0.0/24
set protocols amt relay family inet local-address 192.0.2.80
set protocols amt relay tunnel-limit 1000
set protocols amt relay tunnel-devices ud-0/0/0
set protocols igmp amt relay defaults version 3
"""
Handler = Callable[["Mx80", NetconfSession, Any], "bytes | Awaitable[bytes]"]


def first_configuration(options: SimOptions) -> etree._Element:
    """The configuration a simulator starts with."""
    tree = etree.Element("configuration")
    text = options.configuration or files(__package__).joinpath("factory.conf").read_text()
    delta, problems = parse_text(text, root())
    problems = [*problems, *merge(tree, delta, root()).errors]
    if problems:
        raise ValueError(f"configuration: {problems[0].path} {problems[0].message} {problems[0].bad_element}")
    if tree.find("system/host-name") is None or options.hostname is not None:
        name, _ = parse_text(f"system {{ host-name {options.hostname or 'mx80'}; }}", root())
        merge(tree, name, root())
    if options.configured:
        refused = load_commands(tree, _RELAY).errors
        assert not refused, refused
    return tree


class Mx80:
    """State and rules; what an RPC looks like is in the rpc_ modules.

    Attributes:
        history: committed configuration, rollbacks and confirm window.
        sessions: session-id -> open session.
        lock_holder: session that locked the configuration.
        population: what AMT, IGMP and PIM show.
        minute_seconds: how long a minute of a confirm window lasts.
        booted: seconds since 1970.
        reply_cache: kind of reply -> (what it was made from, the reply).
        cleared: counters when they were last cleared.
        handlers: name of an RPC -> what answers it.
    """

    netconf_capabilities: tuple[str, ...] = (
        BASE_1_0,
        BASE_1_1,
        "urn:ietf:params:netconf:capability:candidate:1.0",
        "urn:ietf:params:netconf:capability:confirmed-commit:1.0",
        "urn:ietf:params:netconf:capability:validate:1.0",
        "urn:ietf:params:xml:ns:netconf:base:1.0",
        "http://xml.juniper.net/netconf/junos/1.0",
        "http://xml.juniper.net/dmi/system/1.0",
    )
    reply_namespaces: Mapping[str, str] = {"junos": f"http://xml.juniper.net/junos/{VERSION[:6]}/junos"}

    def __init__(
        self, options: SimOptions, population: Population, wire_log: WireLog, handlers: Mapping[str, Handler]
    ) -> None:
        self.options = options
        self.population = population
        self.wire_log = wire_log
        self.faults = FaultSwitch(options.fault)
        self.minute_seconds = options.minute_seconds
        self.booted = time.time()
        self.sessions: dict[int, NetconfSession] = {}
        self.lock_holder: NetconfSession | None = None
        self.locked_at = 0.0
        self.reply_cache: dict[str, tuple[object, bytes]] = {}
        self.cleared: dict[str, int] = {}
        first = Commit(first_configuration(options), "root", "other", self.booted)
        self.history = CommitHistory(first, options.state)
        self.handlers = handlers
        self._candidate: etree._Element | None = None
        self._next_session = 5000
        self._timer: asyncio.TimerHandle | None = None

    # -- sessions ------------------------------------------------------------------------------------------------

    def open_session(self, session: NetconfSession) -> int:
        """Number a session."""
        self._next_session += 1
        self.sessions[self._next_session] = session
        return self._next_session

    def close_session(self, session: NetconfSession) -> None:
        """Forget a session; its lock goes, and with it what it had not committed."""
        self.sessions.pop(session.id, None)
        if self.lock_holder is session:
            self.unlock(session)

    async def answer(self, session: NetconfSession, request: etree._Element) -> bytes:
        """See `NetconfDevice`."""
        handler = self.handlers.get(local(request))
        if handler is None:
            raise RpcFailed("syntax error", info={"bad-element": local(request)})
        reply = handler(self, session, without_namespaces(request))
        return reply if isinstance(reply, bytes) else await reply

    def may_change(self, session: NetconfSession) -> bool:
        """Whether the user has the permission to configure."""
        return session.user != self.options.read_only_user

    # -- configuration -------------------------------------------------------------------------------------------

    @property
    def committed(self) -> etree._Element:
        """What the router runs; not to be changed."""
        return self.history.committed

    @property
    def candidate(self) -> etree._Element:
        """What the next commit makes; shared by all sessions, as on a real one."""
        if self._candidate is None:
            self._candidate = copy.deepcopy(self.committed)
        return self._candidate

    @property
    def candidate_differs(self) -> bool:
        """Whether there is something to commit."""
        return self._candidate is not None and bool(compare(self.committed, self._candidate, root()))

    def discard(self) -> None:
        """Forget the candidate."""
        self._candidate = None

    def rollback(self, number: int) -> None:
        """Make an earlier configuration the candidate.

        Raises:
            RpcFailed: there is none of this number.
        """
        self._candidate = copy.deepcopy(self.earlier(number))

    def earlier(self, number: int) -> etree._Element:
        """Committed configuration `number`, 0 the running one.

        Raises:
            RpcFailed: there is none.
        """
        if not 0 <= number < MOST_ROLLBACKS:
            raise RpcFailed(f"Value {number} is not within range (0..49)", info={"bad-element": str(number)})
        if number >= len(self.history.commits):
            raise RpcFailed(f"could not open configuration database for rollback {number}: No such file or directory")
        return self.history.commits[number].configuration

    def replace_candidate(self, tree: etree._Element) -> None:
        """Make `tree` the candidate."""
        self._candidate = tree

    def lock(self, session: NetconfSession) -> None:
        """Give `session` the lock; the caller checked that it is free."""
        self.lock_holder = session
        self.locked_at = time.time()

    def unlock(self, session: NetconfSession) -> None:
        """Take the lock from `session` and forget what was not committed."""
        if self.lock_holder is session:
            self.lock_holder = None
            self.discard()

    # -- commits -------------------------------------------------------------------------------------------------

    def check(self) -> list[LoadProblem]:
        """Commit check: it also confirms an unconfirmed commit when nothing is wrong."""
        problems = check(self.candidate)
        if not problems:
            self._stop_timer()
            self.history.confirm()
        return problems

    def commit(self, user: str, client: str, log: str = "", confirm_minutes: int | None = None) -> list[LoadProblem]:
        """Commit the candidate; gives what is wrong, in which case nothing happened."""
        problems = check(self.candidate)
        if problems:
            return problems
        fresh = self.candidate
        prune(fresh, root())
        self._candidate = None
        comment = f"commit confirmed, rollback in {confirm_minutes}mins" if confirm_minutes is not None else ""
        now = time.time()
        deadline = None if confirm_minutes is None else now + confirm_minutes * self.minute_seconds
        self._stop_timer()
        self.history.add(Commit(fresh, user, client, now, comment, log), deadline)
        self.arm()
        return []

    def arm(self) -> None:
        """Start the timer of an open confirm window; one that elapsed while nothing ran is acted on at once."""
        self._stop_timer()
        if self.history.deadline is not None:
            remaining = self.history.deadline - time.time()
            if remaining <= 0:
                self._elapsed()
            else:
                self._timer = asyncio.get_running_loop().call_later(remaining, self._elapsed)

    def stop(self) -> None:
        """Let no timer run any more."""
        self._stop_timer()

    def _elapsed(self) -> None:
        unchanged = not self.candidate_differs
        self.history.revert()
        self.wire_log.record("device", 0, "rollback", "confirmed commit timed out")
        if unchanged:
            self.discard()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # -- for tests and demonstrations ----------------------------------------------------------------------------

    def edit(self, commands: str, user: str = "noc", log: str = "") -> None:
        """Configure as somebody on the router's own command line does: set commands, then commit.

        Raises:
            ValueError: a command or the commit was refused.
        """
        tree = copy.deepcopy(self.committed)
        problems = load_commands(tree, commands).errors
        if not problems:
            kept, self._candidate = self._candidate, tree
            problems = self.commit(user, "cli", log)
            self._candidate = kept
        if problems:
            raise ValueError(f"{problems[0].path} {problems[0].message} {problems[0].bad_element}")

    def committed_text(self) -> str:
        """The committed configuration in curly braces."""
        return as_text(self.committed, root())

    def committed_set(self) -> str:
        """The committed configuration as set commands."""
        return as_set(self.committed, root())


def load_commands(tree: etree._Element, commands: str) -> Loaded:
    """Load set, delete, … commands one after another."""
    loaded = Loaded()
    for line in commands.splitlines():
        delta, problems = parse_command(line, root())
        loaded.problems += problems
        if delta is None or problems:
            continue
        wrong = merge(etree.Element("configuration"), delta, root()).errors
        loaded.problems += wrong or merge(tree, delta, root()).problems  # a wrong command leaves no trace
    return loaded


def without_namespaces(element: etree._Element) -> etree._Element:
    """A copy whose elements and attributes are in no namespace; comments are left out."""
    fresh = etree.Element(local(element))
    fresh.text = element.text
    for key in map(str, element.keys()):
        fresh.set(etree.QName(key).localname, str(element.get(key)))
    for child in element:
        if isinstance(child.tag, str):
            fresh.append(without_namespaces(child))
    return fresh


def local_time(seconds: float) -> str:
    """As Junos prints a time."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
