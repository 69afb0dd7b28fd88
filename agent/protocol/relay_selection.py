"""Which configured relay brings a channel: longest matching source prefix, then configured order, then the healthy one.

A relay that was lost, or that set the L flag, is passed over while another candidate is there. It is taken again once
its tunnel is established again, or when every other candidate has failed too (the one that failed longest ago first).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from agent.protocol.channels import Channel, Network


@dataclass(frozen=True, slots=True)
class RelayCandidate:
    """A relay of the configuration.

    Attributes:
        name: tunnel name.
        sources: prefixes it serves; empty for every source, of both families.
    """

    name: str
    sources: tuple[Network, ...] = ()

    def match_length(self, channel: Channel) -> int | None:
        """Length of the longest prefix that covers the channel's source, or None when it is not served.

        Any-source channels are served by relays without prefixes or with a default prefix of the group's family: of
        the others nobody can say where the source will be.
        """
        if not self.sources:
            return 0
        own = [prefix for prefix in self.sources if prefix.version == channel.group.version]
        if channel.source is None:
            return 0 if any(prefix.prefixlen == 0 for prefix in own) else None
        return max((prefix.prefixlen for prefix in own if channel.source in prefix), default=None)


class RelaySelection:
    """Chooses among candidates and remembers which failed."""

    def __init__(self, candidates: Iterable[RelayCandidate], failed_at: Mapping[str, float] | None = None) -> None:
        """`failed_at` is what `failures` of a previous selection said, by name in seconds."""
        self._candidates = tuple(candidates)
        self._failed_at = dict(failed_at or {})

    def failures(self, names: Iterable[str]) -> dict[str, float]:
        """When those among `names` that failed and have not recovered did so."""
        return {name: self._failed_at[name] for name in names if name in self._failed_at}

    def candidates(self, channel: Channel) -> list[str]:
        """Names of the relays with the longest matching prefix, in configured order."""
        matches = [(candidate.match_length(channel), candidate.name) for candidate in self._candidates]
        longest = max((length for length, _ in matches if length is not None), default=None)
        return [] if longest is None else [name for length, name in matches if length == longest]

    def select(self, channel: Channel) -> str | None:
        """Name of the relay to use now, or None when none serves the channel."""
        return min(self.candidates(channel), key=lambda name: self._failed_at.get(name, float("-inf")), default=None)

    def failed(self, name: str, now: float) -> bool:
        """Pass a relay over; True when that may change a selection."""
        is_new = name not in self._failed_at
        self._failed_at[name] = now
        return (is_new or len(self._failed_at) > 1) and len(self._candidates) > 1

    def recovered(self, name: str) -> bool:
        """Take a relay again; True when that may change a selection."""
        return self._failed_at.pop(name, None) is not None and len(self._candidates) > 1
