"""Classic BPF programs that let one kind of control packet into a packet socket, and nothing else.

A cooked packet socket (SOCK_DGRAM) runs its filter with offset 0 at the IP header, so every offset below is one of
RFC 791 §3.1 or RFC 8200 §3. Frames that are not the interface's own are refused in the kernel too: a socket bound to an
interface is also given, without their tag, the frames of VLAN devices on top of it (which then carry another interface
index) and of VLANs the host has no device for (which are PACKET_OTHERHOST; older kernels leave the tag in place).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

from agent.protocol.channels import Family

LOAD_WORD: Final = 0x20  # A = 32-bit word at K
LOAD_HALF: Final = 0x28  # A = 16-bit word at K
LOAD_BYTE: Final = 0x30  # A = byte at K
LOAD_BYTE_INDEXED: Final = 0x50  # A = byte at X + K
ADD: Final = 0x04  # A += K
SHIFT_LEFT: Final = 0x64  # A <<= K
TO_INDEX: Final = 0x07  # X = A
JUMP_EQUAL: Final = 0x15  # pc += jt if A == K else jf
JUMP_GREATER: Final = 0x25  # pc += jt if A > K else jf
JUMP_ANY_BIT: Final = 0x45  # pc += jt if A & K else jf
RETURN: Final = 0x06  # accept K bytes; 0 refuses

ANCILLARY: Final = 0xFFFF_F000  # SKF_AD_OFF: loads from here on read the kernel's own fields of the packet
PACKET_TYPE: Final = ANCILLARY + 4  # PACKET_HOST 0, _BROADCAST 1, _MULTICAST 2, _OTHERHOST 3, _OUTGOING 4
INTERFACE_INDEX: Final = ANCILLARY + 8
VLAN_TAG_PRESENT: Final = ANCILLARY + 48
_LAST_OWN_PACKET_TYPE: Final = 2

_IPV4_FRAGMENT: Final = 6
_IPV4_PROTOCOL: Final = 9
_MORE_FRAGMENTS_OR_OFFSET: Final = 0x3FFF
_IPV6_NEXT_HEADER: Final = 6
_IPV6_PAYLOAD: Final = 40
_HOP_BY_HOP: Final = 0
_ICMPV6: Final = 58
_WHOLE: Final = 0x40000

_REFUSE: Final = "refuse"
_ACCEPT: Final = "accept"

IGMP_PROTOCOL: Final = 2
PIM_PROTOCOL: Final = 103
MLD_TYPES: Final = (130, 131, 132, 143)  # RFC 2710 §3, RFC 3810 §5


class LinkProtocol(Enum):
    """Control protocols a raw link can carry; which wire format it is follows from the family."""

    GROUP_MEMBERSHIP = "group membership"  # IGMP over IPv4, MLD over IPv6
    PIM = "pim"


@dataclass(frozen=True, slots=True)
class Step:
    """One instruction; jumps name labels instead of counting instructions."""

    code: int
    value: int
    then: str = ""
    otherwise: str = ""
    label: str = ""


def assemble(steps: Sequence[Step]) -> bytes:
    """Instructions as an array of `struct sock_filter`; the labels `accept` and `refuse` are appended.

    Raises:
        KeyError: a jump names a label that does not exist.
        ValueError: a jump is backwards or too far for its byte.
    """
    program = [*steps, Step(RETURN, _WHOLE, label=_ACCEPT), Step(RETURN, 0, label=_REFUSE)]
    labels = {step.label: index for index, step in enumerate(program) if step.label}
    assembled = bytearray()
    for index, step in enumerate(program):
        jumps = [labels[target] - index - 1 if target else 0 for target in (step.then, step.otherwise)]
        if not all(0 <= jump <= 0xFF for jump in jumps):
            raise ValueError(f"jump out of reach in instruction {index}")
        assembled += struct.pack("=HBBI", step.code, *jumps, step.value)
    return bytes(assembled)


_ACCEPT_MLD_TYPES: Final = (
    *(Step(JUMP_EQUAL, message_type, then=_ACCEPT) for message_type in MLD_TYPES[:-1]),
    Step(JUMP_EQUAL, MLD_TYPES[-1], then=_ACCEPT, otherwise=_REFUSE),
)


def _ipv4_protocol(protocol: int) -> tuple[Step, ...]:
    return (
        Step(LOAD_HALF, _IPV4_FRAGMENT),
        Step(JUMP_ANY_BIT, _MORE_FRAGMENTS_OR_OFFSET, then=_REFUSE),
        Step(LOAD_BYTE, _IPV4_PROTOCOL),
        Step(JUMP_EQUAL, protocol, then=_ACCEPT, otherwise=_REFUSE),
    )


def _ipv6_next_header(protocol: int) -> tuple[Step, ...]:
    return (
        Step(LOAD_BYTE, _IPV6_NEXT_HEADER),
        Step(JUMP_EQUAL, protocol, then=_ACCEPT, otherwise=_REFUSE),
    )


_MLD: Final = (  # ICMPv6 of the MLD types, behind a hop-by-hop header of any length (RFC 3810 §5) or without one
    Step(LOAD_BYTE, _IPV6_NEXT_HEADER),
    Step(JUMP_EQUAL, _HOP_BY_HOP, then="hop-by-hop"),
    Step(JUMP_EQUAL, _ICMPV6, otherwise=_REFUSE),
    Step(LOAD_BYTE, _IPV6_PAYLOAD),
    *_ACCEPT_MLD_TYPES,
    Step(LOAD_BYTE, _IPV6_PAYLOAD, label="hop-by-hop"),
    Step(JUMP_EQUAL, _ICMPV6, otherwise=_REFUSE),
    Step(LOAD_BYTE, _IPV6_PAYLOAD + 1),
    Step(ADD, 1),
    Step(SHIFT_LEFT, 3),  # the length field counts 8 octets, not including the first 8 (RFC 8200 §4.3)
    Step(TO_INDEX, 0),
    Step(LOAD_BYTE_INDEXED, _IPV6_PAYLOAD),
    *_ACCEPT_MLD_TYPES,
)

PROGRAMS: Final[dict[tuple[LinkProtocol, Family], tuple[Step, ...]]] = {
    (LinkProtocol.GROUP_MEMBERSHIP, Family.IPV4): _ipv4_protocol(IGMP_PROTOCOL),
    (LinkProtocol.GROUP_MEMBERSHIP, Family.IPV6): _MLD,
    (LinkProtocol.PIM, Family.IPV4): _ipv4_protocol(PIM_PROTOCOL),
    (LinkProtocol.PIM, Family.IPV6): _ipv6_next_header(PIM_PROTOCOL),
}


def link_filter(protocol: LinkProtocol, family: Family, index: int) -> bytes:
    """Filter for one protocol on the interface with ifindex `index`: an array of `struct sock_filter`."""
    own_frames_only = (
        Step(LOAD_WORD, INTERFACE_INDEX),
        Step(JUMP_EQUAL, index, otherwise=_REFUSE),
        Step(LOAD_BYTE, PACKET_TYPE),
        Step(JUMP_GREATER, _LAST_OWN_PACKET_TYPE, then=_REFUSE),
        Step(LOAD_BYTE, VLAN_TAG_PRESENT),
        Step(JUMP_ANY_BIT, 0xFF, then=_REFUSE),
    )
    return assemble([*own_frames_only, *PROGRAMS[protocol, family]])
