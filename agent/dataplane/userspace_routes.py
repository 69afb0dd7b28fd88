"""The kernel's multicast routing under the userspace engine: its routes, its counters and what it tells."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final

from agent.dataplane.engine import EngineError, InterfaceUpcall, Traffic
from agent.dataplane.userspace_sources import SourceAnnouncer
from agent.net.mroute import MulticastRouter, MulticastRoutingError
from agent.protocol.channels import Channel, Family, is_forwardable_group, is_unicast

_ELSEWHERE: Final = "another daemon routes what the engine writes into the tunnel interface"


class KernelRoutes:
    """Routes from the tunnel interface, or from a native one, to the outgoing interfaces.

    Args:
        loop: the event loop.
        tunnel_interface: where packets out of tunnels enter the kernel.
        routers: multicast routing per family; None when another daemon routes, so that there is nothing to set.
        on_wrong_interface: called as `agent.dataplane.engine.Engine` says.
        on_unknown_source: likewise.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        tunnel_interface: str,
        routers: Mapping[Family, MulticastRouter] | None,
        on_wrong_interface: InterfaceUpcall,
        on_unknown_source: InterfaceUpcall,
    ) -> None:
        self._on_wrong_interface = on_wrong_interface
        self._on_unknown_source = on_unknown_source
        self._loop = loop
        self._tunnel_interface = tunnel_interface
        self._is_ours = routers is not None
        self._routers = dict(routers or {})
        self._unknown, self._wrong = SourceAnnouncer(), SourceAnnouncer()
        for router in self._routers.values():
            loop.add_reader(router.fileno(), self._take_upcalls, router)

    @property
    def details(self) -> dict[str, str]:
        """Who routes each family, and how."""
        if not self._is_ours:
            return {"routing": _ELSEWHERE}
        found = {family.name.lower(): f"table {router.table}" for family, router in self._routers.items()}
        missing = {family.name.lower(): "no multicast routing" for family in Family if family not in self._routers}
        partly = [family.name for family, router in self._routers.items() if not router.tells_wrong_interface]
        told = {"wrong_interface": f"not told for {', '.join(partly)}: this kernel has no PIM"} if partly else {}
        return {**found, **missing, **told}

    def set(self, channel: Channel, interfaces: frozenset[str], incoming: str | None) -> None:
        """Route a channel from `incoming`, or from the tunnel interface, in place of its former route.

        Raises:
            EngineError: the kernel cannot forward it.
        """
        if not self._is_ours:
            if incoming is not None:
                raise EngineError(_ELSEWHERE)
            return
        router = self._routers.get(channel.family)
        if router is None or channel.source is None:
            raise EngineError(f"no multicast routing for {channel.family.name} on this host")
        try:
            router.set_route(channel.source, channel.group, incoming or self._tunnel_interface, interfaces)
        except MulticastRoutingError as error:
            raise EngineError(str(error)) from error

    def remove(self, channel: Channel) -> None:
        """Route a channel no longer."""
        router = self._routers.get(channel.family)
        if router is not None and channel.source is not None:
            router.remove_route(channel.source, channel.group)

    def counted(self, channel: Channel) -> Traffic:
        """What the kernel forwarded of a channel since its first route was set."""
        router = self._routers.get(channel.family)
        found = router.traffic(channel.source, channel.group) if router is not None and channel.source else None
        return Traffic() if found is None else Traffic(found.packets, found.bytes)

    def watch(self, name: str) -> None:
        """Take part in multicast routing on an interface, in every family there is.

        Raises:
            EngineError: the kernel cannot route on it, or too many interfaces are in use.
        """
        for router in self._routers.values():
            try:
                router.watch(name)
            except MulticastRoutingError as error:
                raise EngineError(str(error)) from error

    def unwatch(self, name: str) -> None:
        """Watch an interface no longer."""
        for router in self._routers.values():
            router.unwatch(name)

    def interface_changed(self, name: str) -> None:
        """Attach an interface again."""
        for router in self._routers.values():
            router.interface_changed(name)

    def close(self) -> None:
        """Listen to the kernel no longer; the routers go on."""
        for router in self._routers.values():
            self._loop.remove_reader(router.fileno())
        self._routers.clear()

    def _take_upcalls(self, router: MulticastRouter) -> None:
        """What came in on the tunnel interface is no evidence of anything: the engine wrote it there."""
        now = self._loop.time()
        for upcall in router.drain():
            interface = router.interface_name(upcall.slot)
            channel = Channel(upcall.source, upcall.group)
            if interface is None or interface == self._tunnel_interface or not _may_be_routed(channel):
                continue
            key = upcall.source.packed + upcall.group.packed
            if upcall.unresolved:
                if self._unknown.admit(key, interface, now):
                    self._on_unknown_source(channel, interface)
            elif self._wrong.admit(key, interface, now):
                self._on_wrong_interface(channel, interface)


def _may_be_routed(channel: Channel) -> bool:
    source = channel.source
    if source is None or not is_unicast(source) or source.is_link_local:  # RFC 3927 §7, RFC 4291 §2.5.6
        return False
    return is_forwardable_group(channel.group)
