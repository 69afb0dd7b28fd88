"""How candidates compare for one channel at one moment."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import IntEnum

from agent.protocol.relay_candidates import RelayCandidate
from agent.protocol.relay_health import HealthBook


class Rank(IntEnum):
    """How much can be expected of a candidate; less is better."""

    GOOD = 0  # it answers, or was asked so lately, if at all, that it may still answer in time
    HELD = 1  # it answers, but is held down
    UNANSWERED = 2  # it was asked in vain
    FAILED = 3  # it failed, is held down and does not answer


class Ranking:
    """Compares candidates; made for one choice and thrown away.

    Attributes:
        avoided: relays held down for this channel alone.
    """

    def __init__(
        self,
        candidates: Iterable[RelayCandidate],
        health: HealthBook,
        now: float,
        patience: float,
        avoided: Iterable[str] = (),
    ) -> None:
        """`candidates` are all there are; what failed at one address of a relay is not hoped for at its other one."""
        self.avoided = frozenset(avoided)
        self._failed = {item.identity for item in candidates if health.is_held(item.tunnel_names, now)}
        self._health = health
        self._now = now
        self._patience = patience

    def rank(self, item: RelayCandidate) -> Rank:
        """What can be expected of a candidate."""
        names = item.tunnel_names
        is_held = item.identity in self.avoided or self._health.is_held(names, self._now)
        if self.since(item) is not None:
            return Rank.HELD if is_held else Rank.GOOD
        if is_held:
            return Rank.FAILED
        tried = self._health.tried_since(names)
        is_early = tried is None or self._now - tried < self._patience
        is_hopeful = is_early and item.identity not in self._failed and not self._health.has_failed(names)
        return Rank.GOOD if is_hopeful else Rank.UNANSWERED

    def since(self, item: RelayCandidate) -> float | None:
        """Since when a candidate's relay answers."""
        return self._health.established_since(item.tunnel_names)

    def ordered(self, candidates: Sequence[RelayCandidate]) -> list[RelayCandidate]:
        """Best first: by rank, then preference, then whoever answers; of failed ones that which failed longest ago."""

        def key(item: RelayCandidate) -> tuple[Rank, float, int, bool]:
            rank = self.rank(item)
            failed_at = self._health.last_failure(item.tunnel_names) if rank is Rank.FAILED else 0.0
            return rank, failed_at, item.preference, self.since(item) is None

        return sorted(candidates, key=key) if len(candidates) > 1 else list(candidates)

    def is_same_relay(self, one: RelayCandidate, other: RelayCandidate) -> bool:
        """Whether two candidates lead to the same relay: as configured, or because the same one answered."""
        if one.identity == other.identity:
            return True
        here, there = self._health.relays(one.tunnel_names), self._health.relays(other.tunnel_names)
        return not here.isdisjoint(there)
