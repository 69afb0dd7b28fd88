"""Rollouts: one change of many relays, wave by wave, until done or until too many failed. Pure decisions."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class RolloutPhase(StrEnum):
    """State of a rollout."""

    RUNNING = "running"
    PAUSED = "paused"
    ABORTED = "aborted"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


class RelayPhase(StrEnum):
    """State of one relay in a rollout."""

    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    UNCHANGED = "unchanged"
    FAILED = "failed"
    ROLLED_BACK = "rolled_back"
    UNCERTAIN = "uncertain"
    SKIPPED = "skipped"


FAILURES: Final = frozenset({RelayPhase.FAILED, RelayPhase.ROLLED_BACK, RelayPhase.UNCERTAIN})
"""What uses up the error budget."""


@dataclass(frozen=True, slots=True)
class RolloutState:
    """Everything a decision needs."""

    waves: tuple[tuple[str, ...], ...]
    """Relay ids; every relay once."""
    relays: Mapping[str, RelayPhase]
    phase: RolloutPhase = RolloutPhase.RUNNING
    error_budget: int = 0
    """Relays that may fail before no more are started."""

    @property
    def failed(self) -> int:
        """Relays that failed so far."""
        return sum(phase in FAILURES for phase in self.relays.values())


@dataclass(frozen=True, slots=True)
class Actions:
    """What is to be done now; all of it in one transaction."""

    start: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()
    wave: int = 0
    """The wave under way."""
    finish: RolloutPhase | None = None
    """The rollout ends with this."""
    reason: str | None = None


def advance(state: RolloutState, results: Mapping[str, RelayPhase] | None = None) -> tuple[RolloutState, Actions]:
    """Take in `results` (relay -> what its job came to) and decide what happens next.

    A wave starts as a whole, and only when every relay of the waves before has ended. Nothing starts once more relays
    failed than the budget allows; what runs then still ends properly. Deciding again without new results changes
    nothing once the actions were carried out.
    """
    relays = {**state.relays, **(results or {})}
    state = RolloutState(state.waves, relays, state.phase, state.error_budget)
    wave = _current_wave(state)
    if state.phase in {RolloutPhase.SUCCEEDED, RolloutPhase.FAILED}:
        return state, Actions(wave=wave)
    if state.phase is RolloutPhase.ABORTED:
        return _skip_rest(state, wave, finish=None, reason="aborted")
    if state.failed > state.error_budget:
        reason = f"{state.failed} relays failed, {state.error_budget} allowed"
        running = any(phase is RelayPhase.RUNNING for phase in relays.values())
        return _skip_rest(state, wave, finish=None if running else RolloutPhase.FAILED, reason=reason)
    if wave == len(state.waves):
        done = RolloutState(state.waves, relays, RolloutPhase.SUCCEEDED, state.error_budget)
        return done, Actions(wave=max(0, wave - 1), finish=RolloutPhase.SUCCEEDED)
    if state.phase is RolloutPhase.PAUSED:
        return state, Actions(wave=wave)
    start = tuple(relay for relay in state.waves[wave] if relays.get(relay) is RelayPhase.PENDING)
    relays = {**relays, **dict.fromkeys(start, RelayPhase.RUNNING)}
    return RolloutState(state.waves, relays, state.phase, state.error_budget), Actions(start=start, wave=wave)


def _current_wave(state: RolloutState) -> int:
    """Index of the first wave in which somebody has not ended; the number of waves when all have."""
    for index, wave in enumerate(state.waves):
        if any(state.relays.get(relay) in {RelayPhase.PENDING, RelayPhase.RUNNING} for relay in wave):
            return index
    return len(state.waves)


def _skip_rest(
    state: RolloutState, wave: int, *, finish: RolloutPhase | None, reason: str
) -> tuple[RolloutState, Actions]:
    skip = tuple(relay for wave in state.waves for relay in wave if state.relays.get(relay) is RelayPhase.PENDING)
    relays = {**state.relays, **dict.fromkeys(skip, RelayPhase.SKIPPED)}
    state = RolloutState(state.waves, relays, finish or state.phase, state.error_budget)
    return state, Actions(skip=skip, wave=min(wave, max(0, len(state.waves) - 1)), finish=finish, reason=reason)


class BadWaves(ValueError):
    """Wave sizes that make no sense."""


_SIZE: Final = re.compile(r"(\d{1,9})(%?)")


def split(
    relays: Sequence[str], sizes: Sequence[int | str] = ("1", "10%", "50%", "100%")
) -> tuple[tuple[str, ...], ...]:
    """Cut relays, in their order, into waves.

    Args:
        relays: ids, each once.
        sizes: for each wave a number of relays, or `N%` for as many as make N percent of all done after it. What is
            left over makes a last wave; waves that come out empty are left out.

    Raises:
        BadWaves: a size that is neither, or a relay named twice.
    """
    if len(set(relays)) != len(relays):
        raise BadWaves("a relay is named twice")
    waves, done = [], 0
    for size in sizes:
        match = _SIZE.fullmatch(str(size).strip())
        if match is None or (number := int(match[1])) < 1 or (match[2] and number > 100):
            raise BadWaves(f"{size!r} is neither a number of relays nor a percentage")
        upto = -(-len(relays) * number // 100) if match[2] else done + number
        if upto > done and done < len(relays):
            waves.append(tuple(relays[done:upto]))
            done = min(upto, len(relays))
    if done < len(relays):
        waves.append(tuple(relays[done:]))
    return tuple(waves)
