"""The heap of deadlines."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.protocol.timers import Timers


def test_nothing_armed_has_no_deadline():
    timers: Timers[str] = Timers()
    assert timers.next_deadline() is None
    assert timers.deadline("a") is None
    assert list(timers.expired(1e9)) == []


def test_expired_yields_earliest_first_and_disarms():
    timers: Timers[str] = Timers()
    timers.set("late", 3)
    timers.set("early", 1)
    timers.set("middle", 2)
    assert timers.next_deadline() == 1
    assert list(timers.expired(2)) == ["early", "middle"]
    assert list(timers.expired(2)) == []
    assert timers.next_deadline() == 3


def test_deadline_itself_is_due():
    timers: Timers[str] = Timers()
    timers.set("a", 5)
    assert list(timers.expired(4.999)) == []
    assert list(timers.expired(5)) == ["a"]


def test_setting_again_moves_the_deadline_both_ways():
    timers: Timers[str] = Timers()
    timers.set("a", 5)
    timers.set("a", 9)
    assert timers.deadline("a") == 9
    assert list(timers.expired(8)) == []
    timers.set("a", 2)
    assert timers.next_deadline() == 2
    assert list(timers.expired(10)) == ["a"]
    assert list(timers.expired(10)) == []


def test_cancelled_key_never_expires():
    timers: Timers[str] = Timers()
    timers.set("a", 5)
    timers.set("b", 6)
    timers.cancel("a")
    timers.cancel("never armed")
    assert timers.deadline("a") is None
    assert timers.next_deadline() == 6
    assert list(timers.expired(10)) == ["b"]


def test_cancelled_key_can_be_armed_again():
    timers: Timers[str] = Timers()
    timers.set("a", 5)
    timers.cancel("a")
    timers.set("a", 5)
    assert list(timers.expired(5)) == ["a"]


def test_clear_disarms_everything():
    timers: Timers[int] = Timers()
    for key in range(10):
        timers.set(key, key)
    timers.clear()
    assert timers.next_deadline() is None
    assert list(timers.expired(100)) == []


def test_keys_that_cannot_be_ordered_may_share_a_deadline():
    timers: Timers[tuple[str, object]] = Timers()
    timers.set(("a", None), 1)
    timers.set(("a", object()), 1)
    timers.set(("a", "text"), 1)
    assert len(list(timers.expired(1))) == 3


def test_key_armed_while_expiring_is_not_due_again_at_once():
    timers: Timers[str] = Timers()
    timers.set("a", 1)
    seen = []
    for key in timers.expired(1):
        seen.append(key)
        timers.set(key, 2)
    assert seen == ["a"]
    assert timers.next_deadline() == 2


def test_key_cancelled_while_expiring_is_left_out():
    timers: Timers[str] = Timers()
    timers.set("a", 1)
    timers.set("b", 2)
    seen = []
    for key in timers.expired(5):
        seen.append(key)
        timers.cancel("b")
    assert seen == ["a"]


def test_memory_stays_proportional_to_live_keys():
    timers: Timers[int] = Timers()
    for round_number in range(1000):
        for key in range(10):
            timers.set(key, round_number + key)
    sizes = [len(value) for value in vars(timers).values() if hasattr(value, "__len__")]
    assert sizes
    assert max(sizes) < 200


@settings(deadline=None, derandomize=True, database=None)
@given(st.lists(st.tuples(st.sampled_from(["set", "cancel", "expire"]), st.integers(0, 5), st.integers(0, 20))))
def test_any_order_of_calls_is_that_of_a_plain_dictionary(calls):
    timers: Timers[int] = Timers()
    plain: dict[int, float] = {}
    for call, key, when in calls:
        if call == "set":
            timers.set(key, when)
            plain[key] = when
        elif call == "cancel":
            timers.cancel(key)
            plain.pop(key, None)
        else:
            due = sorted(deadline for deadline in plain.values() if deadline <= when)
            keys = list(timers.expired(when))
            assert [plain.pop(expired) for expired in keys] == due
        assert timers.next_deadline() == min(plain.values(), default=None)
        assert all(timers.deadline(key) == plain.get(key) for key in range(6))
