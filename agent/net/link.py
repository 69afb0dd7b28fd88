"""What a protocol machine's link to its neighbours offers, whatever carries it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from agent.net.rawlink import OnPacket, RawLinkCounters
from agent.net.rawlink_filter import LinkProtocol
from agent.protocol.channels import Family


class Link(Protocol):
    """Control packets of one protocol and family on one interface: a `RawLink` or a `TapLink`."""

    counters: RawLinkCounters
    last_error: OSError | None

    @property
    def overflows(self) -> int | None:
        """Packets dropped because they were not read in time; None where nobody counts that for a single link."""

    @property
    def is_open(self) -> bool:
        """Whether packets can arrive."""

    def reopen(self) -> bool:
        """Attach to the interface of the name again, and say whether packets can arrive."""

    def send(self, packet: bytes) -> bool:
        """Send a whole IP packet; False (and counted) when it was not sent."""

    def close(self) -> None:
        """Stop delivering; `reopen()` starts again."""


OpenLink = Callable[[asyncio.AbstractEventLoop, str, Family, OnPacket, LinkProtocol], Link]
"""Opens a link; called like `RawLink`."""
