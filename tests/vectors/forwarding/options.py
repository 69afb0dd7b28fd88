"""Options and extension headers inside the tunnel."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from ipaddress import ip_address

from vectors.forwarding.frames import counting
from vectors.forwarding.inner import HEADER, Inner, on
from vectors.forwarding.world import CHANNELS, SOURCE

from lab.bench.inner_packets import datagram_ipv4, ipv6, one_hop_on, udp

NOP, END = b"\x01", b"\x00"
ROUTER_ALERT = bytes((0x94, 4, 0, 0))
DROPPED = "dropped by the kernel or refused; RFC 1812 §4.3.2.7 forbids to tell the sender of multicast"


def with_options(options: bytes, size: int = 200) -> bytes:
    """A datagram of channel `one` with IPv4 options."""
    return datagram_ipv4(counting(size), options=options)


def ipv4_options() -> Iterator[Inner]:
    """Options are forwarded, and updated where the option says so."""
    rule = "RFC 1812 §5.2.4, §5.3.13"
    kept = {
        "router-alert": ROUTER_ALERT,
        "router-alert-twice": ROUTER_ALERT * 2,
        "nops": NOP * 4,
        "nops-of-the-largest-header": NOP * 40,
        "end": END * 4,
        "nop-and-end": NOP * 3 + END,
        "unknown": bytes((0x9E, 4, 0xAA, 0xBB)),
        "record-route-full": bytes((7, 7, 8, 192, 0, 2, 1)) + END,
        "stream": bytes((0x88, 4, 0x12, 0x34)),
    }
    for name, options in kept.items():
        yield Inner(f"option-{name}", rule, with_options(options), left="inner_options")
    yield from recorded()
    wrong = {
        "length-zero": bytes((0x9E, 0, 0, 0)),
        "length-one": bytes((0x9E, 1, 0, 0)),
        "beyond-the-header": bytes((0x9E, 5, 0, 0)),
        "without-length": NOP * 3 + b"\x9e",
        "record-route-pointer": bytes((7, 7, 3, 0, 0, 0, 0)) + END,
    }
    for name, options in wrong.items():
        packet, counted = with_options(options), (HEADER,)
        problem = "RFC 1812 §4.3.3.5"
        yield Inner(f"option-{name}", problem, packet, "nothing", choice=DROPPED, left="inner_options", reasons=counted)


def recorded() -> Iterator[Inner]:
    """Record route: the router adds the address of the interface the packet leaves by."""
    empty = bytes((7, 7, 4, 0, 0, 0, 0)) + END
    filled = bytes((7, 7, 8)) + ip_address("10.82.0.1").packed + END
    result = one_hop_on(with_options(filled))
    rule = "RFC 791 §3.1; RFC 1812 §5.3.13.5"
    linux = bytes((7, 7, 8)) + ip_address(SOURCE[4]).packed + END
    yield Inner(
        "option-record-route",
        rule,
        with_options(empty),
        left="inner_options",
        result=(result,),
        needs="records_its_route",
        unseen=(one_hop_on(with_options(linux)),),
    )


def extension(next_header: int, body: bytes) -> bytes:
    """A packet of channel `one` that begins with these extension headers."""
    return ipv6(body + datagram_body(), next_header=next_header)


def datagram_body() -> bytes:
    """UDP of channel `one`."""
    return udp(SOURCE[6], CHANNELS["one"][6].group, counting(200))


def ipv6_extensions() -> Iterator[Inner]:
    """Extension headers are for hosts, except those for every hop."""
    padding = bytes((17, 0, 1, 4, 0, 0, 0, 0))
    alert = bytes((17, 0, 5, 2, 0, 1, 1, 0))  # the value for RSVP, RFC 2711 §2.1
    routing = struct.pack(">BBBBI", 17, 0, 3, 0, 0)
    chain = bytes((60, *padding[1:])) + padding
    authentication = struct.pack(">BBHIIQ", 17, 4, 0, 1, 1, 0) + bytes(4)
    here = "RFC 8200 §4.3"
    yield Inner("hop-by-hop-padding", here, extension(0, padding), left="inner_options")
    yield Inner("hop-by-hop-skipped-option", "RFC 8200 §4.2", extension(0, unknown(0x1E)), left="inner_options")
    yield Inner("hop-by-hop-then-destination", "RFC 8200 §4.1", extension(0, chain), left="inner_options")
    yield Inner("destination-options", "RFC 8200 §4.6", extension(60, padding), left="inner_options")
    yield Inner("destination-options-unknown", "RFC 8200 §4.6", extension(60, unknown(0x5E)), left="inner_options")
    yield Inner("routing-header", "RFC 8200 §4.4 (for the destination)", extension(43, routing), left="inner_options")
    yield Inner("authentication-header", "RFC 8200 §4.1", extension(51, authentication), left="inner_options")
    alerted = "a router that has no use for the alert forwards the packet"
    yield Inner("hop-by-hop-router-alert", "RFC 2711 §2", extension(0, alert), choice=alerted, left="inner_options")
    processed = "options for every hop are processed by the kernel, which drops what it does not know as told to"
    for kind in (0x5E, 0x9E, 0xDE):
        packet, rule = extension(0, unknown(kind)), "RFC 8200 §4.2"
        name = f"hop-by-hop-unknown-{kind:02x}"
        yield Inner(name, rule, packet, "nothing", choice=processed, left="inner_options", reasons=(HEADER,))
    outside = ipv6(bytes((17, 200, 1, 4, 0, 0, 0, 0)), next_header=60)
    yield Inner("destination-options-beyond-the-packet", "RFC 8200 §4.6", outside, left="inner_options")


def unknown(kind: int) -> bytes:
    """An options header with an option nobody knows; its highest two bits say what to do with it."""
    return bytes((17, 0, kind, 4, 1, 2, 3, 4))


def unmarked() -> Iterator[Inner]:
    """Nothing unusual at all, before and after the unusual."""
    for version in (4, 6):
        yield Inner(f"plain-ipv{version}", "RFC 7450 §5.2.3", on("one", version))
