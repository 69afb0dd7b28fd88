"""The TC program where drivers have none: uplinks and outgoing interfaces that are VLANs, bridges and bonds."""

from __future__ import annotations

import socket
import subprocess

import pytest

from agent.dataplane.fast.layout import index_key, interface_list, port_value
from lab.bench.inner_packets import datagram, one_hop_on
from lab.bench.relay_topology import inside, ip_lines
from tests.interop.test_tc_program import Uplink, expected
from tests.interop.test_tc_program import make_uplink as make_uplink  # noqa: PLC0414 - the fixture

pytestmark = pytest.mark.root

KINDS = {
    "vlan": "link down0 type vlan id 5",
    "bridge": "type bridge mcast_snooping 0",
    "bond": "type bond mode active-backup",
}


def add_device(uplink: Uplink, kind: str) -> None:
    """A device `over0` above the first downstream interface; skips where this kernel has no such devices."""
    parts = KINDS[kind].split()
    where = parts[: parts.index("type")]
    command = ["ip", "link", "add", *where, "name", "over0", *parts[len(where) :]]
    with inside(uplink.topology.gateway):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"no {kind} devices in this kernel: {done.stderr.strip()}")
    lines = [] if kind == "vlan" else ["link set down0 down", "link set down0 master over0", "link set down0 up"]
    ip_lines(uplink.topology.gateway, *lines, "link set over0 up")


def send_to_device(uplink: Uplink) -> bytes:
    """Make `over0` the only outgoing interface; its address."""
    with inside(uplink.topology.gateway):
        index = socket.if_nametoindex("over0")
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as probe:
            probe.bind(("over0", 0))
            address: bytes = probe.getsockname()[4]
    uplink.loaded.map("ports").update(index_key(index), port_value(address))
    uplink.loaded.map("set_interfaces").update(index_key(3), interface_list((index,)))
    return address


@pytest.mark.parametrize("kind", ["vlan", "bridge", "bond"])
@pytest.mark.parametrize(("outer", "inner"), [(4, 4), (6, 4), (4, 6)])
def test_packets_leave_by_a_device_above_the_interface(make_uplink, kind: str, outer: int, inner: int) -> None:
    uplink = make_uplink()
    add_device(uplink, kind)
    address = send_to_device(uplink)
    uplink.forward(inner, outer)
    packet = datagram(inner, b"above")
    uplink.send(outer, packet)
    frames = uplink.frames(0, packet)
    assert frames == [expected(address, packet, one_hop_on(packet))]
