"""Where a channel comes from: tunnels, or the native multicast of the domain (RFC 8313 §3.3, native first)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from agent.protocol.channels import Address


@dataclass(frozen=True, slots=True)
class TunnelUpstream:
    """Through AMT.

    Attributes:
        names: tunnels in order of preference, never empty; more than one is live-live: each is asked for the channel,
            and of every packet the copy that comes first is forwarded.
    """

    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class NativeUpstream:
    """By native multicast.

    Attributes:
        interface: where its packets come in: the RPF interface of the source (RFC 7761 §4.2).
        neighbor: PIM neighbour to send our own Join to; None when the source is on that link itself.
    """

    interface: str
    neighbor: Address | None = None


Upstream: TypeAlias = TunnelUpstream | NativeUpstream
