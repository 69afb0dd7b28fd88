"""The kernel's multicast routing and the tap device, as the engine uses them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from ipaddress import ip_address, ip_interface
from pathlib import Path

import pytest
from forwarding.planes import USERSPACE_ONLY

from agent.dataplane.engine import EngineError
from agent.dataplane.fast.layout import Plane
from agent.net.mroute import (
    DEFAULT_TABLE,
    InterfaceLimitError,
    MulticastRouter,
    MulticastRoutingBusyError,
    MulticastRoutingError,
    MulticastRoutingUnsupportedError,
)
from agent.net.tap import Tap, TapError, TapSettings, hardware_address_for
from agent.protocol.channels import Channel, Family
from lab.bench.engine_border import Border
from lab.bench.engine_needs import missing_for_engine
from lab.bench.engine_topology import EngineTopology, set_sysctl
from lab.bench.inner_packets import datagram, datagram_ipv4, one_hop_on
from lab.bench.relay_topology import inside, run

pytestmark = pytest.mark.root


@pytest.fixture
def topology() -> Iterator[EngineTopology]:
    """A topology inside whose gateway the test runs."""
    if missing := missing_for_engine():
        pytest.skip(missing)
    with EngineTopology(f"isx-route{os.getpid()}", redirectable=True) as made, inside(made.gateway):
        yield made


@pytest.fixture
def make_border(topology: EngineTopology, plane: Plane | None) -> Iterator:
    with ExitStack() as stack:
        yield lambda **settings: stack.enter_context(
            Border(topology, on_unsupported=pytest.skip, plane=plane, **settings)
        )


@pytest.fixture
def open_router(topology: EngineTopology) -> Iterator:
    """Opens routers that close with the test; one this kernel has not is a reason to skip."""
    with ExitStack() as stack:

        def opened(family: Family, table: int = DEFAULT_TABLE) -> MulticastRouter:
            try:
                router = MulticastRouter(family, table)
            except MulticastRoutingUnsupportedError as error:
                pytest.skip(str(error))
            stack.callback(router.close)
            return router

        yield opened


@pytest.mark.parametrize("version", [4, 6])
def test_a_recreated_downstream_interface_gets_its_channels_back(make_border, topology, version) -> None:
    border = make_border()
    relay = border.relay()
    border.forward(version)
    packet = datagram(version, b"x" * 100)
    relay.send(packet)
    wire = border.wire()
    relay.send(packet)
    border.run_until(lambda: one_hop_on(packet) in wire.collect())
    topology.disconnect_downstream(0)
    border.engine.interface_changed("down0")
    relay.send(packet)
    topology.connect_downstream(0)
    border.engine.interface_changed("down0")
    again = border.wire()
    relay.send(packet)
    border.run_until(lambda: one_hop_on(packet) in again.collect())


@pytest.mark.parametrize("version", [4, 6])
def test_an_interface_that_comes_later_joins_in(make_border, topology, version, plane) -> None:
    border = make_border()
    relay = border.relay()
    channel = border.forward(version, "down0", "down1")
    first, packet = border.wire(), datagram(version, b"x" * 100)
    relay.send(packet)
    border.run_until(lambda: one_hop_on(packet) in first.collect())
    topology.connect_downstream(1)
    border.engine.interface_changed("down1")
    second = border.wire(1)

    def sent_and_seen() -> bool:
        relay.send(packet)  # more than once: the fast planes hear of the link a moment later
        return one_hop_on(packet) in second.collect()

    border.run_until(sent_and_seen)
    border.run_until(lambda: border.plane_of(channel) is (plane or Plane.USERSPACE))


@pytest.mark.parametrize("plane", ["userspace", "xdp-mfc"], indirect=True)
@pytest.mark.parametrize("version", [4, 6])
def test_a_table_of_our_own_is_reached_through_a_rule_that_goes_with_us(make_border, open_router, version) -> None:
    open_router(Family(version), 4242).close()
    family = ["-4", "-6"][version == 6]
    before = run("ip", family, "mrule")
    border = make_border(table=4242)
    relay, wire = border.relay(), border.wire()
    border.forward(version)
    packet = datagram(version, b"x" * 100)
    relay.send(packet)
    border.run_until(lambda: wire.collect() == [one_hop_on(packet)])
    assert "iif amt0" in run("ip", family, "mrule")
    border.engine.close()
    border.routers[Family(version)].close()
    assert run("ip", family, "mrule") == before


@pytest.mark.parametrize("family", list(Family))
def test_a_second_owner_of_a_table_is_told_who_may_hold_it(open_router, family) -> None:
    first = open_router(family)
    with pytest.raises(MulticastRoutingBusyError, match="another daemon"):
        MulticastRouter(family)
    first.close()
    open_router(family).close()


@pytest.mark.parametrize("family", list(Family))
def test_tables_are_owned_one_by_one(open_router, family) -> None:
    open_router(family)
    open_router(family, 77)
    with pytest.raises(MulticastRoutingBusyError, match="table 77"):
        MulticastRouter(family, 77)


@pytest.mark.parametrize("family", list(Family))
def test_the_thirty_third_interface_is_refused_clearly_and_unused_ones_make_room(open_router, family) -> None:
    router = open_router(family)
    source, group = ("198.51.100.1", "232.0.0.1") if family is Family.IPV4 else ("2001:db8::1", "ff3e::1")
    for number in range(0, 33, 2):
        run("ip", "link", "add", f"many{number}", "type", "veth", "peer", "name", f"many{number + 1}")
    outgoing = [f"many{number}" for number in range(33)]
    router.set_route(ip_address(source), ip_address(group), "uplink1", outgoing[:31])
    with pytest.raises(InterfaceLimitError, match="32"):
        router.set_route(ip_address(source), ip_address(group) + 1, "uplink1", outgoing[31:])
    router.set_route(ip_address(source), ip_address(group), "uplink1", outgoing[:5])
    router.set_route(ip_address(source), ip_address(group) + 1, "uplink1", outgoing[31:])
    router.close()


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("plane", ["userspace", "xdp-mfc"], indirect=True)
def test_the_kernel_counts_what_it_forwards(make_border, version) -> None:
    border = make_border()
    relay, wire = border.relay(), border.wire()
    channel = border.forward(version)
    packet = datagram(version, b"x" * 100)
    for count in range(1, 6):  # one at a time: the kernel counts a train as one packet
        relay.send(packet)
        border.run_until(lambda count=count: len(wire.collect()) == count)
    traffic = border.routers[Family(version)].traffic(channel.source, channel.group)
    assert traffic is not None
    assert (traffic.packets, traffic.bytes, traffic.wrong_interface) == (5, 5 * len(packet), 0)
    border.engine.remove_channel(channel)
    assert border.routers[Family(version)].traffic(channel.source, channel.group) is None


@pytest.mark.parametrize("version", [4, 6])
def test_packets_without_a_route_come_up_as_upcalls(open_router, version) -> None:
    source, group = ("198.51.100.1", "232.0.0.1") if version == 4 else ("2001:db8::1", "ff3e::1")
    router = open_router(Family(version))
    with Tap() as tap:
        router.set_route(ip_address(source) + 5, ip_address(group), tap.name, ["down0"])
        packet = datagram_ipv4(b"x", source=source, group=group) if version == 4 else datagram(6, b"x")
        mac = b"\x01\x00\x5e\x00\x00\x01" if version == 4 else b"\x33\x33\x80\x00\x00\x01"
        ethertype = b"\x08\x00" if version == 4 else b"\x86\xdd"
        os.write(tap.fd, bytes(10) + mac + b"\x02\0\0\0\0\1" + ethertype + packet)
        upcalls = router.drain()
        assert [(call.unresolved, router.interface_name(call.slot)) for call in upcalls] == [(True, "amt0")]
        assert upcalls[0].group == ip_address(group if version == 4 else "ff3e::8000:1")
        router.close()
        tap.remove()


@USERSPACE_ONLY
def test_a_family_without_multicast_routing_is_told(make_border) -> None:
    border = make_border(families=(Family.IPV4,))
    with pytest.raises(EngineError, match="IPV6"):
        border.forward(6)
    assert border.engine.details["ipv6"] == "no multicast routing"
    with pytest.raises(EngineError, match="no source"):
        border.engine.set_channel(Channel.parse("*", "239.1.1.1"), frozenset(), frozenset())


def test_a_route_from_an_unknown_interface_is_refused(topology) -> None:
    router = MulticastRouter(Family.IPV4)
    with pytest.raises(MulticastRoutingError, match="nowhere0 does not exist"):
        router.set_route(ip_address("198.51.100.1"), ip_address("232.0.0.1"), "nowhere0", ["down0"])
    router.close()


def test_the_tap_keeps_name_address_and_index_across_a_restart(topology) -> None:
    settings = TapSettings(addresses=(ip_interface("192.0.2.77/32"),))
    tap = Tap(settings)
    index = tap.index
    tap.close()
    tap = Tap(settings)
    assert tap.index == index
    shown = run("ip", "address", "show", "amt0")
    assert hardware_address_for("amt0") in shown
    assert "192.0.2.77" in shown
    assert f"mtu {tap.details['mtu']}" in shown
    with pytest.raises(TapError, match="another process"):
        Tap(settings)
    tap.remove()
    assert not Path("/sys/class/net/amt0").exists()


def test_a_name_taken_by_something_else_is_told(topology) -> None:
    with pytest.raises(TapError, match="down0"):
        Tap(TapSettings(name="down0"))
    with pytest.raises(TapError, match="not an interface name"):
        Tap(TapSettings(name="much-too-long-a-name"))


@pytest.mark.parametrize("plane", ["userspace", "xdp-mfc"], indirect=True)
@pytest.mark.parametrize(("everywhere", "words"), [("0", "off"), ("1", "loose"), ("2", "loose")])
def test_packets_pass_whatever_reverse_path_filter_the_operator_set(make_border, everywhere, words) -> None:
    set_sysctl("net/ipv4/conf/all/rp_filter", everywhere)
    border = make_border()
    assert border.engine.details["rp_filter"].startswith(words)
    relay, wire = border.relay(), border.wire()
    border.forward(4)
    packet = datagram(4, b"x" * 100)
    relay.send(packet)
    border.run_until(lambda: wire.collect() == [one_hop_on(packet)])
    assert Path("/proc/sys/net/ipv4/conf/all/rp_filter").read_text().strip() == everywhere


@USERSPACE_ONLY
@pytest.mark.parametrize(("version", "prefix"), [(4, "232.9.9."), (6, "ff3e::9:")])
def test_closing_leaves_no_route(make_border, version, prefix) -> None:
    border = make_border()
    for number in range(1, 200):
        border.forward(version, group=f"{prefix}{number}")
    assert run("ip", f"-{version}", "mroute").count(prefix) == 199
    border.engine.close()
    assert prefix not in run("ip", f"-{version}", "mroute")
