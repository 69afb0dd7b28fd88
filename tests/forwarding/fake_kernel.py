"""Stand-ins for what the fast engine works with: a loop, maps, interfaces; nothing of it needs a kernel."""

from __future__ import annotations

import errno
import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Final

from agent.dataplane.engine import Counters
from agent.dataplane.fast.layout import ANY_STATION, Plane
from agent.dataplane.fast.port import Port
from agent.protocol.channels import Endpoint

FAST: Final = frozenset((Plane.XDP, Plane.XDP_MFC, Plane.TC))


class Handle:
    def __init__(self, call: Callable[[], None]) -> None:
        self.call: Callable[[], None] | None = call

    def cancel(self) -> None:
        self.call = None


class Loop:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now, self._calls, self._order = 0.0, [], count()

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, call: Callable[..., None], *arguments: Any) -> Handle:
        handle = Handle(lambda: call(*arguments))
        heapq.heappush(self._calls, (when, next(self._order), handle))
        return handle

    def call_later(self, delay: float, call: Callable[..., None], *arguments: Any) -> Handle:
        return self.call_at(self.now + delay, call, *arguments)

    def call_soon(self, call: Callable[..., None], *arguments: Any) -> Handle:
        return self.call_at(self.now, call, *arguments)

    def add_reader(self, *_: object) -> None:
        """Nothing is ever readable."""

    def remove_reader(self, *_: object) -> None:
        """Likewise."""

    def pass_time(self, seconds: float) -> None:
        until = self.now + seconds
        while self._calls and self._calls[0][0] <= until:
            when, _, handle = heapq.heappop(self._calls)
            self.now = max(self.now, when)
            if handle.call is not None:
                handle.call()
        self.now = until


class FakeMap:
    """A map in memory, with so much room."""

    numbers = count(100)

    def __init__(self, room: int = 1 << 20) -> None:
        self.fd, self.room, self.entries = next(self.numbers), room, {}

    def update(self, key: bytes, value: bytes) -> None:
        if key not in self.entries and len(self.entries) >= self.room:
            raise OSError(errno.E2BIG, "no room")
        self.entries[key] = value

    def lookup(self, key: bytes) -> bytes | None:
        return self.entries.get(key)

    def delete(self, key: bytes) -> bool:
        return self.entries.pop(key, None) is not None

    def keys(self) -> list[bytes]:
        return list(self.entries)

    def close(self) -> None:
        self.fd = -1


class FakeCounters(FakeMap):
    """Counters at which nothing ever comes by."""

    fields = 2

    def sums(self, _index: int) -> tuple[int, ...]:
        return (0,) * self.fields

    def all_sums(self, _first: int, number: int) -> list[tuple[int, ...]]:
        return [(0,) * self.fields] * number

    def columns(self, _first: int, number: int) -> list[list[int]]:
        return [[0] * number for _ in range(self.fields)]


class FakePrograms:
    """Maps in memory, and a ring in which nothing happens.

    Args:
        room: entries the map of channels has room for.
    """

    def __init__(self, room: int) -> None:
        self.maps: dict[str, FakeMap] = {"channels4": FakeMap(room)}
        self.channel_slots = 64

    def map(self, name: str) -> FakeMap:
        kind = FakeCounters if "counters" in name or name in ("refused", "exceptions") else FakeMap
        return self.maps.setdefault(name, kind())

    def program(self, _name: str) -> int:
        return 7

    def make_outgoing(self, entries: int) -> FakeMap:
        return FakeMap(entries)

    def make_events(self, _callback: Callable[[bytes], None]) -> FakePrograms:
        return self

    def fileno(self) -> int:
        return 0

    def drain(self) -> int:
        return 0

    def close(self) -> None:
        """Nothing is loaded."""


class Slow:
    """A userspace engine that has nothing to forward."""

    tunnel_interface = 1

    def __init__(self) -> None:
        self.whole: set[str] = set()

    def set_trains(self, name: str, *, wanted: bool) -> None:
        (self.whole.discard if wanted else self.whole.add)(name)

    def counters(self) -> Counters:
        return Counters(channels={}, tunnels={}, refused={})

    def tunnel_traffic(self) -> dict[str, Any]:
        return {}

    def __getattr__(self, _name: str) -> Callable[..., None]:
        return lambda *_arguments, **_settings: None


class FakePorts:
    def __init__(self) -> None:
        self.on_changed: Callable[[str], None] = lambda _name: None
        self.ports: dict[str, Port] = {}
        self.wanted: frozenset[str] = frozenset()

    def get(self, name: str) -> Port | None:
        return self.ports.get(name)

    def want(self, names: frozenset[str]) -> None:
        self.wanted = names

    def close(self) -> None:
        """Nothing is watched."""


@dataclass
class FakeUplinks:
    on_changed: Callable[[str], None] = lambda _name: None
    locals: dict[str, Endpoint | None] = field(default_factory=dict)
    attached: frozenset[Plane] = FAST

    def planes(self, name: str) -> frozenset[Plane]:
        return self.attached if self.locals.get(name) else frozenset()

    def local(self, name: str) -> Endpoint | None:
        return self.locals.get(name)

    def reason(self, _name: str, _plane: Plane) -> str:
        return ""

    def station(self, _name: str) -> bytes:
        return ANY_STATION

    def __getattr__(self, _name: str) -> Callable[..., None]:
        return lambda *_arguments, **_settings: None
