"""Notices what carried packets all along and carries none: a tunnel, or one channel of a tunnel that carries others."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Final

from agent.protocol.channels import Channel

_GAP_MEMORY: Final = 300.0
"""Seconds a gap is remembered."""

_USUAL: Final = 3
"""A gap this many were as long as, of those remembered, is a usual one: a pause or two are not."""

_LONGEST_WAIT: Final = 10
"""However long gaps usually are, a tunnel is probed after this many times `silence`."""


@dataclass(slots=True)
class _Flow:
    packets: int
    moved_at: float

    def take(self, packets: int, now: float) -> bool:
        """Take a sample; True when packets came since the one before."""
        has_moved = packets != self.packets
        if has_moved:
            self.packets = packets
            self.moved_at = now
        return has_moved


@dataclass(slots=True)
class _TunnelFlow(_Flow):
    seen_at: float
    is_flowing: bool = False
    gaps: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=16))
    next_probe: float = 0.0  # how long it has to be silent

    def watch(self, packets: int, now: float, silence: float) -> None:
        """Take a sample, and remember a gap that is over: as long as it was for certain, between two samples."""
        gap = self.seen_at - self.moved_at
        self.seen_at = now
        if not self.take(packets, now):
            return
        if self.is_flowing and gap >= silence / 2:
            self.gaps.append((now, gap))
        self.is_flowing = True
        self.next_probe = 0.0

    def usual_gap(self, now: float) -> float:
        """The longest gap that is nothing unusual."""
        while self.gaps and now - self.gaps[0][0] > _GAP_MEMORY:
            self.gaps.popleft()
        lengths = sorted((length for _, length in self.gaps), reverse=True)
        return lengths[_USUAL - 1] if len(lengths) >= _USUAL else 0.0


class SilenceWatch:
    """Compares packet counters of tunnels between samples, and says when to ask a relay whether it is there.

    That is when nothing came for `silence`, or for twice as long as this tunnel is silent now and then, at most ten
    times `silence`: a question is cheap, but not with each packet of a sparse channel. While the silence lasts, each
    question waits twice as long as the one before.

    Attributes:
        silence: seconds without a packet that count as silence.
    """

    def __init__(self, silence: float) -> None:
        self.silence = silence
        self._flows: dict[str, _TunnelFlow] = {}

    def observe(self, tunnel: str, packets: int, now: float) -> bool:
        """Take a sample; True when a tunnel that carried packets is to be probed, until `probed` tells that it was."""
        flow = self._flows.get(tunnel)
        if flow is None:
            flow = self._flows[tunnel] = _TunnelFlow(0, now, now)
        flow.watch(packets, now, self.silence)
        silent = now - flow.moved_at
        if not flow.is_flowing or silent < self.silence:
            return False
        wait = max(self.silence, min(2 * flow.usual_gap(now), _LONGEST_WAIT * self.silence))
        return silent >= max(wait, flow.next_probe)

    def probed(self, tunnel: str, now: float) -> bool:
        """The relay was asked; True the first time in this silence. The next question waits as long again."""
        flow = self._flows[tunnel]
        is_first = not flow.next_probe
        flow.next_probe = 2 * (now - flow.moved_at)
        return is_first

    def is_flowing(self, tunnel: str, now: float) -> bool:
        """Whether packets came through a tunnel within half of `silence`."""
        flow = self._flows.get(tunnel)
        return flow is not None and flow.is_flowing and now - flow.moved_at <= self.silence / 2

    def rest(self, tunnel: str, packets: int, now: float) -> None:
        """Nothing is wanted of a tunnel: what comes from here on begins anew."""
        self._flows[tunnel] = _TunnelFlow(packets, now, now)

    def forget(self, tunnel: str) -> None:
        """A tunnel was closed."""
        self._flows.pop(tunnel, None)


class ChannelSilenceWatch:
    """Compares packet counters of channels, per tunnel.

    A channel that stopped everywhere is told once, not again and again with each relay that is tried: until its packets
    are seen again it is left alone.

    Attributes:
        silence: seconds without a packet that count as silence.
    """

    def __init__(self, silence: float) -> None:
        self.silence = silence
        self._flows: dict[Channel, dict[str, _Flow]] = {}
        self._flowing: set[Channel] = set()

    def observe(self, channel: Channel, packets: dict[str, int], now: float) -> list[str]:
        """Take a sample, packets by tunnel; the tunnels that bring this channel no more, though it flowed."""
        known = self._flows.get(channel, {})
        flows = {name: known.get(name) or _Flow(count, now) for name, count in packets.items()}
        self._flows[channel] = flows
        for name, flow in flows.items():
            if flow.take(packets[name], now):
                self._flowing.add(channel)
        if channel not in self._flowing:
            return []
        return [name for name, flow in flows.items() if now - flow.moved_at >= self.silence]

    def tell(self, channel: Channel, tunnel: str) -> None:
        """Another relay is tried for a channel: its packets have to be seen again before the next one is."""
        self._flows.get(channel, {}).pop(tunnel, None)
        self._flowing.discard(channel)

    def forget(self, channel: Channel) -> None:
        """Nobody wants a channel any more."""
        self._flows.pop(channel, None)
        self._flowing.discard(channel)
