"""What PIM version 2 messages say (RFC 7761 §4.9, RFC 5059 §4), as frozen dataclasses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias

from agent.protocol.channels import Address

PROTOCOL_PIM: Final = 103
HOLDTIME_FOREVER: Final = 0xFFFF
"""Holdtime of a Hello or Join/Prune that never times out (RFC 7761 §4.9.2, §4.9.5)."""


@dataclass(frozen=True, slots=True)
class LanPruneDelay:
    """LAN Prune Delay option; times in milliseconds as on the wire (RFC 7761 §4.9.2)."""

    propagation_delay: int
    override_interval: int
    tracking: bool = False


@dataclass(frozen=True, slots=True)
class Hello:
    """Hello; an option that was not there is None, unknown options are skipped (RFC 7761 §4.9.2).

    Attributes:
        holdtime: seconds; 0 says goodbye, 0xffff never expires.
        addresses: secondary addresses (Address List option).
    """

    holdtime: int | None = None
    lan_prune_delay: LanPruneDelay | None = None
    dr_priority: int | None = None
    generation_id: int | None = None
    addresses: tuple[Address, ...] = ()


@dataclass(frozen=True, slots=True)
class EncodedSource:
    """Encoded-Source address with a host mask (RFC 7761 §4.9.1).

    (S,G) is a source with neither flag; (S,G,rpt) has `rpt`; (*,G) is the RP's address with both.
    """

    address: Address
    wildcard: bool = False
    rpt: bool = False


@dataclass(frozen=True, slots=True)
class JoinPruneGroup:
    """One group of a Join/Prune; `mask_length` below a host's is a group range, which we do not serve."""

    group: Address
    mask_length: int
    joins: tuple[EncodedSource, ...] = ()
    prunes: tuple[EncodedSource, ...] = ()


@dataclass(frozen=True, slots=True)
class JoinPrune:
    """Join/Prune; `holdtime` in seconds, `upstream` is the neighbour it is meant for (RFC 7761 §4.9.5)."""

    upstream: Address
    holdtime: int
    groups: tuple[JoinPruneGroup, ...] = ()


@dataclass(frozen=True, slots=True)
class Assert:
    """Assert; `source` is None for (*,G), then `rpt` is set. Lower metrics win, 0x7fffffff cancels (§4.9.6)."""

    group: Address
    source: Address | None
    preference: int
    metric: int
    rpt: bool = False


@dataclass(frozen=True, slots=True)
class Register:
    """Register with the whole IP packet inside; a Null-Register carries a header only (RFC 7761 §4.9.3)."""

    packet: bytes
    border: bool = False
    null: bool = False


@dataclass(frozen=True, slots=True)
class RegisterStop:
    """Register-Stop (RFC 7761 §4.9.4)."""

    group: Address
    source: Address


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """Bootstrap, read as far as forwarding needs it (RFC 5059 §4.1); `body` is the message from the fragment tag on."""

    bsr: Address
    priority: int
    body: bytes
    no_forward: bool = False


Message: TypeAlias = Hello | JoinPrune | Assert | Register | RegisterStop | Bootstrap
