"""What is known of each tunnel's relay: whether it answers, since when, and until when it is held down."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from agent.protocol.channels import Endpoint

HOLD_DOWN_DOUBLINGS: Final = 4
"""Hold-down ends doubling at sixteen times its first length."""

_NEVER: Final = float("-inf")


def hold_down(base: float, failures: int) -> float:
    """Seconds to hold down after so many failures in a row, at least one."""
    return base * 2.0 ** min(failures - 1, HOLD_DOWN_DOUBLINGS)


@dataclass(slots=True)
class Health:
    """One tunnel.

    Attributes:
        established_at: since when its relay answers, None while it does not.
        tried_at: since when an answer is awaited, None while nothing is asked or it is established.
        relay: the relay that answered, however it was found.
        failures: failures in a row.
        failed_at: time of the last one.
        held_until: end of the hold-down.
        reason: what the last failure was.
    """

    established_at: float | None = None
    tried_at: float | None = None
    relay: Endpoint | None = None
    failures: int = 0
    failed_at: float = _NEVER
    held_until: float = _NEVER
    reason: str | None = None

    def fail(self, now: float, base: float, reason: str) -> None:
        """Hold down for `base` seconds, doubled with each failure in a row; a stable time in between ends the row."""
        if self.established_at is not None and now - self.established_at >= base:
            self.failures = 0
        self.failures += 1
        self.failed_at = now
        self.held_until = now + hold_down(base, self.failures)
        self.reason = reason

    def is_held(self, now: float) -> bool:
        """Whether it is passed over while another one serves."""
        return now < self.held_until


_UNHEARD_OF: Final = Health()


class HealthBook:
    """Health by tunnel name; what was never heard of is idle and well."""

    def __init__(self) -> None:
        self._known: dict[str, Health] = {}

    def get(self, name: str) -> Health:
        """Health of a tunnel, to read."""
        return self._known.get(name, _UNHEARD_OF)

    def of(self, name: str) -> Health:
        """Health of a tunnel, to change."""
        return self._known.setdefault(name, Health())

    def forgive(self, now: float) -> None:
        """Forget every failure: they were not the relays' own. Whoever is asked has its chance from `now` on."""
        for health in self._known.values():
            health.failures = 0
            health.failed_at = health.held_until = _NEVER
            health.tried_at = None if health.tried_at is None else now

    def names(self) -> list[str]:
        """Tunnels anything is known of."""
        return list(self._known)

    def established_since(self, names: Iterable[str]) -> float | None:
        """Since when one of the tunnels is established, the first that was; None when none is."""
        times = [self.get(name).established_at for name in names]
        return min((time for time in times if time is not None), default=None)

    def tried_since(self, names: Iterable[str]) -> float | None:
        """Since when one of the tunnels is asked, None when none is."""
        times = [self.get(name).tried_at for name in names]
        return min((time for time in times if time is not None), default=None)

    def is_held(self, names: Iterable[str], now: float) -> bool:
        """Whether every one of the tunnels is held down."""
        return all(self.get(name).is_held(now) for name in names)

    def has_failed(self, names: Iterable[str]) -> bool:
        """Whether one of the tunnels failed and was not well for long since."""
        return any(self.get(name).failures for name in names)

    def last_failure(self, names: Iterable[str]) -> float:
        """When one of the tunnels failed last."""
        return max(self.get(name).failed_at for name in names)

    def relays(self, names: Iterable[str]) -> set[Endpoint]:
        """The relays that answered on established ones of the tunnels."""
        known = (self.get(name) for name in names)
        return {health.relay for health in known if health.relay is not None and health.established_at is not None}

    def prune(self, kept: Iterable[str], now: float, memory: float) -> None:
        """Forget tunnels not among `kept` whose hold-down ended more than `memory` seconds ago."""
        keep = set(kept)
        for name in [name for name in self._known if name not in keep]:
            if now > self._known[name].held_until + memory:
                del self._known[name]
