from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relaymgr.domain.rollout import (
    FAILURES,
    BadWaves,
    RelayPhase,
    RolloutPhase,
    RolloutState,
    advance,
    split,
)

relay_lists = st.integers(0, 60).map(lambda count: [f"r{number}" for number in range(count)])
sizes = st.lists(st.integers(1, 30) | st.integers(1, 100).map("{}%".format), max_size=6)
ENDS = [RelayPhase.SUCCEEDED, RelayPhase.UNCHANGED, *sorted(FAILURES)]


@given(relay_lists, sizes)
def test_waves_hold_every_relay_once_in_order(relays, waves):
    made = split(relays, waves)
    assert [relay for wave in made for relay in wave] == relays
    assert all(made)


def test_canary_first():
    made = split([f"r{number}" for number in range(20)])
    assert [len(wave) for wave in made] == [1, 1, 8, 10]


@pytest.mark.parametrize("bad", [["0"], ["101%"], ["many"], [-1], ["5 %"], [""]])
def test_sizes_that_make_no_sense(bad):
    with pytest.raises(BadWaves):
        split(["a", "b"], bad)


def test_a_relay_named_twice():
    with pytest.raises(BadWaves):
        split(["a", "a"], ["1"])


@given(relay_lists.filter(bool), sizes, st.integers(0, 5), st.data())
def test_a_rollout_runs_each_relay_once_wave_by_wave_and_ends(relays, wave_sizes, budget, data):
    waves = split(relays, wave_sizes)
    state = RolloutState(waves, dict.fromkeys(relays, RelayPhase.PENDING), error_budget=budget)
    started: list[str] = []
    results: dict[str, RelayPhase] = {}
    for _ in range(3 * len(relays) + 3):
        failed_before = sum(state.relays[relay] in FAILURES for relay in relays)
        state, actions = advance(state, results)
        again, nothing = advance(state)
        assert again == state
        assert not nothing.start
        assert not nothing.skip
        if actions.start:
            assert state.failed <= budget
            assert set(actions.start) <= set(waves[actions.wave])
            earlier = [relay for wave in waves[: actions.wave] for relay in wave]
            assert all(state.relays[relay] not in {RelayPhase.PENDING, RelayPhase.RUNNING} for relay in earlier)
        started += actions.start
        assert state.failed >= failed_before
        running = [relay for relay in relays if state.relays[relay] is RelayPhase.RUNNING]
        if actions.finish:
            assert not running
            break
        ended = data.draw(st.lists(st.sampled_from(running), min_size=1, unique=True))
        results = {relay: data.draw(st.sampled_from(ENDS)) for relay in ended}
    assert len(started) == len(set(started))
    assert state.phase is (RolloutPhase.FAILED if state.failed > budget else RolloutPhase.SUCCEEDED)
    if state.phase is RolloutPhase.SUCCEEDED:
        assert set(started) == set(relays)


def test_paused_starts_nothing_and_resumes():
    state = RolloutState((("a",), ("b",)), {"a": RelayPhase.RUNNING, "b": RelayPhase.PENDING}, RolloutPhase.PAUSED)
    state, actions = advance(state, {"a": RelayPhase.SUCCEEDED})
    assert not actions.start
    state = RolloutState(state.waves, state.relays, RolloutPhase.RUNNING)
    assert advance(state)[1].start == ("b",)


def test_aborted_skips_what_was_not_started():
    state = RolloutState((("a",), ("b",)), {"a": RelayPhase.RUNNING, "b": RelayPhase.PENDING}, RolloutPhase.ABORTED)
    state, actions = advance(state)
    assert actions.skip == ("b",)
    assert state.relays == {"a": RelayPhase.RUNNING, "b": RelayPhase.SKIPPED}
