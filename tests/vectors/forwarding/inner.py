"""What is inside the tunnel: each row is tried through a tunnel over IPv4 and through one over IPv6."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address

from vectors.forwarding.case import Case
from vectors.forwarding.frames import (
    counting,
    datagram,
    emitted,
    fragments,
    fragments_ipv4,
    fragments_ipv6,
    group_of,
    to_gateway,
    with_header_sum,
)
from vectors.forwarding.world import ACCEPTED_GROUP, CHANNELS, LOCAL_SOURCE, MTU, PENDING_GROUP, SOURCE, UPLINK_MTU

from lab.bench.inner_packets import datagram_ipv4, datagram_ipv6, ipv4, ipv6, one_hop_on, udp

DATA = b"\x06\x00"
DONT_FRAGMENT = 0x4000
MORE = 0x2000

HEADER = "bad_inner_header"
LINK_LOCAL = "link_local_group"
UNSUBSCRIBED = "not_subscribed"
LOCAL = "spoofed_local_source"
EXPIRED = "ttl_expired"

CHECKS = "RFC 1812 §5.2.2"
TRAILING = "octets behind the inner packet are refused: a tunnel has no padding, so something is wrong"


@dataclass(frozen=True)
class Inner:
    """A packet in the tunnel; `outcome` is `forward`, `nothing`, or the reason of refusal."""

    name: str
    rfc: str
    packet: bytes
    outcome: str = "forward"
    channel: str = "one"
    choice: str = ""
    left: str = ""
    reasons: tuple[str, ...] = ()
    link: str = "ordinary"
    result: tuple[bytes, ...] = ()  # where what leaves is not the packet one hop on
    needs: str = ""
    unseen: tuple[bytes, ...] = ()  # what leaves an engine without the ability
    counted: str = ""  # what such an engine refuses it for


def cases(rows: Iterator[Inner]) -> Iterator[Case]:
    """Each row through both kinds of tunnel."""
    for row in rows:
        for outer in (4, 6):
            yield through(row, outer)


def through(row: Inner, outer: int) -> Case:
    """A row through one kind of tunnel; what does not fit the uplink comes in outer fragments."""
    packets = fragments(datagram(outer, DATA + row.packet), UPLINK_MTU[row.link])
    left = row.left or ("outer_fragment" if len(packets) > 1 else "")
    case = Case(f"{row.name}-through-{outer}", row.rfc, outer, row.link, row.choice, left, row.needs, row.counted)
    case.unseen = [("down0", with_frame(packet, "down0")) for packet in row.unseen]
    case.frames = [to_gateway(packet) for packet in packets]
    if row.outcome == "forward":
        interfaces = CHANNELS[row.channel][row.packet[0] >> 4].interfaces
        case.forward = [pair for name in interfaces for pair in leaving(row, name)]
        case.expect = "forward" if case.forward else "nothing"
        case.reasons = () if case.forward else ("too_big",)
    elif row.outcome == "nothing":
        case.expect, case.reasons = "nothing", row.reasons
    else:
        case.expect, case.reasons = "refuse", (row.outcome,)
    return case


def leaving(row: Inner, interface: str) -> list[tuple[str, bytes]]:
    """What leaves by one interface: the packet one hop on, its fragments, or nothing when they are forbidden."""
    if row.result:
        return [(interface, with_frame(packet, interface)) for packet in row.result]
    mtu = MTU[row.link][interface]
    if len(row.packet) <= mtu:
        return [(interface, emitted(row.packet, interface))]
    if row.packet[0] >> 4 == 6 or row.packet[6] & 0x40:
        return []  # RFC 8200 §5, RFC 791 §2.3; RFC 1812 §4.3.2.7 forbids to tell a sender of multicast over IPv4
    return [(interface, emitted(piece, interface)) for piece in fragments_ipv4(row.packet, mtu)]


def with_frame(packet: bytes, interface: str) -> bytes:
    """The frame of a packet that is one hop on already."""
    return emitted(packet, interface)[:14] + packet


def sized(version: int, size: int, **fields: int) -> bytes:
    """A packet of exactly `size` octets on channel `one`; short ones lack a part of UDP's header, or all of it."""
    header = 20 if version == 4 else 40
    body = udp(SOURCE[version], CHANNELS["one"][version].group, counting(max(0, size - header - 8)))
    return (ipv4 if version == 4 else ipv6)(body[: size - header], **fields)


SIZES = (28, 29, 36, 46, 47, 48, 49, 60, 64, 128, 256, 576, 1000, 1279, 1280, 1281, 1316, 1344, 1400, 1440)
EDGES = (1448, 1449, 1450, 1451, 1452, 1468, 1469, 1470, 1471, 1472, 1473, 1499, 1500)
BEYOND = (1501, 1514, 2000, 2980, 4000, 8972, 9000)
JUMBO = (1473, 1500, 1501, 3000, 4000, 4096, 8000, 8972, 8999, 9000)


def sizes() -> Iterator[Inner]:
    """Lengths from nothing to 9000 octets."""
    router = "RFC 1812 §5.2; a router looks at the IP header alone, RFC 791 §3.1"
    for size in (20, 21, 27, *SIZES, *EDGES):
        yield Inner(f"ipv4-{size}", router, sized(4, size))
    for size in (40, 41, 47, *SIZES[SIZES.index(48) :], *EDGES):
        yield Inner(f"ipv6-{size}", "RFC 8200 §3", sized(6, size))
    for size in (0, 1, 2, 10, 19):
        yield Inner(f"ipv4-cut-to-{size}", CHECKS, sized(4, 60)[:size], HEADER)
        yield Inner(f"ipv4-of-total-length-{size}", CHECKS, with_length(sized(4, 20), size)[:size], HEADER)
    for size in (1, 20, 39):
        yield Inner(f"ipv6-cut-to-{size}", "RFC 8200 §3", sized(6, 60)[:size], HEADER)
    larger = "RFC 791 §3.2; RFC 1812 §5.3.4"
    for size in BEYOND:
        yield Inner(f"ipv4-{size}-cut-for-the-link", larger, sized(4, size), left="too_big")
        yield Inner(f"ipv4-{size}-whole-or-not-at-all", larger, sized(4, size, flags=DONT_FRAGMENT), left="too_big")
        yield Inner(f"ipv6-{size}-too-big", "RFC 8200 §5", sized(6, size), left="too_big")
    for size in JUMBO:
        yield Inner(f"jumbo-ipv4-{size}", router, sized(4, size), link="jumbo")
        yield Inner(f"jumbo-ipv6-{size}", "RFC 8200 §3", sized(6, size), link="jumbo")


def with_length(packet: bytes, length: int) -> bytes:
    """An IPv4 packet that says it is `length` octets long."""
    return with_header_sum(packet[:2] + struct.pack(">H", length) + packet[4:])


def on(channel: str, version: int, size: int = 300, **fields: int) -> bytes:
    """A datagram of a channel."""
    there = CHANNELS[channel][version]
    make = datagram_ipv4 if version == 4 else datagram_ipv6
    return make(counting(size), source=there.source, group=there.group, **fields)


def replication() -> Iterator[Inner]:
    """One, two and three interfaces, MAC addresses of groups, and interfaces that take less than others."""
    ethernet = {4: "RFC 1112 §6.4", 6: "RFC 2464 §7"}
    for version in (4, 6):
        for name in ("two", "three", "mapped", "highest", "lowest", "site"):
            yield Inner(f"{name}-ipv{version}", ethernet[version], on(name, version), channel=name)
        for size in (20, 1232, 1233, 1252, 1253, 1400):
            packet = on("narrow", version, size)
            left = "" if len(packet) <= 1280 else "too_big"
            rule = "RFC 791 §3.2" if version == 4 else "RFC 8200 §5"
            yield Inner(f"narrow-ipv{version}-payload-{size}", rule, packet, channel="narrow", left=left)
    whole = on("narrow", 4, 1300, flags=DONT_FRAGMENT)
    yield Inner("narrow-ipv4-whole", "RFC 791 §2.3", whole, channel="narrow", left="too_big")
    piece = ipv4(counting(1400), group=CHANNELS["narrow"][4].group, flags=MORE | 100)
    yield Inner("narrow-ipv4-fragment-of-a-fragment", "RFC 791 §3.2", piece, channel="narrow", left="too_big")


def hops() -> Iterator[Inner]:
    """Time to live and hop limit."""
    for version, field, rule in ((4, "ttl", "RFC 1812 §5.3.1"), (6, "hop_limit", "RFC 8200 §3")):
        for value in (0, 1, 2, 3, 64, 128, 255):
            outcome = EXPIRED if value < 2 else "forward"
            yield Inner(f"hops-ipv{version}-{value}", rule, on("one", version, **{field: value}), outcome)
        yield Inner(f"hops-ipv{version}-two-interfaces", rule, on("two", version, **{field: 2}), channel="two")
    for ttl in (8, 9, 16, 17, 33, 254):  # where the checksum's one's complement carries
        for number in (0x00FF, 0xFEFF, 0xFFFF):
            packet = on("one", 4, 40, ttl=ttl, identification=number)
            yield Inner(f"checksum-ttl-{ttl}-identification-{number:04x}", "RFC 1624 §3", packet)
    for number in range(4):
        yield Inner(f"checksum-edge-{number}", "RFC 1624 §3 (the sum is never 0xffff)", near_zero_sum(number))


def near_zero_sum(number: int) -> bytes:
    """A packet whose checksum, one hop on, is at the edge between 0x0000 and 0xffff."""
    for identification in range(0x10000):
        packet = on("one", 4, 40, identification=identification)
        if one_hop_on(packet)[10:12] == ((0, 1, 0xFFFE, 0xFF)[number]).to_bytes(2, "big"):
            return packet
    raise AssertionError(number)


def flags() -> Iterator[Inner]:
    """Don't Fragment, identification, DSCP, flow label, and the reserved flag: all as they were."""
    for number in (0, 1, 0x1234, 0xFFFF):
        for name, field in (("set", DONT_FRAGMENT), ("clear", 0)):
            packet = on("one", 4, identification=number, flags=field)
            yield Inner(f"dont-fragment-{name}-identification-{number:04x}", "RFC 791 §2.3; RFC 6864 §4", packet)
    reserved = on("one", 4, flags=0x8000)
    yield Inner("reserved-flag", "RFC 791 §3.1", reserved, choice="a reserved flag is neither judged nor changed")
    for dscp in (0, 1, 8, 34, 46, 63):
        yield Inner(f"dscp-ipv4-{dscp}", "RFC 2474 §3", on("one", 4, tos=dscp << 2))
        yield Inner(f"dscp-ipv6-{dscp}", "RFC 2474 §3", on("one", 6, traffic_class=dscp << 2))
    for label in (0, 1, 0xFFFFF):
        body = udp(SOURCE[6], CHANNELS["one"][6].group, counting(200))
        yield Inner(f"flow-label-{label:05x}", "RFC 6437 §2", ipv6(body, label=label))


def transport() -> Iterator[Inner]:
    """What the packet carries is the receivers' affair."""
    router = "RFC 1812 §5.2 (a router looks at the IP header)"
    for protocol in (0, 1, 6, 33, 47, 50, 51, 89, 103, 132, 253, 255):
        yield Inner(f"protocol-{protocol}", router, ipv4(counting(100), protocol=protocol))
    igmp = ipv4(counting(100), protocol=2)
    kept = "IGMP is for the routers of its link, where its TTL is 1: with another one it is dropped, and not counted"
    yield Inner(
        "protocol-2",
        "RFC 3376 §4",
        igmp,
        "nothing",
        choice=kept,
        left="inner_options",
    )
    for protocol in (6, 47, 50, 58, 59, 132, 253):
        yield Inner(f"next-header-{protocol}", "RFC 8200 §4.7", ipv6(counting(100), next_header=protocol))
    yield Inner("next-header-59-empty", "RFC 8200 §4.7", ipv6(b"", next_header=59))
    for version in (4, 6):
        good = on("one", version)
        at = (20 if version == 4 else 40) + 6
        damaged = good[:at] + bytes((good[at] ^ 0x5A,)) + good[at + 1 :]
        yield Inner(f"ipv{version}-udp-checksum-wrong", router, damaged)
        yield Inner(f"ipv{version}-udp-checksum-zero", router, good[:at] + b"\0\0" + good[at + 2 :])
        for length in (0, 7, 307, 309, 0xFFFF):
            packet = good[: at - 2] + struct.pack(">H", length) + good[at:]
            yield Inner(f"ipv{version}-udp-length-{length}", router, packet)


def pieces() -> Iterator[Inner]:
    """Inner fragments, which a router forwards one by one."""
    whole = on("one", 4, 2900, identification=0x7777)
    for name, piece in zip(("first", "middle", "last"), fragments_ipv4(whole, 1020), strict=True):
        yield Inner(f"fragment-ipv4-{name}", "RFC 791 §3.2", piece)
    yield Inner("fragment-ipv4-whole-with-dont-fragment", "RFC 791 §2.3", sized(4, 28, flags=DONT_FRAGMENT))
    both = ipv4(counting(96), flags=DONT_FRAGMENT | MORE)
    yield Inner("fragment-ipv4-with-dont-fragment", "RFC 791 §2.3", both)
    yield Inner("fragment-ipv4-beyond-65535", "RFC 791 §3.2", ipv4(counting(96), flags=0x1FFF))
    yield Inner("fragment-ipv4-tiny", "RFC 1858 §3 (for filters, not for routers)", ipv4(counting(8), flags=MORE))
    size = "RFC 791 §3.1"
    yield Inner("fragment-ipv4-of-odd-length", size, ipv4(counting(13), flags=MORE), choice="not judged on the way")
    body = fragments_ipv6(on("one", 6, 2900), 1032, 99)
    for name, piece in zip(("first", "middle", "last"), body, strict=True):
        yield Inner(f"fragment-ipv6-{name}", "RFC 8200 §4.5", piece, left="inner_options")
    atomic = struct.pack(">BBHI", 17, 0, 0, 5) + on("one", 6)[40:]
    yield Inner("fragment-ipv6-atomic", "RFC 6946 §4", ipv6(atomic, next_header=44), left="inner_options")


def addresses() -> Iterator[Inner]:
    """Groups nobody forwards, sources nobody has, and channels nobody wants."""
    for group in ("224.0.0.0", "224.0.0.1", "224.0.0.5", "224.0.0.13", "224.0.0.22", "224.0.0.251", "224.0.0.255"):
        yield Inner(f"group-{group}", "RFC 5771 §4", to(group), LINK_LOCAL)
    for group in ("ff02::1", "ff02::5", "ff02::16", "ff12::1234", "ff32::8000:1"):
        yield Inner(f"group-{group}", "RFC 4291 §2.7 (link-local scope)", to(group), LINK_LOCAL)
    for group in ("ff01::1", "ff01::5", "ff31::8000:1"):
        yield Inner(f"group-{group}", "RFC 4291 §2.7 (interface-local scope)", to(group), LINK_LOCAL)
    unicast = ("192.0.2.7", "10.82.0.2", "10.81.0.2", "127.0.0.1", "0.0.0.0", "255.255.255.255", "223.255.255.255")
    for group in (*unicast, "240.0.0.1"):
        yield Inner(f"destination-{group}", "RFC 1112 §4; RFC 7450 §5.1.6", to(group), HEADER)
    for group in ("2001:db8::7", "fd82::2", "fd81::2", "fe80::1", "::1", "::", "feff::1"):
        yield Inner(f"destination-{group}", "RFC 4291 §2.4; RFC 7450 §5.1.6", to(group), HEADER)
    for source in ("0.0.0.0", "127.0.0.1", "169.254.1.1", "224.0.0.1", "232.1.1.1", "239.255.255.255"):
        yield Inner(f"source-{source}", "RFC 1812 §5.3.7; RFC 3927 §2.7", came_from(source), HEADER)
    yield Inner("source-255.255.255.255", "RFC 1812 §5.3.7", came_from("255.255.255.255"), HEADER)
    for source in ("::", "::1", "fe80::7", "febf::7", "ff02::1", "ff3e::8000:1"):
        yield Inner(f"source-{source}", "RFC 4291 §2.5.2, §2.5.3, §2.5.6, §2.7", came_from(source), HEADER)
    for source in ("10.82.0.9", "10.82.0.1", "10.82.255.255", "fd82::9", "fd82:ffff:ffff:ffff:ffff:ffff:ffff:ffff"):
        rule = "RFC 7450 §6 (a host of ours cannot be behind a relay)"
        unknown = {} if source in LOCAL_SOURCE.values() else {"needs": "knows_local_networks", "counted": UNSUBSCRIBED}
        yield Inner(f"source-{source}", rule, came_from(source), LOCAL, **unknown)
    for source in ("198.51.100.11", "198.51.100.9", "10.83.0.9", "10.81.255.255", "2001:db8:51::11", "fd83::9"):
        yield Inner(f"source-{source}", "RFC 4607 §4.2", came_from(source), UNSUBSCRIBED)
    for group in (
        "232.1.1.250",
        "232.0.0.1",
        "224.0.1.1",
        "239.255.255.254",
        "233.252.0.1",
        "ff3e::8000:fa",
        "ff0e::1",
    ):
        yield Inner(f"group-{group}", "RFC 4607 §4.2", to(group), UNSUBSCRIBED)
    for version in (4, 6):
        lax = on("lax", version)
        yield Inner(f"tunnel-of-another-channel-ipv{version}", "RFC 7450 §5.2.3", lax, UNSUBSCRIBED)
        there = CHANNELS["one"][version].group
        swapped = SOURCE[version]
        yield Inner(f"source-as-destination-ipv{version}", "RFC 1112 §4", to(swapped, there), HEADER)
    yield from any_source()


def any_source() -> Iterator[Inner]:
    """Groups wanted from whomever."""
    told = "a new source is told to the protocol machine; its first packet passes when that sets the channel at once"
    for version in (4, 6):
        for name, groups, outcome in (("set", ACCEPTED_GROUP, "forward"), ("pending", PENDING_GROUP, "source_pending")):
            packet = to(groups[version])
            rule = "RFC 1112 §4"
            yield Inner(f"any-source-{name}-ipv{version}", rule, packet, outcome, choice=told, left="new_source")
        spoofed = to(ACCEPTED_GROUP[version], LOCAL_SOURCE[version])
        yield Inner(f"any-source-spoofed-ipv{version}", "RFC 7450 §6", spoofed, LOCAL, left="new_source")


def to(group: str, source: str = "") -> bytes:
    """A datagram to any address."""
    version = ip_address(group).version
    make = datagram_ipv4 if version == 4 else datagram_ipv6
    return make(counting(100), source=source or SOURCE[version], group=group)


def came_from(source: str) -> bytes:
    """A datagram on the group of channel `one` from any address."""
    version = ip_address(source).version
    return to(CHANNELS["one"][version].group, source)


def broken() -> Iterator[Inner]:
    """Headers that say what cannot be, or what the rest of the packet contradicts."""
    good, good6 = on("one", 4), on("one", 6)
    for version in (0, 1, 3, 5, 7, 8, 15):
        packet = with_header_sum(bytes((version << 4 | 5,)) + good[1:])
        yield Inner(f"version-{version}", CHECKS, packet, HEADER)
    yield Inner("version-4-of-an-ipv6-packet", CHECKS, bytes((0x45,)) + good6[1:], HEADER)
    yield Inner("version-6-of-an-ipv4-packet", "RFC 8200 §3", bytes((0x60,)) + good[1:], HEADER)
    for words in range(5):
        yield Inner(f"header-of-{words}-words", CHECKS, with_header_sum(bytes((0x40 | words,)) + good[1:]), HEADER)
    yield Inner("header-beyond-the-packet", CHECKS, with_length(b"\x4f" + good[1:40], 40), HEADER)
    for name, wrong in (("flipped", bytes((good[10] ^ 1, good[11]))), ("zero", b"\0\0"), ("ones", b"\xff\xff")):
        yield Inner(f"header-checksum-{name}", CHECKS, good[:10] + wrong + good[12:], HEADER)
    zeroed = near_zero_sum(0)
    yield Inner("ttl-changed-without-checksum", CHECKS, zeroed[:8] + b"\x40" + zeroed[9:], HEADER)
    for more in (1, 2, 8, 100):
        yield Inner(f"trailing-ipv4-{more}", CHECKS, good + bytes(more), HEADER, choice=TRAILING)
        yield Inner(f"trailing-ipv6-{more}", "RFC 8200 §3", good6 + bytes(more), HEADER, choice=TRAILING)
        yield Inner(f"cut-ipv4-{more}", CHECKS, good[:-more], HEADER)
        yield Inner(f"cut-ipv6-{more}", "RFC 8200 §3", good6[:-more], HEADER)
    for length in (0, 19, 20, 327, 329, 0xFFFF):
        yield Inner(f"total-length-{length}", CHECKS, with_length(good, length), HEADER)
    for length in (0, 1, 307, 309, 0xFFFF):
        packet = good6[:4] + struct.pack(">H", length) + good6[6:]
        yield Inner(f"payload-length-{length}", "RFC 8200 §3; RFC 2675 §3 (no jumbograms)", packet, HEADER)
    assert group_of(good) == ip_address(CHANNELS["one"][4].group).packed
