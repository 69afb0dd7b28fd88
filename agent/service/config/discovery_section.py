"""How a relay is found for a source that no [[gateway.relay]] names."""

from __future__ import annotations

import re
from typing import Annotated, Final

from pydantic import AfterValidator, Field

from agent.protocol.discovery import DiscoveryMethod
from agent.service.config.section import Section
from agent.service.config.values import AnyAddress, Flag, OneOrMany, Port, Seconds, SecondsOrNone

__all__ = ["DiscoveryMethod", "DiscoverySection"]

_LABEL: Final = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")


def _domain(value: str) -> str:
    """A name of the DNS (RFC 1035 §2.3.4): others than ASCII names are written as xn-- (RFC 5890 §2.3.2.1)."""
    if not all(map(_LABEL.fullmatch, value.removesuffix(".").split("."))):
        raise ValueError("is not a domain: labels of letters, digits and hyphens between dots")
    return value


def _once(value: tuple[DiscoveryMethod, ...]) -> tuple[DiscoveryMethod, ...]:
    if len(set(value)) != len(value):
        raise ValueError("names a method twice")
    return value


class DiscoverySection(Section):
    """Relay discovery (RFC 8777) for sources without a relay in the file."""

    methods: Annotated[OneOrMany[DiscoveryMethod], AfterValidator(_once)] = Field(
        default=(),
        examples=[["driad", "dns-sd", "anycast"]],
        description="What to ask, in this order; leave out to use only the relays of the file. RFC 8777 §2.3.2's own "
        "order is dns-sd, anycast, driad.",
    )
    resolvers: OneOrMany[AnyAddress] = Field(
        default=(), examples=[["192.0.2.53"]], description="DNS servers; leave out for those of /etc/resolv.conf."
    )
    resolver_port: Annotated[Port, Field(ge=1)] = Field(default=53, description="Port of those servers.")
    query_timeout: Annotated[Seconds, Field(ge=0.1, le=60)] = Field(
        default=5.0, description="Seconds one DNS question may take, retries included."
    )
    queries_per_second: Annotated[int, Field(strict=True, ge=10, le=100_000)] = Field(
        default=100, description="DNS packets sent at most; a tenth of it in any 100 ms (RFC 8777 §2.4.2: 10)."
    )
    domain: Annotated[str, Field(strict=True, max_length=253), AfterValidator(_domain)] | None = Field(
        default=None, examples=["example.net"], description="Domain for DNS-SD; leave out for the host's own."
    )
    anycast: OneOrMany[AnyAddress] = Field(
        default=("192.52.193.1", "2001:3::1"),
        validate_default=True,
        max_length=2,
        description="Well-known relay discovery addresses (RFC 7450 §7.1) of the method anycast.",
    )
    maximum_ttl: Annotated[Seconds, Field(ge=1, le=604_800)] = Field(
        default=86_400.0, description="Seconds an answer is kept at most, whatever its TTL says."
    )
    negative_ttl: Annotated[Seconds, Field(ge=1, le=86_400)] = Field(
        default=60.0, description="Seconds until asking again after an answer without usable lifetime, or none."
    )
    family_delay: Annotated[SecondsOrNone, Field(le=10)] = Field(
        default=0.25,
        description="Seconds the first family has before the other one is tried too (happy eyeballs, RFC 8305 §5).",
    )
    strict_data_port: Flag = Field(
        default=True, description="For discovered relays: refuse data sent from another UDP port than the relay's."
    )
    relay_limit: Annotated[int, Field(strict=True, ge=1, le=10_000)] = Field(
        default=256, description="Discovered relays in use at most; protects against answers without end."
    )
    idle_time: Annotated[SecondsOrNone, Field(le=86_400)] = Field(
        default=60.0, description="Seconds a discovered relay's tunnel is kept after its last channel."
    )
