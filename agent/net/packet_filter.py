"""Classic BPF programs that let only forwardable multicast reach a capture socket.

Offsets are relative to the network header (SKF_NET_OFF), so one program serves every link type and does not care
whether a VLAN tag stands before the IP header.
"""

from __future__ import annotations

import struct
from typing import Final

from agent.protocol.channels import Family

_NETWORK: Final = 0xFFF0_0000  # SKF_NET_OFF, linux/filter.h
_PACKET_TYPE: Final = 0xFFFF_F004  # SKF_AD_OFF + SKF_AD_PKTTYPE
_INTERFACE: Final = 0xFFFF_F008  # SKF_AD_OFF + SKF_AD_IFINDEX
_OTHER_HOST: Final = 3  # PACKET_OTHERHOST: a VLAN nobody configured; PACKET_OUTGOING and up are above it

_LOAD_WORD: Final = 0x20
_LOAD_BYTE: Final = 0x30
_AND: Final = 0x54
_JUMP_EQUAL: Final = 0x15
_JUMP_GREATER_OR_EQUAL: Final = 0x35
_RETURN: Final = 0x06

_ACCEPT: Final = "accept"
_REJECT: Final = "reject"
_NEXT: Final = "next"

_Step = tuple[int, int] | tuple[int, int, str, str]

_IPV4: Final[list[_Step]] = [
    (_LOAD_BYTE, _PACKET_TYPE),
    (_JUMP_GREATER_OR_EQUAL, _OTHER_HOST, _REJECT, _NEXT),
    (_LOAD_BYTE, _NETWORK + 9),
    (_JUMP_EQUAL, 2, _REJECT, _NEXT),  # IGMP
    (_LOAD_WORD, _NETWORK + 12),
    (_AND, 0xFFFF_0000),
    (_JUMP_EQUAL, 0xA9FE_0000, _REJECT, _NEXT),  # 169.254/16 never leaves its link, RFC 3927 §7
    (_LOAD_WORD, _NETWORK + 16),
    (_AND, 0xFFFF_FF00),
    (_JUMP_EQUAL, 0xE000_0000, _REJECT, _NEXT),  # 224.0.0.0/24, RFC 5771 §4
    (_AND, 0xF000_0000),
    (_JUMP_EQUAL, 0xE000_0000, _ACCEPT, _REJECT),
]

_IPV6: Final[list[_Step]] = [
    (_LOAD_BYTE, _PACKET_TYPE),
    (_JUMP_GREATER_OR_EQUAL, _OTHER_HOST, _REJECT, _NEXT),
    (_LOAD_WORD, _NETWORK + 8),
    (_AND, 0xFFC0_0000),
    (_JUMP_EQUAL, 0xFE80_0000, _REJECT, _NEXT),  # fe80::/10 never leaves its link, RFC 4291 §2.5.6
    (_LOAD_BYTE, _NETWORK + 24),
    (_JUMP_EQUAL, 0xFF, _NEXT, _REJECT),
    (_LOAD_BYTE, _NETWORK + 25),
    (_AND, 0x0F),
    (_JUMP_GREATER_OR_EQUAL, 3, _ACCEPT, _REJECT),  # beyond link-local scope, RFC 4291 §2.7
]


def multicast_filter(family: Family, interface_index: int) -> list[bytes]:
    """The program for one family, as a list of packed `struct sock_filter`.

    A socket bound to a parent is shown the frames of its VLAN devices too, hence the check of the interface a frame
    belongs to.
    """
    own: list[_Step] = [(_LOAD_WORD, _INTERFACE), (_JUMP_EQUAL, interface_index, _NEXT, _REJECT)]
    steps = own + (_IPV4 if family is Family.IPV4 else _IPV6)
    targets = {_REJECT: len(steps), _ACCEPT: len(steps) + 1}
    program = [_assemble(index, step, targets) for index, step in enumerate(steps)]
    return [*program, _pack(_RETURN, 0, 0, 0), _pack(_RETURN, 0, 0, 0x7FFF_FFFF)]


def _assemble(index: int, step: _Step, targets: dict[str, int]) -> bytes:
    if len(step) == 2:
        return _pack(step[0], 0, 0, step[1])
    code, operand, if_true, if_false = step
    jump_true = targets.get(if_true, index + 1) - index - 1
    jump_false = targets.get(if_false, index + 1) - index - 1
    return _pack(code, jump_true, jump_false, operand)


def _pack(code: int, jump_true: int, jump_false: int, operand: int) -> bytes:
    return struct.pack("=HBBI", code, jump_true, jump_false, operand)
