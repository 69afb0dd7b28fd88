"""Relays a channel may come through, and which of the configured ones serve it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from agent.protocol.channels import Channel, Network


@dataclass(frozen=True, slots=True)
class RelayCandidate:
    """One address of a relay, of the configuration or discovered.

    Attributes:
        name: name of its first tunnel, unique.
        sources: prefixes it serves; empty for every source, of both families.
        relay: what the addresses of one relay have in common; empty: this is its only one.
        preference: less is better; nothing moves back among equals.
        tunnels: tunnels to it, over which channels are spread.
        origin: `configured`, or how it was discovered (`driad`, `dns-sd`, `anycast`).
        groups: prefixes of groups it serves; empty for every group.
    """

    name: str
    sources: tuple[Network, ...] = ()
    relay: str = ""
    preference: int = 0
    tunnels: int = 1
    origin: str = "configured"
    groups: tuple[Network, ...] = ()

    @property
    def identity(self) -> str:
        """The relay behind the address."""
        return self.relay or self.name

    @property
    def is_configured(self) -> bool:
        """Whether the operator named it."""
        return self.origin == "configured"

    @property
    def tunnel_names(self) -> tuple[str, ...]:
        """Names of its tunnels: `192.0.2.1`, `192.0.2.1#2` and so on."""
        if self.tunnels == 1:
            return (self.name,)
        return (self.name, *(f"{self.name}#{number}" for number in range(2, self.tunnels + 1)))

    def match_length(self, channel: Channel) -> int | None:
        """Length of the longest prefix that covers the channel's source, or None when it is not served.

        Any-source channels are served by relays without prefixes or with a default prefix of the group's family: of
        the others nobody can say where the source will be.
        """
        if self.groups and not any(channel.group in prefix for prefix in self.groups):
            return None
        if not self.sources:
            return 0
        own = [prefix for prefix in self.sources if prefix.version == channel.group.version]
        if channel.source is None:
            return 0 if any(prefix.prefixlen == 0 for prefix in own) else None
        return max((prefix.prefixlen for prefix in own if channel.source in prefix), default=None)


def serving(candidates: Iterable[RelayCandidate], channel: Channel) -> tuple[RelayCandidate, ...]:
    """Those with the longest prefix that covers the channel's source, in the order given."""
    matches = [(candidate.match_length(channel), candidate) for candidate in candidates]
    longest = max((length for length, _ in matches if length is not None), default=None)
    return () if longest is None else tuple(candidate for length, candidate in matches if length == longest)
