"""What the userspace engine keeps of each tunnel and each channel."""

from __future__ import annotations

from agent.dataplane.engine import Traffic, TunnelSocket
from agent.dataplane.userspace_duplicates import CopyFilter
from agent.net.receive_batch import MOST_MESSAGES, dropped_by_socket, prepare_socket, socket_address
from agent.protocol.channels import Channel


class TunnelState:
    """A tunnel being read.

    Attributes:
        packets, bytes: what was forwarded of it.
        withheld: copies of what came from elsewhere too.
    """

    __slots__ = ("bytes", "dropped", "packets", "settings", "source", "trains", "vector", "withheld")

    def __init__(self, settings: TunnelSocket) -> None:
        relay = settings.relay
        self.settings = settings
        self.source = socket_address(relay.address, relay.port, settings.socket.family)
        self.trains = prepare_socket(settings.socket, settings.receive_buffer)
        self.dropped = dropped_by_socket(settings.socket)
        self.vector = MOST_MESSAGES
        self.packets = 0
        self.bytes = 0
        self.withheld = Traffic()

    @property
    def traffic(self) -> Traffic:
        """What came through it, forwarded or not."""
        return Traffic(self.packets + self.withheld.packets, self.bytes + self.withheld.bytes)

    def accepts(self, sender: bytes) -> bool:
        """Whether data may come from a socket address."""
        if sender == self.source:
            return True
        return not self.settings.strict_port and sender[:2] + sender[4:] == self.source[:2] + self.source[4:]


class ChannelState:
    """A channel being forwarded.

    Attributes:
        tunnels: where it comes from, or may come from once it is no longer native.
        interfaces: where it goes, None before the first route.
        incoming: the native interface it comes in on, None for tunnels.
        packets, bytes: what was forwarded from tunnels, and natively until `native_since`.
        native_since: what the kernel had counted when it became native, None while it is not.
        feeds: packets of each tunnel.
        copies: recognises copies while there is more than one tunnel.
    """

    __slots__ = ("bytes", "channel", "copies", "feeds", "incoming", "interfaces", "native_since", "packets", "tunnels")

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.tunnels: frozenset[str] = frozenset()
        self.interfaces: frozenset[str] | None = None
        self.incoming: str | None = None
        self.packets = 0
        self.bytes = 0
        self.native_since: Traffic | None = None
        self.feeds: dict[str, int] = {}
        self.copies: CopyFilter | None = None

    def set_tunnels(self, tunnels: frozenset[str], duplicate_window: float) -> None:
        """Take packets from these tunnels."""
        if tunnels == self.tunnels:
            return
        self.tunnels = tunnels
        self.feeds = {name: self.feeds.get(name, 0) for name in tunnels}
        if len(tunnels) < 2:
            self.copies = None
        elif self.copies is None:
            self.copies = CopyFilter(duplicate_window)

    def set_native(self, incoming: str | None, counted: Traffic) -> None:
        """Come in natively from now on, or no longer; the kernel has counted so much in all."""
        total = self.traffic(counted)
        self.packets, self.bytes = total.packets, total.bytes
        self.incoming = incoming
        self.native_since = None if incoming is None else counted

    def traffic(self, counted: Traffic) -> Traffic:
        """What was forwarded; `counted` is what the kernel has counted in all."""
        if self.native_since is None:
            return Traffic(self.packets, self.bytes)
        packets, octets = counted.packets - self.native_since.packets, counted.bytes - self.native_since.bytes
        return Traffic(self.packets + max(0, packets), self.bytes + max(0, octets))
