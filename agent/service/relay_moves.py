"""Tells of channels that move from one relay to another, and of their first packet from there."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from agent.protocol.channels import Channel

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Signal:
    """What first told that a relay may be gone.

    Attributes:
        kind: `silence`, `icmp` or `limit`; `move` where nothing told.
        at: when it came, on the loop's clock in seconds.
    """

    kind: str
    at: float


@dataclass(frozen=True, slots=True)
class _Awaited:
    tunnels: frozenset[str]
    signal: Signal


class RelayMoves:
    """Log lines of moves: `channel moved`, then `channel flows again` with the seconds since the signal."""

    def __init__(self) -> None:
        self._awaited: dict[Channel, _Awaited] = {}

    def moved(
        self,
        channel: Channel,
        before: tuple[str, ...],
        after: tuple[str, ...],
        reason: str,
        signal: Signal,
    ) -> None:
        """A channel goes through tunnels `after` now, because of `signal`."""
        _log.info(
            "channel moved channel=%s from=%s to=%s reason=%s",
            channel,
            ",".join(before),
            ",".join(after) or "nowhere",
            reason,
        )
        self.forget(channel)
        others = frozenset(after).difference(before)
        if others:
            self._awaited[channel] = _Awaited(others, signal)

    def first_packet(self, channel: Channel, tunnel: str, now: float) -> None:
        """A tunnel's first packet of a channel came."""
        awaited = self._awaited.get(channel)
        if awaited is None or tunnel not in awaited.tunnels:
            return
        del self._awaited[channel]
        _log.info(
            "channel flows again channel=%s tunnel=%s signal=%s seconds=%.3f",
            channel,
            tunnel,
            awaited.signal.kind,
            now - awaited.signal.at,
        )

    def forget(self, channel: Channel) -> None:
        """Nobody waits for a channel's packets any more."""
        self._awaited.pop(channel, None)
