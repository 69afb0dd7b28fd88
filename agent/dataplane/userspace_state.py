"""What the userspace engine keeps of each tunnel and each channel."""

from __future__ import annotations

from agent.dataplane.engine import TunnelSocket
from agent.net.receive_batch import MOST_MESSAGES, dropped_by_socket, prepare_socket, socket_address
from agent.protocol.channels import Channel


class TunnelState:
    """A tunnel being read."""

    __slots__ = ("bytes", "dropped", "packets", "settings", "source", "trains", "vector")

    def __init__(self, settings: TunnelSocket) -> None:
        relay = settings.relay
        self.settings = settings
        self.source = socket_address(relay.address, relay.port, settings.socket.family)
        self.trains = prepare_socket(settings.socket, settings.receive_buffer)
        self.dropped = dropped_by_socket(settings.socket)
        self.vector = MOST_MESSAGES
        self.packets = 0
        self.bytes = 0

    def accepts(self, sender: bytes) -> bool:
        """Whether data may come from a socket address."""
        if sender == self.source:
            return True
        return not self.settings.strict_port and sender[:2] + sender[4:] == self.source[:2] + self.source[4:]


class ChannelState:
    """A channel being forwarded."""

    __slots__ = ("bytes", "channel", "interfaces", "packets", "tunnels")

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.tunnels: frozenset[str] = frozenset()
        self.interfaces: frozenset[str] | None = None
        self.packets = 0
        self.bytes = 0
