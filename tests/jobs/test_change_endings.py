"""What is said of a job by what is true of the device."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from relaymgr.domain.change import Begun, Truth, Window
from relaymgr.domain.verification import Baseline
from relaymgr.jobs.attempt import Attempt
from relaymgr.jobs.outcome import ending_of


def attempt(begun: Begun = Begun.UNKNOWN) -> Attempt:
    window = Window(begun_at=datetime(2026, 1, 1, tzinfo=UTC), minutes=5, commit_seconds=120.0, begun=begun)
    return Attempt(window=window, baseline=Baseline())


@pytest.mark.parametrize(
    ("begun", "committed", "state", "code"),
    [
        (Begun.UNKNOWN, True, "rolled_back", "confirm_window_elapsed"),
        (Begun.UNKNOWN, False, "failed", "job_interrupted"),
        (Begun.UNKNOWN, None, "failed", "job_interrupted"),
        (Begun.ACCEPTED, None, "rolled_back", "confirm_window_elapsed"),
    ],
)
def test_a_device_as_before_took_the_change_back_only_if_it_had_it(
    begun: Begun, committed: bool | None, state: str, code: str
):
    ending = ending_of(Truth.BACK, "as before", attempt(begun), committed=committed)
    assert (ending.state, ending.code) == (state, code)
