"""Who says where a channel goes, when it is not the one who set it: FRR's multicast routing in mode `frr`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from agent.protocol.channels import Channel


class Outgoing(Protocol):
    """Where the kernel's multicast routing sends what comes in on the tunnel interface.

    Attributes:
        on_changed: called with a channel (source given) when what `interfaces` says of it has changed; with None when
            everything may have.
    """

    on_changed: Callable[[Channel | None], None]

    def interfaces(self, channel: Channel) -> frozenset[str] | None:
        """Names of the interfaces, which may be none; None when there is no route yet: the kernel has to ask first."""

    def close(self) -> None:
        """Stop following."""
