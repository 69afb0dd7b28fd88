from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaymgr.poll.schedule import Schedule, phase, shard_of


def drain(schedule: Schedule, now: float) -> list[str]:
    taken = []
    while (due := schedule.take(now)) is not None:
        taken.append(due.relay_id)
    return taken


def test_a_new_relay_is_due_within_one_interval_at_its_own_phase():
    schedule = Schedule()
    schedule.replace({"a": 30.0}, now=100.0)
    assert schedule.next_at() == pytest.approx(100.0 + phase("a") * 30.0)


def test_a_thousand_relays_are_spread_over_the_interval():
    schedule = Schedule()
    schedule.replace({f"relay-{n}": 30.0 for n in range(1000)}, now=0.0)
    taken = [len(drain(schedule, float(second))) for second in range(1, 31)]
    assert sum(taken) == 1000
    assert max(taken) < 80


def test_nothing_is_due_twice_while_out():
    schedule = Schedule()
    schedule.replace({"a": 10.0}, now=0.0)
    due = schedule.take(10.0)
    assert due is not None
    assert schedule.take(1000.0) is None
    schedule.done(due, now=10.5)
    assert schedule.next_at() == pytest.approx(due.at + 10.0)


def test_an_overlong_poll_leaves_beats_out_instead_of_catching_up():
    schedule = Schedule()
    schedule.replace({"a": 10.0}, now=0.0)
    due = schedule.take(10.0)
    assert due is not None
    schedule.done(due, now=due.at + 35.0)
    assert schedule.next_at() == pytest.approx(due.at + 40.0)


def test_a_late_start_counts_what_was_missed():
    schedule = Schedule()
    schedule.replace({"a": 10.0}, now=0.0)
    at = schedule.next_at()
    assert at is not None
    due = schedule.take(at + 25.0)
    assert due is not None
    assert due.missed == 2


def test_a_removed_relay_is_not_polled_again_even_if_it_was_out():
    schedule = Schedule()
    schedule.replace({"a": 10.0, "b": 10.0}, now=0.0)
    out = schedule.take(100.0)
    assert out is not None
    schedule.replace({}, now=100.0)
    schedule.done(out, now=101.0)
    assert schedule.take(1e9) is None
    assert schedule.next_at() is None


def test_a_shorter_interval_takes_effect_before_the_old_beat():
    schedule = Schedule()
    schedule.replace({"a": 3600.0}, now=0.0)
    schedule.replace({"a": 10.0}, now=0.0)
    at = schedule.next_at()
    assert at is not None
    assert at <= 10.0


def test_soon_moves_a_waiting_relay_to_now_but_not_one_that_is_out():
    schedule = Schedule()
    schedule.replace({"a": 30.0}, now=0.0)
    schedule.soon("a", now=0.0)
    due = schedule.take(0.0)
    assert due is not None
    schedule.soon("a", now=1.0)
    assert schedule.take(1.0) is None


@given(
    st.dictionaries(st.text(min_size=1, max_size=4), st.sampled_from([5.0, 10.0, 30.0]), max_size=20),
    st.lists(st.floats(min_value=0.0, max_value=200.0), max_size=40).map(sorted),
)
def test_every_relay_is_always_either_waiting_or_out(intervals: dict[str, float], times: list[float]):
    schedule = Schedule()
    schedule.replace(intervals, now=0.0)
    out = []
    for now in times:
        if out and int(now) % 2:
            schedule.done(out.pop(), now)
        elif (due := schedule.take(now)) is not None:
            out.append(due)
        names = [due.relay_id for due in out]
        assert len(set(names)) == len(names)
    waiting = set(drain(schedule, 1e9))
    assert waiting | {due.relay_id for due in out} == set(intervals)


def test_shards_are_even_and_stable():
    counts = [0] * 16
    for number in range(1600):
        counts[shard_of(f"relay-{number}", 16)] += 1
    assert min(counts) > 60
    assert shard_of("relay-7", 16) == shard_of("relay-7", 16)
