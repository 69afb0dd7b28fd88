"""Which relays to keep asking before anything has to come through them (happy eyeballs, RFC 8305 §5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from agent.protocol.relay_candidates import RelayCandidate
from agent.protocol.relay_health import HealthBook


@dataclass(frozen=True, slots=True)
class Racer:
    """A candidate as it stands now.

    Attributes:
        candidate: which.
        is_established: its relay answers.
        is_held: it is held down.
        is_hopeful: it was not asked yet, or so lately that its answer may still come in time.
    """

    candidate: RelayCandidate
    is_established: bool
    is_held: bool
    is_hopeful: bool


def racer(candidate: RelayCandidate, book: HealthBook, now: float, patience: float) -> Racer:
    """How a candidate stands; an answer is awaited for `patience` seconds before the next one is asked too."""
    tried = book.tried_since(candidate.tunnel_names)
    is_early = tried is None or now - tried < patience
    return Racer(
        candidate,
        is_established=book.established_since(candidate.tunnel_names) is not None,
        is_held=book.is_held(candidate.tunnel_names, now),
        is_hopeful=is_early and not book.has_failed(candidate.tunnel_names),
    )


def runners(racers: Sequence[Racer], count: int = 1) -> list[RelayCandidate]:
    """Candidates to keep asked so that `count` relays answer, of `racers` in order of preference.

    One after the other is asked until enough answer or may still answer. One that answers ends the race for those it
    is as good as; a better one stays asked, so that channels can move back. When nobody is left who is not held down,
    all are asked.
    """
    asked: list[Racer] = []
    ordered = sorted(racers, key=lambda item: (item.candidate.preference, not item.is_established))
    found: set[str] = set()
    won: dict[str, int] = {}
    for item in ordered:
        identity = item.candidate.identity
        if item.is_held or len(found) >= count or identity in won:
            continue
        asked.append(item)
        if item.is_established:
            won[identity] = item.candidate.preference
        if item.is_established or item.is_hopeful:
            found.add(identity)
    if not found:
        return [item.candidate for item in racers]
    worst = max(won.values()) if len(won) >= count else None
    return [
        item.candidate for item in asked if item.is_established or worst is None or item.candidate.preference < worst
    ]
