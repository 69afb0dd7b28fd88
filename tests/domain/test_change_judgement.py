from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaymgr.domain.change import TRANSITIONS, Begun, IllegalTransition, Phase, Truth, Window, enter, judge, same
from relaymgr.domain.configuration import Change, ChangeReading, Confirmation, OwnedConfiguration
from relaymgr.domain.observed import CommitRecord

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
SCOPE = ("amt",)
TEXTS = {"desired": "amt: 2\n", "before": "amt: 1\n", "other": "amt: 3\n"}
CHANGE = Change(
    mark="isthmus 1",
    desired=OwnedConfiguration(SCOPE, TEXTS["desired"]),
    before=OwnedConfiguration(SCOPE, TEXTS["before"]),
    device_fingerprint="f",
    confirm_minutes=5,
)
readings = st.none() | st.builds(
    ChangeReading,
    owned=st.sampled_from(sorted(TEXTS.values())).map(lambda text: OwnedConfiguration(SCOPE, text)),
    confirmation=st.sampled_from(Confirmation),
    confirmation_is_ours=st.sampled_from([None, True, False]),
    seconds_left=st.none() | st.integers(0, 600),
    last_commit=st.none() | st.builds(CommitRecord, comment=st.sampled_from([None, "isthmus 1", "by hand"])),
    committed=st.sampled_from([None, True, False]),
    saved=st.sampled_from([None, True, False]),
)
windows = st.builds(
    Window,
    begun_at=st.just(NOW),
    minutes=st.integers(1, 120),
    commit_seconds=st.floats(1, 300),
    begun=st.sampled_from(Begun),
    verified=st.sampled_from([None, True, False]),
    confirm_sent=st.booleans(),
)
times = st.floats(0, 20_000).map(lambda seconds: NOW + timedelta(seconds=seconds))


@given(readings, windows, times)
def test_success_is_only_what_was_desired_with_nothing_pending(reading, window, now):
    if judge(reading, CHANGE, now, window).truth is Truth.SUCCEEDED:
        assert same(reading.owned, CHANGE.desired)
        assert reading.confirmation is Confirmation.NONE or (
            reading.confirmation is Confirmation.UNKNOWN and now >= window.latest_end
        )


@given(readings, windows, times)
def test_nobody_elses_window_is_ever_acted_on(reading, window, now):
    verdict = judge(reading, CHANGE, now, window)
    if verdict.truth in {Truth.CONFIRMABLE, Truth.REVERTIBLE}:
        assert reading.confirmation is not Confirmation.NONE
        assert reading.confirmation_is_ours is not False or reading.confirmation is Confirmation.UNKNOWN
        assert same(reading.owned, CHANGE.desired)


@given(readings, windows, times)
def test_what_failed_its_verification_is_never_confirmed(reading, window, now):
    if window.verified is False:
        assert judge(reading, CHANGE, now, window).truth is not Truth.CONFIRMABLE


@given(readings, windows, times)
def test_back_is_only_what_has_nothing_of_ours(reading, window, now):
    if judge(reading, CHANGE, now, window).truth is Truth.BACK:
        assert not same(reading.owned, CHANGE.desired)
        assert same(reading.owned, CHANGE.before) or window.begun is Begun.REFUSED


@given(readings, windows)
def test_every_change_comes_to_an_end(reading, window):
    verdict = judge(reading, CHANGE, window.give_up_at + timedelta(seconds=1), window)
    pending_over_time = (
        reading is not None and reading.confirmation is Confirmation.PENDING and (reading.seconds_left or 0) > 5
    )
    assert verdict.truth is not Truth.UNSETTLED or pending_over_time


@given(readings, windows, st.floats(0, 10))
def test_while_a_commit_may_be_under_way_nothing_is_final(reading, window, seconds):
    now = NOW + timedelta(seconds=min(seconds, window.commit_seconds))
    if window.begun is Begun.UNKNOWN and not (reading and reading.committed):
        truth = judge(reading, CHANGE, now, window).truth
        assert truth in {Truth.UNSETTLED, Truth.CONFIRMABLE, Truth.REVERTIBLE}


@given(readings, windows, times)
def test_what_a_restart_would_undo_is_no_success_while_it_can_be_saved(reading, window, now):
    truth = judge(reading, CHANGE, now, window).truth
    if truth is Truth.UNSAVED:
        assert same(reading.owned, CHANGE.desired)
        assert reading.confirmation is Confirmation.NONE
    if reading is not None and reading.saved is False and now < window.give_up_at:
        assert truth is not Truth.SUCCEEDED or reading.confirmation is Confirmation.UNKNOWN


def test_confirming_follows_verifying_and_nothing_else():
    assert [phase for phase, after in TRANSITIONS.items() if Phase.CONFIRMING in after] == [Phase.VERIFYING]


@pytest.mark.parametrize("phase", Phase)
def test_every_phase_is_in_the_table_and_ends_stay_ends(phase):
    after = TRANSITIONS[phase]
    assert phase not in after or phase not in {Phase.CONFIRMED, Phase.UNCERTAIN}
    if not after:
        for to in Phase:
            with pytest.raises(IllegalTransition):
                enter(phase, to)


def test_a_change_never_loads_twice():
    reachable, todo = set(), [Phase.LOADING]
    while todo:
        for phase in TRANSITIONS[todo.pop()] - reachable:
            reachable.add(phase)
            todo.append(phase)
    assert Phase.LOADING not in reachable
    assert Phase.QUEUED not in reachable


@pytest.mark.parametrize(
    ("committed", "truth"), [(True, Truth.BACK), (False, Truth.UNSETTLED), (None, Truth.UNSETTLED)]
)
def test_a_commit_that_stands_in_the_history_is_not_waited_for(committed: bool | None, truth: Truth):
    reading = ChangeReading(CHANGE.before, Confirmation.NONE, committed=committed)
    window = Window(begun_at=NOW, minutes=5, commit_seconds=120.0)
    assert judge(reading, CHANGE, NOW + timedelta(seconds=1), window).truth is truth
