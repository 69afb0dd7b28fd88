"""What every forwarding engine of the gateway offers, and the counters it keeps."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, Protocol

from agent.net.udp import IcmpHint
from agent.protocol.channels import Address, Channel, Endpoint, Network

DUPLICATE_WINDOW: Final = 0.5
"""Seconds two copies of a packet that comes through several tunnels may be apart, unless told otherwise."""


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
    DUPLICATE = "duplicate"  # another upstream of the channel brought it first, or still forwards it


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

    A tunnel that is added again under its name goes on counting; `forwarded` is what came out of tunnels and was handed
    on, those that are gone included.
    """

    channels: dict[Channel, Traffic] = field(default_factory=dict)
    tunnels: dict[str, Traffic] = field(default_factory=dict)
    refused: dict[Refusal, int] = field(default_factory=dict)
    forwarded: Traffic = field(default_factory=Traffic)


NewSource = Callable[[Channel, str], None]
"""Called with (channel, tunnel name) when any-source interest meets a source not yet set."""

FirstPacket = Callable[[Channel, str], None]
"""Called with (channel, tunnel name) at a tunnel's first packet of a channel since it was set for it."""

InterfaceUpcall = Callable[[Channel, str], None]
"""Called with (channel, interface name) for what the kernel's multicast routing tells of a packet there."""


def ignore(_channel: Channel, _name: str) -> None:
    """What the callbacks of an engine do until somebody sets them."""


class Engine(Protocol):
    """Forwards what arrives through tunnels, or natively, to downstream interfaces.

    All methods are called from the event loop's thread, and so are the callbacks.

    Attributes:
        on_first_packet: `set_channel` from within the call lets the very packet through.
        on_wrong_interface: packets of a channel that is set come in on another interface than its incoming one: the
            native upstream is there, or another router forwards it too (Assert). At most once in 3 s for a channel
            (the kernel's bound), and bounded in all.
        on_unknown_source: a channel that is not set came in on an interface that is watched; told again after 10 s
            at the earliest, and bounded in all.
    """

    on_first_packet: FirstPacket
    on_wrong_interface: InterfaceUpcall
    on_unknown_source: InterfaceUpcall

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

    def set_channel(
        self, channel: Channel, tunnels: frozenset[str], interfaces: frozenset[str], incoming: str | None = None
    ) -> None:
        """Forward `channel` (source given) out of `interfaces`; replaces what was set before, with no gap in between.

        It comes from `tunnels`, or natively from `incoming`: then packets of `tunnels` are not forwarded, only counted
        and announced by `on_first_packet`. Of more than one tunnel every packet is forwarded once, the copy that comes
        first. Interfaces that do not exist yet join in after `interface_changed`.

        Raises:
            EngineError: the kernel cannot forward it (no multicast routing for the family, too many interfaces, no
                such incoming interface, or the engine only feeds another daemon's routing).
        """

    def remove_channel(self, channel: Channel) -> None:
        """Stop forwarding; nothing happens when the channel is unknown."""

    def set_group(self, group: Address, tunnels: frozenset[str]) -> None:
        """Report each new source of `group` arriving through `tunnels` to `on_new_source` (any-source interest)."""

    def remove_group(self, group: Address) -> None:
        """Forget any-source interest; channels already set stay."""

    def watch_interface(self, name: str) -> None:
        """Take part in multicast routing on an interface before any channel uses it, so that its sources are told.

        Raises:
            EngineError: the kernel cannot route on it, or too many interfaces are in use.
        """

    def unwatch_interface(self, name: str) -> None:
        """Watch an interface no longer; channels set stay."""

    def interface_changed(self, name: str) -> None:
        """Attach an interface again after it was created, removed or recreated; channels naming it follow."""

    def set_local_networks(self, networks: Iterable[Network]) -> None:
        """Replace the prefixes whose addresses may not be the source of a tunnelled packet."""

    def set_duplicate_window(self, seconds: float) -> None:
        """Recognise copies of packets this far apart, for channels that have several tunnels from now on."""

    def traffic(self, channel: Channel) -> Traffic | None:
        """What was forwarded of one channel since it was set, None when it is not set; cheap enough to poll.

        Of native channels the kernel counts, and takes a train of datagrams for one packet.
        """

    def feed_traffic(self, channel: Channel) -> dict[str, int]:
        """Packets of a channel that came through each of its tunnels since it was set for it, forwarded or not."""

    def tunnel_traffic(self) -> dict[str, Traffic]:
        """What came through each tunnel for channels set, copies not forwarded included; cheap enough to poll."""

    def counters(self) -> Counters:
        """A snapshot of the counters."""

    def close(self) -> None:
        """Stop reading and forwarding, leave nothing in the kernel."""
