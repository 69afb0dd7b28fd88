"""What every forwarding engine of the gateway offers, and the counters it keeps."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from agent.net.udp import IcmpHint
from agent.protocol.channels import Address, Channel, Endpoint, Network


class EngineError(Exception):
    """The host cannot forward what was asked; the message says why."""


class Refusal(Enum):
    """Why a tunnelled packet was not forwarded; the value is the label in metrics and in `status`."""

    NOT_SUBSCRIBED = "not_subscribed"
    WRONG_RELAY = "wrong_relay"
    BAD_AMT_HEADER = "bad_amt_header"
    BAD_INNER_HEADER = "bad_inner_header"
    LINK_LOCAL_GROUP = "link_local_group"
    SPOOFED_LOCAL_SOURCE = "spoofed_local_source"
    TTL_EXPIRED = "ttl_expired"
    CONGESTION_LOST = "congestion_lost"  # outer CE on an inner Not-ECT packet, RFC 6040 §4.2
    SOURCE_PENDING = "source_pending"  # any-source interest, the new source is announced but not set yet
    TOO_BIG = "too_big"
    RECEIVE_OVERFLOW = "receive_overflow"  # the kernel dropped it because the socket's buffer was full
    OUTPUT_ERROR = "output_error"


@dataclass(frozen=True, slots=True)
class TunnelSocket:
    """One tunnel as an engine sees it.

    Attributes:
        name: the tunnel's key, unique in the process.
        socket: bound, non-blocking UDP socket shared by control and data; the engine is its only reader.
        relay: address and port data must come from.
        strict_port: refuse data whose source port is not the relay's.
        receive_buffer: bytes to ask for; beyond the system's limit only with CAP_NET_ADMIN.
        on_control: called with (payload, source) for every message that is not Multicast Data.
        on_error: called for each ICMP error about what the socket sent (IP_RECVERR).
    """

    name: str
    socket: socket.socket
    relay: Endpoint
    on_control: Callable[[bytes, Endpoint], None]
    on_error: Callable[[IcmpHint], None]
    strict_port: bool = True
    receive_buffer: int = 8 * 1024 * 1024


@dataclass(slots=True)
class Traffic:
    """Packets and bytes (inner IP packets, headers included) since the object came to be."""

    packets: int = 0
    bytes: int = 0


@dataclass(slots=True)
class Counters:
    """What an engine counted: channels and tunnels since they were set, the rest since the engine started.

    A tunnel that is added again under its name goes on counting; `forwarded` includes tunnels that are gone.
    """

    channels: dict[Channel, Traffic] = field(default_factory=dict)
    tunnels: dict[str, Traffic] = field(default_factory=dict)
    refused: dict[Refusal, int] = field(default_factory=dict)
    forwarded: Traffic = field(default_factory=Traffic)


class Engine(Protocol):
    """Forwards what arrives through tunnels to downstream interfaces.

    All methods are called from the event loop's thread.
    """

    @property
    def name(self) -> str:
        """Name used in configuration and `status`."""

    @property
    def details(self) -> dict[str, str]:
        """How the engine works on this host, for `status` and `doctor`."""

    def add_tunnel(self, tunnel: TunnelSocket) -> None:
        """Start reading a tunnel's socket."""

    def remove_tunnel(self, name: str) -> None:
        """Stop reading a tunnel's socket; the caller closes it."""

    def set_channel(self, channel: Channel, tunnels: frozenset[str], interfaces: frozenset[str]) -> None:
        """Forward `channel` (source given) from `tunnels` out of `interfaces`; replaces what was set before.

        Interfaces that do not exist yet join in after `interface_changed`.

        Raises:
            EngineError: the kernel cannot forward it (no multicast routing for the family, too many interfaces).
        """

    def remove_channel(self, channel: Channel) -> None:
        """Stop forwarding; nothing happens when the channel is unknown."""

    def set_group(self, group: Address, tunnels: frozenset[str]) -> None:
        """Report each new source of `group` arriving through `tunnels` to `on_new_source` (any-source interest)."""

    def remove_group(self, group: Address) -> None:
        """Forget any-source interest; channels already set stay."""

    def interface_changed(self, name: str) -> None:
        """Attach a downstream interface again after it was created, removed or recreated; channels naming it follow."""

    def set_local_networks(self, networks: Iterable[Network]) -> None:
        """Replace the prefixes whose addresses may not be the source of a tunnelled packet."""

    def traffic(self, channel: Channel) -> Traffic | None:
        """What was forwarded of one channel since it was set, None when it is not set; cheap enough to poll."""

    def tunnel_traffic(self) -> dict[str, Traffic]:
        """What came through each tunnel, cheap enough to poll."""

    def counters(self) -> Counters:
        """A snapshot of the counters."""

    def close(self) -> None:
        """Stop reading and forwarding, leave nothing in the kernel."""


NewSource = Callable[[Channel, str], None]
"""Called with (channel, tunnel name) when any-source interest meets a source not yet set."""
