"""Relay discovery for one source, once, with everything asked and answered: what `amt-agent discover` shows."""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from agent.net.dns import DnsClient
from agent.protocol.channels import Address
from agent.protocol.discovery import Answer, DiscoveryMethod, Finding, Outcome, RelayLocation, combine
from agent.protocol.discovery_reply import Step
from agent.service.config import DiscoverySection, GatewayRelay
from agent.service.discovery_service import candidates_of, dns_settings, find


@dataclass(frozen=True, slots=True)
class ConfiguredRelay:
    """A relay of the configuration.

    Attributes:
        address: of the relay, or to discover it at.
        port: UDP port.
        discover: Relay Discovery comes first.
        prefix_length: of the longest prefix that covers the source, 0 for a relay of every source; None when the relay
            does not serve this one.
        has_groups: it serves some groups only.
    """

    address: Address
    port: int
    discover: bool
    prefix_length: int | None
    has_groups: bool = False


@dataclass(frozen=True, slots=True)
class Explanation:
    """What discovery did.

    Attributes:
        configured: relays of the configuration, those that serve the source first, by longest prefix.
        steps: of all methods, in the order they were taken.
        findings: one for each method, in configured order.
        answer: what comes of them.
    """

    configured: tuple[ConfiguredRelay, ...]
    steps: tuple[Step, ...]
    findings: tuple[Finding, ...]
    answer: Answer

    @property
    def has_relay(self) -> bool:
        """Whether there is a relay to try, be it configured or discovered."""
        return self.answer.outcome is Outcome.FOUND or any(item.prefix_length is not None for item in self.configured)


def explain(
    source: Address,
    section: DiscoverySection,
    relays: Sequence[GatewayRelay] = (),
    uplink: str | None = None,
    group: Address | None = None,
) -> Explanation:
    """Discover relays for a source; never raises because of what the network does."""
    return asyncio.run(_explain(source, section, relays, uplink, group))


async def _explain(
    source: Address,
    section: DiscoverySection,
    relays: Sequence[GatewayRelay],
    uplink: str | None,
    group: Address | None,
) -> Explanation:
    steps: list[Step] = []
    loop = asyncio.get_running_loop()
    client = DnsClient(loop, dns_settings(section), Counter())
    findings = await asyncio.gather(
        *(find(method, source, client, section, steps.append) for method in section.methods)
    )
    await client.close()
    candidates = candidates_of(findings, section, uplink, secrets.token_bytes(16))
    return Explanation(
        configured_relays(source, relays, group),
        tuple(steps),
        tuple(findings),
        combine(source, findings, section.methods, candidates, 0.0),
    )


def configured_relays(
    source: Address, relays: Sequence[GatewayRelay], group: Address | None = None
) -> tuple[ConfiguredRelay, ...]:
    """The relays of a configuration, those that serve `source` first, the longest prefix before the others."""
    found = [
        ConfiguredRelay(address, relay.port, relay.discover, _prefix_length(source, relay, group), bool(relay.groups))
        for relay in relays
        for address in relay.address
    ]
    return tuple(sorted(found, key=lambda item: -1 if item.prefix_length is None else item.prefix_length, reverse=True))


def reason(previous: RelayLocation | None, location: RelayLocation, methods: Sequence[DiscoveryMethod]) -> str:
    """Why a candidate stands behind the one before it (RFC 8777 §2.3.2), in words."""
    if previous is None:
        is_first = location.method is methods[0]
        why = f"{location.method.value} is asked first" if is_first else "nothing usable by the methods before it"
    elif previous.is_usable and not location.is_usable:
        why = "this host has no route to it"
    elif previous.method is not location.method:
        why = f"{location.method.value} stands behind {previous.method.value}"
    elif previous.precedence != location.precedence:
        word = "priority" if location.method is DiscoveryMethod.DNS_SD else "precedence"
        why = f"{word} {location.precedence} comes after {previous.precedence}"
    elif previous.address.version != location.address.version:
        why = "as good, but IPv6 is tried first"
    else:
        why = "as good; chance decides" + ", by weight" * (location.method is DiscoveryMethod.DNS_SD)
    return why


def _prefix_length(source: Address, relay: GatewayRelay, group: Address | None) -> int | None:
    """Of a relay for some groups only, whether it serves the source takes a group to tell."""
    if relay.groups and (group is None or not any(group in prefix for prefix in relay.groups)):
        return None
    if not relay.sources:
        return 0
    return max((prefix.prefixlen for prefix in relay.sources if source in prefix), default=None)
