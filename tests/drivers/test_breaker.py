from __future__ import annotations

import pytest

from relaymgr.drivers.breaker import Breaker, BreakerLimits, LoginRate


def test_it_opens_after_three_failures_in_a_row_and_not_before():
    breaker = Breaker()
    breaker.failed(0.0, "no route")
    breaker.failed(1.0, "no route")
    assert breaker.wait(1.0) == 0.0
    breaker.failed(2.0, "no route")
    assert breaker.wait(2.0) == 30.0
    assert breaker.reason == "no route"


def test_a_success_in_between_starts_the_count_again():
    breaker = Breaker()
    for now in (0.0, 1.0):
        breaker.failed(now, "x")
    breaker.succeeded()
    for now in (2.0, 3.0):
        breaker.failed(now, "x")
    assert breaker.wait(3.0) == 0.0


def test_each_failed_trial_doubles_the_pause_up_to_the_longest():
    breaker = Breaker(BreakerLimits(failures=1, open_seconds=10.0, longest_seconds=40.0))
    pauses = []
    now = 0.0
    for _ in range(4):
        breaker.failed(now, "x")
        pauses.append(breaker.wait(now))
        now += breaker.wait(now)
        assert breaker.wait(now) == 0.0
    assert pauses == [10.0, 20.0, 40.0, 40.0]


def test_a_refused_login_opens_at_once_and_for_long():
    breaker = Breaker()
    breaker.refused_login(0.0, "denied")
    assert breaker.wait(0.0) == 300.0


def test_the_login_rate_lets_a_burst_through_and_then_paces():
    rate = LoginRate(per_second=2.0, burst=3, now=0.0)
    assert [rate.take(0.0) for _ in range(5)] == pytest.approx([0.0, 0.0, 0.0, 0.5, 1.0])
    assert rate.take(10.0) == 0.0
