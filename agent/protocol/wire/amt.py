"""AMT messages (RFC 7450 §5.1): seven types behind one byte of version and type.

Reserved bits are sent as zero and ignored on receipt. Trailing bytes after a fixed layout are ignored too, because
deployed gateways pad their Requests (§5.1.3 gives 8 bytes, VLC sends 9).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv4Address, IPv6Address
from typing import ClassVar, Final, TypeAlias

from agent.protocol.channels import Address
from agent.protocol.wire.errors import Malformed, Truncated, UnknownType

PORT: Final = 2268
"""UDP port of relays (RFC 7450 §7.2)."""

ANYCAST_IPV4: Final = IPv4Address("192.52.193.1")
ANYCAST_IPV6: Final = IPv6Address("2001:3::1")

MAC_LENGTH: Final = 6
DATA_HEADER: Final = b"\x06\x00"
_IPV4_COMPATIBLE_PREFIX: Final = bytes(12)


class MessageType(IntEnum):
    """Message types (RFC 7450 §5.1)."""

    RELAY_DISCOVERY = 1
    RELAY_ADVERTISEMENT = 2
    REQUEST = 3
    MEMBERSHIP_QUERY = 4
    MEMBERSHIP_UPDATE = 5
    MULTICAST_DATA = 6
    TEARDOWN = 7


@dataclass(frozen=True, slots=True)
class RelayDiscovery:
    """§5.1.1: a gateway looks for a relay."""

    type: ClassVar[MessageType] = MessageType.RELAY_DISCOVERY
    nonce: int

    def encode(self) -> bytes:
        """Eight bytes."""
        return b"\x01\x00\x00\x00" + self.nonce.to_bytes(4, "big")


@dataclass(frozen=True, slots=True)
class RelayAdvertisement:
    """§5.1.2: a relay tells its unicast address."""

    type: ClassVar[MessageType] = MessageType.RELAY_ADVERTISEMENT
    nonce: int
    relay: Address

    def encode(self) -> bytes:
        """Twelve or twenty-four bytes."""
        return b"\x02\x00\x00\x00" + self.nonce.to_bytes(4, "big") + self.relay.packed


@dataclass(frozen=True, slots=True)
class Request:
    """§5.1.3: a gateway asks for a query.

    Attributes:
        nonce: request nonce.
        mld: P flag, MLDv2 wanted instead of IGMPv3.
        kernel_mld: the same wish at bit 0x80, where the Linux kernel's driver keeps its P.
    """

    type: ClassVar[MessageType] = MessageType.REQUEST
    nonce: int
    mld: bool = False
    kernel_mld: bool = False

    def encode(self) -> bytes:
        """Eight bytes."""
        flags = (0x01 if self.mld else 0) | (0x80 if self.kernel_mld else 0)
        return bytes((3, flags, 0, 0)) + self.nonce.to_bytes(4, "big")


@dataclass(frozen=True, slots=True)
class MembershipQuery:
    """§5.1.4: a relay answers a Request.

    Attributes:
        response_mac: opaque, returned in Updates and Teardowns.
        nonce: nonce of the Request.
        packet: IP packet with an IGMPv3 or MLDv2 general query.
        limit: L flag, the relay takes no new tunnels.
        gateway: address and port the Request came from as the relay saw it (G flag), or None. IPv4 addresses travel
            as IPv4-compatible IPv6 addresses.
    """

    type: ClassVar[MessageType] = MessageType.MEMBERSHIP_QUERY
    response_mac: bytes
    nonce: int
    packet: bytes
    limit: bool = False
    gateway: tuple[Address, int] | None = None

    def encode(self) -> bytes:
        """12 bytes, the packet, and 18 more with a gateway address."""
        flags = (0x02 if self.limit else 0) | (0x01 if self.gateway else 0)
        head = bytes((4, flags)) + self.response_mac + self.nonce.to_bytes(4, "big")
        return head + self.packet + (_encode_gateway(*self.gateway) if self.gateway else b"")


@dataclass(frozen=True, slots=True)
class MembershipUpdate:
    """§5.1.5: a gateway reports membership in an IP packet with an IGMP or MLD message."""

    type: ClassVar[MessageType] = MessageType.MEMBERSHIP_UPDATE
    response_mac: bytes
    nonce: int
    packet: bytes

    def encode(self) -> bytes:
        """12 bytes and the packet."""
        return b"\x05\x00" + self.response_mac + self.nonce.to_bytes(4, "big") + self.packet


@dataclass(frozen=True, slots=True)
class MulticastData:
    """§5.1.6: one IP multicast packet."""

    type: ClassVar[MessageType] = MessageType.MULTICAST_DATA
    packet: bytes

    def encode(self) -> bytes:
        """2 bytes and the packet."""
        return DATA_HEADER + self.packet


@dataclass(frozen=True, slots=True)
class Teardown:
    """§5.1.7: a gateway ends the tunnel of an address and port it no longer has."""

    type: ClassVar[MessageType] = MessageType.TEARDOWN
    response_mac: bytes
    nonce: int
    gateway: tuple[Address, int]

    def encode(self) -> bytes:
        """Thirty bytes."""
        return b"\x07\x00" + self.response_mac + self.nonce.to_bytes(4, "big") + _encode_gateway(*self.gateway)


Message: TypeAlias = (
    RelayDiscovery | RelayAdvertisement | Request | MembershipQuery | MembershipUpdate | MulticastData | Teardown
)


def decode(data: bytes) -> Message:
    """Decode one UDP payload.

    Raises:
        Truncated: shorter than the message's layout.
        Malformed: wrong version, or an embedded length that does not fit.
        UnknownType: version 0 with a type beyond the seven.
    """
    if not data:
        raise Truncated("empty AMT message", data)
    version, kind = data[0] >> 4, data[0] & 0x0F
    if version:
        raise Malformed(f"AMT version {version}, expected 0", data)
    decoder = _DECODERS.get(kind)
    if decoder is None:
        raise UnknownType(f"AMT message type {kind}", data)
    return decoder(data)


def _need(data: bytes, length: int, what: str) -> None:
    if len(data) < length:
        raise Truncated(f"{what} of {len(data)} bytes, needs {length}", data)


def _nonce(data: bytes, offset: int) -> int:
    return int.from_bytes(data[offset : offset + 4], "big")


def _decode_discovery(data: bytes) -> Message:
    _need(data, 8, "Relay Discovery")
    return RelayDiscovery(_nonce(data, 4))


def _decode_advertisement(data: bytes) -> Message:
    _need(data, 12, "Relay Advertisement")
    address = data[8:]
    if len(address) == 4:
        return RelayAdvertisement(_nonce(data, 4), IPv4Address(address))
    if len(address) == 16:
        return RelayAdvertisement(_nonce(data, 4), IPv6Address(address))
    raise Malformed(f"Relay Advertisement with an address of {len(address)} bytes", data)


def _decode_request(data: bytes) -> Message:
    _need(data, 8, "Request")
    return Request(_nonce(data, 4), mld=bool(data[1] & 0x01), kernel_mld=bool(data[1] & 0x80))


def _decode_query(data: bytes) -> Message:
    _need(data, 12, "Membership Query")
    limit, has_gateway = bool(data[1] & 0x02), bool(data[1] & 0x01)
    body = data[12:]
    length = _inner_length(body, data)
    gateway = None
    if has_gateway:
        _need(data, 12 + length + 18, "Membership Query with gateway address")
        gateway = _decode_gateway(body[length : length + 18])
    return MembershipQuery(data[2:8], _nonce(data, 8), body[:length], limit, gateway)


def _decode_update(data: bytes) -> Message:
    _need(data, 12, "Membership Update")
    body = data[12:]
    return MembershipUpdate(data[2:8], _nonce(data, 8), body[: _inner_length(body, data)])


def _decode_data(data: bytes) -> Message:
    _need(data, 2, "Multicast Data")
    return MulticastData(data[2:])


def _decode_teardown(data: bytes) -> Message:
    _need(data, 30, "Teardown")
    return Teardown(data[2:8], _nonce(data, 8), _decode_gateway(data[12:30]))


def _inner_length(body: bytes, data: bytes) -> int:
    """Length in bytes of the IP packet at the head of `body`, by its own header."""
    if len(body) < 20:
        raise Truncated(f"inner packet of {len(body)} bytes", data)
    version = body[0] >> 4
    if version == 4:
        length = int.from_bytes(body[2:4], "big")
    elif version == 6:
        length = 40 + int.from_bytes(body[4:6], "big")
    else:
        raise Malformed(f"inner packet of IP version {version}", data)
    if not 20 <= length <= len(body):
        raise Malformed(f"inner packet says {length} bytes, {len(body)} are there", data)
    return length


def _encode_gateway(address: Address, port: int) -> bytes:
    packed = _IPV4_COMPATIBLE_PREFIX + address.packed if address.version == 4 else address.packed
    return port.to_bytes(2, "big") + packed


def _decode_gateway(field: bytes) -> tuple[Address, int]:
    """Port and address field; ::a.b.c.d and ::ffff:a.b.c.d are IPv4, but :: and ::1 are themselves."""
    port, packed = int.from_bytes(field[:2], "big"), field[2:18]
    compatible = packed[:12] == _IPV4_COMPATIBLE_PREFIX and int.from_bytes(packed[12:], "big") > 1
    mapped = packed[:12] == bytes(10) + b"\xff\xff"
    return (IPv4Address(packed[12:]) if compatible or mapped else IPv6Address(packed)), port


_DECODERS: Final[dict[int, Callable[[bytes], Message]]] = {
    MessageType.RELAY_DISCOVERY: _decode_discovery,
    MessageType.RELAY_ADVERTISEMENT: _decode_advertisement,
    MessageType.REQUEST: _decode_request,
    MessageType.MEMBERSHIP_QUERY: _decode_query,
    MessageType.MEMBERSHIP_UPDATE: _decode_update,
    MessageType.MULTICAST_DATA: _decode_data,
    MessageType.TEARDOWN: _decode_teardown,
}
