"""Which plane forwards a channel, and why not a better one: decided from what is known, without touching anything."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

from agent.dataplane.fast.layout import MOST_INTERFACES, Plane
from agent.dataplane.fast.outgoing import Outgoing
from agent.dataplane.fast.port import Port, Ports
from agent.protocol.channels import Channel

PLANE_NAMES: Final = {Plane.XDP: "xdp", Plane.XDP_MFC: "xdp-mfc", Plane.TC: "tc", Plane.USERSPACE: "userspace"}
"""Names of planes in configuration and `status`."""

_LONGEST_PACKET: Final = 0xFFFF


@dataclass(frozen=True, slots=True)
class Wish:
    """How a channel is to be forwarded, as `Engine.set_channel` says it."""

    tunnels: frozenset[str]
    interfaces: frozenset[str]
    incoming: str | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """Who forwards a channel.

    Attributes:
        plane: who.
        reason: why no better plane of the wish does; empty for the first one.
        tunnel: the only one it comes through, empty in userspace.
        ports: where it goes, by index; none in userspace.
    """

    plane: Plane
    reason: str = ""
    tunnel: str = ""
    ports: tuple[Port, ...] = ()

    @property
    def is_fast(self) -> bool:
        """Whether a program of the kernel forwards it."""
        return self.plane is not Plane.USERSPACE

    @property
    def indexes(self) -> tuple[int, ...]:
        """Of the interfaces it goes out of."""
        return tuple(port.index for port in self.ports)

    @property
    def limit(self) -> int:
        """Octets of the longest packet all interfaces take."""
        return min((_LONGEST_PACKET, *(port.mtu for port in self.ports)))


class KnownTunnels(Protocol):
    """What the plan asks about tunnels."""

    def reason(self, name: str) -> str:
        """Why the programs do not know a tunnel; empty when they do."""

    def planes(self, name: str) -> frozenset[Plane]:
        """Planes whose programs see a tunnel's data."""

    def plane_reason(self, name: str, plane: Plane) -> str:
        """Why a plane's program does not."""


class Planner:
    """Makes plans.

    Args:
        ports: what is known of outgoing interfaces.
        tunnels: what is known of tunnels.
        outgoing: where another daemon routes channels to; None where the wish says it.

    Attributes:
        planes: the planes that may be used, the best first.
    """

    def __init__(
        self,
        ports: Ports,
        tunnels: KnownTunnels,
        outgoing: Outgoing | None = None,
        planes: tuple[Plane, ...] = (),
    ) -> None:
        self.planes = planes
        self._ports = ports
        self._tunnels = tunnels
        self._outgoing = outgoing

    def interfaces(self, channel: Channel, wish: Wish) -> frozenset[str]:
        """Names of the interfaces a channel goes out of, those that do not exist among them."""
        if self._outgoing is None:
            return wish.interfaces
        return self._outgoing.interfaces(channel) or frozenset()

    def plan(self, channel: Channel, wish: Wish) -> Plan:
        """Decide for one channel."""
        fast = [plane for plane in self.planes if plane is not Plane.USERSPACE]
        if not fast or self.planes[0] is Plane.USERSPACE:
            return Plan(Plane.USERSPACE)
        reason = self._not_at_all(wish)
        if reason:
            return Plan(Plane.USERSPACE, reason)
        (tunnel,) = wish.tunnels
        ports, reason = self._where_to(channel, wish)
        if reason:
            return Plan(Plane.USERSPACE, reason)
        reasons: list[str] = []
        for plane in fast:
            reason = self._not_by(plane, tunnel, ports)
            if not reason:
                return Plan(plane, "; ".join(reasons), tunnel, ports)
            reasons.append(f"{PLANE_NAMES[plane]}: {reason}")
        return Plan(Plane.USERSPACE, "; ".join(reasons))

    def _not_at_all(self, wish: Wish) -> str:
        if wish.incoming is not None:
            return f"comes in natively on {wish.incoming}"
        if len(wish.tunnels) > 1:
            return "comes through several tunnels, whose copies are told apart in userspace"
        if not wish.tunnels:
            return "has no tunnel"
        (tunnel,) = wish.tunnels
        return self._tunnels.reason(tunnel)

    def _where_to(self, channel: Channel, wish: Wish) -> tuple[tuple[Port, ...], str]:
        """The ports; interfaces that do not exist, or are down, join in later, as in the kernel's routing."""
        if self._outgoing is not None and self._outgoing.interfaces(channel) is None:
            return (), "the routing daemon has no route for it yet"
        ports = []
        for name in self.interfaces(channel, wish):
            port = self._ports.get(name)
            if port is not None:
                ports.append(port)
        if not ports:
            return (), "has no outgoing interface that is up"
        if len(ports) > MOST_INTERFACES:
            return (), f"goes out of more than {MOST_INTERFACES} interfaces"
        return tuple(sorted(ports, key=lambda port: port.index)), ""

    def _not_by(self, plane: Plane, tunnel: str, ports: tuple[Port, ...]) -> str:
        if plane is Plane.XDP_MFC and self._outgoing is not None:
            return "the routing daemon owns the kernel's multicast routing"
        if plane not in self._tunnels.planes(tunnel):
            return self._tunnels.plane_reason(tunnel, plane) or f"no program where tunnel {tunnel} comes in"
        for port in ports:
            if plane not in port.planes:
                return f"{port.name}: {port.reasons.get(plane) or 'cannot be sent to'}"
        return ""
