"""Planes as the API shows them: of interfaces, of channels, and what was left to userspace."""

from __future__ import annotations

from ipaddress import ip_address
from types import SimpleNamespace

import pytest

from agent.dataplane.fast.layout import Plane
from agent.dataplane.fast.port import Port
from agent.protocol.channels import Channel
from agent.service.config import EngineChoice, parse
from agent.service.engine_model import ChannelPlane, InterfaceRole, ProbeState
from agent.service.plane_views import channel_plane, engine_status

CONFIGURATION = parse(
    'role = "gateway"\n[gateway]\nuplink = "eth0"\ndownstream = ["eth1", "eth2"]\n'
    '[[gateway.relay]]\naddress = "192.0.2.1"\n'
)
CHANNEL = Channel(ip_address("198.51.100.7"), ip_address("232.1.1.1"))
ALL = frozenset((Plane.XDP, Plane.XDP_MFC, Plane.TC))
MAC = bytes(6)


class FakeFast:
    """A choice of planes with fixed answers."""

    def __init__(self, choice=EngineChoice.AUTO, planes=(Plane.XDP, Plane.TC), uplinks=None, ports=None):
        self.choice, self.planes, self.reason = choice, planes, "as told"
        self.engine = SimpleNamespace(name="xdp", details={"segmentation": "per packet"})
        self._uplinks, self._ports = uplinks or {}, ports or {}
        self.said = (Plane.TC, "xdp: eth1: its driver (x) says no")

    def uplinks(self):
        return self._uplinks

    def ports(self):
        return self._ports

    def explain(self, channel):
        return self.said

    def channels(self):
        return {Plane.XDP: 3, Plane.TC: 1}

    def exceptions(self):
        return {"too_big": 7, "outer_fragment": 2}


def interfaces(fast):
    return {item.name: item for item in engine_status(fast, CONFIGURATION).interfaces}


def test_what_the_engine_counts_is_told_in_numbers():
    told = engine_status(FakeFast(), CONFIGURATION)
    assert (told.name, told.configured, told.reason) == ("xdp", "auto", "as told")
    assert told.channels == {"xdp": 3, "tc": 1}
    assert told.exceptions == {"too_big": 7, "outer_fragment": 2}
    assert told.details == {"segmentation": "per packet"}


def test_each_interface_tells_its_best_plane_and_why_not_the_others():
    refused = Port("eth1", 3, MAC, 1500, ALL - {Plane.XDP}, {Plane.XDP: "frames do not arrive"})
    fast = FakeFast(uplinks={"eth0": (ALL, {})}, ports={"eth1": refused})
    found = interfaces(fast)
    assert (found["eth0"].role, found["eth0"].plane, found["eth0"].probe) == (
        InterfaceRole.UPLINK,
        ChannelPlane.XDP,
        None,
    )
    assert (found["eth1"].plane, found["eth1"].probe) == (ChannelPlane.TC, ProbeState.FAILED)
    assert [(item.plane.value, item.usable, item.reason) for item in found["eth1"].planes] == [
        ("xdp", False, "frames do not arrive"),
        ("xdp-mfc", False, "engine auto does not use it"),
        ("tc", True, None),
    ]


@pytest.mark.parametrize("ports", [{}, {"eth2": None}])
def test_an_interface_nothing_goes_out_of_has_no_plane(ports):
    found = interfaces(FakeFast(ports=ports))
    assert (found["eth2"].plane, found["eth2"].planes, found["eth2"].probe) == (None, [], None)
    assert (found["eth0"].plane, found["eth0"].planes) == (None, [])


@pytest.mark.parametrize(
    ("planes", "reasons", "state"),
    [
        (ALL, {}, ProbeState.PASSED),
        (ALL - {Plane.XDP}, {Plane.XDP: "not tried out yet"}, ProbeState.PENDING),
        (ALL - {Plane.XDP}, {Plane.XDP: "frames do not arrive"}, ProbeState.FAILED),
    ],
)
def test_the_state_of_the_probe_is_told(planes, reasons, state):
    port = Port("eth1", 3, MAC, 1500, planes, reasons)
    assert interfaces(FakeFast(ports={"eth1": port}))["eth1"].probe is state


def test_an_interface_that_takes_no_plane_is_left_to_userspace():
    port = Port("eth1", 3, MAC, 1500, frozenset(), {Plane.XDP: "no", Plane.TC: "no"})
    assert interfaces(FakeFast(ports={"eth1": port}))["eth1"].plane is ChannelPlane.USERSPACE


def test_a_userspace_engine_has_no_planes_to_tell_of():
    assert engine_status(FakeFast(EngineChoice.USERSPACE, ()), CONFIGURATION).interfaces == []


def test_a_channel_tells_its_plane():
    fast = FakeFast()
    assert channel_plane(fast, CHANNEL, is_native=False) == (ChannelPlane.TC, "xdp: eth1: its driver (x) says no")
    assert channel_plane(fast, CHANNEL, is_native=True) == (ChannelPlane.KERNEL, None)
    fast.said = (Plane.XDP, "")
    assert channel_plane(fast, CHANNEL, is_native=False) == (ChannelPlane.XDP, None)
