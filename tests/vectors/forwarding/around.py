"""What is around the inner packet: Ethernet, the outer IP header, UDP and AMT, and the marks of congestion."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import replace

from vectors.forwarding.case import Case
from vectors.forwarding.frames import (
    counting,
    datagram,
    emitted,
    fragments_ipv4,
    fragments_ipv6,
    to_gateway,
    with_ecn,
    with_header_sum,
)
from vectors.forwarding.inner import DATA, on
from vectors.forwarding.world import CHANNELS, GATEWAY, OTHER_PORT, RELAY_PORT, STRANGER

NAMES = ("not-ect", "ect1", "ect0", "ce")
DECAPSULATED = {  # RFC 6040 §4.2, figure 4: (inner, outer) where the result is not the inner mark
    (2, 1): 1, (2, 3): 3, (1, 3): 3, (0, 3): None,
}  # fmt: skip


def forwarded(name: str, rfc: str, outer: int, packets: list[bytes], inner: bytes, **more: str) -> Case:
    """A case of channel `one` whose inner packet leaves as it should whatever is around it."""
    case = Case(name, rfc, outer, **more)
    case.frames = [to_gateway(packet) for packet in packets]
    case.forward = [("down0", emitted(inner, "down0"))]
    return case


def refused(name: str, rfc: str, outer: int, packet: bytes, reason: str, **more: str) -> Case:
    """A case that is refused."""
    return Case(name, rfc, outer, **more, frames=[to_gateway(packet)], expect="refuse", reasons=(reason,))


def nothing(name: str, rfc: str, outer: int, packets: list[bytes], *reasons: str, **more: str) -> Case:
    """A case the kernel drops before anybody sees it."""
    more = {"left": "kernel"} | more
    frames = [to_gateway(packet) for packet in packets]
    return Case(name, rfc, outer, **more, frames=frames, expect="nothing", reasons=reasons)


def marks() -> Iterator[Case]:
    """Congestion marks: sixteen combinations, both families inside and outside; the DSCP is the inner packet's."""
    for outer in (4, 6):
        for version in (4, 6):
            for inner_mark in range(4):
                for mark in range(4):
                    yield marked(outer, version, inner_mark, mark)
    for version in (4, 6):
        inner = on("three", version, **{"tos" if version == 4 else "traffic_class": 2})
        case = Case(f"marks-three-interfaces-ipv{version}", "RFC 6040 §4.2", 4)
        case.frames = [to_gateway(datagram(4, DATA + inner, tos=3))]
        case.forward = [(name, emitted(with_ecn(inner, 3), name)) for name in CHANNELS["three"][version].interfaces]
        yield case


def marked(outer: int, version: int, inner_mark: int, mark: int) -> Case:
    """One combination."""
    inner = on("one", version, **{"tos" if version == 4 else "traffic_class": 46 << 2 | inner_mark})
    name = f"marks-{NAMES[inner_mark]}-ipv{version}-under-{NAMES[mark]}-ipv{outer}"
    packet = datagram(outer, DATA + inner, tos=10 << 2 | mark)
    result = DECAPSULATED.get((inner_mark, mark), inner_mark)
    rule = "RFC 6040 §4.2; RFC 9601 §5; RFC 2983 §3 (the pipe model)"
    if result is None:
        return refused(name, rule, outer, packet, "congestion_lost")
    return forwarded(name, rule, outer, [packet], with_ecn(inner, result))


def each() -> Iterator[tuple[int, int, bytes, str]]:
    """Families outside and inside, a packet of channel `one`, and the end of the case's name."""
    for outer in (4, 6):
        for version in (4, 6):
            yield outer, version, on("one", version), f"-ipv{version}-in-ipv{outer}"


def amt() -> Iterator[Case]:
    """The AMT header: version, type, and what is reserved."""
    for outer, _, inner, end in each():
        for reserved in (0x01, 0x80, 0xFF):
            message = bytes((6, reserved)) + inner
            rule = "RFC 7450 §5.1.6.3 (ignored by the gateway)"
            yield forwarded(f"amt-reserved-{reserved:02x}{end}", rule, outer, [datagram(outer, message)], inner)
        for version in (1, 2, 15):
            message = bytes((version << 4 | 6, 0)) + inner
            rule = "RFC 7450 §5.1.6.1 (the version is 0)"
            yield refused(
                f"amt-version-{version}{end}", rule, outer, datagram(outer, message), "bad_amt_header", left="control"
            )
    handed = "whatever is not Multicast Data is handed to the protocol machine, which judges it"
    for outer in (4, 6):
        for kind in (*range(6), *range(7, 16)):
            message = bytes((kind, 0, 0, 0)) + counting(20)
            yield control(f"amt-type-{kind}-through-{outer}", outer, message, datagram(outer, message), handed)
        yield control(f"amt-one-octet-through-{outer}", outer, b"\x02", datagram(outer, b"\x02"), handed)
        other = datagram(outer, b"\x02" + counting(11), port=OTHER_PORT)
        yield control(f"amt-control-from-another-port-through-{outer}", outer, b"\x02" + counting(11), other, handed)
        data_like = bytes((0x04, 0)) + on("one", 4)
        yield control(f"amt-query-like-data-through-{outer}", outer, data_like, datagram(outer, data_like), handed)
        for name, message in (("empty", b""), ("version-of-a-query", b"\x14" + counting(8)), ("data-of-one", b"\x06")):
            packet = datagram(outer, message)
            cut = "RFC 7450 §5.1"
            yield refused(f"amt-{name}-through-{outer}", cut, outer, packet, "bad_amt_header", left="control")


def control(name: str, outer: int, message: bytes, packet: bytes, choice: str) -> Case:
    """A message for the protocol machine."""
    return Case(
        name, "RFC 7450 §5.1", outer, choice=choice, left="control", frames=[to_gateway(packet)], expect="control",
        message=message,
    )  # fmt: skip


def strangers() -> Iterator[Case]:
    """Data from elsewhere than the relay."""
    rule = "RFC 7450 §5.2.3 (data is accepted from the relay's address)"
    for outer, version, inner, end in each():
        message = DATA + inner
        packet = datagram(outer, message, source=STRANGER[outer])
        yield refused(f"stranger{end}", rule, outer, packet, "wrong_relay")
        for port in (OTHER_PORT, 1, 65535, RELAY_PORT + 256):
            packet = datagram(outer, message, port=port)
            strict = "by default the port must be the relay's too"
            yield refused(f"stranger-port-{port}{end}", rule, outer, packet, "wrong_relay", choice=strict)
        lax = on("lax", version)
        for port in (RELAY_PORT, OTHER_PORT, 1, 65535):
            packet = datagram(outer, DATA + lax, port=port, tunnel="lax")
            yield forwarded(f"any-port-{port}{end}", rule, outer, [packet], lax)
        packet = datagram(outer, DATA + lax, source=STRANGER[outer], tunnel="lax")
        yield refused(f"any-port-but-a-stranger{end}", rule, outer, packet, "wrong_relay")
        packet = datagram(outer, DATA + inner, tunnel="lax")
        yield refused(f"channel-of-another-tunnel{end}", rule, outer, packet, "not_subscribed")
        packet = datagram(outer, message, target_port=52000)
        yield nothing(f"not-our-port{end}", "RFC 768", outer, [packet])
        packet = datagram(outer, message, target={4: "10.81.0.77", 6: "fd81::77"}[outer])
        yield nothing(f"not-our-address{end}", "RFC 1122 §3.2.1.3", outer, [packet])
        packet = datagram(outer, message, source=GATEWAY[outer])
        yield nothing(f"from-ourselves{end}", "RFC 1812 §5.3.8", outer, [packet], "wrong_relay")
    for source in ("127.0.0.1", "255.255.255.255", "224.0.0.1"):
        packet = datagram(4, DATA + on("one", 4), source=source)
        yield nothing(f"outer-source-{source}", "RFC 1122 §3.2.1.3", 4, [packet], "wrong_relay")


def outer_headers() -> Iterator[Case]:
    """The outer IP header, as hosts take it."""
    for outer, _, inner, end in each():
        message = DATA + inner
        for ttl in (0, 1, 255):
            packet = datagram(outer, message, ttl=ttl)
            rule = "RFC 1122 §3.2.1.7; RFC 8200 §3 (for us, so its hops do not matter)"
            if outer == 4 or ttl:
                yield forwarded(f"outer-hops-{ttl}{end}", rule, outer, [packet], inner)
        packet = datagram(outer, message, tos=46 << 2)
        yield forwarded(f"outer-dscp{end}", "RFC 2983 §3 (the pipe model)", outer, [packet], inner)
    for version in (4, 6):
        yield from outer_ipv4(version)
        yield from outer_ipv6(version)


def outer_ipv4(version: int) -> Iterator[Case]:
    """IPv4 outside."""
    inner, end = on("one", version), f"-ipv{version}"
    message = DATA + inner
    for name, options in (("router-alert", b"\x94\x04\0\0"), ("nops", b"\1" * 4), ("full", b"\1" * 40)):
        packet = datagram(4, message, options=options)
        yield forwarded(f"outer-option-{name}{end}", "RFC 791 §3.1", 4, [packet], inner, left="outer_options")
    whole = datagram(4, message, flags=0x4000)
    yield forwarded(f"outer-dont-fragment{end}", "RFC 791 §3.1", 4, [whole], inner)
    good = datagram(4, message)
    wrong = "RFC 1122 §3.2.1.2"
    yield nothing(f"outer-header-checksum{end}", wrong, 4, [good[:10] + bytes((good[10] ^ 1,)) + good[11:]])
    longer = with_header_sum(good[:2] + struct.pack(">H", len(good) + 1) + good[4:])
    yield nothing(f"outer-longer-than-the-frame{end}", wrong, 4, [longer])
    short = with_header_sum(bytes((0x44,)) + good[1:])
    yield nothing(f"outer-header-of-four-words{end}", wrong, 4, [short])
    pieces = fragments_ipv4(good, 200)
    yield forwarded(f"outer-fragments{end}", "RFC 791 §3.2", 4, pieces, inner, left="outer_fragment")
    back = list(reversed(fragments_ipv4(good[:4] + b"\x11\x22" + good[6:], 200)))
    yield forwarded(f"outer-fragments-backwards{end}", "RFC 791 §3.2", 4, back, inner, left="outer_fragment")
    missing = fragments_ipv4(good[:4] + b"\x11\x33" + good[6:], 200)[:1]
    yield nothing(f"outer-first-fragment-alone{end}", "RFC 791 §3.2", 4, missing)
    missing = fragments_ipv4(good[:4] + b"\x11\x44" + good[6:], 200)[1:]
    yield nothing(f"outer-last-fragment-alone{end}", "RFC 791 §3.2", 4, missing)
    other = with_header_sum(good[:9] + b"\x06" + good[10:])
    yield nothing(f"outer-protocol-6{end}", "RFC 791 §3.1", 4, [other])


def outer_ipv6(version: int) -> Iterator[Case]:
    """IPv6 outside."""
    inner, end = on("one", version), f"-ipv{version}"
    message = DATA + inner
    padding = bytes((17, 0, 1, 4, 0, 0, 0, 0))
    for name, kind in (("hop-by-hop", 0), ("destination-options", 60)):
        packet = datagram(6, message, extension=(kind, padding))
        yield forwarded(f"outer-{name}{end}", "RFC 8200 §4", 6, [packet], inner, left="outer_options")
    atomic = datagram(6, message, extension=(44, struct.pack(">BBHI", 17, 0, 0, 77)))
    yield forwarded(f"outer-atomic-fragment{end}", "RFC 6946 §4", 6, [atomic], inner, left="outer_fragment")
    good = datagram(6, message)
    pieces = fragments_ipv6(good, 200)
    yield forwarded(f"outer-fragments-of-ipv6{end}", "RFC 8200 §4.5", 6, pieces, inner, left="outer_fragment")
    back = list(reversed(fragments_ipv6(good, 200, 0x1122)))
    yield forwarded(f"outer-fragments-of-ipv6-backwards{end}", "RFC 8200 §4.5", 6, back, inner, left="outer_fragment")
    yield nothing(f"outer-first-fragment-of-ipv6-alone{end}", "RFC 8200 §4.5", 6, fragments_ipv6(good, 200, 3)[:1])
    longer = good[:4] + struct.pack(">H", len(good) - 39) + good[6:]
    yield nothing(f"outer-longer-than-the-frame-of-ipv6{end}", "RFC 8200 §3", 6, [longer])


def sums_and_lengths() -> Iterator[Case]:
    """UDP's checksum and length."""
    allowed = {4: "RFC 768; RFC 7450 §4.2.2", 6: "RFC 6935 §5; RFC 6936 §4; RFC 7450 §4.2.2"}
    for outer, _, inner, end in each():
        message = DATA + inner
        packet = datagram(outer, message, summed=0)
        yield forwarded(f"udp-checksum-zero{end}", allowed[outer], outer, [packet], inner)
        good = datagram(outer, message)
        at = (20 if outer == 4 else 40) + 6
        case = nothing(
            f"udp-checksum-wrong{end}",
            "RFC 768; RFC 1122 §4.1.3.4",
            outer,
            [good[:at] + bytes((good[at] ^ 0x5A,)) + good[at + 1 :]],
            "receive_overflow",
            left="",
            needs="sees_outer_checksum",
            choice="the kernel counts it with what a socket's buffer had no room for; a program in front of the socket "
            "may pass it on, since the checksum between the ends protects receivers",
        )
        yield replace(case, unseen=[("down0", emitted(inner, "down0"))])
        for length in (0, 7, len(message) + 9, 0xFFFF):
            packet = datagram(outer, message, length=length, summed=0 if outer == 4 else None)
            yield nothing(f"udp-length-{length}{end}", "RFC 768", outer, [packet], "receive_overflow")
        packet = datagram(outer, message, behind=bytes(6))
        longer = "UDP's length counts: octets of the IP packet behind it are not read"
        yield forwarded(f"udp-shorter-than-ip{end}", "RFC 768", outer, [packet], inner, choice=longer, left="kernel")


def ethernet() -> Iterator[Case]:
    """The link's own header and trailer."""
    for outer, version, inner, end in each():
        packet = datagram(outer, DATA + inner)
        case = forwarded(f"link-padding{end}", "RFC 894; RFC 2464 §3", outer, [], inner)
        yield replace(case, frames=[to_gateway(packet, padding=bytes(20))])
        case = forwarded(f"link-priority-tag{end}", "IEEE 802.1Q §6.9 (VLAN 0 is none)", outer, [], inner)
        yield replace(case, frames=[to_gateway(packet, tag=0xA000)], left="kernel")
        case = nothing(f"link-vlan-we-are-not-in{end}", "IEEE 802.1Q §6.9", outer, [])
        yield replace(case, frames=[to_gateway(packet, tag=5)])
        case = nothing(f"link-for-another-station{end}", "RFC 1812 §5.3.4", outer, [])
        frame = to_gateway(packet, destination=bytes.fromhex("0200008100aa"))
        yield replace(case, frames=[frame])
        runt = on("one", version, 0)
        packet = datagram(outer, DATA + runt)
        case = forwarded(f"link-short-frame{end}", "RFC 894; RFC 2464 §3", outer, [], runt)
        yield replace(case, frames=[to_gateway(packet, padding=bytes(max(0, 60 - 14 - len(packet))))])
