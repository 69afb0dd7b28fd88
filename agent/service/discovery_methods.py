"""The methods of relay discovery (RFC 8777 §2.3): what each asks the DNS, and what it makes of the answers."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Final, Protocol, TypeAlias

from agent.protocol.channels import Address
from agent.protocol.discovery import DiscoveryMethod, Finding, Outcome, RelayLocation, is_possible_relay
from agent.protocol.discovery_reply import Question, QuestionType, Reply, ReplyStatus, Service, Step
from agent.protocol.driad import RelayRecord, reverse_name

SERVICE_NAME: Final = "_amt._udp"
"""RFC 8777 §2.3.1, condition 4."""
MOST_NAMES: Final = 16
"""Names of relays, and instances of the service, that are looked up for one answer."""

Trace: TypeAlias = Callable[[Step], None]


class Asker(Protocol):
    """Who asks the DNS."""

    async def ask(self, question: Question) -> Reply:
        """The answer to a question."""


@dataclass(frozen=True, slots=True)
class _Place:
    """A relay before its address is known."""

    target: Address | str
    location: Callable[[Address, str | None], RelayLocation]


@dataclass(slots=True)
class Inquiry:
    """One method at work: its questions, their replies, and what is to be told of them."""

    method: DiscoveryMethod
    asker: Asker
    trace: Trace
    lifetime: float = math.inf
    has_failed: bool = False

    async def ask(self, name: str, kind: QuestionType) -> Reply:
        """Ask, and take the reply into account."""
        reply = await self.asker.ask(Question(name, kind))
        self.lifetime = min(self.lifetime, reply.lifetime)
        self.has_failed = self.has_failed or reply.status is ReplyStatus.FAILED
        self.trace(Step(self.method, reply))
        return reply

    def say(self, remark: str) -> None:
        """Tell what no reply says."""
        self.trace(Step(self.method, remark=remark))

    def finding(self, locations: Iterable[RelayLocation] = ()) -> Finding:
        """What the method came to, when its operator did not say that no relay shall be used."""
        found = tuple(dict.fromkeys(locations))
        if self.has_failed:
            return Finding(self.method, found, Outcome.FAILED, self.lifetime)
        return Finding(self.method, found, Outcome.FOUND if found else Outcome.NOTHING, self.lifetime)

    async def locate(self, places: Sequence[_Place]) -> list[RelayLocation]:
        """Addresses of the places: names are looked up, A and AAAA side by side, and each name once."""
        names = list(dict.fromkeys(place.target for place in places if isinstance(place.target, str)))
        if len(names) > MOST_NAMES:
            self.say(f"{len(names) - MOST_NAMES} more names are not looked up")
        replies = await asyncio.gather(
            *(self.ask(name, kind) for name in names[:MOST_NAMES] for kind in (QuestionType.AAAA, QuestionType.A))
        )
        addresses: dict[str, list[Address]] = {name: [] for name in names}
        for reply in replies:
            addresses[reply.question.name] += [
                item for item in reply.records if isinstance(item, IPv4Address | IPv6Address)
            ]
        locations = []
        for place in places:
            if isinstance(place.target, str):
                found = [place.location(address, place.target) for address in addresses[place.target]]
            else:
                found = [place.location(place.target, None)]
            locations += found
        for location in locations:
            if not is_possible_relay(location.address):
                self.say(f"{location.address} is no address of a relay: passed over")
        return [location for location in locations if is_possible_relay(location.address)]


async def ask_driad(asker: Asker, source: Address, trace: Trace) -> Finding:
    """The relays the source's operator names under the source's reverse name (RFC 8777 §2.2, §4)."""
    inquiry = Inquiry(DiscoveryMethod.DRIAD, asker, trace)
    reply = await inquiry.ask(reverse_name(source), QuestionType.AMTRELAY)
    records = [record for record in reply.records if isinstance(record, RelayRecord)]
    # A record of type 0 ends the list at its precedence: beyond it no relay shall be used (§4.2.4).
    end = min((record.precedence for record in records if record.relay is None), default=255)
    usable = [record for record in records if record.relay is not None and record.precedence <= end]
    if records and not usable:
        inquiry.say("the source's operator says that no relay shall be used")
        return Finding(DiscoveryMethod.DRIAD, (), Outcome.NO_RELAY, inquiry.lifetime)
    if len(usable) < sum(record.relay is not None for record in records):
        inquiry.say(f"no relay shall be used beyond precedence {end}")
    return inquiry.finding(await inquiry.locate([_place_of_record(record) for record in usable]))


async def ask_dns_sd(asker: Asker, domain: str | None, trace: Trace) -> Finding:
    """The relays of this network: `_amt._udp` in its domain (RFC 8777 §2.3.2; RFC 6763 §4 to §6, RFC 2782).

    Instances are browsed for; SRV records at the name of the service itself count as well.
    """
    inquiry = Inquiry(DiscoveryMethod.DNS_SD, asker, trace)
    if domain is None:
        inquiry.say("this host is in no domain, and none is configured")
        return inquiry.finding()
    name = f"{SERVICE_NAME}.{domain}"
    browsed, direct = await asyncio.gather(inquiry.ask(name, QuestionType.PTR), inquiry.ask(name, QuestionType.SRV))
    instances = [item for item in browsed.records if isinstance(item, str)]
    if len(instances) > MOST_NAMES:
        inquiry.say(f"{len(instances) - MOST_NAMES} more instances are not looked up")
    replies = await asyncio.gather(*(inquiry.ask(instance, QuestionType.SRV) for instance in instances[:MOST_NAMES]))
    services = [item for reply in (*replies, direct) for item in reply.records if isinstance(item, Service)]
    # A target of "." means that the service is decidedly not there (RFC 2782, Target).
    offered = [service for service in dict.fromkeys(services) if service.target != "." and service.port != 0]
    if services and not offered:
        inquiry.say("the service is decidedly not available in this domain")
    return inquiry.finding(await inquiry.locate([_place_of_service(service) for service in offered]))


def anycast_finding(addresses: Sequence[Address], trace: Trace) -> Finding:
    """The well-known addresses (RFC 7450 §7.1); nobody has to be asked for them."""
    told = ", ".join(map(str, addresses))
    trace(Step(DiscoveryMethod.ANYCAST, remark=f"nobody is asked: {told or 'no address is configured'}"))
    locations = tuple(RelayLocation(address, DiscoveryMethod.ANYCAST) for address in addresses)
    return Finding(DiscoveryMethod.ANYCAST, locations, Outcome.FOUND if locations else Outcome.NOTHING)


def _place_of_record(record: RelayRecord) -> _Place:
    assert record.relay is not None

    def location(address: Address, name: str | None) -> RelayLocation:
        return RelayLocation(
            address,
            DiscoveryMethod.DRIAD,
            discover=not record.discovery_optional,
            precedence=record.precedence,
            name=name,
        )

    return _Place(record.relay, location)


def _place_of_service(service: Service) -> _Place:
    def location(address: Address, name: str | None) -> RelayLocation:
        return RelayLocation(
            address,
            DiscoveryMethod.DNS_SD,
            port=service.port,
            precedence=service.priority,
            weight=service.weight,
            name=name,
        )

    return _Place(service.target, location)
