"""Group membership messages of both families in one model.

IGMP and MLD carry the same things in different clothes; `igmp.py` and `mld.py` translate between bytes and these types,
so the machines above never ask which family they serve. Versions are named by what they can say:

    GroupVersion.ANY_SOURCE_BASIC   IGMPv1                  report only
    GroupVersion.ANY_SOURCE         IGMPv2, MLDv1           report and leave
    GroupVersion.SOURCE_SPECIFIC    IGMPv3, MLDv2           source lists
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TypeAlias

from agent.protocol.channels import Address, Filter, FilterMode


class GroupVersion(IntEnum):
    """Capability of a message or a host, ordered."""

    ANY_SOURCE_BASIC = 1
    ANY_SOURCE = 2
    SOURCE_SPECIFIC = 3


class RecordType(IntEnum):
    """Group record types (RFC 3376 §4.2.12, RFC 3810 §5.2.12)."""

    MODE_IS_INCLUDE = 1
    MODE_IS_EXCLUDE = 2
    CHANGE_TO_INCLUDE = 3
    CHANGE_TO_EXCLUDE = 4
    ALLOW_NEW_SOURCES = 5
    BLOCK_OLD_SOURCES = 6


@dataclass(frozen=True, slots=True)
class GroupRecord:
    """One group record; `sources` keeps the order of the wire. Auxiliary data is skipped (RFC 3376 §4.2.11)."""

    type: RecordType
    group: Address
    sources: tuple[Address, ...] = ()

    @classmethod
    def current_state(cls, group: Address, state: Filter) -> GroupRecord:
        """The Current-State Record that describes `state` (RFC 3376 §5.2)."""
        include = state.mode is FilterMode.INCLUDE
        kind = RecordType.MODE_IS_INCLUDE if include else RecordType.MODE_IS_EXCLUDE
        return cls(kind, group, tuple(sorted(state.sources, key=int)))


@dataclass(frozen=True, slots=True)
class Query:
    """A query of any version.

    Attributes:
        group: group asked about, None for a general query.
        sources: sources asked about (source-specific versions only).
        max_response_time: seconds; 0 is possible on the wire.
        suppress: the S flag, "suppress router-side processing".
        robustness: QRV, 0 when the querier's value exceeds 7 or is not told.
        interval: QQIC decoded, in seconds; 0 where the version does not carry it.
        version: capability of the querier.
    """

    group: Address | None = None
    sources: tuple[Address, ...] = ()
    max_response_time: float = 10.0
    suppress: bool = False
    robustness: int = 2
    interval: int = 125
    version: GroupVersion = GroupVersion.SOURCE_SPECIFIC


@dataclass(frozen=True, slots=True)
class Report:
    """A source-specific report: IGMPv3 or MLDv2."""

    records: tuple[GroupRecord, ...]


@dataclass(frozen=True, slots=True)
class AnySourceReport:
    """A report of an older version: IGMPv1, IGMPv2 or MLDv1."""

    group: Address
    version: GroupVersion = GroupVersion.ANY_SOURCE


@dataclass(frozen=True, slots=True)
class Leave:
    """IGMPv2 Leave Group or MLDv1 Done."""

    group: Address


GroupMessage: TypeAlias = Query | Report | AnySourceReport | Leave


def decode_exponent(code: int) -> int:
    """Value of an 8-bit code with the floating form from 128 up: Max Resp Code, QQIC (RFC 3376 §4.1.1, §4.1.7)."""
    if code < 128:
        return code
    return ((code & 0x0F) | 0x10) << (((code >> 4) & 0x07) + 3)


def encode_exponent(value: int) -> int:
    """Largest 8-bit code whose value does not exceed `value`; 31744 and beyond give 255."""
    if value < 128:
        return max(value, 0)
    if value >= 31744:
        return 255
    exponent = value.bit_length() - 8
    return 0x80 | exponent << 4 | (value >> (exponent + 3)) & 0x0F


def decode_long_exponent(code: int) -> int:
    """Value of MLDv2's 16-bit Maximum Response Code, in milliseconds (RFC 3810 §5.1.3)."""
    if code < 32768:
        return code
    return ((code & 0x0FFF) | 0x1000) << (((code >> 12) & 0x07) + 3)


def encode_long_exponent(value: int) -> int:
    """Largest 16-bit code whose value does not exceed `value`; 8387584 and beyond give 65535."""
    if value < 32768:
        return max(value, 0)
    if value >= 8387584:
        return 65535
    exponent = value.bit_length() - 16
    return 0x8000 | exponent << 12 | (value >> (exponent + 3)) & 0x0FFF
