"""Tries out whether frames redirected to an interface arrive at its far end.

Some drivers take redirected frames only under conditions that cannot be seen from here: a veth whose far end has
neither an XDP program nor GRO loses them without a counter, network cards may need a program of their own. So a few
frames are redirected to the interface and what counts as sent is watched.
"""

from __future__ import annotations

import asyncio
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

from agent.net.ethtool import Ethtool
from agent.net.link_query import LinkQuery

FRAMES: Final = 32
"""Frames of one attempt: fewer than any driver's ring has room for."""

_ETHERTYPE: Final = b"\x88\xb5"  # IEEE 802 local experimental: no host takes it for anything
_SHORTEST: Final = 60  # octets of an Ethernet frame without its checksum
_CONTROL: Final = 0.05  # seconds without probe frames: what the interface sends anyway
_LOOKS: Final = (0.002, 0.01, 0.05, 0.12)  # seconds after the frames were sent
_DEDICATED: Final = {
    "veth": re.compile(r"tx_queue_\d+_xdp_xmit"),
    "virtio_net": re.compile(r"tx(_queue_)?\d+_xdp_tx"),
}
"""Counters that only redirected frames move, by driver."""

OnResult = Callable[[str], None]
"""Called with why nothing arrived, or with an empty string when it did."""


class Sender(Protocol):
    """Runs the probe program on frames."""

    def __call__(self, frame: bytes, count: int) -> None:
        """Redirect `count` copies of a frame; raises OSError where the kernel cannot."""


def probe_frame(index: int, address: bytes) -> bytes:
    """A frame from an interface to itself: a switch keeps it, a host that sees it ignores it.

    Args:
        index: of the interface, for the program.
        address: its MAC address.
    """
    return (address + address + _ETHERTYPE + struct.pack("=I", index)).ljust(_SHORTEST, b"\0")


@dataclass(slots=True)
class _Attempt:
    """One interface being tried out.

    Attributes:
        before: the counter when the control interval began.
        usual: what it moved by in that interval.
        sent: the counter when the frames were sent.
    """

    name: str
    index: int
    address: bytes
    on_result: OnResult
    before: int = 0
    usual: int = 0
    sent: int = 0
    handle: asyncio.TimerHandle | None = field(default=None)


class InterfaceProbe:
    """Tries out interfaces, without waiting for any; a result takes 200 ms at most."""

    def __init__(self, loop: asyncio.AbstractEventLoop, send: Sender, query: LinkQuery, ethtool: Ethtool) -> None:
        self._loop = loop
        self._send = send
        self._query = query
        self._ethtool = ethtool
        self._attempts: dict[str, _Attempt] = {}

    def start(self, name: str, index: int, address: bytes, on_result: OnResult) -> None:
        """Try an interface out; an attempt under way there is given up without a result."""
        self.cancel(name)
        attempt = _Attempt(name, index, address, on_result)
        self._attempts[name] = attempt
        try:
            attempt.before, is_dedicated = self.count(name, index)
        except OSError as error:
            self._schedule(attempt, 0, self._finish, f"its counters cannot be read: {error.strerror}")
            return
        self._schedule(attempt, 0 if is_dedicated else _CONTROL, self._fire)

    def cancel(self, name: str) -> None:
        """Give up an attempt."""
        attempt = self._attempts.pop(name, None)
        if attempt is not None and attempt.handle is not None:
            attempt.handle.cancel()

    def close(self) -> None:
        """Give up all attempts."""
        for name in tuple(self._attempts):
            self.cancel(name)

    def count(self, name: str, index: int) -> tuple[int, bool]:
        """Frames the interface sent since it was made, and whether only redirected ones are counted.

        Raises:
            OSError: there is no such interface.
        """
        pattern = _DEDICATED.get(self._ethtool.driver(name))
        if pattern is not None:
            matching = [value for key, value in self._ethtool.statistics(name).items() if pattern.fullmatch(key)]
            if matching:
                return sum(matching), True
        transmitted = self._query.transmitted(index)
        if transmitted is None:
            raise OSError(19, "no such interface", name)
        return transmitted, False

    def _schedule(self, attempt: _Attempt, delay: float, call: Callable[..., None], *arguments: object) -> None:
        attempt.handle = self._loop.call_later(delay, call, attempt, *arguments)

    def _fire(self, attempt: _Attempt) -> None:
        try:
            attempt.sent, is_dedicated = self.count(attempt.name, attempt.index)
            attempt.usual = 0 if is_dedicated else max(attempt.sent - attempt.before, 0)
            self._send(probe_frame(attempt.index, attempt.address), FRAMES)
        except OSError as error:
            self._finish(attempt, f"the kernel refused to redirect to it: {error.strerror or error}")
            return
        self._schedule(attempt, _LOOKS[0], self._look, 0)

    def _look(self, attempt: _Attempt, number: int) -> None:
        try:
            now, _ = self.count(attempt.name, attempt.index)
        except OSError as error:
            self._finish(attempt, f"its counters cannot be read: {error.strerror}")
            return
        elapsed = sum(_LOOKS[: number + 1])
        if now - attempt.sent >= FRAMES + attempt.usual * elapsed / _CONTROL:
            self._finish(attempt, "")
        elif number + 1 < len(_LOOKS):
            self._schedule(attempt, _LOOKS[number + 1], self._look, number + 1)
        else:
            self._finish(attempt, self._explain(attempt))

    def _explain(self, attempt: _Attempt) -> str:
        try:
            driver = self._ethtool.driver(attempt.name)
        except OSError:
            return "it is gone"
        if driver == "veth":
            return "frames redirected to it do not arrive: its far end is down or has neither GRO nor an XDP program"
        return f"frames redirected to it are not sent (driver {driver or 'unknown'})"

    def _finish(self, attempt: _Attempt, reason: str) -> None:
        self._attempts.pop(attempt.name, None)
        attempt.on_result(reason)
