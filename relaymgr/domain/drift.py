"""Drift: the owned sections as the last confirmed change left them against as they are."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from relaymgr.domain.change import same
from relaymgr.domain.configuration import OwnedConfiguration
from relaymgr.domain.differences import unified


class DriftState(StrEnum):
    """What a comparison found."""

    NONE = "none"
    DRIFTED = "drifted"


@dataclass(frozen=True, slots=True)
class Drift:
    """Result of a comparison; `diff` goes from intended to actual and is empty exactly without drift."""

    state: DriftState
    diff: str


def compare(intended: OwnedConfiguration, actual: OwnedConfiguration) -> Drift:
    """Compare two readings of the same scope."""
    if same(intended, actual):
        return Drift(DriftState.NONE, "")
    diff = unified(intended.text, actual.text, before_name="intended", after_name="actual")
    if not diff:  # the same lines over another scope, or another line end
        diff = (
            unified(
                "\n".join(intended.scope),
                "\n".join(actual.scope),
                before_name="intended scope",
                after_name="actual scope",
            )
            or "line ends differ\n"
        )
    return Drift(DriftState.DRIFTED, diff)
