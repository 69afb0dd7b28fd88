"""Reading the tunnels' sockets, a bounded number of messages at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from agent.dataplane.userspace_state import TunnelState
from agent.net.receive_batch import BatchReceiver, Message, messages_at_once
from agent.net.udp import read_error_queue

_ROUNDS_A_WAKEUP: Final = 4
_ROUNDS_OF_A_DRAIN: Final = 64


class TunnelReader:
    """Takes batches of messages out of sockets and hands them on.

    Args:
        receiver: receives them; a batch is in its memory until the next one is received.
        forward: called with a tunnel and a batch of it.
        is_read: whether a tunnel is still to be read: `forward` may have removed or replaced it.
    """

    def __init__(
        self,
        receiver: BatchReceiver,
        forward: Callable[[TunnelState, list[Message]], None],
        is_read: Callable[[TunnelState], bool],
    ) -> None:
        self._receiver = receiver
        self._forward = forward
        self._is_read = is_read

    def drain(self, tunnel: TunnelState) -> None:
        """Take what waits in a tunnel's socket, as far as a bounded number of reads goes."""
        for _ in range(_ROUNDS_OF_A_DRAIN):
            if not self.read(tunnel):
                return

    def read(self, tunnel: TunnelState) -> bool:
        """Take a bounded number of messages, so that the control plane never waits for long; whether more may wait."""
        descriptor = tunnel.settings.socket.fileno()
        try:
            for _ in range(_ROUNDS_A_WAKEUP):
                messages = self._receiver.receive(descriptor, tunnel.vector)
                if not messages:
                    self._take_errors(tunnel)
                    return False
                few = len(messages) < tunnel.vector
                tunnel.vector = messages_at_once(messages)
                self._forward(tunnel, messages)
                if few or not self._is_read(tunnel):
                    return False
        except OSError:  # an ICMP error that the queue tells more about, next time round
            self._take_errors(tunnel)
        return True

    def _take_errors(self, tunnel: TunnelState) -> None:
        for hint in read_error_queue(tunnel.settings.socket):
            tunnel.settings.on_error(hint)
