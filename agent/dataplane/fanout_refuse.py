"""The relay's path MTU rules taken to the letter (RFC 7450 §5.3.3.6.2), for `Oversize.REFUSE`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Final

from agent.dataplane.engine import Refusal
from agent.dataplane.fanout_list import Part, Tunnel
from agent.dataplane.fanout_oversize import TooBigNotifier, fragment_ipv4, path_mtu
from agent.dataplane.fanout_transmit import Burst, Transmitter
from agent.protocol.channels import Endpoint

_MEASURE_EVERY: Final = 60.0


class RefusingPolicy:
    """Fragments inner IPv4 packets that may be, refuses the rest and tells their sources.

    The path MTU of each tunnel is the kernel's: asked when the tunnel comes, when the kernel refuses a datagram, and
    once a minute, since routes change.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        tunnels: Mapping[Endpoint, Tunnel],
        on_change: Callable[[Tunnel], None],
    ) -> None:
        self._loop = loop
        self._tunnels = tunnels
        self._on_change = on_change
        self._notifier = TooBigNotifier(loop)
        self._handle = loop.call_later(_MEASURE_EVERY, self._measure_all)

    def measure(self, tunnel: Tunnel) -> bool:
        """Ask the kernel for the path MTU of a tunnel; returns whether it changed."""
        before = tunnel.path_mtu
        tunnel.path_mtu = path_mtu(tunnel.endpoint, tunnel.local)
        return tunnel.path_mtu != before

    def send(self, part: Part, burst: Burst, transmitter: Transmitter) -> None:
        """Send a burst of which at least the first packet does not fit the tunnels of `part`."""
        limit = part.inner_limit
        for packet in burst.packets:
            pieces = [packet] if len(packet) <= limit else None
            if pieces is None and packet[0] >> 4 == 4:
                pieces = fragment_ipv4(packet, limit)
            if pieces is None:
                self._notifier.notify(packet, limit)
                for tunnel in part.tunnels:
                    tunnel.lose(Refusal.TOO_BIG.value, 1, len(packet))
                continue
            for piece in pieces:
                transmitter.send(part, Burst([piece]))

    def close(self) -> None:
        """Stop measuring and close the ICMP sockets."""
        self._handle.cancel()
        self._notifier.close()

    def _measure_all(self) -> None:
        for tunnel in self._tunnels.values():
            if self.measure(tunnel):
                self._on_change(tunnel)
        self._handle = self._loop.call_later(_MEASURE_EVERY, self._measure_all)
