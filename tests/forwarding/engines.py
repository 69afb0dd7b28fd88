"""The engines of the gateway, each as the agent makes it."""

from __future__ import annotations

from typing import Final

from forwarding.wire import Kind, Parts

from agent.dataplane.engine import Engine
from agent.dataplane.userspace import UserspaceEngine


def userspace(parts: Parts) -> Engine:
    """Sockets, a tap device and the kernel's multicast routing."""
    return UserspaceEngine(parts.loop, parts.tap, parts.routers, parts.on_new_source, parts.local_networks)


LINUX: Final = frozenset({"records_its_route"})
"""Linux writes the source of a multicast packet into a record of its route (ip_rt_get_source, for an output route)."""

ENGINES: Final = {"userspace": Kind(userspace, LINUX)}
