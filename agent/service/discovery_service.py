"""Relay discovery for the sources that are wanted: asks, remembers, asks again before an answer expires.

Answers go out as early as they are worth it. When the most preferred method that has something is also the most
preferred one that is still awaited, others have 50 ms more (RFC 8305 §3); when a more preferred one is silent, it has a
second. What comes later follows in another answer.
"""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
from collections import Counter, OrderedDict
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from agent.net.dns import DnsClient, DnsSettings, absolute_name, host_domain
from agent.net.routing import local_address_towards
from agent.protocol.channels import Address
from agent.protocol.discovery import (
    Answer,
    DiscoveryMethod,
    Finding,
    Outcome,
    RelayLocation,
    combine,
    order_candidates,
)
from agent.protocol.discovery_reply import FAILURE_TTL, Lifetimes, Question, QuestionType, Service, Step
from agent.service.config import Configuration, DiscoverySection
from agent.service.discovery_methods import Trace, anycast_finding, ask_dns_sd, ask_driad

MOST_CANDIDATES: Final = 32
"""Candidates of one source."""
_MOST_SOURCES: Final = 50_000
_GRACE: Final = 0.05  # seconds, RFC 8305 §3, Resolution Delay
_PATIENCE: Final = 1.0  # seconds a more preferred method has when another one has found something
_REFRESH: Final = 0.9  # of an answer's lifetime
_SHORTEST_REFRESH: Final = 1.0  # seconds

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Entry:
    """What is known of a source.

    Attributes:
        answer: the latest, None before the first.
        findings: what each method came to, and when it last had an answer.
        task: asks now.
        timer: asks again, or forgets.
        is_wanted: looked up since it was asked about.
    """

    answer: Answer | None = None
    findings: dict[DiscoveryMethod, tuple[Finding, float]] = field(default_factory=dict)
    task: asyncio.Task[None] | None = None
    timer: asyncio.TimerHandle | None = None
    is_wanted: bool = True

    def stop(self) -> None:
        if self.task is not None:
            self.task.cancel()
        if self.timer is not None:
            self.timer.cancel()
        self.task = self.timer = None


class RelayDiscovery:
    """Candidates per source. Used on the loop's thread only; nothing here raises because of the network.

    Attributes:
        counters: questions asked, answers by kind, what was refused, by reason.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        configuration: Configuration,
        on_answer: Callable[[Address], None],
        *,
        seed: bytes | None = None,
    ) -> None:
        """`on_answer` is called with a source when its first answer, or another one, is there; never from `lookup`.

        `seed` decides among equals; None for one of this process.
        """
        self.counters: Counter[str] = Counter()
        self._loop = loop
        self._on_answer = on_answer
        self._seed = secrets.token_bytes(16) if seed is None else seed
        self._entries: OrderedDict[Address, _Entry] = OrderedDict()
        self._closing: set[asyncio.Task[None]] = set()
        self._is_closed = False
        self._take(configuration)

    def _take(self, configuration: Configuration) -> None:
        self._section = configuration.discovery
        uplink = configuration.gateway.uplink
        self._uplink = uplink[0] if len(uplink) == 1 else None
        self._client = DnsClient(self._loop, dns_settings(self._section), self.counters)

    @property
    def is_enabled(self) -> bool:
        """Whether any method is configured; without one `lookup` says None and asks nobody."""
        return bool(self._section.methods) and not self._is_closed

    def lookup(self, source: Address) -> Answer | None:
        """What is known for a source; None while nothing is, `on_answer` is called later.

        Every call is a sign of interest: a source that was looked up since it was asked about is asked about again
        before its answer expires, and the old answer goes on until there is another one. A source that is looked up no
        more, or was released, is forgotten when its answer has expired.
        """
        if not self.is_enabled:
            return None
        entry = self._entries.get(source)
        if entry is None:
            entry = self._entries[source] = _Entry()
            self._forget_beyond_limit()
        self._entries.move_to_end(source)
        entry.is_wanted = True
        if entry.task is None and (entry.answer is None or entry.answer.expires <= self._loop.time()):
            self._start(source, entry)
        return entry.answer

    async def servers_of(self, name: str) -> list[tuple[str, int]]:
        """(host, port) of the servers behind an SRV name, best first (RFC 2782); empty when nobody tells of any.

        Asked like every question of discovery, whether or not a method is configured: within the same rate, remembered
        while it counts.

        Args:
            name: owner name, such as `_dorms._tcp.7.100.51.198.in-addr.arpa`.
        """
        absolute = absolute_name(name)
        if absolute is None or self._is_closed:
            return []
        reply = await self._client.ask(Question(absolute, QuestionType.SRV))
        found = [record for record in reply.records if isinstance(record, Service) and record.target != "."]
        # Within a priority the heavier one more often first (RFC 2782, Weight).
        found.sort(key=lambda record: (record.priority, -(random.random() ** (1 / (record.weight + 0.01)))))  # noqa: S311
        return [(record.target.removesuffix("."), record.port) for record in found]

    def release(self, source: Address) -> None:
        """Nobody wants this source now: it is not asked about again until it is looked up."""
        if source in self._entries:
            self._entries[source].is_wanted = False

    def reconfigure(self, configuration: Configuration) -> None:
        """Take another configuration; when its discovery changed, every source is asked about anew.

        Answers stay until there are others; without any method they are forgotten.
        """
        if configuration.discovery == self._section:
            return
        old = self._client
        self._take(configuration)
        for entry in self._entries.values():
            entry.stop()
            entry.findings.clear()
        closing = self._loop.create_task(old.close())
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)
        if not self.is_enabled:
            self._entries.clear()
        for source, entry in self._entries.items():
            self._start(source, entry)

    def close(self) -> Coroutine[Any, Any, None]:
        """Stop asking, now: `on_answer` is not called any more. Await what is returned to see everything ended."""
        self._is_closed = True
        tasks = [entry.task for entry in self._entries.values() if entry.task is not None]
        for entry in self._entries.values():
            entry.stop()
        self._entries.clear()
        return self._end(tasks)

    async def _end(self, tasks: Sequence[asyncio.Task[None]]) -> None:
        await self._client.close()
        await asyncio.gather(*tasks, *self._closing, return_exceptions=True)

    def _forget_beyond_limit(self) -> None:
        while len(self._entries) > _MOST_SOURCES:
            _, oldest = self._entries.popitem(last=False)
            oldest.stop()
            self.counters["forgotten_sources"] += 1

    def _start(self, source: Address, entry: _Entry) -> None:
        entry.stop()
        entry.task = self._loop.create_task(self._discover(source, entry))

    async def _discover(self, source: Address, entry: _Entry) -> None:
        """Ask once, publish, and set the timer to ask again."""
        try:
            await self._collect(source, entry)
            self._publish(source, entry)
        except Exception:  # noqa: BLE001 - whatever it was, other sources go on
            _log.exception("relay discovery failed source=%s", source)
            if entry.answer is None:
                entry.answer = Answer(source, (), Outcome.FAILED, 0.0)
                self._tell(source)
        assert entry.answer is not None
        now = self._loop.time()
        entry.task = None
        lifetime = max(entry.answer.expires - now, FAILURE_TTL if entry.answer.expires <= now else _SHORTEST_REFRESH)
        entry.answer = replace(entry.answer, expires=now + lifetime)
        entry.timer = self._loop.call_later(max(lifetime * _REFRESH, _SHORTEST_REFRESH), self._due, source, entry)

    async def _collect(self, source: Address, entry: _Entry) -> None:
        """Ask by every method, side by side; publish what is there when it has been waited for long enough."""
        started = self._loop.time()
        pending = {
            self._loop.create_task(find(method, source, self._client, self._section, _say_nothing))
            for method in self._section.methods
        }
        answered: set[DiscoveryMethod] = set()
        try:
            while pending:
                delay = None if entry.answer is not None else self._delay(entry, answered, started)
                done, pending = await asyncio.wait(pending, timeout=delay, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    finding = task.result()
                    answered.add(finding.method)
                    self._merge(entry, finding)
                if not done:
                    self._publish(source, entry)
        finally:
            for task in pending:
                task.cancel()

    def _delay(self, entry: _Entry, answered: set[DiscoveryMethod], started: float) -> float | None:
        """Seconds to wait for more before what is there is published; None while nothing is."""
        for method in self._section.methods:
            if method not in answered:
                break
            if entry.findings[method][0].locations:
                return _GRACE
        if any(finding.locations for finding, _ in entry.findings.values()):
            return max(0.0, started + _PATIENCE - self._loop.time())
        return None

    def _merge(self, entry: _Entry, finding: Finding) -> None:
        """Take what a method came to; what it knew before goes on when it could not ask (RFC 8767 §4)."""
        now = self._loop.time()
        old, since = entry.findings.get(finding.method, (None, now))
        is_stale = finding.outcome is Outcome.FAILED and old is not None and old.outcome is not Outcome.FAILED
        if old is not None and is_stale and now - since <= self._section.maximum_ttl:
            locations = tuple(dict.fromkeys((*finding.locations, *old.locations)))
            finding = replace(old, locations=locations, lifetime=finding.lifetime)
            self.counters["stale_answers"] += 1
        else:
            since = now
        entry.findings[finding.method] = (finding, since)

    def _publish(self, source: Address, entry: _Entry) -> None:
        old, now = entry.answer, self._loop.time()
        findings = [finding for finding, _ in entry.findings.values()]
        candidates = candidates_of(findings, self._section, self._uplink, self._seed)
        answer = combine(source, findings, self._section.methods, candidates, now)
        entry.answer = replace(answer, expires=min(answer.expires, now + self._section.maximum_ttl))
        self.counters[f"answers_{answer.outcome.name.lower()}"] += 1
        if old is None or (old.candidates, old.outcome) != (answer.candidates, answer.outcome):
            self._tell(source)

    def _tell(self, source: Address) -> None:
        try:
            self._on_answer(source)
        except Exception:  # noqa: BLE001 - what is known goes on to be known
            _log.exception("an answer of relay discovery could not be taken source=%s", source)

    def _due(self, source: Address, entry: _Entry) -> None:
        """Near the end of an answer's time: ask again if somebody cares, else forget it when its time is over."""
        entry.timer = None
        assert entry.answer is not None
        if entry.is_wanted:
            entry.is_wanted = False
            self._start(source, entry)
        elif (remaining := entry.answer.expires - self._loop.time()) > 0:
            entry.timer = self._loop.call_later(remaining, self._due, source, entry)
        else:
            del self._entries[source]


def dns_settings(section: DiscoverySection) -> DnsSettings:
    """How the section wants the DNS to be asked."""
    return DnsSettings(
        servers=section.resolvers,
        port=section.resolver_port,
        timeout=section.query_timeout,
        lifetimes=Lifetimes(section.maximum_ttl, section.negative_ttl),
        queries_per_second=section.queries_per_second,
    )


def candidates_of(
    findings: Sequence[Finding], section: DiscoverySection, uplink: str | None, seed: bytes
) -> tuple[RelayLocation, ...]:
    """What the methods found, in the order the section wants; addresses without a route out of `uplink` last."""

    def is_usable(address: Address) -> bool:
        return local_address_towards(address, uplink) is not None

    return order_candidates(findings, section.methods, is_usable, seed, MOST_CANDIDATES)


async def find(
    method: DiscoveryMethod, source: Address, client: DnsClient, section: DiscoverySection, trace: Trace
) -> Finding:
    """What one method comes to for a source."""
    if method is DiscoveryMethod.DRIAD:
        return await ask_driad(client, source, trace)
    if method is DiscoveryMethod.ANYCAST:
        return anycast_finding(section.anycast, trace)
    domain = host_domain() if section.domain is None else absolute_name(section.domain)
    return await ask_dns_sd(client, domain, trace)


def _say_nothing(_step: Step) -> None:
    """Steps are told on the command line only."""
