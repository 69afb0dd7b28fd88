"""Whether a relay is well after a change, compared with how it was before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from relaymgr.domain.observed import Observation


@dataclass(frozen=True, slots=True)
class Baseline:
    """What of an observation a verification compares with; small enough to be kept with the job.

    A part is None when the device did not tell it.
    """

    neighbors: frozenset[tuple[str, str]] | None = None
    """Interface and address."""
    amt_answered: bool = False
    errors: Mapping[str, int] | None = None
    counters: Mapping[str, int] | None = None

    @classmethod
    def of(cls, observation: Observation) -> Baseline:
        """Taken from an observation."""
        neighbors, statistics = observation.pim_neighbors, observation.statistics
        return cls(
            neighbors=None if neighbors is None else frozenset((n.interface, str(n.address)) for n in neighbors),
            amt_answered=observation.tunnels is not None or statistics is not None,
            errors=None if statistics is None else dict(statistics.errors),
            counters=None if statistics is None else dict(statistics.counters),
        )

    def dump(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "neighbors": None if self.neighbors is None else sorted(map(list, self.neighbors)),
            "amt_answered": self.amt_answered,
            "errors": None if self.errors is None else dict(self.errors),
            "counters": None if self.counters is None else dict(self.counters),
        }

    @classmethod
    def load(cls, data: Mapping[str, Any]) -> Baseline:
        """From what `dump` made."""
        neighbors = data.get("neighbors")
        return cls(
            neighbors=None if neighbors is None else frozenset((n[0], n[1]) for n in neighbors),
            amt_answered=bool(data.get("amt_answered")),
            errors=data.get("errors"),
            counters=data.get("counters"),
        )


@dataclass(frozen=True, slots=True)
class Tolerances:
    """How much worse a relay may look and still be well."""

    error_count: int = 100
    """New errors of one kind that are never held against a change."""
    error_share: float = 0.1
    """Above that count: new errors of one kind for each new message."""
    removed_interfaces: frozenset[str] = field(default_factory=frozenset)
    """Interfaces the change itself takes out of PIM; their neighbours may stay away."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at. `passed` is None when the device does not tell, which fails nothing."""

    name: str
    """management, amt, pim-neighbors, error-counters, probe"""
    passed: bool | None
    detail: str

    def dump(self) -> dict[str, Any]:
        """As JSON."""
        return {"name": self.name, "passed": self.passed, "detail": self.detail}


def passed(checks: tuple[Check, ...]) -> bool:
    """Whether none failed, and the management check was made at all."""
    return all(check.passed is not False for check in checks) and any(
        check.name == "management" and check.passed for check in checks
    )


def verify(
    before: Baseline, after: Observation | None, tolerances: Tolerances, unreadable: str | None = None
) -> tuple[Check, ...]:
    """Compare. `after` is what a fresh session read; None when there was none to be had, `unreadable` says why."""
    if after is None:
        why = f": {unreadable}" if unreadable else ""
        return (Check("management", passed=False, detail=f"a fresh session could not read the relay{why}"),)
    now = Baseline.of(after)
    return (
        Check("management", passed=True, detail="a fresh session was made after the change"),
        _amt(before, now, after),
        _neighbors(before, now, tolerances),
        _errors(before, now, tolerances),
    )


def failures(verification: Mapping[str, Any]) -> str:
    """What failed of a verification as kept with a job, in words; empty where nothing did."""
    failed = [check for check in verification.get("checks", ()) if check["passed"] is False]
    return "; ".join(f"{check['name']}: {check['detail']}" for check in failed)


def _amt(before: Baseline, now: Baseline, after: Observation) -> Check:
    if now.amt_answered:
        return Check("amt", passed=True, detail="the relay answers about AMT")
    reason = after.missing.get("statistics") or after.missing.get("tunnels") or "the relay tells nothing about AMT"
    return Check("amt", passed=False if before.amt_answered else None, detail=reason)


def _neighbors(before: Baseline, now: Baseline, tolerances: Tolerances) -> Check:
    if before.neighbors is None:
        return Check("pim-neighbors", passed=None, detail="not known before the change")
    if now.neighbors is None:
        return Check("pim-neighbors", passed=False, detail="PIM neighbours cannot be read any more")
    expected = {pair for pair in before.neighbors if pair[0] not in tolerances.removed_interfaces}
    lost = sorted(expected - now.neighbors)
    if lost:
        names = ", ".join(f"{address} on {interface}" for interface, address in lost)
        return Check("pim-neighbors", passed=False, detail=f"not back: {names}")
    return Check("pim-neighbors", passed=True, detail=f"{len(expected)} expected, all there")


def _errors(before: Baseline, now: Baseline, tolerances: Tolerances) -> Check:
    if before.errors is None or now.errors is None:
        return Check("error-counters", passed=None, detail="not known before or after the change")
    messages = sum(_growth(before.counters or {}, now.counters or {}).values())
    grown = {
        name: count
        for name, count in _growth(before.errors, now.errors).items()
        if count > tolerances.error_count and count > tolerances.error_share * messages
    }
    if grown:
        names = ", ".join(f"{name} +{count}" for name, count in sorted(grown.items()))
        return Check("error-counters", passed=False, detail=f"{names} with {messages} messages")
    return Check("error-counters", passed=True, detail=f"within bounds with {messages} messages")


def _growth(before: Mapping[str, int], now: Mapping[str, int]) -> dict[str, int]:
    """Growth of each counter; one that went back was cleared and counts from zero."""
    return {name: count - (old if (old := before.get(name, 0)) <= count else 0) for name, count in now.items()}
