"""Relay discovery (RFC 8777): what the methods found becomes one list, in order of preference.

The methods stand in the configured order. Within DRIAD the records' precedence decides, within DNS-SD the priority of
the services; then addresses that can be reached before those that cannot, and IPv6 before IPv4 but for the ranges that
are worse (RFC 6724 §6, rules 1 and 6, which do not need to know how far away an address is); among equals chance: a
random seed of the process, so that many gateways spread over many relays while each of them keeps its choice when it
asks again.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from ipaddress import IPv6Address, ip_network
from typing import Final

from agent.protocol.channels import Address, is_unicast
from agent.protocol.wire.amt import PORT

_IPV4_PRECEDENCE: Final = 35
_IPV6_PRECEDENCE: Final = 40
_WORSE_IPV6: Final = tuple(
    (ip_network(network), precedence)
    for network, precedence in (
        ("2002::/16", 30),
        ("2001::/32", 5),
        ("fc00::/7", 3),
        ("fec0::/10", 1),
        ("3ffe::/16", 1),
    )
)
"""Default policy table of RFC 6724 §2.1, of addresses that can be a relay's; the highest precedence goes first."""


class DiscoveryMethod(Enum):
    """Where candidates come from; relays of the configuration come before all of them."""

    DNS_SD = "dns-sd"
    ANYCAST = "anycast"
    DRIAD = "driad"


@dataclass(frozen=True, slots=True)
class RelayLocation:
    """A place to look for a relay.

    Attributes:
        address: of the relay, or of who tells about relays.
        method: what found it.
        port: UDP port.
        discover: Relay Discovery has to come before the first Request (RFC 8777 §4.2.2).
        precedence: lower goes first within the method: AMTRELAY precedence, or SRV priority.
        weight: share among equals (RFC 2782); all DRIAD relays weigh the same.
        name: what it is called, when it was given by name.
        preference: group among the candidates of an Answer, 0 first. Members of one group are as good as each other but
            for their order, and may be tried side by side, families apart by `family_delay` (RFC 8305 §5).
        is_usable: False when the host has no route there; such a candidate stands behind all others.
    """

    address: Address
    method: DiscoveryMethod
    port: int = PORT
    discover: bool = True
    precedence: int = 0
    weight: int = 1
    name: str | None = field(default=None, compare=False)
    preference: int = 0
    is_usable: bool = True


class Outcome(Enum):
    """What discovery for a source came to."""

    FOUND = "found"
    NO_RELAY = "no relay"
    """The source's operator says in the DNS that none shall be used (RFC 8777 §4.2.4, type 0)."""
    NOTHING = "nothing found"
    FAILED = "failed"
    """Nothing found, and some question had no answer: it will be asked again soon."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What is known for a source.

    Attributes:
        source: whose traffic it is about.
        candidates: in order of preference; empty unless `outcome` is FOUND.
        outcome: found, or why not.
        expires: when it is asked again, in seconds of the clock in use.
        is_complete: every method has answered; otherwise more candidates may come, some of them before these.
    """

    source: Address
    candidates: tuple[RelayLocation, ...]
    outcome: Outcome
    expires: float
    is_complete: bool = True


@dataclass(frozen=True, slots=True)
class Finding:
    """What one method came to.

    Attributes:
        method: which.
        locations: in no order.
        outcome: FAILED when a question had no answer, even if others had.
        lifetime: seconds it may be kept; infinite for what nobody has to be asked about.
    """

    method: DiscoveryMethod
    locations: tuple[RelayLocation, ...] = ()
    outcome: Outcome = Outcome.NOTHING
    lifetime: float = math.inf


def is_possible_relay(address: Address) -> bool:
    """Whether an address of the DNS may be sent to: none that would make this host speak to itself or to its links."""
    if address.is_link_local or not is_unicast(address):
        return False
    if isinstance(address, IPv6Address):
        return address.ipv4_mapped is None and int(address) >> 32 != 0  # RFC 4291 §2.5.5
    return int(address) >> 24 != 0  # RFC 1122 §3.2.1.3


def order_candidates(
    findings: Iterable[Finding],
    methods: Sequence[DiscoveryMethod],
    is_usable: Callable[[Address], bool],
    seed: bytes,
    limit: int,
) -> tuple[RelayLocation, ...]:
    """All locations found, in order of preference (RFC 8777 §2.3.2), each address and port once.

    Args:
        findings: what the methods came to.
        methods: the configured order.
        is_usable: whether the host has a route to an address.
        seed: random bytes of this process; decides among equals.
        limit: candidates at most.
    """
    locations = [
        replace(location, is_usable=is_usable(location.address))
        for finding in findings
        for location in finding.locations
    ]

    def group(location: RelayLocation) -> tuple[bool, int, int]:
        return not location.is_usable, methods.index(location.method), location.precedence

    def order(location: RelayLocation) -> tuple[bool, int, int, int, float, bool]:
        # The same place told with and without the D bit is the one to discover at: nothing else is sure to work.
        return (*group(location), -_policy_precedence(location.address), _chance(location, seed), not location.discover)

    ordered: dict[tuple[Address, int], RelayLocation] = {}
    preferences: dict[tuple[bool, int, int], int] = {}
    for location in sorted(locations, key=order):
        if len(ordered) < limit and (location.address, location.port) not in ordered:
            preference = preferences.setdefault(group(location), len(preferences))
            ordered[location.address, location.port] = replace(location, preference=preference)
    return tuple(ordered.values())


def combine(
    source: Address,
    findings: Sequence[Finding],
    methods: Sequence[DiscoveryMethod],
    candidates: tuple[RelayLocation, ...],
    now: float,
) -> Answer:
    """The answer for a source, from what those `methods` that have answered came to and its ordered candidates.

    The source's operator has the last word: when DRIAD says that no relay shall be used, other methods' relays are not.
    """
    outcomes = {finding.outcome for finding in findings}
    is_complete = {finding.method for finding in findings} == set(methods)
    expires = now + min((finding.lifetime for finding in findings), default=math.inf)
    if Outcome.NO_RELAY in outcomes:
        return Answer(source, (), Outcome.NO_RELAY, expires, is_complete)
    if candidates:
        return Answer(source, candidates, Outcome.FOUND, expires, is_complete)
    outcome = Outcome.FAILED if Outcome.FAILED in outcomes else Outcome.NOTHING
    return Answer(source, (), outcome, expires, is_complete)


def _policy_precedence(address: Address) -> int:
    """Precedence of an address in the default policy table (RFC 6724 §2.1)."""
    if address.version == 4:
        return _IPV4_PRECEDENCE
    return next((precedence for network, precedence in _WORSE_IPV6 if address in network), _IPV6_PRECEDENCE)


def _chance(location: RelayLocation, seed: bytes) -> float:
    """A number that decides among equals: the smallest of them goes first, with a probability as its weight is.

    Exponentially distributed with the weight as rate, of which the smallest is distributed just so (RFC 2782, Weight).
    """
    text = location.address.packed + location.port.to_bytes(2, "big")
    number = int.from_bytes(hashlib.blake2b(text, digest_size=8, key=seed[:64]).digest(), "big")
    return -math.log((number + 1) / (1 << 64)) / max(location.weight, 1e-6)
