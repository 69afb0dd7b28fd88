"""The gateway's programs for the kernel with one channel of each family, run on frames made by hand."""

from __future__ import annotations

import struct
from contextlib import ExitStack
from dataclasses import dataclass, replace
from ipaddress import ip_address
from types import TracebackType
from typing import Final, Self

from agent.dataplane.engine import Refusal
from agent.dataplane.fast.layout import (
    EXCEPTIONS,
    REFUSALS,
    ChannelEntry,
    Plane,
    channel_key,
    devmap_value,
    group_key,
    index_key,
    port_value,
    settings_value,
    tunnel_key,
    tunnel_value,
)
from agent.net.bpf import BpfMap, MapKind, TestRun, create_map, load, test_run
from agent.protocol.channels import Channel, Endpoint
from lab.bench.inner_packets import GROUP, SOURCE, ipv4, ipv6, udp

RELAY: Final = {4: "192.0.2.1", 6: "2001:db8:2::1"}
GATEWAY: Final = {4: "192.0.2.2", 6: "2001:db8:2::2"}
RELAY_PORT: Final = 2268
OUR_PORT: Final = {4: 40004, 6: 40006}
LENIENT_PORT: Final = 40100
"""Of tunnels that take data from any port of the relay."""

TAGGED_PORT: Final = 40200
"""Of tunnels over VLAN 7."""

DOUBLY_TAGGED_PORT: Final = 40300
"""Of tunnels over VLAN 9 in VLAN 7."""

DROP, PASS, REDIRECT = 1, 2, 4
LOOPBACK: Final = 1
"""Interface that packets seem to leave by: in a test run they go nowhere."""

ANY_SOURCE_GROUP: Final = {4: "239.1.1.1", 6: "ff0e::1:1"}
LIMIT: Final = 1500
SECRET: Final = bytes.fromhex("0242deadbee1")
SECRET_KEEP_WHOLE: Final = bytes.fromhex("0242deadbee2")
PORT_ADDRESS: Final = bytes.fromhex("0242c0ffee01")
_SLOTS: Final = 16
_ETHERTYPES: Final = {4: b"\x08\x00", 6: b"\x86\xdd"}
_PORTS: Final = ((0, ()), (LENIENT_PORT, ()), (TAGGED_PORT, (7,)), (DOUBLY_TAGGED_PORT, (7, 9)))

Counts = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Outer:
    """What stands around an inner packet.

    Attributes:
        version: of the outer packet.
        relay, gateway: addresses; None for the family's own.
        ports: from and to; None for the family's own.
        tags: VLAN tags, each its ethertype and control field.
        tos: traffic class.
        flags: IPv4 flags and fragment offset.
        options: IPv4 options.
        extension: IPv6 extension header, whose number is `next_header`.
        message: what stands before the inner packet.
        padding: what stands behind the outer packet.
    """

    version: int = 4
    relay: str | None = None
    gateway: str | None = None
    ports: tuple[int, int] | None = None
    tags: tuple[tuple[int, int], ...] = ()
    tos: int = 0
    flags: int = 0
    options: bytes = b""
    extension: bytes = b""
    next_header: int = 17
    message: bytes = b"\x06\x00"
    padding: bytes = b""

    def around(self, inner: bytes) -> bytes:
        """The frame."""
        version = self.version
        relay, gateway = self.relay or RELAY[version], self.gateway or GATEWAY[version]
        datagram = udp(relay, gateway, self.message + inner, self.ports or (RELAY_PORT, OUR_PORT[version]))
        if version == 4:
            packet = ipv4(
                datagram, source=relay, group=gateway, flags=self.flags, tos=self.tos, ttl=64, options=self.options
            )
        else:
            body = self.extension + datagram
            packet = ipv6(
                body, source=relay, group=gateway, hop_limit=64, traffic_class=self.tos, next_header=self.next_header
            )
        link = bytes.fromhex("020000000002 020000000001")
        for ethertype, control in self.tags:
            link += struct.pack(">HH", ethertype, control)
        return link + _ETHERTYPES[version] + packet + self.padding


class GatewayProgram:
    """The programs, loaded; slot 4 and tunnel 4 belong to IPv4, 6 to IPv6."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self.object = self._stack.enter_context(
            load(
                "gateway",
                programs=("gateway_xdp", "gateway_cpu", "gateway_egress", "gateway_tc"),
                entries={"channel_counters": _SLOTS, "tunnel_counters": _SLOTS, "receive_cpus": 1},
            )
        )
        self.verdict_program = self.object.program("gateway_xdp")
        self._set_up()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()

    def map(self, name: str) -> BpfMap:
        """A map of the object."""
        return self.object.map(name)

    def _set_up(self) -> None:
        for version in (4, 6):
            for port, vlans in _PORTS:
                local = Endpoint(ip_address(GATEWAY[version]), port or OUR_PORT[version])
                relay = Endpoint(ip_address(RELAY[version]), RELAY_PORT)
                strict = port != LENIENT_PORT
                value = tunnel_value(relay, version, strict_port=strict, vlans=vlans)
                self.map(f"tunnels{version}").update(tunnel_key(local), value)
            self.map(f"groups{version}").update(group_key(ip_address(ANY_SOURCE_GROUP[version])), b"\1")
        egress = self.object.program("gateway_egress")
        self.map("single_ports").update(index_key(LOOPBACK), devmap_value(LOOPBACK, egress))
        self.map("ports").update(index_key(LOOPBACK), port_value(PORT_ADDRESS))
        interned = create_map(MapKind.DEVMAP, "outgoing", 4, 8, 32)
        self._stack.callback(interned.close)
        interned.update(index_key(0), devmap_value(LOOPBACK, egress))
        self.map("sets").update(index_key(1), index_key(interned.fd))
        self.set_receive_cores(0)

    def set_receive_cores(self, cores: int) -> None:
        """Spread channels over processors, 0 for no spreading."""
        plain, keep_whole = bytes.fromhex("024953540000"), bytes.fromhex("024953540001")
        value = settings_value(LOOPBACK, cores, plain, keep_whole, SECRET, SECRET_KEEP_WHOLE)
        self.map("settings").update(index_key(0), value)

    def set_channel(self, version: int, **changes: object) -> ChannelEntry:
        """Set the family's channel: from the tunnel of IPv4 out of one interface, but for `changes`."""
        usual = ChannelEntry(slot=version, tunnel=4, set=1, single=LOOPBACK, limit=LIMIT, plane=Plane.XDP)
        entry = replace(usual, **changes)  # type: ignore[arg-type]
        channel = Channel(ip_address(SOURCE[version]), ip_address(GROUP[version]))
        self.map(f"channels{version}").update(channel_key(channel), entry.pack())
        return entry

    def run(self, frame: bytes, program: str = "gateway_xdp") -> TestRun:
        """Run a program on a frame."""
        return test_run(self.object.program(program), frame)

    def counts(self) -> Counts:
        """All counters that are not zero."""
        found: Counts = {}
        for index, refusal in enumerate(REFUSALS):
            found[refusal.value] = self.map("refused").sums(index)
        for index, name in enumerate(EXCEPTIONS):
            found[name] = self.map("exceptions").sums(index)
        for slot in range(_SLOTS):
            found[f"channel {slot}"] = self.map("channel_counters").sums(slot)
            found[f"tunnel {slot}"] = self.map("tunnel_counters").sums(slot)
        return {name: counted for name, counted in found.items() if any(counted)}

    def forget_counts(self) -> None:
        """Start counting anew."""
        for name, count in (("refused", len(REFUSALS)), ("exceptions", len(EXCEPTIONS))):
            for index in range(count):
                self.map(name).zero(index)
        for slot in range(_SLOTS):
            self.map("channel_counters").zero(slot)
            self.map("tunnel_counters").zero(slot)


def refused(refusal: Refusal) -> Counts:
    """What a packet refused leaves in the counters."""
    return {refusal.value: (1,)}


def forwarded(channel: int, tunnel: int, octets: int) -> Counts:
    """What a packet forwarded leaves in the counters."""
    return {f"channel {channel}": (1, octets), f"tunnel {tunnel}": (1, octets)}
