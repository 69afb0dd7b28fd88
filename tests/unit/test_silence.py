"""What carried packets all along and carries none is noticed."""

import pytest

from agent.protocol.channels import Channel
from agent.service.silence import ChannelSilenceWatch, SilenceWatch

SILENCE = 2.0
CHANNEL = Channel.parse("10.0.0.1", "232.1.1.1")


def observe(watch: SilenceWatch, counts: list[int], start: float = 0.0, period: float = 0.5) -> list[bool]:
    return [watch.observe("t", count, start + number * period) for number, count in enumerate(counts)]


def steady() -> SilenceWatch:
    """A tunnel that carried packets for 3 s, seen every half second."""
    watch = SilenceWatch(SILENCE)
    assert not any(observe(watch, [10 * sample for sample in range(7)]))
    return watch


def test_a_steady_tunnel_that_stops_is_told_once_in_time():
    told = observe(steady(), [60] * 12, start=3.5)
    assert told == [number == 3 for number in range(12)]  # at 5.0 s, two after the last packet


def test_a_sparse_tunnel_is_never_told():
    assert not any(observe(SilenceWatch(SILENCE), [sample // 3 for sample in range(60)]))


def test_a_tunnel_that_just_began_is_not_told():
    assert not any(observe(SilenceWatch(SILENCE), [0, 10, 20, 20, 20, 20, 20, 20, 20]))


def test_a_tunnel_that_flows_again_is_watched_again():
    watch = steady()
    assert any(observe(watch, [60] * 6, start=3.5))
    assert not any(observe(watch, [60 + 10 * sample for sample in range(8)], start=6.5))
    assert any(observe(watch, [130] * 6, start=10.5))


def test_a_counter_that_starts_over_is_no_silence():
    assert not any(observe(steady(), [0] * 8, start=3.5))


def test_a_forgotten_tunnel_starts_over():
    watch = steady()
    watch.forget("t")
    assert not any(observe(watch, [60] * 12, start=3.5))


def test_whether_packets_come_is_known():
    watch = steady()
    assert watch.is_flowing("t", 3.5)
    assert not watch.is_flowing("t", 5.0)
    assert not watch.is_flowing("other", 3.5)


# Channels -------------------------------------------------------------------------------------------------------------


def test_a_channel_that_flowed_and_stopped_is_told_until_somebody_acts():
    watch = ChannelSilenceWatch(5.0)
    samples = [watch.observe(CHANNEL, {"t": min(now, 4)}, float(now)) for now in range(12)]
    assert samples == [[]] * 9 + [["t"]] * 3
    watch.tell(CHANNEL, "t")
    assert [watch.observe(CHANNEL, {"u": 0}, float(now)) for now in range(12, 24)] == [[]] * 12


def test_a_channel_that_flows_elsewhere_is_watched_there():
    watch = ChannelSilenceWatch(5.0)
    for now in range(10):
        watch.observe(CHANNEL, {"t": min(now, 4)}, float(now))
    watch.tell(CHANNEL, "t")
    samples = [watch.observe(CHANNEL, {"u": min(now, 14)}, float(now)) for now in range(10, 22)]
    assert samples[-3:] == [["u"]] * 3


@pytest.mark.parametrize("count", [0, 7])
def test_a_channel_that_never_flowed_is_not_told(count):
    watch = ChannelSilenceWatch(5.0)
    assert not any(watch.observe(CHANNEL, {"t": count}, float(now)) for now in range(30))


def test_of_two_tunnels_the_silent_one_is_told():
    watch = ChannelSilenceWatch(5.0)
    samples = [watch.observe(CHANNEL, {"t": min(now, 2), "u": now}, float(now)) for now in range(10)]
    assert samples[-1] == ["t"]


def test_a_forgotten_channel_starts_over():
    watch = ChannelSilenceWatch(5.0)
    for now in range(5):
        watch.observe(CHANNEL, {"t": now}, float(now))
    watch.forget(CHANNEL)
    assert not any(watch.observe(CHANNEL, {"t": 4}, float(now)) for now in range(5, 20))
