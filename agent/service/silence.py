"""Notices what carried packets all along and carries none: a tunnel, or one channel of a tunnel that carries others."""

from __future__ import annotations

from dataclasses import dataclass

from agent.protocol.channels import Channel


@dataclass(slots=True)
class _Flow:
    packets: int
    since: float
    moved_at: float
    is_told: bool = False

    def take(self, packets: int, now: float, longest_gap: float) -> None:
        """Take a sample; a gap longer than `longest_gap` seconds, or a counter that starts over, begins a new flow."""
        if packets == self.packets:
            return
        if packets < self.packets or now - self.moved_at > longest_gap:
            self.since = now
        self.packets = packets
        self.moved_at = now
        self.is_told = False


class SilenceWatch:
    """Compares packet counters of tunnels between samples.

    A tunnel counts as steady when it has carried packets for `silence` seconds without a gap of half of that: sparse
    channels are silent by nature.

    Attributes:
        silence: seconds without a packet that count as silence.
    """

    def __init__(self, silence: float) -> None:
        self.silence = silence
        self._flows: dict[str, _Flow] = {}

    def observe(self, tunnel: str, packets: int, now: float) -> bool:
        """Take a sample; True once each time a steady tunnel has fallen silent."""
        flow = self._flows.get(tunnel)
        if flow is None:
            self._flows[tunnel] = _Flow(packets, now, now)
            return False
        flow.take(packets, now, self.silence / 2)
        is_steady = flow.moved_at - flow.since >= self.silence
        if flow.is_told or not is_steady or now - flow.moved_at < self.silence:
            return False
        flow.is_told = True
        return True

    def is_flowing(self, tunnel: str, now: float) -> bool:
        """Whether packets came through a tunnel within half of `silence`."""
        flow = self._flows.get(tunnel)
        return flow is not None and flow.moved_at > flow.since and now - flow.moved_at <= self.silence / 2

    def forget(self, tunnel: str) -> None:
        """Start over for a tunnel: it was closed, or nothing is wanted of it."""
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
        flows = {name: known.get(name) or _Flow(count, now, now) for name, count in packets.items()}
        self._flows[channel] = flows
        for name, flow in flows.items():
            if flow.packets != packets[name]:
                self._flowing.add(channel)
            flow.take(packets[name], now, self.silence)
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
