"""The engine of the fast data planes: it fills the maps of programs in the kernel, above the userspace engine."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Final

from agent.dataplane.engine import Counters, FirstPacket, InterfaceUpcall, Traffic, TunnelSocket, ignore
from agent.dataplane.fast.layout import Plane
from agent.dataplane.fast.port import Ports
from agent.dataplane.fast.programs import Programs
from agent.dataplane.fast.uplinks import Uplinks
from agent.dataplane.userspace import UserspaceEngine
from agent.protocol.channels import Address, Channel, Network

PLANE_NAMES: Final = {Plane.XDP: "xdp", Plane.XDP_MFC: "xdp-mfc", Plane.TC: "tc", Plane.USERSPACE: "userspace"}
"""Names of planes in configuration and `status`."""


class AcceleratedEngine:
    """Forwards in the kernel what it wholly understands; the userspace engine takes everything else.

    Implements `agent.dataplane.engine.Engine`. Closing it closes all it was given.

    Args:
        loop: the event loop; every method is called from its thread.
        slow: the userspace engine, which has every tunnel's socket and every route.
        programs: the loaded object.
        ports: what is known of outgoing interfaces.
        uplinks: where tunnels come in.
        planes: the planes that may be used, the best first.
        mirrors: another daemon routes (FRR): channels stay in userspace until `mirror` says where they go.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        slow: UserspaceEngine,
        programs: Programs,
        ports: Ports,
        uplinks: Uplinks,
        planes: Sequence[Plane],
        *,
        mirrors: bool = False,
    ) -> None:
        self.on_first_packet: FirstPacket = ignore
        self.on_wrong_interface: InterfaceUpcall = ignore
        self.on_unknown_source: InterfaceUpcall = ignore
        self._loop = loop
        self._slow = slow
        self._programs = programs
        self._ports = ports
        self._uplinks = uplinks
        self._planes = tuple(planes)
        self._mirrors = mirrors
        slow.on_first_packet = self._tell_first_packet
        slow.on_wrong_interface = self._tell_wrong_interface
        slow.on_unknown_source = self._tell_unknown_source

    @property
    def name(self) -> str:
        """The best plane in use."""
        return PLANE_NAMES[Plane.USERSPACE]

    @property
    def details(self) -> dict[str, str]:
        """How the engine works on this host."""
        return self._slow.details

    def choose(self, planes: Sequence[Plane]) -> None:
        """Use these planes from now on, the best first; channels move over with no gap."""
        self._planes = tuple(planes)
        self._uplinks.wish(self._planes)

    def mirror(self, channel: Channel, interfaces: frozenset[str] | None) -> None:
        """Where another daemon forwards a channel from the tunnel interface; None when it does not."""

    def explain(self, channel: Channel) -> tuple[Plane, str]:
        """Who forwards a channel, and why no better plane does; the reason is empty for the first wish."""
        return Plane.USERSPACE, f"{channel} is not in the kernel's maps"

    def add_tunnel(self, tunnel: TunnelSocket) -> None:
        """Start reading a tunnel's socket; replaces a tunnel of the same name."""
        self._slow.add_tunnel(tunnel)
        self._uplinks.add_tunnel(tunnel)

    def remove_tunnel(self, name: str) -> None:
        """Stop reading a tunnel's socket; the caller closes it."""
        self._uplinks.remove_tunnel(name)
        self._slow.remove_tunnel(name)

    def set_channel(
        self, channel: Channel, tunnels: frozenset[str], interfaces: frozenset[str], incoming: str | None = None
    ) -> None:
        """Forward `channel` out of `interfaces`, from `tunnels` or natively from `incoming`.

        Raises:
            EngineError: the kernel cannot forward it.
        """
        self._slow.set_channel(channel, tunnels, interfaces, incoming)

    def remove_channel(self, channel: Channel) -> None:
        """Stop forwarding; nothing happens when the channel is unknown."""
        self._slow.remove_channel(channel)

    def set_group(self, group: Address, tunnels: frozenset[str]) -> None:
        """Report each new source of `group` arriving through `tunnels` to `on_new_source`."""
        self._slow.set_group(group, tunnels)

    def remove_group(self, group: Address) -> None:
        """Forget any-source interest; channels already set stay."""
        self._slow.remove_group(group)

    def watch_interface(self, name: str) -> None:
        """Take part in multicast routing on an interface before any channel uses it.

        Raises:
            EngineError: the kernel cannot route on it, or too many interfaces are in use.
        """
        self._slow.watch_interface(name)

    def unwatch_interface(self, name: str) -> None:
        """Watch an interface no longer; channels set stay."""
        self._slow.unwatch_interface(name)

    def interface_changed(self, name: str) -> None:
        """Attach an interface again after it was created, removed or recreated."""
        self._slow.interface_changed(name)

    def set_local_networks(self, networks: Iterable[Network]) -> None:
        """Replace the prefixes whose addresses may not be the source of a tunnelled packet."""
        self._slow.set_local_networks(networks)

    def set_duplicate_window(self, seconds: float) -> None:
        """Recognise copies of packets this far apart, for channels that have several tunnels from now on."""
        self._slow.set_duplicate_window(seconds)

    def traffic(self, channel: Channel) -> Traffic | None:
        """What was forwarded of one channel since it was set, None when it is not set."""
        return self._slow.traffic(channel)

    def feed_traffic(self, channel: Channel) -> dict[str, int]:
        """Packets of a channel that came through each of its tunnels since it was set for it, forwarded or not."""
        return self._slow.feed_traffic(channel)

    def tunnel_traffic(self) -> dict[str, Traffic]:
        """What came through each tunnel for channels set."""
        return self._slow.tunnel_traffic()

    def counters(self) -> Counters:
        """A snapshot of the counters."""
        return self._slow.counters()

    def close(self) -> None:
        """Stop reading and forwarding, leave nothing in the kernel. Safe to call twice."""
        self._uplinks.close()
        self._slow.close()
        self._ports.close()
        self._programs.close()

    def _tell_first_packet(self, channel: Channel, tunnel: str) -> None:
        self.on_first_packet(channel, tunnel)

    def _tell_wrong_interface(self, channel: Channel, interface: str) -> None:
        self.on_wrong_interface(channel, interface)

    def _tell_unknown_source(self, channel: Channel, interface: str) -> None:
        self.on_unknown_source(channel, interface)
