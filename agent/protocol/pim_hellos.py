"""When one interface says Hello, and what (RFC 7761 §4.3.1)."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Final

from agent.protocol.channels import Address
from agent.protocol.pim_config import PimConfig
from agent.protocol.timers import Timers
from agent.protocol.wire.pim import HOLDTIME_FOREVER, Hello, LanPruneDelay

HOLDTIME_FACTOR: Final = 3.5
"""Default_Hello_Holdtime in Hello periods (RFC 7761 §4.11)."""

_JITTER: Final = 0.1
"""Largest share of the period by which a Hello comes early, so that routers started together drift apart."""

_LONGEST_DELAY: Final = 0x7FFF  # milliseconds, 15 bits
_LONGEST_INTERVAL: Final = 0xFFFF
_MOST_SECONDARIES: Final = 64  # fit a packet of 1280 bytes, which every link carries


class HelloTimer(Enum):
    """What a deadline is for."""

    PERIODIC = "periodic"
    TRIGGERED = "triggered"


class Hellos:
    """The Hello timers of one interface, and its Generation ID."""

    def __init__(self, config: PimConfig, random: Callable[[], float], nonce32: Callable[[], int]) -> None:
        self._config, self._random, self._nonce32 = config, random, nonce32
        self._generation_id = 0
        self._timers: Timers[HelloTimer] = Timers()
        self._due = False
        self._known = False

    @property
    def known(self) -> bool:
        """Whether anybody can know us: a Hello was said since `start`."""
        return self._known

    @property
    def due(self) -> bool:
        """Whether a Hello is to be said before anything else: none was yet, or a newcomer waits for one."""
        return self._due

    def configure(self, config: PimConfig) -> bool:
        """Take other settings; whether somebody who knows us has to hear of them."""
        self._config = config
        self._timers.cancel(HelloTimer.PERIODIC)  # the Hello that is said now sets it, or the first one
        return self._known

    def start(self, now: float) -> None:
        """Begin a new generation; the first Hello comes within Triggered_Hello_Delay."""
        self._generation_id = self._nonce32()
        self.stop()
        self.trigger(now)

    def stop(self) -> None:
        """Say no more."""
        self._timers.clear()
        self._due = self._known = False

    def trigger(self, now: float) -> None:
        """Somebody is new: a Hello within Triggered_Hello_Delay, besides the periodic ones."""
        self._due = True
        if HelloTimer.TRIGGERED not in self._timers:
            self._timers.set(HelloTimer.TRIGGERED, now + self._random() * self._config.triggered_hello_delay)

    def expired(self, now: float) -> bool:
        """Whether a Hello is to be said now."""
        return bool(list(self._timers.expired(now)))

    def said(self, now: float) -> None:
        """A Hello was said."""
        self._due, self._known = False, True
        self._timers.cancel(HelloTimer.TRIGGERED)
        if HelloTimer.PERIODIC not in self._timers:
            early = 1 - _JITTER * self._random()
            self._timers.set(HelloTimer.PERIODIC, now + self._config.hello_interval * early)

    def next_deadline(self) -> float | None:
        """When the next Hello is due, or None."""
        return self._timers.next_deadline()

    def hello(self, secondaries: tuple[Address, ...]) -> Hello:
        """What we say of ourselves."""
        config = self._config
        holdtime = HOLDTIME_FACTOR * config.hello_interval if config.hello_holdtime is None else config.hello_holdtime
        return self._filled(min(max(int(holdtime), 1), HOLDTIME_FOREVER), secondaries[:_MOST_SECONDARIES])

    def goodbye(self) -> Hello:
        """Holdtime 0, by which we are gone at once."""
        return self._filled(0, ())

    def _filled(self, holdtime: int, secondaries: tuple[Address, ...]) -> Hello:
        config = self._config
        delay = LanPruneDelay(
            min(round(config.propagation_delay * 1000), _LONGEST_DELAY),
            min(round(config.override_interval * 1000), _LONGEST_INTERVAL),
        )
        return Hello(holdtime, delay, config.dr_priority, self._generation_id, secondaries)
