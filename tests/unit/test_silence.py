"""A tunnel that carried packets all along and carries none is noticed."""

import pytest

from agent.service.silence import SILENT_SAMPLES, STEADY_SAMPLES, SilenceWatch


def observe(watch: SilenceWatch, *counts: int) -> list[bool]:
    return [watch.observe("t", count) for count in counts]


def steady() -> tuple[SilenceWatch, int]:
    watch = SilenceWatch()
    counts = [10 * (sample + 1) for sample in range(STEADY_SAMPLES + 1)]
    assert not any(observe(watch, *counts))
    return watch, counts[-1]


def test_a_steady_tunnel_that_stops_is_told_once():
    watch, last = steady()
    told = observe(watch, *[last] * (SILENT_SAMPLES + 5))
    assert told == [False] * (SILENT_SAMPLES - 1) + [True] + [False] * 5


def test_a_sparse_tunnel_is_never_told():
    watch = SilenceWatch()
    assert not any(observe(watch, 1, 1, 1, 2, 2, 2, 3, 3, 3, 3))


@pytest.mark.parametrize("every", [2, 3, 5])
def test_a_tunnel_with_a_packet_now_and_then_is_never_told(every):
    assert not any(observe(SilenceWatch(), *[1 + sample // every for sample in range(60)]))


def test_a_tunnel_that_flows_again_is_watched_again():
    watch, last = steady()
    observe(watch, *[last] * SILENT_SAMPLES)
    flowing = [last + 10 * sample for sample in range(1, STEADY_SAMPLES + 1)]
    assert not any(observe(watch, *flowing))
    assert observe(watch, *[flowing[-1]] * SILENT_SAMPLES)[-1]


def test_a_counter_that_starts_over_is_no_silence():
    watch, _ = steady()
    assert observe(watch, 0, 0, 0, 0) == [False] * 4


def test_a_forgotten_tunnel_starts_over():
    watch, last = steady()
    watch.forget("t")
    assert observe(watch, *[last] * (SILENT_SAMPLES + 2)) == [False] * (SILENT_SAMPLES + 2)
