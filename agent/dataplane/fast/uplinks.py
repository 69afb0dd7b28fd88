"""Where tunnels come in, as the fast engines see it, and who attaches the programs there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from agent.dataplane.engine import TunnelSocket
from agent.dataplane.fast.layout import Plane
from agent.protocol.channels import Endpoint


class Uplinks(Protocol):
    """Interfaces that tunnels come in on, with the programs attached to them while a tunnel needs them.

    Attributes:
        on_changed: called with a tunnel's name when what `planes`, `reason`, `local`, `station` or `interface` say of
            it has changed: its uplink was made again, a program was attached or lost, our address is another one.
            Not called from within `add_tunnel` and `remove_tunnel`.
    """

    on_changed: Callable[[str], None]

    def add_tunnel(self, tunnel: TunnelSocket) -> None:
        """Find out where a tunnel's data comes in and attach what can be attached there; replaces one of that name."""

    def remove_tunnel(self, name: str) -> None:
        """Forget a tunnel; an uplink without tunnels gets its programs detached."""

    def planes(self, name: str) -> frozenset[Plane]:
        """The planes whose programs see a tunnel's data; empty for an unknown tunnel."""

    def reason(self, name: str, plane: Plane) -> str:
        """Why a plane's program does not see a tunnel's data, for `status`; empty when it does."""

    def local(self, name: str) -> Endpoint | None:
        """Our address and port the relay sends to, None while that is not known (no route, socket not bound)."""

    def station(self, name: str) -> bytes:
        """MAC address a tunnel's frames are for; `ANY_STATION` when it comes in on interfaces of several."""

    def interface(self, name: str) -> int | None:
        """Index of the interface a tunnel's data comes in on."""

    def wish(self, planes: tuple[Plane, ...]) -> None:
        """Planes anybody may use, the best first: the programs of others need not be attached."""

    def close(self) -> None:
        """Detach everything."""
