"""An outgoing interface as the fast engines see it, and where they learn of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from agent.dataplane.fast.layout import Plane


@dataclass(frozen=True, slots=True)
class Port:
    """An outgoing interface that exists.

    Attributes:
        name: its name.
        index: its index; another one after it was made again.
        address: its MAC address, six octets.
        mtu: octets of IP packet it takes.
        planes: which planes may send to it.
        reasons: why the others may not, for `status`.
    """

    name: str
    index: int
    address: bytes
    mtu: int
    planes: frozenset[Plane]
    reasons: Mapping[Plane, str] = field(default_factory=dict)


class Ports(Protocol):
    """What is known of interfaces.

    Attributes:
        on_changed: called with an interface's name when what `get` says of it has changed.
    """

    on_changed: Callable[[str], None]

    def get(self, name: str) -> Port | None:
        """The port of that name; None when there is no such interface, it is down, or no fast plane can use it."""

    def want(self, names: frozenset[str]) -> None:
        """Interfaces in use: find out about them (probing takes a moment), and forget others."""

    def close(self) -> None:
        """Stop watching."""
