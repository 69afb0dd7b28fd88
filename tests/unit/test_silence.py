"""What carried packets all along and carries none is noticed."""

import pytest

from agent.protocol.channels import Channel
from agent.service.silence import ChannelSilenceWatch, SilenceWatch

SILENCE = 2.0
PERIOD = 0.5
CHANNEL = Channel.parse("10.0.0.1", "232.1.1.1")


class Watched:
    """A tunnel looked at every half second; each question is taken at once unless `is_deaf`."""

    def __init__(self):
        self.watch = SilenceWatch(SILENCE)
        self.now = 0.0
        self.packets = 0
        self.is_deaf = False
        self.asked: list[float] = []
        self.watch.observe("t", 0, self.now)

    def run(self, seconds: float, packets: int = 10, period: float = PERIOD) -> list[float]:
        """Have so many packets come before each look; when the relay was asked, since now."""
        begin, self.asked = self.now, []
        while self.now < begin + seconds:
            self.now += period
            self.packets += packets
            if self.watch.observe("t", self.packets, self.now):
                self.asked.append(self.now - begin)
                if not self.is_deaf:
                    self.watch.probed("t", self.now)
        return self.asked

    def burst(self, count: int, pause: float) -> list[float]:
        """Bursts of half a second, with pauses: how many questions there were in each."""
        asked = []
        for _ in range(count):
            self.run(PERIOD)
            asked.append(len(self.run(pause, packets=0)))
        return asked


@pytest.fixture
def tunnel() -> Watched:
    return Watched()


def test_a_steady_tunnel_that_stops_is_probed_in_time_and_ever_less_often(tunnel):
    assert tunnel.run(30.0) == []
    assert tunnel.run(40.0, packets=0) == [2.0, 4.0, 8.0, 16.0, 32.0]


def test_a_tunnel_that_just_began_is_probed_too(tunnel):
    tunnel.run(PERIOD)
    assert tunnel.run(3.0, packets=0) == [2.0]


def test_a_tunnel_that_never_carried_anything_is_left_alone(tunnel):
    assert tunnel.run(600.0, packets=0) == []


def test_one_pause_or_two_change_nothing(tunnel):
    tunnel.run(10.0)
    tunnel.run(1.5, packets=0)
    tunnel.run(1.0)
    tunnel.run(5.0, packets=0)
    tunnel.run(1.0)
    assert tunnel.run(3.0, packets=0) == [2.0]


def test_a_tunnel_that_is_often_silent_is_probed_when_it_is_for_longer(tunnel):
    assert tunnel.burst(20, 3.0) == [1] * 3 + [0] * 17
    tunnel.run(PERIOD)
    assert tunnel.run(8.0, packets=0) == [6.0]  # twice its usual pause


def test_a_sparse_tunnel_is_probed_at_last(tunnel):
    tunnel.burst(5, 60.0)
    tunnel.run(PERIOD)
    assert tunnel.run(39.5, packets=0) == [20.0]


def test_pauses_are_forgotten(tunnel):
    tunnel.burst(10, 3.0)
    tunnel.run(301.0)
    assert tunnel.run(3.0, packets=0) == [2.0]


def test_our_own_pauses_are_not_those_of_the_tunnel(tunnel):
    tunnel.run(60.0, period=3.0)  # looked at late: packets came all the time
    assert tunnel.run(3.0, packets=0) == [2.0]


def test_a_question_that_could_not_be_asked_is_due_again(tunnel):
    tunnel.run(5.0)
    tunnel.is_deaf = True
    assert tunnel.run(4.0, packets=0) == [2.0, 2.5, 3.0, 3.5, 4.0]


def test_only_the_first_question_of_a_silence_is_news(tunnel):
    tunnel.run(5.0)
    tunnel.is_deaf = True
    tunnel.run(4.0, packets=0)
    assert [tunnel.watch.probed("t", tunnel.now), tunnel.watch.probed("t", tunnel.now)] == [True, False]


def test_a_tunnel_that_flows_again_is_watched_again(tunnel):
    tunnel.run(5.0)
    tunnel.run(3.0, packets=0)
    assert tunnel.run(5.0) == []
    assert tunnel.run(3.0, packets=0) == [2.0]


def test_a_counter_that_starts_over_is_no_silence(tunnel):
    tunnel.run(5.0)
    tunnel.packets = -10
    assert tunnel.run(3.0, packets=0)[:1] == [2.5]


def test_what_comes_before_the_first_look_counts(tunnel):
    tunnel.watch.forget("t")
    tunnel.packets = 5
    assert tunnel.run(3.0, packets=0) == [2.5]


def test_a_tunnel_of_which_nothing_was_wanted_starts_over(tunnel):
    tunnel.burst(10, 3.0)
    tunnel.watch.rest("t", tunnel.packets, tunnel.now)
    assert tunnel.run(10.0, packets=0) == []
    tunnel.run(PERIOD)
    assert tunnel.run(3.0, packets=0) == [2.0]


def test_memory_is_bounded(tunnel):
    tunnel.burst(200, 1.5)
    assert len(tunnel.watch._flows["t"].gaps) <= 16


def test_whether_packets_come_is_known(tunnel):
    tunnel.run(5.0)
    assert tunnel.watch.is_flowing("t", tunnel.now + 0.5)
    assert not tunnel.watch.is_flowing("t", tunnel.now + 2.0)
    assert not tunnel.watch.is_flowing("other", tunnel.now)


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
