"""DRIAD records: RDATA of AMTRELAY (RFC 8777 §4.2) and the name it is asked under (RFC 1035 §3.5, RFC 3596 §2.5)."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from agent.protocol.channels import Address
from agent.protocol.wire.errors import Malformed, Truncated, UnknownType

AMTRELAY: Final = 260
"""Number of the record type (RFC 8777 §4.1)."""

_DISCOVERY_OPTIONAL: Final = 0x80
_NO_RELAY, _IPV4, _IPV6, _NAME = range(4)
_LONGEST_NAME: Final = 255  # RFC 1035 §2.3.4, bytes on the wire
_PLAIN: Final = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_")


@dataclass(frozen=True, slots=True)
class RelayRecord:
    """What one AMTRELAY record says.

    Attributes:
        precedence: 0 to 255, lowest is tried first (§4.2.1).
        discovery_optional: the D bit: a Request may be sent without Relay Discovery before it (§4.2.2).
        relay: its address, its name with the dot of the root at the end, or None: no relay shall be used (§4.2.4).
    """

    precedence: int
    discovery_optional: bool
    relay: Address | str | None

    @property
    def relay_type(self) -> int:
        """Number of the type field (§4.2.3)."""
        if self.relay is None:
            return _NO_RELAY
        if isinstance(self.relay, str):
            return _NAME
        return _IPV4 if self.relay.version == 4 else _IPV6

    def __str__(self) -> str:
        """As a zone file has it (§4.3.1)."""
        relay = "." if self.relay is None else self.relay
        return f"{self.precedence} {self.discovery_optional:d} {self.relay_type} {relay}"


def decode_record(data: bytes) -> RelayRecord:
    """Read the RDATA of one AMTRELAY record.

    Raises:
        UnknownType: a relay type that is not defined; such a record is to be passed over (§4.2.3).
        Truncated: it ends before its relay field does.
        Malformed: the relay field is longer than its type says, or no uncompressed name.
    """
    if len(data) < 2:
        raise Truncated("an AMTRELAY record has two bytes at least", data)
    relay_type, field = data[1] & 0x7F, data[2:]
    relay: Address | str | None
    if relay_type == _NO_RELAY:
        _expect_length(field, 0, data)
        relay = None
    elif relay_type == _IPV4:
        _expect_length(field, 4, data)
        relay = IPv4Address(field)
    elif relay_type == _IPV6:
        _expect_length(field, 16, data)
        relay = IPv6Address(field)
    elif relay_type == _NAME:
        relay = _decode_name(field, data)
    else:
        raise UnknownType(f"relay type {relay_type} is not defined", data)
    return RelayRecord(data[0], bool(data[1] & _DISCOVERY_OPTIONAL), relay)


def reverse_name(source: Address) -> str:
    """Name in in-addr.arpa or ip6.arpa, with the dot of the root."""
    plain = source if source.version == 4 else IPv6Address(int(source))  # without a zone
    return f"{plain.reverse_pointer}."


def _expect_length(field: bytes, length: int, data: bytes) -> None:
    if len(field) < length:
        raise Truncated(f"the relay field has {len(field)} bytes, not {length}", data)
    if len(field) > length:
        raise Malformed(f"the relay field has {len(field)} bytes, not {length}", data)


def _decode_name(field: bytes, data: bytes) -> str:
    """A name that must not be compressed (§4.2.4), as text with escapes (RFC 1035 §5.1)."""
    labels: list[str] = []
    position = 0
    while True:
        if position >= len(field):
            raise Truncated("the relay's name has no end", data)
        length = field[position]
        if length > 63:
            raise Malformed("the relay's name is compressed", data)
        position += 1 + length
        if length == 0:
            break
        if position > len(field):
            raise Truncated("the relay's name has no end", data)
        labels.append("".join(_escape(byte) for byte in field[position - length : position]))
    if position != len(field):
        raise Malformed("bytes follow the relay's name", data)
    if position > _LONGEST_NAME:
        raise Malformed("the relay's name is too long", data)
    if not labels:
        raise Malformed("the root is no name of a relay", data)
    return ".".join(labels) + "."


def _escape(byte: int) -> str:
    return chr(byte) if byte in _PLAIN else f"\\{byte:03}"
