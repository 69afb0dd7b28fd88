"""What the gateway's programs must have done with a frame."""

from __future__ import annotations

from typing import Final

from agent.dataplane.engine import Refusal
from lab.bench.gateway_program import DROP, PASS, REDIRECT, Counts, GatewayProgram, forwarded, refused
from lab.bench.inner_packets import checksum

_ETHERTYPES: Final = {4: b"\x08\x00", 6: b"\x86\xdd"}


def link_header(packet: bytes, source: bytes = bytes.fromhex("020000000000")) -> bytes:
    """As RFC 1112 §6.4 and RFC 2464 §7 address a group."""
    if packet[0] >> 4 == 4:
        return b"\x01\x00\x5e" + bytes((packet[17] & 0x7F,)) + packet[18:20] + source + _ETHERTYPES[4]
    return b"\x33\x33" + packet[36:40] + source + _ETHERTYPES[6]


def with_ecn(packet: bytes, ecn: int) -> bytes:
    """The packet with another ECN field, its checksum computed anew."""
    if packet[0] >> 4 == 6:
        return packet[:1] + bytes((packet[1] & 0xCF | ecn << 4,)) + packet[2:]
    head = packet[:1] + bytes((packet[1] & 0xFC | ecn,)) + packet[2:10] + b"\0\0" + packet[12:20]
    return head[:10] + checksum(head).to_bytes(2, "big") + head[12:] + packet[20:]


def without_dont_fragment(packet: bytes) -> bytes:
    """The packet with the flag cleared, its checksum computed anew."""
    head = packet[:6] + bytes((packet[6] & 0xBF,)) + packet[7:10] + b"\0\0" + packet[12:20]
    return head[:10] + checksum(head).to_bytes(2, "big") + head[12:] + packet[20:]


def expect_forwarded(program: GatewayProgram, frame: bytes, packet: bytes, wanted: bytes, tunnel: int = 4) -> None:
    """It leaves as `wanted`."""
    run = program.run(frame)
    assert run.verdict == REDIRECT
    assert run.data == link_header(packet) + wanted
    assert program.counts() == forwarded(packet[0] >> 4, tunnel, len(packet))


def expect_left(program: GatewayProgram, frame: bytes, counts: Counts | str | None = None) -> None:
    """It goes on to the socket untouched."""
    run = program.run(frame)
    assert (run.verdict, run.data) == (PASS, frame)
    assert program.counts() == ({counts: (1,)} if isinstance(counts, str) else counts or {})


def expect_refused(program: GatewayProgram, frame: bytes, refusal: Refusal) -> None:
    """It goes nowhere and is counted."""
    run = program.run(frame)
    assert (run.verdict, run.data) == (DROP, frame)
    assert program.counts() == refused(refusal)
