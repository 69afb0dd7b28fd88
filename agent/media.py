"""Loss in a stream, read off its payload: MPEG-TS continuity counters and RTP sequence numbers.

Pure: UDP payloads in, counters out. A stream is taken for MPEG-TS or RTP only after it has looked like it consistently;
until then, and for anything else, nothing is claimed about loss.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Final

TS_PACKET_SIZE: Final = 188
TS_SYNC_BYTE: Final = 0x47
TS_NULL_PID: Final = 0x1FFF

_TS_SUSPECTS: Final = 7  # transport packets in a row with their sync byte in place: chance is 2^-56
_RTP_HEADER: Final = 12
_RTP_SUSPECTS: Final = 3  # packets of one SSRC in sequence
_RTCP_PAYLOAD_TYPES: Final = range(72, 77)  # RFC 5761 §4: these would be RTCP
_MAX_DROPOUT: Final = 3000  # RFC 3550 §A.1
_MAX_MISORDER: Final = 1024
_SEQUENCE_SPACE: Final = 1 << 16


class MediaKind(Enum):
    """What a stream carries."""

    UNKNOWN = "unknown"
    MPEG_TS = "mpeg-ts"
    RTP = "rtp"
    RTP_MPEG_TS = "rtp/mpeg-ts"


@dataclass(slots=True)
class _Pid:
    counter: int
    is_repeated: bool = False


@dataclass(slots=True)
class TransportStream:
    """Continuity of an MPEG transport stream (ISO/IEC 13818-1 §2.4.3.3).

    Attributes:
        packets: transport packets seen, null packets included.
        discontinuities: places where a continuity counter was not the one expected.
        lost: transport packets missing there, counted modulo 16 and therefore a lower bound.
        transport_errors: packets their sender marked as damaged.
        sync_errors: datagrams that are not whole transport packets.
    """

    packets: int = 0
    discontinuities: int = 0
    lost: int = 0
    transport_errors: int = 0
    sync_errors: int = 0
    _pids: dict[int, _Pid] = field(default_factory=dict)

    @property
    def pids(self) -> int:
        """Number of packet identifiers seen, the null packets' left out."""
        return len(self._pids)

    def feed(self, payload: bytes | memoryview) -> None:
        """Take one datagram's worth of transport packets."""
        if not is_transport_stream(payload):
            self.sync_errors += 1
            return
        for offset in range(0, len(payload), TS_PACKET_SIZE):
            self._feed_packet(payload, offset)

    def _feed_packet(self, payload: bytes | memoryview, offset: int) -> None:
        self.packets += 1
        second, third, fourth = payload[offset + 1], payload[offset + 2], payload[offset + 3]
        if second & 0x80:
            self.transport_errors += 1  # nothing in such a packet can be trusted, its PID included
            return
        identifier = (second & 0x1F) << 8 | third
        if identifier == TS_NULL_PID or not fourth & 0x30:  # counters are undefined; 00 is reserved
            return
        counter, has_payload = fourth & 0x0F, fourth & 0x10
        pid = self._pids.get(identifier)
        if pid is None or self._announces_discontinuity(payload, offset):
            self._pids[identifier] = _Pid(counter)
            return
        step = (counter - pid.counter) & 0x0F
        if not has_payload and step == 0:
            return  # the counter stands still where there is no payload
        if step == 0 and not pid.is_repeated:
            pid.is_repeated = True  # a packet may be sent twice, not three times
            return
        if step != 1 or not has_payload:
            self.discontinuities += 1
            self.lost += (step - 1) & 0x0F if has_payload else step
        pid.counter, pid.is_repeated = counter, False

    @staticmethod
    def _announces_discontinuity(payload: bytes | memoryview, offset: int) -> bool:
        has_adaptation_field = payload[offset + 3] & 0x20
        return bool(has_adaptation_field and payload[offset + 4] and payload[offset + 5] & 0x80)


def is_transport_stream(payload: bytes | memoryview) -> bool:
    """Whether a payload is whole transport packets, each with its sync byte."""
    length = len(payload)
    if not length or length % TS_PACKET_SIZE:
        return False
    return all(payload[offset] == TS_SYNC_BYTE for offset in range(0, length, TS_PACKET_SIZE))


def _has_counted_packet(payload: bytes) -> bool:
    """Whether any transport packet in here advances a continuity counter."""
    return any(
        payload[offset + 3] & 0x10 and int.from_bytes(payload[offset + 1 : offset + 3]) & 0x1FFF != TS_NULL_PID
        for offset in range(0, len(payload) - 3, TS_PACKET_SIZE)
    )


@dataclass(frozen=True, slots=True)
class RtpPacket:
    """Header fields of an RTP packet (RFC 3550 §5.1), and its payload without header extension and padding."""

    sequence: int
    synchronisation_source: int
    payload_type: int
    payload: memoryview

    @classmethod
    def parse(cls, data: bytes) -> RtpPacket | None:
        """The packet, or None when the bytes cannot be RTP version 2."""
        if len(data) < _RTP_HEADER or data[0] >> 6 != 2 or data[1] & 0x7F in _RTCP_PAYLOAD_TYPES:
            return None
        start = _RTP_HEADER + 4 * (data[0] & 0x0F)
        if data[0] & 0x10:
            if len(data) < start + 4:
                return None
            start += 4 + 4 * int.from_bytes(data[start + 2 : start + 4])
        padding = data[-1] if data[0] & 0x20 else 0
        end = len(data) - padding
        if (data[0] & 0x20 and not padding) or end < start:
            return None
        sequence, source = int.from_bytes(data[2:4]), int.from_bytes(data[8:12])
        return cls(sequence, source, data[1] & 0x7F, memoryview(data)[start:end])


@dataclass(slots=True)
class RtpSequence:
    """Loss, reordering and duplicates of one RTP source, after RFC 3550 §A.1.

    Attributes:
        received: distinct packets.
        duplicates: packets that came again.
        reordered: packets that came after a later one.
        restarts: jumps too large to be loss, after which counting went on from the new number.
    """

    received: int = 0
    duplicates: int = 0
    reordered: int = 0
    restarts: int = 0
    _source: int | None = None
    _highest: int = 0
    _expected: int = 0
    _seen: int = 0  # bit n: packet `_highest - n` has been received
    _suspected_restart: int | None = None

    @property
    def lost(self) -> int:
        """Packets that have not come; one that comes late is taken off again."""
        return self._expected - self.received

    def feed(self, packet: RtpPacket) -> bool:
        """Take the next packet; whether it comes after all before it."""
        if packet.synchronisation_source != self._source:
            self._begin(packet)
            return True
        ahead = (packet.sequence - self._highest) % _SEQUENCE_SPACE
        behind = _SEQUENCE_SPACE - ahead
        if 0 < ahead < _MAX_DROPOUT:
            self._advance(packet.sequence, ahead)
            return True
        if ahead == 0:
            self.duplicates += 1
            return False
        if behind < min(_MAX_MISORDER, self._expected):
            self._take_late(behind)
            return False
        return self._consider_restart(packet)

    def _begin(self, packet: RtpPacket) -> None:
        if self._source is not None and packet.synchronisation_source != self._source:
            self.restarts += 1
        self._source = packet.synchronisation_source
        self._highest = packet.sequence
        self._expected += 1
        self.received += 1
        self._seen = 1
        self._suspected_restart = None

    def _advance(self, sequence: int, ahead: int) -> None:
        self._highest = sequence
        self._expected += ahead
        self.received += 1
        self._seen = (self._seen << ahead | 1) & ((1 << _MAX_MISORDER) - 1)
        self._suspected_restart = None

    def _consider_restart(self, packet: RtpPacket) -> bool:
        """One stray number says nothing; two in a row are a sender that started again."""
        if packet.sequence != self._suspected_restart:
            self._suspected_restart = (packet.sequence + 1) % _SEQUENCE_SPACE
            return False
        self.restarts += 1
        self._begin(packet)
        return True

    def _take_late(self, behind: int) -> None:
        if self._seen >> behind & 1:
            self.duplicates += 1
            return
        self._seen |= 1 << behind
        self.received += 1
        self.reordered += 1


@dataclass(slots=True)
class MediaMonitor:
    """Recognises a stream and follows its counters.

    Attributes:
        kind: what the stream was recognised as.
        transport_stream: continuity, counted once the stream is recognised as MPEG-TS.
        rtp: sequence, counted once the stream is recognised as RTP.
        repeated_datagrams: datagrams of a transport stream equal to the one before, not counted anywhere else.
    """

    kind: MediaKind = MediaKind.UNKNOWN
    transport_stream: TransportStream = field(default_factory=TransportStream)
    rtp: RtpSequence = field(default_factory=RtpSequence)
    repeated_datagrams: int = 0
    _previous: bytes = b""
    _transport_packets: int = 0
    _candidates: list[RtpPacket] = field(default_factory=list)

    @property
    def lost(self) -> int | None:
        """Packets known to be missing: RTP packets, else transport packets; None when the payload does not tell."""
        if self.kind is MediaKind.UNKNOWN:
            return None
        return self.transport_stream.lost if self.kind is MediaKind.MPEG_TS else self.rtp.lost

    def feed(self, payload: bytes) -> None:
        """Take the payload of one UDP datagram."""
        match self.kind:
            case MediaKind.UNKNOWN:
                self._recognise(payload)
            case MediaKind.MPEG_TS:
                self._feed_transport_stream(payload)
            case _:
                self._feed_rtp(payload)

    def _feed_transport_stream(self, payload: bytes) -> None:
        if payload == self._previous and _has_counted_packet(payload):  # datagrams of null packets are all alike
            self.repeated_datagrams += 1
            return
        self._previous = payload
        self.transport_stream.feed(payload)

    def _feed_rtp(self, payload: bytes) -> None:
        packet = RtpPacket.parse(payload)
        if packet is not None and self.rtp.feed(packet) and self.kind is MediaKind.RTP_MPEG_TS:
            self.transport_stream.feed(packet.payload)

    def _recognise(self, payload: bytes) -> None:
        if is_transport_stream(payload):
            self._transport_packets += len(payload) // TS_PACKET_SIZE
            self.transport_stream.feed(payload)
            if self._transport_packets >= _TS_SUSPECTS:
                self.kind = MediaKind.MPEG_TS
            return
        self._transport_packets, self.transport_stream = 0, TransportStream()
        packet = RtpPacket.parse(payload)
        if packet is None or not self._continues(packet):
            self._candidates.clear()
        if packet is None:
            return
        self._candidates.append(packet)
        if len(self._candidates) >= _RTP_SUSPECTS:
            self._accept_rtp()

    def _continues(self, packet: RtpPacket) -> bool:
        if not self._candidates:
            return True
        last = self._candidates[-1]
        is_same = packet.synchronisation_source == last.synchronisation_source
        return is_same and 0 < (packet.sequence - last.sequence) % _SEQUENCE_SPACE < _TS_SUSPECTS

    def _accept_rtp(self) -> None:
        carries_transport_stream = all(is_transport_stream(packet.payload) for packet in self._candidates)
        self.kind = MediaKind.RTP_MPEG_TS if carries_transport_stream else MediaKind.RTP
        for packet in self._candidates:
            self.rtp.feed(packet)
            if carries_transport_stream:
                self.transport_stream.feed(packet.payload)
        self._candidates.clear()
