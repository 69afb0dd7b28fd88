"""Asks the DNS for relay discovery: each question once, answers remembered while they count, few at a time.

dnspython's resolver decides which server is asked when; packets are exchanged and read by `agent.net.dns_exchange` and
`agent.net.dns_message`. Whatever goes wrong becomes a Reply that says so.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from dataclasses import dataclass, replace
from ipaddress import ip_address
from typing import Final

import dns.asyncresolver
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.resolver
from dns.rdatatype import RdataType

from agent.net.dns_exchange import UDP_SIZE, Attempt, Server
from agent.net.dns_message import LONGEST_CHAIN, BadReply, Contents, read_reply
from agent.protocol.channels import Address, Endpoint
from agent.protocol.discovery_reply import Alias, Lifetimes, Question, Remembered, Reply, ReplyStatus

RESOLV_CONF: Final = "/etc/resolv.conf"
_CONCURRENT: Final = 32
_REMEMBERED: Final = 20_000
_NEARLY_OVER: Final = 0.15  # of an answer's lifetime
_WINDOW: Final = 0.1  # seconds; RFC 8777 §2.4.2 counts queries in these
_LONGEST_TRY: Final = 2.0  # seconds until the next server is asked


@dataclass(frozen=True, slots=True)
class DnsSettings:
    """How to ask.

    Attributes:
        servers: recursive servers in order; empty for those of resolv.conf, read again each time.
        port: of `servers`; those of resolv.conf are asked on 53.
        timeout: seconds one question may take, retries included.
        lifetimes: how long answers count.
        queries_per_second: packets sent; a tenth of it may go out in any 100 ms.
    """

    servers: tuple[Address, ...]
    port: int
    timeout: float
    lifetimes: Lifetimes
    queries_per_second: int


def host_domain(resolv_conf: str = RESOLV_CONF) -> str | None:
    """The domain this host is in (RFC 6763 §11 calls it manually configured), or None when it is in none."""
    system = _system_resolver(resolv_conf)
    if system is None:
        return None
    domain = (system.search or [system.domain])[0]
    return None if domain == dns.name.root else domain.to_text()


def absolute_name(name: str) -> str | None:
    """A name as the DNS has it, with the dot of the root at its end, or None when it is none (RFC 1035 §2.3)."""
    try:
        return dns.name.from_text(name).to_text()
    except (dns.exception.DNSException, UnicodeError):
        return None


class DnsClient:
    """Questions and answers of one discovery; used on the loop's thread.

    Attributes:
        counters: packets sent, replies by kind, what was refused, by reason.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        settings: DnsSettings,
        counters: Counter[str],
        *,
        resolv_conf: str = RESOLV_CONF,
    ) -> None:
        self.counters = counters
        self._loop = loop
        self._settings = settings
        self._resolv_conf = resolv_conf
        self._known: Remembered[Question, tuple[Reply, int]] = Remembered(_REMEMBERED)
        self._asking: dict[Question, asyncio.Task[Reply]] = {}
        self._slots = asyncio.Semaphore(_CONCURRENT)
        self._sent: deque[float] = deque()

    async def ask(self, question: Question) -> Reply:
        """The answer to a question, remembered or new; never raises because of what servers do.

        An answer whose time is nearly over is not used any more, so that whoever asks early for a new one gets it.
        """
        known = self._known.get(question, self._loop.time())
        if known is not None and known[1] > known[0][0].lifetime * _NEARLY_OVER:
            (reply, _), remaining = known
            return replace(reply, lifetime=remaining, is_remembered=True)
        task = self._asking.get(question)
        if task is None:
            task = self._loop.create_task(self._find(question))
            self._asking[question] = task
        return await asyncio.shield(task)

    def forget(self) -> None:
        """Drop every remembered answer."""
        self._known.clear()

    async def close(self) -> None:
        """Give up what is being asked; whoever waits for it is cancelled."""
        tasks = list(self._asking.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _find(self, question: Question) -> Reply:
        try:
            async with self._slots:
                reply = await self._follow(question)
            earlier = self._known.expired(question)
            failures = 0
            if reply.status is ReplyStatus.FAILED:
                failures = 1 + (earlier[1] if earlier is not None else 0)
                reply = replace(reply, lifetime=self._settings.lifetimes.failed(failures))
            self.counters[f"replies_{reply.status.name.lower()}"] += 1
            self.counters.update(reply.refused)
            self._known.put(question, (reply, failures), self._loop.time() + reply.lifetime)
            return reply
        finally:
            self._asking.pop(question, None)

    async def _follow(self, question: Question) -> Reply:
        """Ask, and go on asking where aliases lead out of what one server knows (RFC 1034 §5.2.2)."""
        found = Reply(question, ReplyStatus.FAILED)
        aliases: list[Alias] = []
        refused: list[str] = []
        name = question.name
        is_validated = True
        while len(aliases) <= LONGEST_CHAIN:
            found, contents = await self._ask_servers(Question(name, question.type))
            refused += found.refused
            is_validated = is_validated and found.is_validated
            if contents is None:
                break
            aliases += contents.aliases
            if found.status is not ReplyStatus.NO_DATA or contents.is_final:
                break
            name = contents.name
        else:
            found = replace(found, status=ReplyStatus.FAILED, detail="aliases go in a circle")
        return replace(
            found,
            question=question,
            aliases=tuple(aliases),
            refused=tuple(refused),
            is_validated=is_validated,
            lifetime=min([found.lifetime, *(self._settings.lifetimes.positive(alias.ttl) for alias in aliases)]),
        )

    async def _ask_servers(self, question: Question) -> tuple[Reply, Contents | None]:
        """One question to the servers, in turn, until one answers; its records, None when none did."""
        attempts: list[Attempt] = []
        failure = Reply(question, ReplyStatus.FAILED)
        servers = self._servers(attempts)
        if not servers:
            return replace(failure, detail="no DNS server is configured"), None
        resolver = dns.asyncresolver.Resolver(configure=False)
        resolver.nameservers = servers
        resolver.lifetime = self._settings.timeout
        resolver.timeout = min(_LONGEST_TRY, self._settings.timeout / (len(servers) + 1))
        resolver.use_edns(0, 0, UDP_SIZE)
        resolver.set_flags(dns.flags.RD | dns.flags.AD)  # RFC 6840 §5.7: tell whether DNSSEC proves it
        status = ReplyStatus.ANSWERED
        try:
            async with asyncio.timeout(self._settings.timeout + _LONGEST_TRY):
                try:
                    name, kind = dns.name.from_text(question.name), RdataType.make(int(question.type))
                    answer = await resolver.resolve(name, kind, raise_on_no_answer=False, search=False)
                    response = answer.response
                except dns.resolver.NXDOMAIN as error:
                    response, status = error.response(name), ReplyStatus.NO_NAME  # type: ignore[no-untyped-call]
            contents = read_reply(response.wire or b"", question)
        except BadReply as error:
            self._count(attempts)
            return replace(failure, detail=str(error), refused=(*_refused(attempts), error.reason)), None
        except (dns.exception.DNSException, OSError, TimeoutError, UnicodeError) as error:
            self._count(attempts)
            return replace(failure, detail=_describe(attempts, error), refused=_refused(attempts)), None
        self._count(attempts)
        if status is ReplyStatus.ANSWERED and not contents.records:
            status = ReplyStatus.NO_DATA
        is_validated = bool(response.flags & dns.flags.AD)
        return replace(self._reply(question, status, contents, attempts), is_validated=is_validated), contents

    def _reply(self, question: Question, status: ReplyStatus, contents: Contents, attempts: list[Attempt]) -> Reply:
        lifetimes, last = self._settings.lifetimes, attempts[-1]
        is_positive = status is ReplyStatus.ANSWERED and contents.ttl is not None
        return Reply(
            question,
            status,
            records=contents.records if status is ReplyStatus.ANSWERED else (),
            aliases=contents.aliases,
            lifetime=lifetimes.positive(contents.ttl or 0) if is_positive else lifetimes.denied(contents.ttl),
            server=Endpoint(ip_address(last.server.partition("%")[0]), last.port),
            transport=last.transport,
            refused=(*contents.refused, *_refused(attempts)),
        )

    def _servers(self, attempts: list[Attempt]) -> list[Server]:
        if self._settings.servers:
            return [Server(str(server), self._settings.port, attempts, self._pace) for server in self._settings.servers]
        system = _system_resolver(self._resolv_conf)
        addresses = [] if system is None else [server for server in system.nameservers if isinstance(server, str)]
        return [Server(address, 53, attempts, self._pace) for address in addresses]

    async def _pace(self) -> None:
        """Wait until one more packet may be sent (RFC 8777 §2.4.2: not more than so many in any 100 ms)."""
        while True:
            now = self._loop.time()
            while self._sent and self._sent[0] <= now - _WINDOW:
                self._sent.popleft()
            if len(self._sent) < max(1, round(self._settings.queries_per_second * _WINDOW)):
                self._sent.append(now)
                return
            await asyncio.sleep(self._sent[0] + _WINDOW - now)

    def _count(self, attempts: list[Attempt]) -> None:
        for attempt in attempts:
            self.counters[f"queries_{attempt.transport}"] += 1


def _refused(attempts: list[Attempt]) -> tuple[str, ...]:
    return tuple(
        ["mismatched_reply"] * sum(attempt.mismatches for attempt in attempts)
        + ["damaged_reply"] * sum(attempt.failure.startswith("damaged") for attempt in attempts)
    )


def _describe(attempts: list[Attempt], error: Exception) -> str:
    """What went wrong, each server's last word once."""
    words = {
        str(Endpoint(ip_address(attempt.server.partition("%")[0]), attempt.port)): attempt.failure
        for attempt in attempts
        if attempt.failure
    }
    return "; ".join(f"{server}: {failure}" for server, failure in words.items()) or str(error) or type(error).__name__


def _system_resolver(resolv_conf: str) -> dns.resolver.Resolver | None:
    try:
        return dns.resolver.Resolver(resolv_conf)
    except (dns.exception.DNSException, OSError, ValueError):
        return None
