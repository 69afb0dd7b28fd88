"""What the host role takes out of a tunnel: the UDP payloads of one channel, and figures about them. No IO in here."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from agent.media import MediaKind, MediaMonitor
from agent.protocol.channels import Address, Channel
from agent.protocol.reassembly import Reassembler
from agent.protocol.wire import ip
from agent.protocol.wire.errors import BadChecksum, WireError

_MOST_FLOWS: Final = 32  # flows of a channel whose loss is followed; hostile ports must not grow memory


@dataclass(frozen=True, slots=True)
class Flow:
    """Sender and destination port within a channel."""

    source: Address
    port: int


class _Refused(Exception):
    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class ChannelFilter:
    """Takes UDP payloads of a channel out of inner IP packets and counts everything else by reason.

    Attributes:
        refused: reason -> packets.
        reassembler: keeps inner fragments.
    """

    def __init__(self, channel: Channel, port: int | None) -> None:
        self.refused: Counter[str] = Counter()
        self.reassembler = Reassembler()
        self._channel = channel
        self._port = port

    def accept(self, inner: bytes, now: float) -> tuple[Flow, bytes] | None:
        """Flow and payload of an inner packet, or None when it is refused or a fragment whose rest is missing."""
        try:
            return self._extract(inner, now)
        except _Refused as refused:
            self.refused[refused.reason] += 1
            return None

    def _extract(self, inner: bytes, now: float) -> tuple[Flow, bytes] | None:
        try:
            packet = ip.decode(inner)
        except WireError:
            raise _Refused("bad_inner_header") from None
        if packet.destination != self._channel.group or self._channel.source not in {None, packet.source}:
            raise _Refused("not_subscribed")
        if packet.protocol != ip.PROTOCOL_UDP:
            raise _Refused("not_udp")
        whole = self.reassembler.add(packet, now) if packet.is_fragment else packet
        if whole is None:
            return None
        try:
            datagram = ip.decode_udp(whole)
        except BadChecksum:
            raise _Refused("bad_udp_checksum") from None
        except WireError:
            raise _Refused("bad_udp_header") from None
        if self._port not in {None, datagram.destination_port}:
            raise _Refused("other_port")
        return Flow(packet.source, datagram.destination_port), datagram.payload


@dataclass(slots=True)
class Measurement:
    """Figures of what was received. Times are seconds of the caller's monotonic clock.

    Attributes:
        packets: UDP datagrams.
        payload_bytes: sum of their payloads.
        first_at: when the first came.
        last_at: when the last came.
        flows: loss per sender and port, for the first 32 of them.
    """

    packets: int = 0
    payload_bytes: int = 0
    first_at: float | None = None
    last_at: float | None = None
    flows: dict[Flow, MediaMonitor] = field(default_factory=dict)

    def add(self, flow: Flow, payload: bytes, now: float) -> None:
        """Count one datagram."""
        if self.first_at is None:
            self.first_at = now
        self.last_at = now
        self.packets += 1
        self.payload_bytes += len(payload)
        media = self.flows.get(flow)
        if media is None:
            if len(self.flows) >= _MOST_FLOWS:
                return
            media = self.flows[flow] = MediaMonitor()
        media.feed(payload)

    @property
    def lost(self) -> int | None:
        """Sum over the flows that tell; None when none does."""
        known = [media.lost for media in self.flows.values() if media.lost is not None]
        return sum(known) if known else None

    @property
    def kind(self) -> MediaKind:
        """What the flows carry; unknown when they differ."""
        kinds = {media.kind for media in self.flows.values()}
        return kinds.pop() if len(kinds) == 1 else MediaKind.UNKNOWN

    def seconds(self) -> float:
        """From the first datagram to the last."""
        return 0.0 if self.first_at is None or self.last_at is None else self.last_at - self.first_at
