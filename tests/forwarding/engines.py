"""The engines of the gateway, each as the agent makes it."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Final

from forwarding.wire import Kind, Parts

from agent.dataplane.accelerated import AcceleratedEngine
from agent.dataplane.engine import Engine
from agent.dataplane.fast.attachments import KernelUplinks
from agent.dataplane.fast.interfaces import KernelPorts
from agent.dataplane.fast.layout import Plane
from agent.dataplane.fast.loaded import LoadedPrograms
from agent.dataplane.userspace import UserspaceEngine
from agent.dataplane.userspace_flow import DONT_FRAGMENT_SOURCE
from agent.net.dont_fragment import DontFragmentRule


def userspace(parts: Parts, stack: ExitStack) -> Engine:
    """Sockets, a tap device and the kernel's multicast routing."""
    engine = UserspaceEngine(parts.loop, parts.tap, parts.routers, parts.on_new_source, parts.local_networks)
    stack.callback(engine.close)
    return engine


def accelerated(parts: Parts, stack: ExitStack, plane: Plane) -> Engine:
    """The same behind the programs of one plane."""
    slow = UserspaceEngine(parts.loop, parts.tap, parts.routers, parts.on_new_source, parts.local_networks)
    stack.callback(slow.close)
    programs = LoadedPrograms(parts.tap.index, 0)
    uplinks = KernelUplinks(parts.loop, programs.gateway)
    ports = KernelPorts(parts.loop, programs.send)
    engine = AcceleratedEngine(parts.loop, slow, programs, ports, uplinks, (plane,))
    stack.callback(engine.close)
    if plane is Plane.XDP_MFC:
        stack.callback(DontFragmentRule(parts.tap.index, DONT_FRAGMENT_SOURCE, "isthmus-mfc").close)
    engine.set_local_networks(parts.local_networks)
    return engine


LINUX: Final = frozenset({"records_its_route"})
"""Linux writes the source of a multicast packet into a record of its route (ip_rt_get_source, for an output route)."""

PROGRAMS: Final = LINUX | {"sees_outer_checksum", "knows_local_networks"}
"""To programs a checksum that the sender's card is to fill in looks wrong though it is right; and a source in a local
network is nobody's that was asked for, unless it is of a channel."""

ORDINARY: Final = frozenset({"ordinary"})
"""Links whose frames veth hands to a program in the driver: each in one page."""

ENGINES: Final = {
    "userspace": Kind(userspace, LINUX),
    "xdp": Kind(lambda parts, stack: accelerated(parts, stack, Plane.XDP), PROGRAMS, Plane.XDP, ORDINARY),
    "xdp-mfc": Kind(lambda parts, stack: accelerated(parts, stack, Plane.XDP_MFC), PROGRAMS, Plane.XDP_MFC, ORDINARY),
    "tc": Kind(lambda parts, stack: accelerated(parts, stack, Plane.TC), PROGRAMS, Plane.TC),
}
